"""Assignments: what a worker has to do, in plain values that travel to other processes and nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from genray.errors import DataError, RunError
from genray.io.proof import unseen_error, unseen_here, unseen_input
from genray.io.sources import Item, ItemSource
from genray.io.store import Store, open_store
from pipelines.engine.chunk import OutputWriter, ReportCounts
from pipelines.engine.deaths import Isolate
from pipelines.engine.plan import Plan, chunk_bounds
from pipelines.engine.worker import ChunkWorker
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepPlace
from pipelines.storage.attempts import Attempts, EarlierKills
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.sinks import TableSink, open_sink

PROOF = "_genray/proof"
"""File of the output by which workers prove that they see it."""

_MODEL_FOLDER = "_genray/model"


@dataclass(frozen=True)
class Assignment:
    """Assignment of a pass to its workers.

    Args:
        step: "module:class" of the step.
        settings: settings of the target, plain JSON values.
        number: number of the pass.
        inputs: number of inputs of the plan.
        workers: number of workers, for the size of the chunks.
        threads: CPUs that a worker may use.
        gpu: whether the model runs on a GPU.
        prepared: result of the step's `prepare`.
        earlier: what is known of earlier passes that were killed.
        proof: text that the driver wrote to the output, see `genray.io.proof`.
        witness: input by which workers on other nodes prove that they see the inputs, see
            `ItemSource.witness`; None: the inputs are not local files.
    """

    step: str
    settings: Mapping[str, Any]
    number: int
    inputs: int
    workers: int
    threads: int
    gpu: bool
    prepared: Mapping[str, Any]
    earlier: EarlierKills = field(default_factory=EarlierKills)
    proof: str = ""
    witness: Item | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Assignment:
        """Return the assignment of plain JSON values, see `dataclasses.asdict`."""
        return cls(**{**values, "earlier": EarlierKills(**values["earlier"])})

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self._bounds()) - 1

    def unseen_here(self) -> RunError | None:
        """Return an error if this process does not see, or cannot write, the output of the driver."""
        output = str(self.settings["output"])
        problem = unseen_here(output, PROOF, self.proof)
        return None if problem is None else unseen_error(output, "output", [problem])

    def open_worker(self, isolate: Isolate | None = None) -> AssignedWorker:
        """Return a worker that is ready; `isolate` runs images in a process apart, if that is possible."""
        step_class = find_step(self.step)
        settings: BulkSettings = step_class.settings_class.model_validate(self.settings)
        store = open_store(settings.output)
        step = step_class.load(settings)
        source = self._open_source(step)
        with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
            fetch_model(store, Path(folder))
            notes = step.open(StepPlace(self.threads, self.gpu, Path(folder)), self.prepared)
        schema = step.schema()
        table = None if schema is None else TableSink(store, step.table, schema)
        sink = open_sink(store, settings.write, joined=step.joins_shards(settings.read.container))
        worker = ChunkWorker(
            settings,
            step,
            source,
            OutputWriter(settings.write, sink, table),
            Ledger(store),
            Attempts(store),
            threads=self.threads,
            suspects=frozenset(self.earlier.suspects),
            isolate=isolate,
        )
        return AssignedWorker(worker, Plan(store, self.number, self._bounds()), notes, self._attempts_before)

    def _open_source(self, step: Step[Any]) -> ItemSource:
        """Open the inputs.

        Raises:
            RunError: they are not the driver's.
        """
        if self.witness is None:
            return step.open_source()
        try:
            source = step.open_source()
            if source.witness(self.witness) == self.witness:
                return source
        except DataError:  # there is no such folder
            pass
        location = str(self.settings["input"])
        path = self.witness.container or self.witness.path
        raise unseen_error(location, "input", [unseen_input(location, path)])

    def _attempts_before(self, index: int) -> int:
        """Return the attempts of earlier passes at the chunk `index`: what was in progress in them is in the
        first chunks, as the plan keeps the order of the listing."""
        return self.earlier.attempts if index < 2 * self.workers else 0

    def _bounds(self) -> list[int]:
        return chunk_bounds(self.inputs, self.workers)


@dataclass(frozen=True)
class AssignedWorker:
    """A worker, its plan, notes on how it runs its model, and the attempts of earlier passes at a chunk."""

    worker: ChunkWorker
    plan: Plan
    notes: Sequence[str]
    attempts_before: Callable[[int], int]

    def work(self, index: int, report: ReportCounts) -> bool:
        """See `ChunkWorker.work`."""
        return self.worker.work(self.plan, index, report, self.attempts_before(index))

    def close(self) -> None:
        """See `ChunkWorker.close`."""
        self.worker.close()


def step_name(step: type[Step[Any]]) -> str:
    """Return the name of `step` in an assignment."""
    return f"{step.__module__}:{step.__qualname__}"


def find_step(name: str) -> type[Step[Any]]:
    """Return the step that `step_name` named."""
    module, _, class_name = name.partition(":")
    step: type[Step[Any]] = getattr(import_module(module), class_name)
    return step


def keep_model(store: Store, folder: Path) -> None:
    """Store the files that a step prepared beside the ledger."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            store.write(f"{_MODEL_FOLDER}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def fetch_model(store: Store, folder: Path) -> None:
    """Fetch the files that `keep_model` stored."""
    for entry in store.list([""], _MODEL_FOLDER):
        file = folder / entry.path.removeprefix(f"{_MODEL_FOLDER}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.read(entry.path))
