"""Worker pools: threads and processes of one machine, or Ray Data actors. Both survive the loss of workers.

The rows that pass through Ray Data are numbers of chunks, never pixels: actors read, process, write and
record by themselves, so that nothing large is in Ray's object store, and a chunk that runs twice, because
its actor or node died, is recorded once. A `ProgressCounter` sums up what all have done, and tells them to
stop.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from genray.errors import BulkError, GenrayError, error_from_json
from genray.io.proof import written_proof
from genray.io.store import open_store
from pipelines.engine.assignment import PROOF, AssignedWorker, Assignment
from pipelines.engine.isolation import Isolation
from pipelines.engine.worker_process import CannotStart, ProcessWorker

PoolWatch = Callable[[Mapping[str, float]], bool]
"""Takes the sums so far, a few times per second; returns whether to stop."""

READY_WORKERS = "ready"
"""Name of the count of workers that have loaded their model."""

_POLL_SECONDS = 0.3
_MOST_BLOCKS = 2000
# A pool that takes every CPU leaves none for Ray's other tasks, and hangs without an error.
_CPU_SHARE = 0.9


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
    """Workers of this machine, without Ray: threads of this process, as slow operations release Python's
    lock. For many inputs all but the first are processes: while small images are processed, Python's lock is
    what threads wait for.

    Args:
        workers: number of workers.
        processes: whether all workers but the first are processes.
    """

    def __init__(self, workers: int, *, processes: bool = False) -> None:
        self._workers = workers
        self._processes = processes

    def run(self, assignment: Assignment, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """See `WorkerPool`."""
        progress = ProgressCounter()
        chunks = iter(range(assignment.chunks))
        lock = threading.Lock()  # neither an iterator nor the export of a model is thread-safe
        processes: list[ProcessWorker] = []

        def opened(number: int) -> AssignedWorker | ProcessWorker:
            if not (number and self._processes):
                with lock:
                    return assignment.open_worker(Isolation(assignment))
            worker = ProcessWorker(assignment)
            processes.append(worker)
            worker.start()
            return worker

        def work(number: int) -> None:
            try:
                worker = opened(number)
            except CannotStart as error:
                if not progress.report({}):
                    note(f"a worker process did not start, the others do its work: {error}")
                return
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

        # Not a `with`: after a second Ctrl-C it would wait for the images in progress.
        threads = ThreadPoolExecutor(self._workers, "worker")
        futures = [threads.submit(work, number) for number in range(self._workers)]
        try:
            while not all(future.done() for future in futures):
                if watch(progress.counts()):
                    progress.stop()
                    for worker in processes:
                        worker.give_up_start()
                wait(futures, _POLL_SECONDS)
        except BaseException as error:
            progress.stop()
            for worker in processes:
                worker.kill()
            threads.shutdown(wait=not isinstance(error, KeyboardInterrupt))
            raise
        threads.shutdown()
        watch(progress.counts())
        for future in futures:
            future.result()


class RayPool:
    """Workers that are actors of the Ray that this process is connected to.

    Args:
        workers: fewest and most workers: the pool grows while work waits and there is room, and shrinks.
        cpus: CPUs of each worker.
    """

    def __init__(self, workers: tuple[int, int], cpus: int) -> None:
        self._workers = workers
        self._cpus = cpus

    def run(self, assignment: Assignment, watch: PoolWatch, note: Callable[[str], None]) -> None:
        """See `WorkerPool`."""
        ray: Any = import_module("ray")
        # It needs no CPU, so that it always answers, and it ends with the driver.
        remote_counter = ray.remote(num_cpus=0, max_concurrency=4)(ProgressCounter)
        progress = remote_counter.options(**_on_this_node(ray)).remote()
        stopping = False
        with (
            written_proof(open_store(str(assignment.settings["output"])), PROOF) as proof,
            ThreadPoolExecutor(1, "ray-data") as thread,
        ):
            future = thread.submit(self._run_dataset, replace(assignment, proof=proof), progress, note)
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
        fewest, most = (min(workers, len(blocks)) for workers in self._workers)
        dataset = ray.data.from_blocks([pa.table({"chunk": block}) for block in blocks]).map_batches(
            PoolActor,
            fn_constructor_args=(assignment, progress),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=2),
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
    """A worker as an actor of Ray Data, made on the actor's node.

    An error that it starts with is reported by its first batch: Ray would show an exception of a constructor
    in hundreds of lines, and make the actor again.
    """

    def __init__(self, assignment: Assignment, progress: Any) -> None:
        self._ray: Any = import_module("ray")
        self._progress = progress
        self._worker: AssignedWorker | None = None
        self._failure: GenrayError | None = None
        self._notes = ""
        try:
            self._failure = assignment.unseen_here()
            if self._failure is None:
                self._worker = assignment.open_worker(Isolation(assignment))
                self._notes = "\n".join(self._worker.notes)
                self._report({READY_WORKERS: 1.0})
        except GenrayError as error:
            self._failure = error
        except OSError as error:
            self._failure = BulkError(
                f"a worker on the node {socket.gethostname()} cannot start ({error})",
                where=str(assignment.settings["output"]),
                hint="check that every node reaches input, output and bundle, and has room on its disk",
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Process the chunks of `batch`."""
        failure = self._failure
        try:
            if self._worker is not None:
                for index in batch["chunk"].tolist():
                    if self._report({}):
                        break
                    self._worker.work(index, self._report)
        except GenrayError as error:  # Ray would take an exception for a fault of this actor
            failure = error
        if failure is not None:
            self._progress.stop.remote()
        notes = self._notes
        self._notes = ""  # notes are reported once
        return {"error": [json.dumps(failure.as_json()) if failure else ""], "notes": [notes]}

    def _report(self, counts: Mapping[str, float]) -> bool:
        return bool(self._ray.get(self._progress.report.remote(dict(counts))))


def _on_this_node(ray: Any) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
