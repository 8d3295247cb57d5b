"""A bench for workers: a real store, and a step so small that it is seen what reaches it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from genray.images.photo import Photo, PhotoFile
from genray.io.sources import open_source
from genray.io.store import create_store
from pipelines.engine.chunk import OutputWriter
from pipelines.engine.plan import Plan, PlannedInput, chunk_bounds, output_name, write_plan
from pipelines.engine.worker import ChunkWorker
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput, StepPlace, StepResult
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger.ledger import Ledger
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
        self.photos = root / "in"
        self.out = root / "out"
        self.photos.mkdir()
        self.store = create_store(self.out)
        self.attempts = Attempts(self.store)
        self.ledger = Ledger(self.store)
        self.inputs = 0
        self.workers: list[ChunkWorker] = []

    @property
    def plan(self) -> Plan:
        """All that `worker` listed, as one chunk."""
        return Plan(self.store, 1, chunk_bounds(self.inputs, 1))

    def worker(
        self,
        look: Look = lambda inputs: None,
        *,
        step: type[Copying] = Copying,
        table: bool = False,
        format: str = "same",
        decode: Callable[[PhotoFile], Photo] = PhotoFile.decode,
        suspects: Collection[str] = (),
        **work: Any,
    ) -> ChunkWorker:
        settings = BulkSettings.model_validate(
            {"input": str(self.photos), "output": str(self.out), "work": work, "write": {"format": format}}
        )
        opened = step(settings)
        opened.look = look
        source = open_source(settings.input, settings.read)
        planned = [PlannedInput(item, output_name(item.path, settings.write)) for item in source.items(print)]
        self.inputs = write_plan(self.store, 1, planned)
        rows = TableSink(self.store, "rows", pa.schema([("n", pa.int32())])) if table else None
        writer = OutputWriter(settings.write, open_sink(self.store, settings.write), rows)
        worker = ChunkWorker(
            settings,
            opened,
            source,
            writer,
            self.ledger,
            self.attempts,
            threads=2,
            suspects=suspects,
            decode=decode,
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
                self.attempts.name_image(CHUNK, attempt, at)

    def marker(self) -> Attempt:
        """What is said of the chunk."""
        return Attempt(**json.loads((self.out / "_genray" / "attempts" / f"{CHUNK}.json").read_text()))


def go_on(counts: Mapping[str, float]) -> bool:
    return False


def paths_of(photos: Path) -> set[str]:
    return {file.relative_to(photos).as_posix() for file in photos.rglob("*.*")}
