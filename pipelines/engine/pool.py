"""Worker pools: threads of this process for a few images, or Ray Data actors, whose loss the pool survives.

The rows that pass through Ray Data are numbers of chunks, never pixels: actors read, process, write and
record by themselves, so that nothing large is in Ray's object store, and a chunk that runs twice, because
its actor or node died, is recorded once. An `Assignment` of plain values, which travels to other nodes,
tells a worker what to do; a `ProgressCounter` sums up what all have done, and tells them to stop.
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from genray.errors import GenrayError, error_from_json
from genray.io.sources import open_source
from genray.io.store import Store, open_store
from pipelines.engine.chunk import OutputWriter, ReportCounts
from pipelines.engine.plan import Plan, chunk_bounds
from pipelines.engine.worker import ChunkWorker
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepPlace
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger import Ledger
from pipelines.storage.sinks import TableSink, open_sink

PoolWatch = Callable[[Mapping[str, float]], bool]
"""Takes the sums so far, a few times per second; returns whether to stop."""

READY_WORKERS = "ready"
"""Name of the count of workers that have loaded their model."""

_MODEL_FOLDER = "_genray/model"
_POLL_SECONDS = 0.3
_MOST_BLOCKS = 2000
# A pool that takes every CPU leaves none for Ray's other tasks, and hangs without an error.
_CPU_SHARE = 0.9


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
        crashed: attempt that killed passes left.
    """

    step: str
    settings: Mapping[str, Any]
    number: int
    inputs: int
    workers: int
    threads: int
    gpu: bool
    prepared: Mapping[str, Any]
    crashed: Attempt | None = None

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self._bounds()) - 1

    def open_worker(self) -> AssignedWorker:
        """Return a worker that is ready."""
        step_class = find_step(self.step)
        settings: BulkSettings = step_class.settings_class.model_validate(self.settings)
        store = open_store(settings.output)
        step = step_class.load(settings)
        with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
            fetch_model(store, Path(folder))
            notes = step.open(StepPlace(self.threads, self.gpu, Path(folder)), self.prepared)
        schema = step.schema()
        table = None if schema is None else TableSink(store, step.table, schema)
        joined = step.joins_shards(settings.read.container)
        sink = open_sink(store, settings.write, joined=joined)
        worker = ChunkWorker(
            settings,
            step,
            open_source(settings.input, settings.read),
            OutputWriter(settings.write, sink, table),
            Ledger(store),
            Attempts(store, self.crashed),
            threads=self.threads,
        )
        return AssignedWorker(worker, Plan(store, self.number, self._bounds()), notes)

    def _bounds(self) -> list[int]:
        return chunk_bounds(self.inputs, self.workers)


@dataclass(frozen=True)
class AssignedWorker:
    """A worker, its plan, and notes on how it runs its model."""

    worker: ChunkWorker
    plan: Plan
    notes: Sequence[str]

    def work(self, index: int, report: ReportCounts) -> bool:
        """See `ChunkWorker.work`."""
        return self.worker.work(self.plan, index, report)

    def close(self) -> None:
        """See `ChunkWorker.close`."""
        self.worker.close()


class ProgressCounter:
    """Sums up what workers report. Thread-safe; with Ray it runs in its own actor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._stop = False

    def report(self, counts: Mapping[str, float]) -> bool:
        """Add `counts`; returns whether the worker has to stop after its current images."""
        with self._lock:
            self._counts.update(counts)
            return self._stop

    def stop(self) -> None:
        """Ask all workers to stop."""
        with self._lock:
            self._stop = True

    def counts(self) -> dict[str, float]:
        """Return the sums so far."""
        with self._lock:
            return dict(self._counts)


class WorkerPool(Protocol):
    """Workers on the chunks of an assignment."""

    def run(self, assignment: Assignment, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """Process all chunks, or until `watch` returns that it should stop.

        Raises:
            GenrayError: the error that stopped a worker.
        """


class LocalPool:
    """Workers that are threads of this process, without Ray; slow operations release Python's lock.

    Args:
        workers: number of workers.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, assignment: Assignment, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """See `WorkerPool`."""
        progress = ProgressCounter()
        chunks = iter(range(assignment.chunks))
        lock = threading.Lock()  # neither an iterator nor the export of a model is thread-safe

        def work() -> None:
            with lock:
                worker = assignment.open_worker()
            for line in worker.notes:
                note(line)
            progress.report({READY_WORKERS: 1.0})
            try:
                while True:
                    with lock:
                        index = next(chunks, None)
                    if index is None or not worker.work(index, progress.report):
                        return
            except BaseException:
                progress.stop()  # the other workers stop, too
                raise
            finally:
                worker.close()

        with ThreadPoolExecutor(self._workers, "worker") as threads:
            futures = [threads.submit(work) for _ in range(self._workers)]
            try:
                while not all(future.done() for future in futures):
                    if watch(progress.counts()):
                        progress.stop()
                    wait(futures, _POLL_SECONDS)
            except BaseException:
                progress.stop()
                raise
            watch(progress.counts())
            for future in futures:
                future.result()


class RayPool:
    """Workers that are actors of the Ray that this process is connected to.

    Args:
        workers: number of workers.
        cpus: CPUs of each worker.
    """

    def __init__(self, workers: int, cpus: int) -> None:
        self._workers = workers
        self._cpus = cpus

    def run(self, assignment: Assignment, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """See `WorkerPool`."""
        ray: Any = import_module("ray")
        # It needs no CPU, so that it always answers, and it ends with the driver.
        remote_counter = ray.remote(num_cpus=0, max_concurrency=4)(ProgressCounter)
        progress = remote_counter.options(**_on_this_node(ray)).remote()
        stopping = False
        with ThreadPoolExecutor(1, "ray-data") as thread:
            future = thread.submit(self._run_dataset, assignment, progress, note)
            try:
                while not future.done():
                    if watch(ray.get(progress.counts.remote())) and not stopping:
                        stopping = True
                        progress.stop.remote()
                    wait([future], _POLL_SECONDS)
            except BaseException:
                progress.stop.remote()
                raise
            watch(ray.get(progress.counts.remote()))
            future.result()

    def _run_dataset(self, assignment: Assignment, progress: Any, note: Callable[[str], None]) -> None:
        ray: Any = import_module("ray")
        from ray.data import ActorPoolStrategy, DataContext

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # suppresses plans and hints; errors are raised
        context: Any = DataContext.get_current()
        context.enable_progress_bars = False
        # The order of the results does not matter, and waiting for it would delay the next chunk.
        context.execution_options.preserve_order = False
        blocks = np.array_split(np.arange(assignment.chunks), min(assignment.chunks, _MOST_BLOCKS))
        dataset = ray.data.from_blocks([pa.table({"chunk": block}) for block in blocks]).map_batches(
            PoolActor,
            fn_constructor_args=(assignment, progress),
            batch_size=1,
            compute=ActorPoolStrategy(size=self._workers, max_tasks_in_flight_per_actor=2),
            num_cpus=_CPU_SHARE * self._cpus,
            num_gpus=1 if assignment.gpu else 0,
        )
        noted: set[str] = set()
        for row in dataset.iter_rows():
            if row["error"]:
                raise error_from_json(json.loads(row["error"]))
            for line in filter(None, row["notes"].split("\n")):
                if line not in noted:
                    noted.add(line)
                    note(line)


class PoolActor:
    """A worker as an actor of Ray Data, made on the actor's node."""

    def __init__(self, assignment: Assignment, progress: Any) -> None:
        self._ray: Any = import_module("ray")
        self._progress = progress
        self._worker = assignment.open_worker()
        self._notes = "\n".join(self._worker.notes)
        self._report({READY_WORKERS: 1.0})

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Process the chunks of `batch`."""
        error = ""
        for index in batch["chunk"].tolist():
            try:
                if self._report({}):
                    break
                self._worker.work(index, self._report)
            except GenrayError as stopped_by:  # Ray would take an exception for a fault of this actor
                self._progress.stop.remote()
                error = json.dumps(stopped_by.as_json())
                break
        notes = self._notes
        self._notes = ""  # notes are reported once
        return {"error": [error], "notes": [notes]}

    def _report(self, counts: Mapping[str, float]) -> bool:
        return bool(self._ray.get(self._progress.report.remote(dict(counts))))


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


def _on_this_node(ray: Any) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
