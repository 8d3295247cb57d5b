"""Inputs of a chunk in progress, their outputs, and their rows in the ledger.

Outputs are written one by one, rows in pieces, every few seconds. A piece is committed as a whole: first its
outputs, then the rows that refer to them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from genray.images.photo import Photo, PhotoFile
from genray.images.photo_writer import WriteSettings, WrittenPhoto, is_same_file, write_photo
from genray.io.bad_input import BadImage
from genray.io.kinds import KINDS, kind_of_name
from pipelines.engine.plan import PlannedInput
from pipelines.engine.planning.names import short_name
from pipelines.steps.base import ImageScores, StepResult
from pipelines.storage.ledger.rows import DONE, FAILED, SKIPPED, TIMES, LedgerRow
from pipelines.storage.sinks import Sink, TableSink

ReportCounts = Callable[[Mapping[str, float]], bool]
"""Takes the counts since the last call; returns whether to stop."""

_REPORT_SECONDS = 0.5
_MAX_DETAIL = 500  # most characters of a detail


@dataclass
class StageTimes:
    """Milliseconds of an input in each stage, the columns of the ledger; None for stages that it skipped."""

    read_ms: float | None = None
    decode_ms: float | None = None
    model_ms: float | None = None
    encode_ms: float | None = None
    write_ms: float | None = None


@dataclass
class ImageTask:
    """An input in progress in a worker.

    Args:
        planned: input, and name of its output.
        data: its bytes, while it is in progress.
        file: its header, until its pixels are decoded.
        photo: the decoded image.
        is_decoded: whether decoding is finished.
        bad: reason why it cannot be used.
        results: results of the step for the pages that are finished, by number.
        result: result of the step for the file.
        weight: decoded bytes that count towards the worker's memory.
        times: time in each stage so far.
        bytes_out: bytes of all its outputs.
        output: path of the first output; `sha256` is its checksum.
        also: paths of further outputs.
        not_kept: names of what the input carries and its outputs do not.
    """

    planned: PlannedInput
    data: bytes = b""
    file: PhotoFile | None = None
    photo: Photo | None = None
    is_decoded: bool = False
    bad: BadImage | None = None
    results: dict[int, StepResult] = field(default_factory=dict)
    result: StepResult | None = None
    weight: int = 0
    times: StageTimes = field(default_factory=StageTimes)
    bytes_out: int = 0
    output: str = ""
    also: list[str] = field(default_factory=list)
    sha256: str = ""
    not_kept: tuple[str, ...] = ()

    @property
    def page_photos(self) -> list[Photo | None]:
        """Return each page by itself; None if the step reads no images."""
        if self.photo is None:
            return [None]
        return [replace(self.photo, pages=()), *self.photo.pages] if self.photo.pages else [self.photo]

    def add_result(self, page: int, result: StepResult) -> bool:
        """Take the result of a page; returns whether the file is finished."""
        self.results[page] = result
        pages = self.page_photos
        if self.bad is not None or len(self.results) < len(pages):
            return False
        results = [self.results[number] for number in range(len(pages))]
        self.result = result if len(pages) == 1 else _joined(pages, results)
        self.results = {}
        return True

    def release(self) -> None:
        """Free bytes and pixels, although the task may still be referenced."""
        self.data = b""
        self.file = None
        self.photo = None
        self.result = None

    def ledger_row(self) -> LedgerRow:
        """Return the ledger row of a finished input."""
        item = self.planned.item
        scores = ImageScores() if self.result is None else self.result.scores
        row = LedgerRow(
            path=item.path,
            status=DONE,
            reason="",
            detail="",
            bytes_in=item.size or len(self.data),
            bytes_out=self.bytes_out,
            modified=item.modified,
            container=item.container,
            position=item.position,
            output=self.output,
            also=self.also,
            sha256=self.sha256,
            not_kept=self.not_kept,
            finished=datetime.now(UTC),
            **vars(self.times),
            **vars(scores),
        )
        if self.bad is not None:
            row.status = FAILED
            row.reason = self.bad.reason
            row.detail = self.bad.detail[:_MAX_DETAIL]
        elif self.result is not None and self.result.skipped:
            row.status = SKIPPED
            row.reason = self.result.skipped
        if self.photo is not None:
            row.height, row.width, row.channels = self.photo.pixels.shape
            row.format = self.photo.format
            row.depth = self.photo.depth
            row.pages = 1 + len(self.photo.pages)
            row.salvaged = "; ".join(_salvaged_of(self.photo))[:_MAX_DETAIL]
            if self.bad is None:
                photo = self.photo
                notes = (*_other_ending(item.path, photo), *_notes_of(photo))
                row.detail = "; ".join(notes)[:_MAX_DETAIL]
        return row


class OutputWriter:
    """Writes results to a sink and a table. Any thread may write; one thread commits while none writes.

    Args:
        settings: settings of the files.
        sink: sink of the images.
        table: sink of the step's rows, if it has any.
    """

    def __init__(self, settings: WriteSettings, sink: Sink, table: TableSink | None) -> None:
        self._settings = settings
        self._sink = sink
        self._table = table

    def write(self, task: ImageTask) -> ImageTask:
        """Encode and write the results of an input; failures are recorded in the task."""
        assert task.result is not None
        row = task.result.row
        try:
            for path, image in self._outputs(task, task.result):
                self._put(task, path, image)
            if row is not None and self._table is not None:
                self._table.add({"path": task.planned.item.path, **row})
                task.bytes_out += sum(_value_bytes(value) for value in row.values())
        except BadImage as bad:
            task.bad = bad
        except OSError as error:
            task.bad = BadImage("unwritable", error.strerror or str(error))
        return task

    def commit(self, key: str) -> None:
        """Commit everything written since the last commit."""
        self._sink.commit(key)
        if self._table is not None:
            self._table.commit(key)

    def discard(self) -> None:
        """Discard everything written since the last commit."""
        self._sink.discard()
        if self._table is not None:
            self._table.discard()

    def _outputs(self, task: ImageTask, result: StepResult) -> Iterator[tuple[str, Photo | bytes]]:
        """Return the images to write, and their paths."""
        output = task.planned.output
        first = self._copy(task, result) or result.photo
        if first is not None:
            yield output, first
        for behind, photo in result.also.items():
            yield short_name(f"{output}{behind}{PurePosixPath(output).suffix}"), photo

    def _copy(self, task: ImageTask, result: StepResult) -> Photo | bytes | None:
        """Return the output of an unchanged input: its bytes, unless settings ask for another file."""
        before, data = task.photo, result.copy
        if before is None:
            return data
        after = before if data is not None else result.photo
        if after is not None and is_same_file(before, after, self._settings, task.planned.output):
            return data or task.data
        return before if data is not None else None

    def _encode(self, photo: Photo, path: str) -> WrittenPhoto:
        """Encode a result; whatever is odd in it fails only this image."""
        try:
            return write_photo(photo, self._settings, path)
        except BadImage:
            raise
        except Exception as error:
            detail = f"its result cannot be encoded: {type(error).__name__}: {error}".split("\n")[0]
            raise BadImage("step-error", detail) from error

    def _put(self, task: ImageTask, path: str, image: Photo | bytes) -> None:
        began = time.perf_counter()
        if isinstance(image, bytes):
            data = image
        else:
            written = self._encode(image, path)
            data = written.data
            task.not_kept = task.not_kept or written.not_kept
        encoded = time.perf_counter()
        written_to = self._sink.put(path, data, task.planned.item.path)
        ended = time.perf_counter()
        times = task.times
        times.encode_ms = (times.encode_ms or 0.0) + (encoded - began) * 1e3
        times.write_ms = (times.write_ms or 0.0) + (ended - encoded) * 1e3
        task.bytes_out += len(data)
        if task.output:
            task.also.append(written_to)
        else:
            task.output = written_to
            task.sha256 = hashlib.sha256(data).hexdigest()


class ChunkRecord:
    """Rows of an attempt at a chunk that are not committed yet, and counts that are not reported yet.

    Args:
        commit_seconds: seconds between two pieces.
        commit_piece: writes a piece of this number.
        holds_chunk: returns whether this attempt still owns the chunk.
        report: see `ReportCounts`.
        first_piece: number of the first piece.
    """

    def __init__(
        self,
        commit_seconds: float,
        commit_piece: Callable[[int, Sequence[LedgerRow]], None],
        holds_chunk: Callable[[], bool],
        report: ReportCounts,
        first_piece: int = 0,
    ) -> None:
        self._commit_seconds = commit_seconds
        self._commit_piece = commit_piece
        self._holds_chunk = holds_chunk
        self._report = report
        self._rows: list[LedgerRow] = []
        self._counts: dict[str, float] = {}
        self._piece = first_piece
        self._committed = time.monotonic()
        self._reported = self._committed
        self.stopped = False
        """Whether the attempt has to stop: by request, or because another one owns the chunk."""

    @property
    def is_commit_due(self) -> bool:
        """Return whether it is time to commit."""
        return bool(self._rows) and time.monotonic() - self._committed > self._commit_seconds

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Add the rows of finished inputs."""
        self._rows += rows
        for row in rows:
            for name, count in _counts(row).items():
                self._counts[name] = self._counts.get(name, 0.0) + count
        if time.monotonic() - self._reported > _REPORT_SECONDS:
            self._report_counts()

    def commit(self) -> None:
        """Write the rows, unless the chunk was given to another worker meanwhile."""
        self._report_counts()
        if self._rows:
            if not self._holds_chunk():
                self.stopped = True
                return
            self._commit_piece(self._piece, self._rows)
            self._rows = []
            self._piece += 1
        self._committed = time.monotonic()

    def _report_counts(self) -> None:
        if self._report(self._counts):
            self.stopped = True
        self._counts = {}
        self._reported = time.monotonic()


def _salvaged_of(photo: Photo) -> list[str]:
    """Return the notes on damage of all pages, each once."""
    return list(dict.fromkeys(note for page in (photo, *photo.pages) for note in page.salvaged))


def _notes_of(photo: Photo) -> list[str]:
    """Return the notes of all pages, each once."""
    return list(
        dict.fromkeys(note for page in (photo, *photo.pages) for note in (*page.salvaged, *page.notes))
    )


def _joined(pages: Sequence[Photo | None], results: Sequence[StepResult]) -> StepResult:
    """Return the result for a file from those of its pages; of scores the mean, or the commonest."""
    changed = []
    also: dict[str, Photo] = {}
    for number, (page, result) in enumerate(zip(pages, results, strict=True)):
        after = result.photo or page
        assert after is not None
        changed.append(after)
        for behind, photo in result.also.items():
            also[f"{behind}-{number + 1}" if number else behind] = photo
    scores: dict[str, Any] = {}
    for name in vars(ImageScores()):
        values = [value for result in results if (value := getattr(result.scores, name)) is not None]
        if values and isinstance(values[0], str):
            scores[name] = max(values, key=values.count)
        else:
            scores[name] = sum(values) / len(values) if values else None
    is_unchanged = all(result.skipped for result in results)
    return StepResult(
        photo=replace(changed[0], pages=tuple(changed[1:])),
        copy=results[0].copy if is_unchanged else None,
        also=also,
        scores=ImageScores(**scores),
        skipped=results[0].skipped if is_unchanged else "",
    )


def _other_ending(path: str, photo: Photo) -> tuple[str, ...]:
    """Return a note if the ending of a name is that of another format than the content."""
    kind = kind_of_name(path)
    if kind is None or not photo.format or kind.name.removeprefix("big") == photo.format:
        return ()
    return (f"the content is {KINDS[photo.format].title}, the ending that of {kind.title}",)


def _counts(row: LedgerRow) -> dict[str, float]:
    counts = {row.status: 1.0, "bytes_in": row.bytes_in or 0, "bytes_out": row.bytes_out or 0}
    if row.reason == "step-error":
        counts["errors"] = 1.0
    for name in TIMES:
        milliseconds = getattr(row, name)
        if milliseconds is not None:
            counts[name] = milliseconds
    return counts


def _value_bytes(value: Any) -> int:
    return len(value) if isinstance(value, bytes | str) else int(getattr(value, "nbytes", 8))
