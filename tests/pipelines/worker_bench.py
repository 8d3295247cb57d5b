"""A bench for workers: a real store, and a step so small that it is seen what reaches it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genray.io.sources import open_source
from genray.io.store import Store
from pipelines.engine.plan import Plan, Planned, output_name, write_plan
from pipelines.engine.worker import ChunkWorker
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput, StepPlace, StepResult
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger import Ledger
from pipelines.storage.sinks import TableSink, open_sink
from tests.pipelines.conftest import rows_of

CHUNK = "00001-000000"
Look = Callable[[Sequence[StepInput]], None]


class Copying(Step[BulkSettings]):
    """Leaves images as they are; `look` sees each batch first."""

    settings_class = BulkSettings
    look: Look = staticmethod(lambda inputs: None)

    def check(self) -> Sequence[str]:
        return []

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        return []

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        self.look(inputs)
        return [StepResult(copy=each.data, skipped="clean", row={"n": 1}) for each in inputs]


class Bench:
    """An input with images, an output, and workers on all of it as one chunk."""

    def __init__(self, root: Path) -> None:
        self.photos, self.out = root / "in", root / "out"
        self.photos.mkdir()
        self.store = Store.create(self.out)
        self.attempts, self.ledger = Attempts(self.store), Ledger(self.store)
        self.workers: list[ChunkWorker] = []

    def worker(
        self, look: Look = lambda inputs: None, table: bool = False, kind: str = "same", **work: Any
    ) -> ChunkWorker:
        settings = BulkSettings.model_validate(
            {"input": str(self.photos), "output": str(self.out), "work": work, "write": {"format": kind}}
        )
        step = Copying(settings)
        step.look = look
        source = open_source(settings.input, settings.read)
        planned = [Planned(item, output_name(item.path, settings.write)) for item in source.items(print)]
        inputs = write_plan(self.store, 1, planned)
        worker = ChunkWorker(
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
