from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genray.errors import BulkError, ResourceError
from genray.progress import LineDisplay, Tick
from genray.serving.settings import ServerSettings
from genray.settings.load import load
from genray.targets import Resources, find_target
from pipelines.engine.pool import READY_WORKERS
from pipelines.engine.progress_metrics import PassProgress, ProgressExporter
from pipelines.settings import WorkSettings
from tests.pipelines.conftest import Bulk, write_photos


class Shown:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.notes: list[str] = []

    def tick(self, tick: Tick) -> None:
        self.ticks.append(tick)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def row(self, row: Mapping[str, Any], text: str) -> None: ...

    def close(self) -> None: ...


def progress_of(images: int = 1000, **work: Any) -> tuple[PassProgress, Shown]:
    shown = Shown()
    return PassProgress(images, WorkSettings(**work), shown), shown


def metrics(port: int) -> dict[str, str]:
    """What is served, by the name with its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = answer.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_rates_leave_out_the_start_up() -> None:
    progress, shown = progress_of(100)
    began = time.monotonic()
    progress.update({})
    time.sleep(0.3)
    progress.update({})
    ready = time.monotonic()
    time.sleep(0.1)
    progress.update({READY_WORKERS: 1})
    time.sleep(0.1)
    progress.update({READY_WORKERS: 1, "done": 40, "failed": 10, "bytes_in": 50e6})
    seconds = time.monotonic() - ready
    rates = progress.rates
    assert rates.images_per_second == pytest.approx(50 / seconds, rel=0.05)
    assert rates.mb_per_second == pytest.approx(50 / seconds, rel=0.05)
    assert rates.start_seconds == pytest.approx(ready - began, abs=0.05)
    last = shown.ticks[-1]
    assert (last.step, last.steps, last.unit) == (50, 100, "image")
    assert last.images_per_second == rates.images_per_second
    assert last.seconds_left == pytest.approx(50 / (50 / seconds), rel=0.05)
    assert last.values["failed"] == 10


def test_time_in_which_nothing_comes_through_after_the_last_image_does_not_count() -> None:
    progress, _ = progress_of(100)
    progress.update({READY_WORKERS: 1, "done": 10})
    time.sleep(0.1)
    progress.update({READY_WORKERS: 1, "done": 30})
    before = progress.rates
    time.sleep(0.2)
    progress.update({READY_WORKERS: 1, "done": 30})
    assert progress.rates == before


def test_a_pass_that_is_through_at_the_first_look_has_a_rate_too() -> None:
    progress, _ = progress_of(7)
    began = time.monotonic()
    time.sleep(0.1)
    progress.update({READY_WORKERS: 1, "done": 7, "bytes_in": 7e6})
    seconds = time.monotonic() - began
    assert progress.rates.images_per_second == pytest.approx(7 / seconds, rel=0.1)
    assert progress.rates.mb_per_second == pytest.approx(7 / seconds, rel=0.1)


def test_nothing_is_shown_before_the_first_image_is_through() -> None:
    progress, shown = progress_of()
    assert not progress.update({})
    assert shown.ticks == []
    assert progress.finished == 0
    assert progress.rates.images_per_second == 0


@pytest.mark.parametrize(
    ("counts", "stopped"),
    [
        ({"failed": 99}, False),
        ({"failed": 100}, True),
        ({"done": 40, "skipped": 11, "failed": 51}, False),
        ({"done": 30, "skipped": 10, "failed": 61}, True),
        ({"done": 30_000, "failed": 61_000}, True),
    ],
)
def test_a_run_of_which_too_much_fails_is_stopped(counts: dict[str, float], stopped: bool) -> None:
    progress, _ = progress_of(100_000, max_failed_share=0.6)
    assert progress.update(counts) is stopped
    assert (progress.failure is not None) is stopped
    if stopped:
        assert isinstance(progress.failure, BulkError)
        assert f"first {progress.finished} images failed" in progress.failure.what
        assert "genray ledger" in str(progress.failure)


def test_a_run_that_may_fail_altogether_goes_on() -> None:
    progress, _ = progress_of(max_failed_share=1)
    assert not progress.update({"failed": 1000})


def test_a_stop_that_was_asked_for_is_passed_on() -> None:
    progress, _ = progress_of()
    assert not progress.update({"done": 1})
    progress.request_stop()
    assert progress.update({"done": 1})
    assert progress.failure is None


def test_the_sums_are_served_as_prometheus_metrics_until_the_end() -> None:
    progress, shown = progress_of(20, metrics_port=0)
    with progress:
        (note,) = shown.notes
        port = int(note.removesuffix("/metrics").rpartition(":")[2])
        assert note == f"metrics: http://127.0.0.1:{port}/metrics"
        assert metrics(port)["genray_bulk_images_left"] == "20.0"
        progress.update({"done": 3, "failed": 1, "bytes_in": 1000, "bytes_out": 500, "read_ms": 2500})
        progress.update(
            {"done": 12, "failed": 1, "skipped": 2, "bytes_in": 4000, "read_ms": 3500, "errors": 1}
        )
        served = metrics(port)
    expected = {
        'genray_bulk_images_total{status="done"}': "12.0",
        'genray_bulk_images_total{status="failed"}': "1.0",
        'genray_bulk_images_total{status="skipped"}': "2.0",
        'genray_bulk_bytes_total{direction="in"}': "4000.0",
        'genray_bulk_bytes_total{direction="out"}': "500.0",
        'genray_bulk_stage_seconds_total{stage="read"}': "3.5",
        "genray_bulk_images_left": "5.0",
    }
    assert {name: value for name, value in served.items() if "_created" not in name} == expected
    with pytest.raises(urllib.error.URLError):
        metrics(port)


def test_two_exporters_live_side_by_side() -> None:
    first = ProgressExporter.serve(3, ServerSettings(port=0))
    second = ProgressExporter.serve(4, ServerSettings(port=0))
    try:
        assert metrics(first.port)["genray_bulk_images_left"] == "3.0"
        assert metrics(second.port)["genray_bulk_images_left"] == "4.0"
    finally:
        first.close()
        second.close()


def test_metrics_are_served_on_the_loopback_interface_only() -> None:
    exporter = ProgressExporter.serve(1, ServerSettings(port=0))
    try:
        port = f"{exporter.port:04X}"
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {w[1].split(":")[0] for w in listening if w[1].endswith(f":{port}") and w[3] == "0A"}
        assert addresses == {"0100007F"}
    finally:
        exporter.close()


class Scraping(LineDisplay):
    """Asks for the metrics whenever there is something to show."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.scraped: list[dict[str, str]] = []

    def note(self, text: str) -> None:
        if text.startswith("metrics: "):
            self.url = text.removeprefix("metrics: ")

    def tick(self, tick: Any) -> None:
        port = int(self.url.removesuffix("/metrics").rpartition(":")[2])
        self.scraped.append(metrics(port))


def test_metrics_are_served_while_a_run_works(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 1, size=(200, 300))
    for index in range(80):
        os.link(tmp_path / "in" / "0" / "0000.jpg", tmp_path / "in" / f"{index}.jpg")
    sets = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "work.workers=0", "work.metrics_port=0"]
    target: Any = find_target("corrupt").load()
    settings = load(target.settings_class, target="corrupt", sets=[*sets, "report.samples=0"])
    display = Scraping()
    target.prepare(settings, "corrupt", None, display.note).run(display, Resources(1, 0), attached=False)
    assert display.url.startswith("http://127.0.0.1:")
    left = [float(each["genray_bulk_images_left"]) for each in display.scraped]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0, "before its end"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(display.url, timeout=10)


@pytest.fixture
def port() -> int:
    """A free one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def test_a_run_that_has_nothing_to_do_lets_go_of_its_metrics_port(
    bulk: Bulk, tmp_path: Path, port: int
) -> None:
    write_photos(tmp_path / "in", 2)
    for images in (2, 0, 0):
        outcome = bulk("corrupt", f"input={tmp_path / 'in'}", f"work.metrics_port={port}")
        assert outcome["this_pass"]["images"] == images
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", port)) != 0, "nobody listens any more"


def test_a_metrics_port_that_is_taken_is_a_clear_error(bulk: Bulk, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"127.0.0.1:{port}") as caught:
            bulk("corrupt", f"input={tmp_path / 'in'}", f"work.metrics_port={port}")
    assert caught.value.where == "work.metrics_port"
    assert bulk("corrupt", f"input={tmp_path / 'in'}")["done"] == 2, "the output was let go of"
