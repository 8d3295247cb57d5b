"""Worker of a bulk run: reads, decodes, runs the model, encodes, writes and records chunks of inputs.

The stages overlap: threads read and decode ahead, and encode and write behind, while this thread runs the
model. Only this thread admits images, by the number of decoded bytes in memory, so that no deadlock is
possible. The model gets batches of images of one size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from genray.errors import BulkError, GenrayError
from genray.images.photo import Photo, PhotoFile
from genray.io.bad_input import BadImage
from genray.io.sources import ItemSource
from pipelines.engine.chunk import ChunkRecord, ImageTask, OutputWriter, ReportCounts
from pipelines.engine.deaths import (
    CannotIsolate,
    Death,
    Isolate,
    why_condemned,
    why_condemned_by_workers,
)
from pipelines.engine.plan import Plan, PlannedInput
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.rows import LedgerRow, chunk_name, piece_key

T = TypeVar("T")

_BATCH_MEGAPIXELS = 0.5  # larger batches are no faster on a CPU, and make the other stages wait
_SMALL_BYTES = 16 * 2**20  # decoded bytes of an image that may always be decoded ahead
_AHEAD = 24  # images that are read and decoded ahead, if there is memory
_MOST_ATTEMPTS = 50  # attempts at a chunk after which the run stops
_MOST_STARTS = 2  # failed starts of a process apart after which images are processed in this one


class ChunkWorker:
    """Processes chunks of a plan, one after the other.

    Responsible for: the order of the stages; the memory of decoded images; batches; errors of the step, which
    fail only their image; the common commit of rows and outputs; images that may have killed a worker, which
    are processed apart. The choice of chunks is left to the pool.

    Args:
        settings: settings of the target.
        step: the opened step.
        source: the inputs.
        writer: writes the results.
        ledger, attempts: ledger and attempts of the output.
        threads: number of threads that read, decode, encode and write.
        suspects: images that are processed apart, after the others of their chunk.
        isolate: runs images in a process apart; None if this is one, or none can be started.
        decode: decodes files to photos.
    """

    def __init__(
        self,
        settings: BulkSettings,
        step: Step[Any],
        source: ItemSource,
        writer: OutputWriter,
        ledger: Ledger,
        attempts: Attempts,
        *,
        threads: int,
        suspects: Collection[str] = (),
        isolate: Isolate | None = None,
        decode: Callable[[PhotoFile], Photo] | None = None,
    ) -> None:
        self._settings = settings
        self._step = step
        self._source = source
        self._writer = writer
        self._ledger = ledger
        self._attempts = attempts
        self._suspects = suspects
        self._isolate = isolate
        self._decode_photo = decode or partial(PhotoFile.decode, levels=step.reads_levels)
        self._readers = ThreadPoolExecutor(max(2, threads), "read")
        self._writers = ThreadPoolExecutor(max(1, threads), "write")
        self._under_way: set[Future[ImageTask]] = set()
        self.held_bytes = 0
        """Decoded bytes in memory, with space for their results."""

    def work(self, plan: Plan, index: int, report: ReportCounts, attempts_before: int = 0) -> bool:
        """Process the chunk `index` of `plan`; returns whether it is finished.

        Args:
            plan, index: the chunk.
            report: takes the counts.
            attempts_before: attempts of earlier passes at its images.

        Raises:
            GenrayError: reading or writing has become impossible.
        """
        chunk = chunk_name(plan.number, index)
        attempt = self._attempts.begin(chunk, attempts_before)
        if attempt.done:
            return True
        if attempt.number >= _MOST_ATTEMPTS:
            raise BulkError(
                f"worker after worker died ({attempt.number} times) while it processed the same images",
                hint="look at the memory of the machines, and give the same command again",
            )
        recorded = self._recorded(chunk, range(attempt.number))
        together: list[PlannedInput] = []
        apart: dict[str, PlannedInput] = {}
        for planned in plan.chunk(index):
            path = planned.item.path
            if path in recorded:
                continue
            if attempt.is_careful or path in self._suspects:
                apart[path] = planned
            else:
                together.append(planned)
        finished = self._process_all([together], self._open_record(chunk, attempt, report))
        if finished and apart:
            finished = self._process_apart(plan, index, attempt, apart, report)
        if finished:
            self._attempts.end(chunk, attempt)
        return finished

    def work_one_by_one(
        self,
        plan: Plan,
        index: int,
        attempt: Attempt,
        paths: Collection[str],
        report: ReportCounts,
        name_image: Callable[[str], None],
    ) -> bool:
        """Process some images of a chunk that was begun, one at a time.

        Args:
            plan, index: the chunk.
            attempt: attempt that owns it.
            paths: paths of the images.
            report: takes the counts.
            name_image: called before each image, with its path.

        Returns:
            Whether all are finished.
        """

        def groups() -> Iterator[list[PlannedInput]]:
            for planned in plan.chunk(index):
                if planned.item.path in paths:
                    name_image(planned.item.path)
                    yield [planned]

        return self._process_all(groups(), self._open_record(chunk_name(plan.number, index), attempt, report))

    def close(self) -> None:
        """Stop the threads, and discard uncommitted results."""
        self._readers.shutdown()
        self._writers.shutdown()
        self._reset()

    def _process_all(self, groups: Iterable[Sequence[PlannedInput]], record: ChunkRecord) -> bool:
        """Process groups of inputs, one group after the other, and record them; returns whether all are
        finished."""
        try:
            for group in groups:
                for rows in self._flow(group, record):
                    record.add(rows)
                if record.stopped:
                    break
            record.commit()
        finally:
            self._reset()
        return not record.stopped

    def _process_apart(
        self, plan: Plan, index: int, attempt: Attempt, left: dict[str, PlannedInput], report: ReportCounts
    ) -> bool:
        """Process the inputs `left`, which may kill their process; returns whether all are finished.

        One process takes them one after the other. An image that it dies at is tried in processes that have
        nothing else.
        """
        chunk = chunk_name(plan.number, index)
        name_image = partial(self._attempts.name_image, chunk, attempt)
        self._condemn(left, attempt.suspect, why_condemned_by_workers(attempt), chunk, attempt, report)
        suspect = ""
        deaths: list[Death] = []  # at the suspect
        starts = 0  # that failed
        while left:
            paths = [suspect] if suspect else list(left)
            if self._isolate is None:
                return self.work_one_by_one(plan, index, attempt, paths, report, name_image)
            try:
                end = self._isolate(index, attempt, paths, name_image, report)
            except CannotIsolate:
                starts += 1
                if starts == _MOST_STARTS:
                    self._isolate = None
                continue
            for path in self._recorded(chunk, [attempt.number]):
                left.pop(path, None)
            if end.death is None:
                if not end.finished:
                    return False
                suspect = ""
                continue
            if suspect:
                deaths.append(end.death)
                self._condemn(left, suspect, why_condemned(deaths), chunk, attempt, report)
            else:
                deaths = []
            suspect = end.death.image if end.death.image in left else ""
        return True

    def _condemn(
        self,
        left: dict[str, PlannedInput],
        path: str,
        why: str,
        chunk: str,
        attempt: Attempt,
        report: ReportCounts,
    ) -> None:
        """Record the input `path` as failed, if it is left and there is a reason why."""
        if why and path in left:
            task = ImageTask(self._completed(left.pop(path)), bad=BadImage("killed-worker", why))
            record = self._open_record(chunk, attempt, report)
            record.add([task.ledger_row()])
            record.commit()

    def _open_record(self, chunk: str, attempt: Attempt, report: ReportCounts) -> ChunkRecord:
        """Return the record of further pieces of an attempt."""
        return ChunkRecord(
            self._settings.work.commit_seconds,
            partial(self._commit, chunk, attempt),
            partial(self._attempts.holds, chunk, attempt),
            report,
            first_piece=len(self._pieces(chunk, attempt.number)),
        )

    def _recorded(self, chunk: str, attempts: Iterable[int]) -> set[str]:
        """Return the inputs that these attempts at the chunk recorded."""
        keys = [key for number in attempts for key in self._pieces(chunk, number)]
        return {path for key in keys for path in self._ledger.paths_of(key)}

    def _pieces(self, chunk: str, number: int) -> list[str]:
        """Return the keys of what the attempt `number` at the chunk committed."""
        keys: list[str] = []
        while self._ledger.has(key := piece_key(chunk, number, len(keys))):
            keys.append(key)
        return keys

    def _reset(self) -> None:
        """Discard the state of a chunk that was aborted."""
        under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
        wait(under_way)
        self.held_bytes = 0
        self._writer.discard()

    def _commit(self, chunk: str, attempt: Attempt, piece: int, rows: Sequence[LedgerRow]) -> None:
        """Commit the outputs, then the rows that refer to them."""
        key = piece_key(chunk, attempt.number, piece)
        self._writer.commit(key)
        self._ledger.add(key, rows)

    def _flow(self, inputs: Sequence[PlannedInput], record: ChunkRecord) -> Iterator[list[LedgerRow]]:
        """Take `inputs` through all stages; yields finished ones, in any order.

        Before a commit all images in progress are finished, so that a packed output contains exactly what the
        rows refer to.
        """
        batch_megapixels = self._settings.work.batch_megapixels or _BATCH_MEGAPIXELS
        flow = _Flow(iter(inputs), Batcher(1e6 * batch_megapixels))
        while True:
            if record.stopped:  # only images that are being written are waited for
                for future in flow.writing:
                    yield [self._finish(future.result())]
                return
            self._start_reading(flow, record)
            self._start_decoding(flow)
            if flow.decoding:
                task = flow.decoding.popleft().result()
                if task.bad is not None:
                    yield [self._finish(task)]
                else:
                    self._add_to_batch(flow, task)
            elif len(flow.batches):
                for batch in flow.batches.rest():
                    flow.writing += self._process(batch)
            elif flow.writing:
                yield [self._finish(flow.writing.popleft().result())]
            elif record.is_commit_due:
                record.commit()
            elif not flow.reading and flow.all_started:
                return
            written = []
            while flow.is_writing_ready():
                written.append(self._finish(flow.writing.popleft().result()))
            if written:
                yield written

    def _start_reading(self, flow: _Flow, record: ChunkRecord) -> None:
        while not flow.all_started and flow.ahead < _AHEAD and not record.is_commit_due:
            planned = next(flow.inputs, None)
            if planned is None:
                flow.all_started = True
                return
            flow.reading.append(self._submit(self._readers, self._read, planned))

    def _start_decoding(self, flow: _Flow) -> None:
        """Admit images that were read, as far as there is memory; one image is always admitted."""
        limit = self._settings.work.memory_mb * 2**20
        while flow.reading and (flow.reading[0].done() or not flow.decoding):
            task = flow.reading[0].result()
            if self.held_bytes and self.held_bytes + task.weight > limit:
                return
            flow.reading.popleft()
            self.held_bytes += task.weight
            if task.is_decoded or task.bad is not None:
                flow.decoding.append(_finished(task))
            else:
                flow.decoding.append(self._submit(self._readers, self._decode, task))

    def _add_to_batch(self, flow: _Flow, task: ImageTask) -> None:
        for number, photo in enumerate(task.page_photos):
            page = _Page(task, number, photo)
            key = self._step.batch_key(photo)
            for batch in flow.batches.add(key, page, self._step.batch_weight(photo)):
                flow.writing += self._process(batch)

    def _finish(self, task: ImageTask) -> LedgerRow:
        self.held_bytes -= task.weight
        row = task.ledger_row()
        # Futures and batches may still reference the task: its pixels are freed now.
        task.release()
        return row

    def _submit(
        self, threads: ThreadPoolExecutor, stage: Callable[[T], ImageTask], argument: T
    ) -> Future[ImageTask]:
        future = threads.submit(stage, argument)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def _read(self, planned: PlannedInput) -> ImageTask:
        """Read the bytes of an input, and its pixels if they are few; runs in a thread."""
        began = time.perf_counter()
        task = ImageTask(self._completed(planned))
        try:
            task.data = self._source.read(planned.item, self._settings.read.max_bytes)
            task.times.read_ms = _milliseconds_since(began)
            if not self._step.reads_images:
                task.is_decoded = True
                task.weight = len(task.data)
                return task
            task.file = PhotoFile.open(task.data, self._settings.read)
            header = task.file.header
            if header.pages and self._step.table:
                pages = 1 + len(header.pages)
                raise BadImage(
                    "unsupported",
                    f"{pages} pages, but the table has one row for each file: set read.pages=first to take "
                    "the first page",
                )
            task.weight = 2 * header.decoded_bytes
            if task.weight <= _SMALL_BYTES:
                return self._decode(task)
        except BadImage as bad:
            task.bad = bad
            task.weight = 0
            if task.times.read_ms is None:
                task.times.read_ms = _milliseconds_since(began)
        return task

    def _completed(self, planned: PlannedInput) -> PlannedInput:
        """Return the input with its size and time of change, looked up before it is read: should it change
        in between, the next pass processes it again."""
        return planned._replace(item=self._source.completed(planned.item))

    def _decode(self, task: ImageTask) -> ImageTask:
        """Decode the pixels of an input; runs in a thread."""
        began = time.perf_counter()
        assert task.file is not None
        try:
            task.photo = self._decode_photo(task.file)
            task.is_decoded = True
        except BadImage as bad:
            task.bad = bad
        task.file = None
        task.times.decode_ms = _milliseconds_since(began)
        return task

    def _process(self, batch: Sequence[_Page]) -> list[Future[ImageTask]]:
        """Run the step on one batch, and let threads encode and write the files whose pages are finished."""
        began = time.perf_counter()
        pages = [page for page in batch if page.task.bad is None]  # one bad page fails its file
        if not pages:
            return []
        inputs = [
            StepInput(page.task.planned.item.path, page.task.data, page.photo, page.number) for page in pages
        ]
        try:
            results = self._step.process(inputs)
        except GenrayError:
            raise
        except Exception as error:
            if len(pages) > 1:  # one of the images may be the cause
                return [future for page in pages for future in self._process([page])]
            task = pages[0].task
            task.bad = error if isinstance(error, BadImage) else BadImage("step-error", _text_of(error))
            return [_finished(task)]
        model_ms = _milliseconds_since(began) / len(pages)
        futures = []
        for page, page_result in zip(pages, results, strict=True):
            task = page.task
            task.times.model_ms = (task.times.model_ms or 0.0) + model_ms
            if not task.add_result(page.number, page_result):
                continue
            result = task.result
            assert result is not None
            if result.photo is None and result.copy is None and not result.also:
                futures.append(_finished(self._writer.write(task)))  # rows without images need no thread
            else:
                futures.append(self._submit(self._writers, self._writer.write, task))
        return futures


class Batcher(Generic[T]):
    """Collects items by key until a batch is full.

    Args:
        most: largest weight of a batch; a heavier item is a batch of its own.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._open: dict[Hashable, _OpenBatch[T]] = {}

    def __len__(self) -> int:
        return sum(len(batch.things) for batch in self._open.values())

    def add(self, key: Hashable, thing: T, weight: float) -> Iterator[list[T]]:
        """Add an item; yields the batches that it fills."""
        if key in self._open and self._open[key].weight + weight > self._most:
            yield self._open.pop(key).things
        batch = self._open.setdefault(key, _OpenBatch())
        batch.things.append(thing)
        batch.weight += weight
        # One more of the same size would not fit.
        if batch.weight + weight > self._most:
            yield self._open.pop(key).things

    def rest(self) -> Iterator[list[T]]:
        """Yield the waiting items, in batches that are not full."""
        for key in list(self._open):
            yield self._open.pop(key).things


@dataclass(frozen=True)
class _Page:
    """A page of a file in progress."""

    task: ImageTask
    number: int
    photo: Photo | None


@dataclass
class _OpenBatch(Generic[T]):
    things: list[T] = field(default_factory=list)
    weight: float = 0.0


@dataclass
class _Flow:
    """Inputs of a chunk in progress in the stages."""

    inputs: Iterator[PlannedInput]
    batches: Batcher[_Page]
    all_started: bool = False
    """Whether `inputs` is exhausted."""
    reading: deque[Future[ImageTask]] = field(default_factory=deque)
    decoding: deque[Future[ImageTask]] = field(default_factory=deque)
    writing: deque[Future[ImageTask]] = field(default_factory=deque)

    @property
    def ahead(self) -> int:
        return len(self.reading) + len(self.decoding)

    def is_writing_ready(self) -> bool:
        """Return whether an image is written, or too many wait to be written."""
        if not self.writing:
            return False
        return self.writing[0].done() or len(self.writing) > 2 * _AHEAD + len(self.batches)


def _finished(task: ImageTask) -> Future[ImageTask]:
    future: Future[ImageTask] = Future()
    future.set_result(task)
    return future


def _milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1e3


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]
