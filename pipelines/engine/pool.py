"""Workers: in this process for a few images, or a Ray Data pool of actors that outlives its members.

The rows that go through Ray Data are numbers of chunks, never pixels: actors read, work, write and record by
themselves, so that nothing large is ever in Ray's object store, and a chunk that is run twice, because its
actor or node died, is there once.

What a worker has to know to do its part, anywhere: plain values that travel to other nodes.

The board: what all workers have done so far, and whether they are to stop.
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from genray.errors import GenrayError, error_from_json
from genray.io.sources import open_source
from genray.io.store import Store
from pipelines.engine.plan import Plan
from pipelines.engine.worker import ChunkWorker
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepPlace
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger import Ledger
from pipelines.storage.sinks import TableSink, open_sink

PoolWatch = Callable[[Mapping[str, float]], bool]
"""Takes the sums so far, a few times a second; returns whether to stop."""

_POLL_S = 0.3
_MOST_BLOCKS = 2000


class WorkerPool(Protocol):
    """What works on the chunks of an assignment."""

    def run(self, assignment: Assignment, chunks: int, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """Work on all chunks, or until `watch` says to stop.

        Raises:
            GenrayError: what stopped a worker.
        """


class LocalPool:
    """Workers that are threads of this process: what takes time leaves Python's lock to the others. No Ray.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, assignment: Assignment, chunks: int, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """See `WorkerPool`."""
        board, waiting = ProgressCounter(), iter(range(chunks))
        lock = threading.Lock()  # an iterator is not for several threads, nor is the export of a model

        def work() -> None:
            with lock:
                worker, notes = assignment.open()
            for line in notes:
                note(line)
            board.report({READY: 1.0})
            try:
                while True:
                    with lock:
                        index = next(waiting, None)
                    if index is None or not worker.work(index, assignment.number, board.report):
                        return
            except BaseException:
                board.stop()  # the others come to their end, too
                raise
            finally:
                worker.close()

        with ThreadPoolExecutor(self._workers, "worker") as threads:
            futures = [threads.submit(work) for _ in range(self._workers)]
            try:
                while not all(future.done() for future in futures):
                    if watch(board.counts()):
                        board.stop()
                    wait(futures, _POLL_S)
            except BaseException:
                board.stop()
                raise
            watch(board.counts())
            for future in futures:
                future.result()


class RayPool:
    """Actors on the Ray that this process is connected to.

    Args:
        workers: how many.
        cpus: that each may use.
    """

    def __init__(self, workers: int, cpus: int) -> None:
        # A pool that takes every CPU leaves none to what Ray runs beside it, and hangs without a word.
        self._workers, self._cpus = workers, 0.9 * cpus

    def run(self, assignment: Assignment, chunks: int, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """See `WorkerPool`."""
        ray: Any = import_module("ray")
        # It answers while all CPUs work, and lives with the driver.
        board = (
            ray.remote(num_cpus=0, max_concurrency=4)(ProgressCounter).options(**_beside_driver(ray)).remote()
        )
        stopping = threading.Event()
        with ThreadPoolExecutor(1, "ray-data") as thread:
            future = thread.submit(self._consume, assignment, chunks, board, note)
            try:
                while not future.done():
                    if watch(ray.get(board.counts.remote())) and not stopping.is_set():
                        stopping.set()
                        board.stop.remote()
                    wait([future], _POLL_S)
            except BaseException:
                board.stop.remote()
                raise
            watch(ray.get(board.counts.remote()))
            future.result()

    def _consume(self, assignment: Assignment, chunks: int, board: Any, note: Callable[[str], None]) -> None:
        ray: Any = import_module("ray")
        from ray.data import ActorPoolStrategy, DataContext

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # plans and hints; what is wrong is raised
        context: Any = DataContext.get_current()
        context.enable_progress_bars = False
        # Results are a few bytes; what matters is that the next chunk is at hand.
        context.execution_options.preserve_order = False
        blocks = np.array_split(np.arange(chunks), min(chunks, _MOST_BLOCKS))
        dataset = ray.data.from_blocks([_block(block) for block in blocks]).map_batches(
            PoolActor,
            fn_constructor_args=(assignment, board),
            batch_size=1,
            compute=ActorPoolStrategy(size=self._workers, max_tasks_in_flight_per_actor=2),
            num_cpus=self._cpus,
            num_gpus=1 if assignment.gpu else 0,
        )
        said: set[str] = set()
        for row in dataset.iter_rows():
            if row["error"]:
                raise error_from_json(json.loads(row["error"]))
            for line in filter(None, row["notes"].split("\n")):
                if line not in said:
                    said.add(line)
                    note(line)


class PoolActor:
    """A worker as an actor of Ray Data."""

    def __init__(self, assignment: Assignment, board: Any) -> None:
        self._ray: Any = import_module("ray")
        self._assignment, self._board = assignment, board
        self._worker, self._notes = assignment.open()
        self._report({READY: 1.0})

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Work on the chunks of `batch`."""
        error = ""
        for index in batch["chunk"].tolist():
            try:
                if self._report({}):
                    break
                self._worker.work(index, self._assignment.number, self._report)
            except GenrayError as wrong:  # an exception would be taken for a fault of this actor
                self._board.stop.remote()
                error = json.dumps(wrong.as_json())
                break
        notes, self._notes = "\n".join(self._notes), []
        return {"error": [error], "notes": [notes]}

    def _report(self, counts: Mapping[str, float]) -> bool:
        return bool(self._ray.get(self._board.report.remote(dict(counts))))


def _block(chunks: Any) -> Any:
    import pyarrow as pa

    return pa.table({"chunk": chunks})


def _beside_driver(ray: Any) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


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

    def open(self) -> tuple[ChunkWorker, list[str]]:
        """A worker that is ready, and what is worth saying of how it runs its model."""
        step_class = find_step(self.step)
        settings: BulkSettings = step_class.settings_class.model_validate(self.settings)
        store = Store(settings.output)
        step = step_class.load(settings)
        with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
            fetch_model(store, Path(folder))
            notes = step.open(StepPlace(self.threads, self.gpu, Path(folder)), self.header)
        schema = step.schema()
        worker = ChunkWorker(
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


READY = "ready"
"""Counts workers that have loaded their model."""


class ProgressCounter:
    """Adds up what workers report. Thread-safe; with Ray it lives in an actor of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._stop = False

    def report(self, counts: Mapping[str, float]) -> bool:
        """Add `counts`; returns whether the worker is to stop after what it has in hand."""
        with self._lock:
            self._counts.update(counts)
            return self._stop

    def stop(self) -> None:
        """Ask all workers to stop."""
        with self._lock:
            self._stop = True

    def counts(self) -> dict[str, float]:
        """The sums so far."""
        with self._lock:
            return dict(self._counts)
