"""What a worker has to know to do its part, anywhere: plain values that travel to other nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from genray.io.sources import open_source
from genray.io.store import Store
from pipelines.engine.plan import Plan
from pipelines.engine.worker import Worker
from pipelines.settings import BulkSettings
from pipelines.steps.base import Place, Step
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger import Ledger
from pipelines.storage.sinks import TableSink, open_sink

MODEL = "_genray/model"


@dataclass(frozen=True)
class Assignment:
    """A pass over a plan, for its workers.

    Args:
        step: "module:class" of the step.
        settings: of the target, plain JSON values.
        number: of the pass.
        inputs: of the plan.
        workers: that chunks are made for.
        threads: CPUs that a worker may use.
        gpu: whether the model runs on one.
        header: what the step prepared.
        crashed: what is known of passes before that died.
    """

    step: str
    settings: Mapping[str, Any]
    number: int
    inputs: int
    workers: int
    threads: int
    gpu: bool
    header: Mapping[str, Any]
    crashed: Attempt | None = None

    def open(self) -> tuple[Worker, list[str]]:
        """A worker that is ready, and what is worth saying of how it runs its model."""
        step_class = find_step(self.step)
        settings: BulkSettings = step_class.settings_class.model_validate(self.settings)
        store = Store(settings.output)
        step = step_class(settings)
        with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
            fetch_model(store, Path(folder))
            notes = step.open(Place(self.threads, self.gpu, Path(folder)), self.header)
        schema = step.schema()
        worker = Worker(
            settings,
            step,
            open_source(settings.input, settings.read),
            open_sink(store, settings.write),
            None if schema is None else TableSink(store, step.table, schema),
            Ledger(store),
            Attempts(store, self.crashed),
            Plan(store, self.number, self.inputs, self.workers),
            self.threads,
        )
        return worker, list(notes)


def step_name(step: type[Step[Any]]) -> str:
    """How `step` is named in an assignment."""
    return f"{step.__module__}:{step.__qualname__}"


def find_step(name: str) -> type[Step[Any]]:
    """The step that `step_name` named."""
    module, _, kind = name.partition(":")
    found: type[Step[Any]] = getattr(import_module(module), kind)
    return found


def keep_model(store: Store, folder: Path) -> None:
    """Put the files that a step prepared beside the ledger."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            store.write(f"{MODEL}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def fetch_model(store: Store, folder: Path) -> None:
    """The inverse of `keep_model`."""
    for entry in store.list([""], MODEL):
        file = folder / entry.path.removeprefix(f"{MODEL}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.read(entry.path))
