from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from genray.io.sources import open_source
from genray.settings.base import flatten
from pipelines.corrupt import Corrupt
from pipelines.engine.bulk_pass import Pass
from pipelines.engine.reporting.outcome import PassRates
from pipelines.storage.attempts import FOLDER
from pipelines.storage.ledger.rows import LedgerRow
from pipelines.storage.output import Output
from tests.pipelines.bulk_runs import settings_of
from tests.pipelines.conftest import Bulk, leftovers, passes_of, rows_of, write_photos

ROOT = Path(__file__).parents[3]


def start(photos: Path, out: Path, *sets: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "genray", "submit", "corrupt", "--json"]
    for text in (f"input={photos}", f"output={out}", "work.workers=0", "work.cpus_per_worker=1", *sets):
        command += ["--set", text]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_outputs(process: subprocess.Popen[str], out: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not out.exists() or sum(1 for _ in out.glob("*.png")) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the run made no progress"
        time.sleep(0.02)


def test_a_run_that_ctrl_c_stops_records_what_it_did_and_the_same_command_goes_on(
    bulk: Bulk, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_outputs(process, out, 20)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after the current images" in stderr
    assert "the same command resumes from there" in stderr
    assert "Traceback" not in stderr
    assert json.loads(stdout)["exit_code"] == 130
    rows = rows_of(out)
    assert 0 < len(rows) < 300
    assert f"stopped: {len(rows)} images were processed, {300 - len(rows)} are left" in stderr
    assert {row["output"] for row in rows} == {f.name for f in out.glob("*.png")}
    assert not leftovers(out)
    outcome = bulk("corrupt", f"input={many}")
    assert (outcome["this_pass"]["images"], outcome["total"]) == (300 - len(rows), 300)
    assert len(rows_of(out)) == 300
    assert passes_of(out)[-1].died == 0, "a stop on request is no kill"


def test_a_second_ctrl_c_does_not_wait_for_the_image_in_progress(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (6000, 6000), "teal").save(photos / "large.png", compress_level=1)
    process = start(photos, out, "corrupt.noise.kind=camera", "report.samples=0")
    while not list((out / FOLDER).glob("*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after the current images" in stderr
    assert "Traceback" not in stderr
    assert not list(out.glob("*.png"))


def test_retry_all_that_is_stopped_goes_on_with_what_is_left_and_old_outputs_are_gone(
    bulk: Bulk, many: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    photos.mkdir()
    for name in ("000.png", "299.png"):
        os.link(many / name, photos / name)
    bulk("corrupt", f"input={photos}", "write.format=webp")
    assert len(list(out.glob("*.webp"))) == 2
    for file in many.glob("[01]*.png"):
        if file.name != "000.png":
            os.link(file, photos / file.name)
    again = ("retry=all", "write.format=png", "work.gpu=false", "report.samples=0")
    process = start(photos, out, *again)
    wait_for_outputs(process, out, 20)
    assert not list(out.glob("*.webp")), "deleted before the first is made again"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    done = {row["path"]: row["finished"] for row in rows_of(out)}
    assert 0 < len(done) < 201
    outcome = bulk("corrupt", f"input={photos}", *again)
    assert (outcome["this_pass"]["images"], outcome["total"]) == (201 - len(done), 201)
    assert done.items() <= {row["path"]: row["finished"] for row in rows_of(out)}.items()
    assert len(list(out.glob("*.png"))) == 201
    assert [each.number for each in passes_of(out)] == [1, 2, 3]


def test_retry_all_after_one_that_came_to_its_end_does_all_again(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 6)
    for number in (1, 2, 3):
        outcome = bulk("corrupt", f"input={photos}", "retry=all")
        assert (outcome["this_pass"]["images"], outcome["total"]) == (6, 6)
        assert passes_of(out)[-1].number == number


def test_passes_are_counted_on_when_the_header_is_gone(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 4)
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 3)
    bulk("corrupt", f"input={photos}")
    (out / "_genray" / "run.json").unlink()
    write_photos(photos / "most", 2)
    outcome = bulk("corrupt", f"input={photos}", "overwrite=true")
    assert (outcome["this_pass"]["images"], outcome["total"]) == (2, 9)
    assert [each.number for each in passes_of(out)] == [3]


def test_a_late_row_of_an_earlier_pass_does_not_count(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 6)
    bulk("corrupt", f"input={photos}")
    rows = rows_of(out)
    settings = settings_of("corrupt", f"input={photos}", f"output={out}", "retry=all")
    output = Output.create(str(out))
    source = open_source(settings.input, settings.read)
    with output.locked():
        this_pass = Pass.begin(Corrupt(settings), source, output, flatten(settings), "corrupt", print)
        assert (this_pass.number, this_pass.inputs) == (2, 6)
        output.ledger.add("00001-000009-0-0", [LedgerRow(**row | {"detail": "late"}) for row in rows])
        output.ledger.add("00002-000000-0-0", [LedgerRow(**row) for row in rows[:4]])
        end = this_pass.end(PassRates(0.0, 0.0, 0.0))
    assert (end.summary.total, end.recorded) == (4, 4)
    assert {row["detail"] for row in rows_of(out)} == {""}
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 2, "what only the late one did"
