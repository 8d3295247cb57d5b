"""One worker on one chunk, over a real store; steps are small, so that it is seen what reaches them."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipelines.worker
from genray.data.images import BadImage
from genray.data.store import Store
from genray.errors import DataError
from pipelines.attempts import Attempt, Attempts
from pipelines.ledger import Ledger
from pipelines.listing import output_name
from pipelines.plan import Plan, Planned, write_plan
from pipelines.settings import BulkSettings
from pipelines.sinks import TableSink, open_sink
from pipelines.sources import open_source
from pipelines.step import Input, Made, Place, Step
from pipelines.worker import Worker
from tests.pipelines.conftest import rows_of, write_photos

CHUNK = "00001-000000"
Look = Callable[[Sequence[Input]], None]


class Copying(Step[BulkSettings]):
    """Leaves images as they are; `look` sees each batch first."""

    settings_class = BulkSettings
    look: Look = staticmethod(lambda inputs: None)

    def check(self) -> Sequence[str]:
        return []

    def open(self, place: Place, header: Mapping[str, Any]) -> Sequence[str]:
        return []

    def make(self, inputs: Sequence[Input]) -> Sequence[Made]:
        self.look(inputs)
        return [Made(copy=each.data, skipped="clean", row={"n": 1}) for each in inputs]


class Bench:
    """An input with images, an output, and workers on all of it as one chunk."""

    def __init__(self, root: Path) -> None:
        self.photos, self.out = root / "in", root / "out"
        self.photos.mkdir()
        self.store = Store.create(self.out)
        self.attempts, self.ledger = Attempts(self.store), Ledger(self.store)
        self.workers: list[Worker] = []

    def worker(
        self, look: Look = lambda inputs: None, table: bool = False, kind: str = "same", **work: Any
    ) -> Worker:
        settings = BulkSettings.model_validate(
            {"input": str(self.photos), "output": str(self.out), "work": work, "write": {"format": kind}}
        )
        step = Copying(settings)
        step.look = look
        source = open_source(settings.input, settings.read)
        planned = [Planned(item, output_name(item.path, settings.write)) for item in source.items(print)]
        inputs = write_plan(self.store, 1, planned)
        worker = Worker(
            settings,
            step,
            source,
            open_sink(self.store, settings.write),
            TableSink(self.store, "rows", pa.schema([("n", pa.int32())])) if table else None,
            self.ledger,
            self.attempts,
            Plan(self.store, 1, inputs, 1),
            2,
        )
        self.workers.append(worker)
        return worker

    def statuses(self) -> dict[str, str]:
        return {row["path"]: row["reason"] if row["status"] == "failed" else "" for row in rows_of(self.out)}

    def die(self, times: int, at: str = "") -> None:
        """As many workers as `times` began the chunk and died of it, at the image `at` if that is given."""
        for _ in range(times):
            attempt = self.attempts.begin(CHUNK)
            if at:
                self.attempts.name(CHUNK, attempt, at)

    def marker(self) -> Attempt:
        """What is said of the chunk."""
        return Attempt(**json.loads((self.out / "_genray" / "attempts" / f"{CHUNK}.json").read_text()))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for worker in bench.workers:
        worker.close()


def go_on(counts: Mapping[str, float]) -> bool:
    return False


def paths_of(photos: Path) -> set[str]:
    return {file.relative_to(photos).as_posix() for file in photos.rglob("*.*")}


def test_a_chunk_comes_to_its_end_with_a_row_for_each_input(bench: Bench) -> None:
    write_photos(bench.photos, 7)
    (bench.photos / "broken.png").write_bytes(b"\x89PNG")
    counts: Counter[str] = Counter()
    assert bench.worker().work(0, 1, lambda more: counts.update(more) or False)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | {"broken.png": "truncated"}
    for row in rows_of(bench.out)[:-1]:
        assert (row["status"], row["reason"]) == ("skipped", "clean")
        assert (bench.out / row["output"]).read_bytes() == (bench.photos / row["path"]).read_bytes()
    assert (counts["skipped"], counts["failed"]) == (7, 1)
    assert counts["bytes_in"] == sum(file.stat().st_size for file in bench.photos.rglob("*.*"))
    assert counts["bytes_out"] == counts["bytes_in"] - 4


def test_a_chunk_that_is_done_is_not_worked_on_again(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    assert bench.worker().work(0, 1, go_on)
    assert bench.marker() == Attempt(0, done=True)
    keys, seen = bench.ledger.keys(), list[str]()
    assert bench.worker(lambda inputs: seen.extend(each.path for each in inputs)).work(0, 1, go_on)
    assert (seen, bench.ledger.keys(), len(rows_of(bench.out))) == ([], keys, 4)


def test_after_two_deaths_each_image_is_named_before_it_is_worked_on_alone(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    bench.die(2)
    seen = []

    def look(inputs: Sequence[Input]) -> None:
        seen.append(([each.path for each in inputs], bench.marker().suspect))

    assert bench.worker(look).work(0, 1, go_on)
    assert [paths for paths, _ in seen] == [[suspect] for _, suspect in seen]
    assert {suspect for _, suspect in seen} == paths_of(bench.photos)


def test_an_image_that_one_worker_died_at_is_tried_again(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    bench.die(2)
    bench.die(1, "1/0003.jpg")
    assert bench.worker().work(0, 1, go_on)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "")


def test_an_image_that_two_workers_in_a_row_died_at_is_recorded_and_the_rest_is_done(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    poison, seen = "1/0003.jpg", set[str]()
    bench.die(2)
    bench.die(2, poison)
    assert bench.worker(lambda inputs: seen.update(each.path for each in inputs)).work(0, 1, go_on)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | {poison: "killed-worker"}
    assert seen == paths_of(bench.photos) - {poison}


def test_two_poisonous_images_cost_two_rows(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    bench.die(2)
    bench.die(2, "1/0003.jpg")
    died: list[str] = []

    def look(inputs: Sequence[Input]) -> None:
        if inputs[0].path == "0/0004.png":
            died.append(inputs[0].path)
            raise SystemExit  # the worker is gone

    for _ in range(2):
        with pytest.raises(SystemExit):
            bench.worker(look).work(0, 1, go_on)
    assert bench.worker(look).work(0, 1, go_on)
    assert died == ["0/0004.png"] * 2
    bad = {"1/0003.jpg": "killed-worker", "0/0004.png": "killed-worker"}
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | bad


def test_an_attempt_that_lost_its_chunk_records_nothing(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    worker = bench.worker(lambda inputs: bench.die(1), table=True)
    assert not worker.work(0, 1, go_on)
    assert bench.ledger.keys() == set()
    assert not list(bench.out.glob("rows/*"))
    assert bench.worker(table=True).work(0, 1, go_on), "the one that has it does all"
    assert len(rows_of(bench.out)) == 4
    assert pq.read_table(bench.out / "rows").num_rows == 4


def test_a_stop_after_some_images_records_them_and_the_next_attempt_does_the_rest(bench: Bench) -> None:
    write_photos(bench.photos, 30)
    seen: Counter[str] = Counter()

    def look(inputs: Sequence[Input]) -> None:
        seen.update(each.path for each in inputs)
        threading.Event().wait(0.01)

    small: dict[str, Any] = {"batch_megapixels": 0.001, "commit_seconds": 0.05}
    told: list[float] = []

    def report(counts: Mapping[str, float]) -> bool:
        told.append(counts.get("skipped", 0))
        return sum(told) > 0

    assert not bench.worker(look, table=True, **small).work(0, 1, report)
    first = {row["path"] for row in rows_of(bench.out)}
    assert 0 < len(first) < 30
    assert first == set(seen) == set(pq.read_table(bench.out / "rows")["path"].to_pylist())
    assert sum(told) == len(first)
    assert bench.worker(look, table=True, **small).work(0, 1, go_on)
    assert seen == Counter(dict.fromkeys(paths_of(bench.photos), 1)), "none is done twice"
    assert len(rows_of(bench.out)) == pq.read_table(bench.out / "rows").num_rows == 30


def test_after_a_stop_only_what_is_being_written_is_finished(bench: Bench) -> None:
    write_photos(bench.photos, 40)
    seen: list[str] = []
    at_stop: list[int] = []

    def look(inputs: Sequence[Input]) -> None:
        seen.extend(each.path for each in inputs)
        threading.Event().wait(0.03)

    def report(counts: Mapping[str, float]) -> bool:
        at_stop.append(len(seen))
        return True

    assert not bench.worker(look, table=True, batch_megapixels=0.001).work(0, 1, report)
    assert 0 < at_stop[0] < 40
    assert len(seen) == at_stop[0], "no other was begun"
    assert {row["path"] for row in rows_of(bench.out)} == set(seen)
    assert sorted(pq.read_table(bench.out / "rows")["path"].to_pylist()) == sorted(seen)
    assert not bench.marker().done
    assert bench.worker(table=True).work(0, 1, go_on)
    assert len(rows_of(bench.out)) == pq.read_table(bench.out / "rows").num_rows == 40


def test_several_pieces_of_a_dead_attempt_are_all_passed_over(bench: Bench) -> None:
    write_photos(bench.photos, 100)
    seen: list[str] = []

    def look(inputs: Sequence[Input]) -> None:
        if len(seen) == 90:
            raise SystemExit
        seen.append(inputs[0].path)
        threading.Event().wait(0.01)

    with pytest.raises(SystemExit):
        bench.worker(look, batch_megapixels=0.001, commit_seconds=0.05).work(0, 1, go_on)
    assert len(bench.ledger.keys()) > 1
    known = {row["path"] for row in rows_of(bench.out)}
    seen.clear()
    assert bench.worker(lambda inputs: seen.extend(each.path for each in inputs)).work(0, 1, go_on)
    assert set(seen) == paths_of(bench.photos) - known
    assert len(rows_of(bench.out)) == 100


def test_an_error_over_one_image_of_a_batch_fails_that_one_only(bench: Bench) -> None:
    write_photos(bench.photos, 6)
    sizes = []

    def look(inputs: Sequence[Input]) -> None:
        sizes.append(len(inputs))
        if "1/0001.png" in [each.path for each in inputs]:
            raise ZeroDivisionError("on purpose\nand more")
        if "1/0005.png" in [each.path for each in inputs]:
            raise BadImage("odd-shape", "on purpose")

    assert bench.worker(look).work(0, 1, go_on)
    bad = {"1/0001.png": "step-error", "1/0005.png": "odd-shape"}
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | bad
    assert sizes == [6, *[1] * 6]
    details = {row["path"]: row["detail"] for row in rows_of(bench.out)}
    assert details["1/0001.png"] == "ZeroDivisionError: on purpose"


def test_what_concerns_every_image_ends_the_worker(bench: Bench) -> None:
    write_photos(bench.photos, 3)

    def look(inputs: Sequence[Input]) -> None:
        raise DataError("the model is gone")

    with pytest.raises(DataError, match="the model is gone"):
        bench.worker(look).work(0, 1, go_on)
    assert bench.ledger.keys() == set()


def test_decoded_images_stay_within_the_memory_and_one_larger_still_passes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (1500, 1500), "navy").save(bench.photos / "00.png")
    for index in range(1, 12):
        os.link(bench.photos / "00.png", bench.photos / f"{index:02}.png")
    Image.new("L", (4000, 3000)).save(bench.photos / "06-large.png")
    alive, most, held, lock = [0], [0], [], threading.Lock()
    read = pipelines.worker.read_photo

    def counted(data: bytes, limits: Any) -> Any:
        photo = read(data, limits)
        with lock:
            alive.append(photo.pixels.nbytes)
            most[0] = max(most[0], sum(alive))
        weakref.finalize(photo.pixels, alive.append, -photo.pixels.nbytes)
        return photo

    def look(inputs: Sequence[Input]) -> None:
        held.append(worker._held)
        threading.Event().wait(0.03)  # long enough to decode all of them ahead

    monkeypatch.setattr(pipelines.worker, "read_photo", counted)
    worker = bench.worker(look, memory_mb=64)
    assert worker.work(0, 1, go_on)
    assert set(bench.statuses().values()) == {""}
    large = 2 * 4 * 4000 * 3000
    assert 64 * 2**20 < max(held) <= large
    assert max(size for size in held if size < large) <= 64 * 2**20
    # 64 MiB are three of them with what is made of them; one more may just have been let go.
    assert most[0] <= max(4 * 1500 * 1500 * 3, 1500 * 1500 * 3 + 4000 * 3000)
    assert worker._held == 0


def test_further_images_are_written_beside_the_first(bench: Bench) -> None:
    write_photos(bench.photos, 2)
    worker = bench.worker()

    def make(inputs: Sequence[Input]) -> Sequence[Made]:
        return [Made(photo=each.photo, also={"-mask": each.photo}) for each in inputs]

    worker._step.make = make  # type: ignore[method-assign]
    assert worker.work(0, 1, go_on)
    for row in rows_of(bench.out):
        first = bench.out / row["output"]
        also = first.with_name(f"{first.name}-mask{first.suffix}")
        assert row["bytes_out"] == first.stat().st_size + also.stat().st_size
        assert np.asarray(Image.open(also)).shape == (48, 64, 3)


def test_an_image_that_stays_as_it_is_is_encoded_only_if_another_format_was_asked_for(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    assert bench.worker(kind="png").work(0, 1, go_on)
    for row in rows_of(bench.out):
        before, after = bench.photos / row["path"], bench.out / row["output"]
        assert row["status"] == "skipped"
        if before.suffix == ".png":
            assert row["output"] == row["path"]
            assert after.read_bytes() == before.read_bytes()
        else:
            assert row["output"] == f"{row['path']}.png"
            with Image.open(before) as old, Image.open(after) as new:
                assert new.format == "PNG"
                assert (np.asarray(new) == np.asarray(old)).all()
