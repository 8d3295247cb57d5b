"""Kills from outside never condemn an image; one that kills its process each time is recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from genray.errors import StorageFull
from pipelines.engine.deaths import Death, why_condemned
from tests.pipelines.bulk_runs import left_by_killed_passes, png
from tests.pipelines.conftest import passes_of, rows_of
from tests.pipelines.troubled_step import run_troubled

ROOT = Path(__file__).parents[3]
KILLS = 4  # two of a run in which several images are in progress, two at an image in a process apart


def write_named(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        (folder / f"{name}.png").write_bytes(png(seed))
    return folder


def statuses(out: Path) -> dict[str, str]:
    return {row["path"].removesuffix(".png"): row["status"] for row in rows_of(out)}


def at_slow_image(folder: Path) -> set[int]:
    """The processes that came to a slow image."""
    return {int(file.name.removeprefix("at-")) for file in folder.glob("at-*")}


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_an_image_that_kills_its_process_each_time_is_recorded_and_the_rest_is_done(tmp_path: Path) -> None:
    photos = write_named(tmp_path / "in", "a")
    out = tmp_path / "out"
    run_troubled(photos, out)
    write_named(photos, "a", "crash", "killed-once", "z")
    left_by_killed_passes(out, died=2)
    outcome = run_troubled(photos, out)
    assert statuses(out) == {"a": "done", "crash": "failed", "killed-once": "done", "z": "done"}
    assert outcome.summary.reasons == {"killed-worker": 1}
    (detail,) = (row["detail"] for row in rows_of(out) if row["status"] == "failed")
    assert detail.startswith("2 processes that had only this image died of SIGSEGV (memory at most ")
    assert detail.endswith("a word before it crashed")
    assert not list((out / "_genray" / "attempts").iterdir())


def test_a_driver_that_is_killed_at_one_image_again_and_again_does_not_condemn_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_named(tmp_path / "in", "a", "slow", "z")
    out = tmp_path / "out"
    (tmp_path / "slow").touch()
    for _ in range(KILLS):
        before = at_slow_image(tmp_path)
        command = [sys.executable, "-m", "tests.pipelines.troubled_step", str(photos), str(out)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            wait_for(lambda seen=before: at_slow_image(tmp_path) > seen)  # type: ignore[misc]
            time.sleep(0.3)  # until the driver has named it
            run.kill()
    assert len(at_slow_image(tmp_path)) == KILLS
    wait_for(lambda: not any(map(is_running, at_slow_image(tmp_path))), 20)
    (tmp_path / "slow").unlink()
    run_troubled(photos, out)
    assert statuses(out) == dict.fromkeys(["a", "slow", "z"], "done")
    assert (
        "kills of the run while only slow.png was in progress: 2; it is processed last"
        in capsys.readouterr().err
    )
    assert [each.died for each in passes_of(out)] == [0, 1, 2, 3, 4]
    assert passes_of(out)[-1].suspects == {"slow.png": 2}


def test_workers_that_are_killed_at_one_image_do_not_condemn_it(embedded_ray: None, tmp_path: Path) -> None:
    photos = write_named(tmp_path / "in", "a", "slow", "z")
    out = tmp_path / "out"
    (tmp_path / "slow").touch()
    killed: list[int] = []

    def kill_three() -> None:
        for _ in range(3):  # the third is in a process apart
            wait_for(lambda: at_slow_image(tmp_path) > set(killed))
            (pid,) = at_slow_image(tmp_path) - set(killed)
            if len(killed) == 2:
                (tmp_path / "slow").unlink()
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill_three)
    killer.start()
    run_troubled(photos, out, workers=1)
    killer.join()
    assert len(killed) == 3
    assert statuses(out) == dict.fromkeys(["a", "slow", "z"], "done")


def test_a_run_that_an_error_ended_was_not_killed(tmp_path: Path) -> None:
    photos = write_named(tmp_path / "in", "a", "full")
    out = tmp_path / "out"
    for _ in range(3):
        with pytest.raises(StorageFull):
            run_troubled(photos, out)
        assert not list((out / "_genray" / "attempts").iterdir())
    (photos / "full.png").unlink()
    run_troubled(photos, out)
    assert [each.died for each in passes_of(out)] == [0, 0, 0, 0]


def deaths(*codes: int) -> Sequence[Death]:
    return [Death("a.png", code, 3 * 10**9, "free(): invalid pointer") for code in codes]


@pytest.mark.parametrize("code", [-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, 3, 0])
def test_two_deaths_that_no_one_sent_condemn_an_image(code: int) -> None:
    assert not why_condemned(deaths(code))
    assert not why_condemned(deaths(-signal.SIGKILL, code))
    why = why_condemned(deaths(-signal.SIGKILL, code, code))
    assert why.startswith("2 processes that had only this image died of ")
    assert why.endswith("(memory at most 3 GB): free(): invalid pointer")


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM])
def test_kills_condemn_an_image_only_after_many(code: int) -> None:
    assert not why_condemned(deaths(*[code] * 4))
    assert "5 processes that had only this image were killed, for their memory most likely" in why_condemned(
        deaths(*[code] * 5)
    )
