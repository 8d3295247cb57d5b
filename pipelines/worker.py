"""A worker: takes chunks of inputs through read, decode, model, encode, write and into the ledger.

The stages overlap: threads read and decode ahead and encode and write behind, while this thread runs the
model. It alone decides what is let in, by how many decoded bytes are about: nothing can wait in a ring.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from genray.data.images import BadImage
from genray.data.photo import Photo, photo_header, read_photo
from genray.data.photo_writer import write_photo
from genray.errors import GenrayError
from pipelines.attempts import Attempt, Attempts
from pipelines.batching import Batcher
from pipelines.ledger import Ledger
from pipelines.plan import Plan, Planned
from pipelines.record import Job, Record, Report, Row, row_of
from pipelines.settings import BulkSettings
from pipelines.sinks import Sink, TableSink
from pipelines.sources import Source
from pipelines.step import Input, Step

_SMALL = 16 * 2**20  # decoded bytes of an image that needs no leave to be decoded ahead
_AHEAD = 8


class Worker:
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
        source: Source,
        sink: Sink,
        table: TableSink | None,
        ledger: Ledger,
        attempts: Attempts,
        plan: Plan,
        threads: int,
    ) -> None:
        self._settings, self._step, self._source = settings, step, source
        self._sink, self._table, self._ledger = sink, table, ledger
        self._attempts, self._plan = attempts, plan
        self._before = ThreadPoolExecutor(max(2, threads), "read")
        self._behind = ThreadPoolExecutor(max(1, threads), "write")
        self._held = 0

    def work(self, index: int, number: int, report: Report) -> bool:
        """Do the chunk `index` of the pass `number`; returns whether it came to its end.

        Raises:
            GenrayError: nothing more can be written, or read.
        """
        chunk = f"{number:05}-{index:06}"
        attempt = self._attempts.begin(chunk)
        done: set[str] = set()
        if attempt.number:
            done = {path for table in self._earlier(chunk, attempt) for path in table}
        todo = [each for each in self._plan.chunk(index) if each.item.path not in done]
        record = Record(
            self._settings.work.commit_seconds,
            partial(self._commit, chunk, attempt),
            partial(self._attempts.holds, chunk, attempt),
            report,
        )
        for each in [each for each in todo if each.item.path == attempt.poison]:
            todo.remove(each)
            record.add([row_of(Job(each, bad=BadImage("killed-worker", "workers died of it three times")))])
            record.commit()
        groups = [[each] for each in todo] if attempt.careful else [todo]
        for group in groups:
            if attempt.careful:
                self._attempts.name(chunk, attempt, group[0].item.path)
            for rows in self._flow(group, record):
                record.add(rows)
            if record.stopped:
                break
        record.commit()
        if not record.stopped:
            self._attempts.end(chunk)
        return not record.stopped

    def close(self) -> None:
        """Let go of the threads, and of what was not committed."""
        self._before.shutdown()
        self._behind.shutdown()
        self._sink.discard()
        if self._table is not None:
            self._table.discard()

    def _earlier(self, chunk: str, attempt: Attempt) -> Iterator[list[str]]:
        for number in range(attempt.number):
            piece = 0
            while self._ledger.has(f"{chunk}-{number}-{piece}"):
                yield [row["path"] for row in self._ledger.rows_of(f"{chunk}-{number}-{piece}")]
                piece += 1

    def _flow(self, todo: Sequence[Planned], record: Record) -> Iterator[list[Row]]:
        """Take `todo` through all stages; yields what is through, in no order.

        Whenever the record wants to be written, what is under way is finished first: what a packed output
        holds then is what the rows speak of.
        """
        reading: deque[Future[Job]] = deque()
        decoding: deque[Future[Job]] = deque()
        writing: deque[Future[Job]] = deque()
        batches: Batcher[Job] = Batcher(self._settings.work.batch_megapixels * 1e6)
        limit = self._settings.work.memory_mb * 2**20
        waiting = iter(todo)
        more = True
        while True:
            more = more and not record.stopped
            while more and len(reading) + len(decoding) < _AHEAD and not record.due:
                planned = next(waiting, None)
                if planned is None:
                    more = False
                    break
                reading.append(self._before.submit(self._read, planned))
            while reading and (reading[0].done() or not decoding):
                job = reading[0].result()
                if self._held and self._held + job.weight > limit:
                    break
                reading.popleft()
                self._held += job.weight
                if not job.decoded and job.bad is None:
                    decoding.append(self._before.submit(self._decode, job))
                else:
                    decoding.append(_ready(job))
            if decoding:
                job = decoding.popleft().result()
                if job.bad is not None:
                    yield [self._let_go(job)]
                else:
                    key, weight = self._step.key(job.photo), self._step.weight(job.photo)
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

    def _let_go(self, job: Job) -> Row:
        self._held -= job.weight
        return row_of(job)

    def _read(self, planned: Planned) -> Job:
        """In a thread: the bytes of an input, and its pixels if they are few."""
        job = Job(planned)
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

    def _decode(self, job: Job) -> Job:
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

    def _make(self, jobs: Sequence[Job]) -> list[Future[Job]]:
        """Run the step on one batch, and let threads encode and write what it made."""
        began = time.perf_counter()
        try:
            made = self._step.make([Input(job.planned.item.path, job.data, job.photo) for job in jobs])
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
            futures.append(self._behind.submit(self._write, job))
        return futures

    def _write(self, job: Job) -> Job:
        """In a thread: encode and write what was made of an input."""
        made, output = job.made, job.planned.output
        assert made is not None
        try:
            whole: Photo | bytes | None = made.copy if made.copy is not None else made.photo
            images = {output: whole}
            for behind, photo in made.also.items():
                plain = PurePosixPath(output)
                images[str(plain.with_name(f"{plain.stem}{behind}{plain.suffix}"))] = photo
            for path, image in images.items():
                if image is None:
                    continue
                began = time.perf_counter()
                data = image if isinstance(image, bytes) else write_photo(image, self._settings.write, path)
                encoded = time.perf_counter()
                where = self._sink.put(path, data, job.planned.item.path)
                job.times["encode_ms"] = job.times.get("encode_ms", 0.0) + (encoded - began) * 1e3
                job.times["write_ms"] = job.times.get("write_ms", 0.0) + _ms(encoded)
                job.bytes_out += len(data)
                if not job.outputs:
                    job.outputs, job.sha256 = where, hashlib.sha256(data).hexdigest()
            if made.row is not None and self._table is not None:
                self._table.add({"path": job.planned.item.path, **made.row})
        except BadImage as bad:
            job.bad = bad
        except OSError as error:
            job.bad = BadImage("unwritable", error.strerror or str(error))
        return job

    def _commit(self, chunk: str, attempt: Attempt, piece: int, rows: Sequence[Row]) -> None:
        """Outputs first, then the rows that speak of them."""
        key = f"{chunk}-{attempt.number}-{piece}"
        self._sink.commit(key)
        if self._table is not None:
            self._table.commit(key)
        self._ledger.add(key, rows)


def _ready(job: Job) -> Future[Job]:
    future: Future[Job] = Future()
    future.set_result(job)
    return future


def _ms(since: float) -> float:
    return (time.perf_counter() - since) * 1e3


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]
