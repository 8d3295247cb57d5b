from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from genray.errors import DataError, RunError, StorageFull
from genray.io.sources import open_source
from genray.io.store import create_store
from pipelines.engine.assignment import Assignment
from pipelines.engine.plan import PlannedInput, write_plan
from pipelines.engine.pool import LocalPool
from pipelines.engine.worker_process import ProcessWorker
from pipelines.settings import BulkSettings
from tests.pipelines.bulk_runs import png
from tests.pipelines.conftest import rows_of


def assignment(root: Path, *names: str, step: str = "Troubled") -> Assignment:
    """An assignment of a worker on photos with these names, as one chunk."""
    (root / "in").mkdir()
    for seed, name in enumerate(names):
        (root / "in" / f"{name}.png").write_bytes(png(seed))
    settings = BulkSettings.model_validate({"input": str(root / "in"), "output": str(root / "out")})
    items = list(open_source(settings.input, settings.read).items(print))
    inputs = write_plan(create_store(settings.output), 1, [PlannedInput(item, item.path) for item in items])
    return Assignment(
        step=f"tests.pipelines.troubled_step:{step}",
        settings=settings.model_dump(mode="json"),
        number=1,
        inputs=inputs,
        workers=1,
        threads=1,
        gpu=False,
        prepared={},
    )


def statuses(root: Path) -> dict[str, str]:
    return {Path(row["path"]).stem: row["status"] for row in rows_of(root / "out")}


def test_a_process_that_dies_is_started_again_and_does_the_rest(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()

    def report(more: Mapping[str, float]) -> bool:
        counts.update(more)
        return False

    worker = ProcessWorker(assignment(tmp_path, "a", "killed-once", "z"))
    worker.start()
    try:
        assert worker.work(0, report)
    finally:
        worker.close()
    assert statuses(tmp_path) == dict.fromkeys(["a", "killed-once", "z"], "done")
    assert counts["done"] >= 3


def test_an_error_that_stops_the_run_comes_from_the_process(tmp_path: Path) -> None:
    worker = ProcessWorker(assignment(tmp_path, "a", "full"))
    worker.start()
    with pytest.raises(StorageFull, match="no space left"):
        worker.work(0, lambda counts: False)
    worker.close()


def test_a_step_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    given = assignment(tmp_path, "a")
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in").rmdir()
    with pytest.raises(DataError, match="missing"):
        ProcessWorker(given).start()


@pytest.mark.parametrize("there", ["nothing", "no folder", "another file of this name"])
def test_a_worker_that_sees_other_inputs_than_the_driver_does_not_start(tmp_path: Path, there: str) -> None:
    """As on another node: each image would be recorded as unreadable."""
    given = assignment(tmp_path, "a", "b")
    source = open_source(str(tmp_path / "in"), BulkSettings().read)
    first = next(source.items(print))
    given = replace(given, witness=source.witness(first))
    given.open_worker().close()
    for file in (tmp_path / "in").iterdir():
        file.unlink()
    if there == "no folder":
        (tmp_path / "in").rmdir()
    elif there == "another file of this name":
        (tmp_path / "in" / first.path).write_bytes(b"something else")
        (tmp_path / "in" / "b.png").write_bytes(png(1))
    with pytest.raises(RunError, match=r"does not have the driver's a\.png") as refused:
        given.open_worker()
    assert "input=s3://" in str(refused.value.hint)


def test_a_process_ends_at_once_when_it_is_killed_in_an_image(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    worker = ProcessWorker(assignment(tmp_path, "slow"))
    worker.start()

    def kill_it() -> None:
        while not list(tmp_path.glob("at-*")):
            time.sleep(0.02)
        worker.kill()

    killer = threading.Thread(target=kill_it)
    killer.start()
    assert not worker.work(0, lambda counts: False)
    killer.join()
    worker.close()
    assert not (tmp_path / "out" / "_genray" / "ledger").exists()


def test_a_process_that_is_still_starting_ends_when_the_run_is_stopped(tmp_path: Path) -> None:
    notes: list[str] = []
    given = assignment(tmp_path, "a")
    LocalPool(2, processes=True).run(given, lambda counts: True, notes.append)
    assert notes == []


def test_threads_and_processes_share_the_chunks(tmp_path: Path) -> None:
    given = assignment(tmp_path, *(f"{index:03}" for index in range(40)))
    sums: dict[str, float] = {}

    def watch(counts: Mapping[str, float]) -> bool:
        sums.update(counts)
        return False

    LocalPool(2, processes=True).run(given, watch, print)
    assert sums["done"] == 40
    assert set(statuses(tmp_path).values()) == {"done"}
    assert len(rows_of(tmp_path / "out")) == 40


def test_processes_end_with_the_run_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    worker = ProcessWorker(assignment(tmp_path, "slow"))
    worker.start()
    process = worker._process
    assert process is not None
    end = process.wait()  # it closes the pipes, as the kernel does when the run is killed
    assert end.code == 1
