"""A worker: takes chunks of inputs through read, decode, model, encode, write and into the ledger.

The stages overlap: threads read and decode ahead and encode and write behind, while this thread runs the
model. It alone decides what is let in, by how many decoded bytes are about: nothing can wait in a ring.

Batches of images of one size, and how many decoded pixels a worker may hold.

The last stage of a worker: what a step made of an input is encoded, written, and made to last.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

from genray.errors import GenrayError
from genray.images.photo import Photo, WriteSettings, output_format, photo_header, read_photo, write_photo
from genray.io.bad_input import BadImage
from genray.io.sources import ItemSource
from pipelines.engine.chunk import ChunkRecord, ImageTask, LedgerRow, ReportCounts, row_of
from pipelines.engine.plan import Plan, Planned
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput
from pipelines.storage.attempts import Attempt, Attempts
from pipelines.storage.ledger import Ledger
from pipelines.storage.sinks import Sink, TableSink

_BATCH_MEGAPIXELS = 0.5  # on a CPU larger batches are no faster, and the other stages wait for them
_SMALL = 16 * 2**20  # decoded bytes of an image that needs no leave to be decoded ahead
_AHEAD = 24  # images that are read and decoded before they are needed, if there is memory for them


class ChunkWorker:
    """Works on chunks of a plan, one after the other.

    Args:
        settings: of the target.
        step: opened.
        source, sink, table, ledger, attempts, plan: of the input and the output.
        threads: that read, decode, encode and write.
    """

    def __init__(
        self,
        settings: BulkSettings,
        step: Step[Any],
        source: ItemSource,
        sink: Sink,
        table: TableSink | None,
        ledger: Ledger,
        attempts: Attempts,
        plan: Plan,
        threads: int,
    ) -> None:
        self._settings, self._step, self._source = settings, step, source
        self._writer, self._ledger = Writer(settings.write, sink, table), ledger
        self._attempts = attempts
        self.plan = plan
        self._before = ThreadPoolExecutor(max(2, threads), "read")
        self._behind = ThreadPoolExecutor(max(1, threads), "write")
        self._batch = 1e6 * (settings.work.batch_megapixels or _BATCH_MEGAPIXELS)
        self._held = 0
        self._under_way: set[Future[ImageTask]] = set()

    def work(self, index: int, number: int, report: ReportCounts) -> bool:
        """Do the chunk `index` of the pass `number`; returns whether it came to its end.

        Raises:
            GenrayError: nothing more can be written, or read.
        """
        chunk = f"{number:05}-{index:06}"
        attempt = self._attempts.begin(chunk)
        if attempt.done:
            return True
        record = ChunkRecord(
            self._settings.work.commit_seconds,
            partial(self._commit, chunk, attempt),
            partial(self._attempts.holds, chunk, attempt),
            report,
        )
        try:
            self._through(index, chunk, attempt, record)
        finally:
            self._forget()
        if record.stopped:
            return False
        self._attempts.end(chunk, attempt)
        return True

    def _through(self, index: int, chunk: str, attempt: Attempt, record: ChunkRecord) -> None:
        earlier = self._earlier(chunk, attempt) if attempt.number else ()
        done = {path for paths in earlier for path in paths}
        todo = [each for each in self.plan.chunk(index) if each.item.path not in done]
        for each in [each for each in todo if each.item.path == attempt.poison]:
            todo.remove(each)
            record.add([row_of(ImageTask(each, bad=BadImage("killed-worker", "two workers died at it")))])
            record.commit()
        for group in [[each] for each in todo] if attempt.careful else [todo]:
            if attempt.careful:
                self._attempts.name(chunk, attempt, group[0].item.path)
            for rows in self._flow(group, record):
                record.add(rows)
            if record.stopped:
                break
        record.commit()

    def _forget(self) -> None:
        """Let nothing of a chunk that broke off get into the next one."""
        under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
        wait(under_way)
        self._held = 0
        self._writer.discard()

    def close(self) -> None:
        """Let go of the threads, and of what was not committed."""
        self._before.shutdown()
        self._behind.shutdown()
        self._forget()

    def _earlier(self, chunk: str, attempt: Attempt) -> Iterator[list[str]]:
        for number in range(attempt.number):
            piece = 0
            while self._ledger.has(f"{chunk}-{number}-{piece}"):
                yield [row["path"] for row in self._ledger.rows_of(f"{chunk}-{number}-{piece}")]
                piece += 1

    def _flow(self, todo: Sequence[Planned], record: ChunkRecord) -> Iterator[list[LedgerRow]]:
        """Take `todo` through all stages; yields what is through, in no order.

        Whenever the record wants to be written, what is under way is finished first: what a packed output
        holds then is what the rows speak of.
        """
        reading: deque[Future[ImageTask]] = deque()
        decoding: deque[Future[ImageTask]] = deque()
        writing: deque[Future[ImageTask]] = deque()
        batches: Batcher[ImageTask] = Batcher(self._batch)
        limit = self._settings.work.memory_mb * 2**20
        waiting = iter(todo)
        more = True
        while True:
            if record.stopped:  # only what is being written is worth waiting for
                for future in writing:
                    yield [self._let_go(future.result())]
                return
            while more and len(reading) + len(decoding) < _AHEAD and not record.due:
                planned = next(waiting, None)
                if planned is None:
                    more = False
                    break
                reading.append(self._submit(self._before, self._read, planned))
            while reading and (reading[0].done() or not decoding):
                job = reading[0].result()
                if self._held and self._held + job.weight > limit:
                    break
                reading.popleft()
                self._held += job.weight
                if not job.decoded and job.bad is None:
                    decoding.append(self._submit(self._before, self._decode, job))
                else:
                    decoding.append(_ready(job))
            if decoding:
                job = decoding.popleft().result()
                if job.bad is not None:
                    yield [self._let_go(job)]
                else:
                    key, weight = self._step.batch_key(job.photo), self._step.batch_weight(job.photo)
                    for batch in batches.add(key, job, weight):
                        writing += self._make(batch)
            elif len(batches):
                for batch in batches.rest():
                    writing += self._make(batch)
            elif writing:
                yield [self._let_go(writing.popleft().result())]
            elif record.due:
                record.commit()
            elif not reading and not more:
                return
            through = []
            while writing and (writing[0].done() or len(writing) > 2 * _AHEAD + len(batches)):
                through.append(self._let_go(writing.popleft().result()))
            if through:
                yield through

    def _submit(
        self, threads: ThreadPoolExecutor, work: Callable[..., ImageTask], what: Any
    ) -> Future[ImageTask]:
        future = threads.submit(work, what)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def _let_go(self, job: ImageTask) -> LedgerRow:
        self._held -= job.weight
        row = row_of(job)
        # Futures and batches may still name the job: its pixels have to go now.
        job.data, job.photo, job.made = b"", None, None
        return row

    def _read(self, planned: Planned) -> ImageTask:
        """In a thread: the bytes of an input, and its pixels if they are few."""
        job = ImageTask(planned)
        began = time.perf_counter()
        try:
            job.data = self._source.read(planned.item, self._settings.read.max_bytes)
            job.times["read_ms"] = _ms(began)
            if not self._step.reads_images:
                job.decoded, job.weight = True, len(job.data)
                return job
            header = photo_header(job.data)
            job.weight = 2 * header.width * header.height * 4 * (header.depth // 8)
            if header.width * header.height > self._settings.read.max_pixels:
                job.weight = 0  # refused before any pixel is decoded
            if job.weight <= _SMALL:
                return self._decode(job)
        except BadImage as bad:
            job.bad, job.weight = bad, 0
            job.times.setdefault("read_ms", _ms(began))
        return job

    def _decode(self, job: ImageTask) -> ImageTask:
        began = time.perf_counter()
        try:
            job.photo = read_photo(job.data, self._settings.read)
            job.decoded = True
        except BadImage as bad:
            job.bad = bad
        except MemoryError:
            job.bad = BadImage("too-large", "there was not enough memory to decode it")
        job.times["decode_ms"] = _ms(began)
        return job

    def _make(self, jobs: Sequence[ImageTask]) -> list[Future[ImageTask]]:
        """Run the step on one batch, and let threads encode and write what it made."""
        began = time.perf_counter()
        try:
            made = self._step.process([StepInput(job.planned.item.path, job.data, job.photo) for job in jobs])
        except GenrayError:
            raise
        except Exception as error:
            if len(jobs) > 1:  # it may be one of them
                return [future for job in jobs for future in self._make([job])]
            jobs[0].bad = error if isinstance(error, BadImage) else BadImage("step-error", _said(error))
            return [_ready(jobs[0])]
        each = _ms(began) / len(jobs)
        futures = []
        for job, result in zip(jobs, made, strict=True):
            job.made, job.times["model_ms"] = result, each
            if result.photo is None and result.copy is None and not result.also:
                futures.append(_ready(self._writer.write(job)))  # a row is not worth a thread
            else:
                futures.append(self._submit(self._behind, self._writer.write, job))
        return futures

    def _commit(self, chunk: str, attempt: Attempt, piece: int, rows: Sequence[LedgerRow]) -> None:
        """Outputs first, then the rows that speak of them."""
        key = f"{chunk}-{attempt.number}-{piece}"
        self._writer.commit(key)
        self._ledger.add(key, rows)


def _ready(job: ImageTask) -> Future[ImageTask]:
    future: Future[ImageTask] = Future()
    future.set_result(job)
    return future


def _ms(since: float) -> float:
    return (time.perf_counter() - since) * 1e3


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


T = TypeVar("T")


class Batcher(Generic[T]):
    """Collects things by key until a batch is full.

    Args:
        most: how much a batch may weigh; one thing that is heavier is a batch of its own.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._waiting: dict[Hashable, list[T]] = {}
        self._weights: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, key: Hashable, thing: T, weight: float) -> Iterator[list[T]]:
        """Add one; yields the batches that this fills."""
        if key in self._waiting and self._weights[key] + weight > self._most:
            yield self._take(key)
        self._waiting.setdefault(key, []).append(thing)
        self._weights[key] = self._weights.get(key, 0.0) + weight
        # One more of the same size would not fit.
        if self._weights[key] + weight > self._most:
            yield self._take(key)

    def rest(self) -> Iterator[list[T]]:
        """What waits, in batches that are not full."""
        for key in list(self._waiting):
            yield self._take(key)

    def _take(self, key: Hashable) -> list[T]:
        del self._weights[key]
        return self._waiting.pop(key)


class Writer:
    """Writes to a sink and a table. Any thread may write; one commits when none does.

    Args:
        settings: of the files.
        sink: takes the images.
        table: takes the rows, if the step has any.
    """

    def __init__(self, settings: WriteSettings, sink: Sink, table: TableSink | None) -> None:
        self._settings, self._sink, self._table = settings, sink, table

    def write(self, job: ImageTask) -> ImageTask:
        """Encode and write what was made of an input; what cannot be is noted in the job."""
        made, output = job.made, job.planned.output
        assert made is not None
        try:
            images: dict[str, Photo | bytes | None] = {output: self._copied(job) or made.photo}
            for behind, photo in made.also.items():
                images[f"{output}{behind}{PurePosixPath(output).suffix}"] = photo
            for path, image in images.items():
                if image is not None:
                    self._put(job, path, image)
            if made.row is not None and self._table is not None:
                self._table.add({"path": job.planned.item.path, **made.row})
                job.bytes_out += _payload(made.row)
        except BadImage as bad:
            job.bad = bad
        except OSError as error:
            job.bad = BadImage("unwritable", error.strerror or str(error))
        return job

    def commit(self, key: str) -> None:
        """Make what was written since the last time last."""
        self._sink.commit(key)
        if self._table is not None:
            self._table.commit(key)

    def discard(self) -> None:
        """Forget what was written since the last commit."""
        self._sink.discard()
        if self._table is not None:
            self._table.discard()

    def _put(self, job: ImageTask, path: str, image: Photo | bytes) -> None:
        began = time.perf_counter()
        data = image if isinstance(image, bytes) else write_photo(image, self._settings, path)
        encoded = time.perf_counter()
        where = self._sink.put(path, data, job.planned.item.path)
        job.times["encode_ms"] = job.times.get("encode_ms", 0.0) + (encoded - began) * 1e3
        job.times["write_ms"] = job.times.get("write_ms", 0.0) + (time.perf_counter() - encoded) * 1e3
        job.bytes_out += len(data)
        if job.output:
            job.also.append(where)
        else:
            job.output, job.sha256 = where, hashlib.sha256(data).hexdigest()

    def _copied(self, job: ImageTask) -> Photo | bytes | None:
        """What is written of an input that stays as it is: its bytes, unless another format was asked for."""
        assert job.made is not None
        if job.made.copy is None or job.photo is None:
            return job.made.copy
        same = output_format(job.photo, self._settings, job.planned.output) == job.photo.format
        return job.made.copy if same else job.photo


def _payload(row: Mapping[str, Any]) -> int:
    """Bytes of the values of a table's row."""
    sizes = (len(v) if isinstance(v, bytes | str) else int(getattr(v, "nbytes", 8)) for v in row.values())
    return sum(sizes)
