"""Replay of recorded ECG as if it were live, to try the monitor and to measure it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.ecg.records.base import EcgRecord
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError
from genray.settings.base import Location, Settings
from genray.text import printable
from monitors.sources.base import EndOfSource
from monitors.sources.message import Chunk
from monitors.sources.pace import FIRST_CHUNK, ChunkPlace, Pace

_LOG = logging.getLogger(__name__)
_AHEAD = 10.0  # least seconds of a stream that are read at once
_LONGEST_NAME = 120
_WHERE = "source.path"


class ReplaySettings(Settings):
    """Settings of recorded streams."""

    kind: Literal["replay"] = Field("replay", description="recorded ECG: WFDB, EDF, BDF, CSV or DICOM")
    path: Location = Field("data/ecg", description="record, or folder of records")
    speed: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="seconds of samples sent per second (0: as fast as they are analysed)",
    )
    streams: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="number of streams, with records used repeatedly or left out (null: one per record)",
    )
    loop: bool = Field(False, description="start a record again when it ends")
    chunk_seconds: float = Field(1.0, ge=0.1, le=10, description="seconds of samples per message")
    start: float | None = Field(
        None, ge=0, le=4e9, description="unix time in seconds of the first sample (null: now)"
    )
    csv_rate: float | None = Field(
        None, ge=50, le=4000, description="sampling rate in Hz of CSV files that do not say it"
    )
    leads: tuple[str, ...] = Field(
        (), description="names of the channels to read of each record ([]: those that look like an ECG)"
    )


class ReplaySource:
    """Replays all records at the same time. The n-th chunk of a stream begins n chunks after `start`,
    whatever else is replayed, so that a replay with the same `start` has the same times.

    Attributes:
        unreadable: errors of the records that were left out; their texts name files, so they are not logged.
    """

    name = "replay"

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self.unreadable: list[DataError] = []
        self._notes: list[str] = []
        self._replay: _Replay | None = None

    @property
    def left_out(self) -> Sequence[str]:
        """What is missing or assumed of records, and errors of those that cannot be read, or not to their
        end."""
        return [*self._notes, *(f"left out: {error}" for error in self.unreadable)]

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Open the records; leave out those that cannot be read.

        Raises:
            DataError: there are no records, or none can be read.
        """
        settings = self._settings
        streams = await asyncio.to_thread(self._open_streams)
        names = _checksum(streams)
        start = settings.start
        place = FIRST_CHUNK
        if resume:
            start = float(resume["start"])
            same = resume.get("names") == names
            place = ChunkPlace(int(resume["chunk"]), int(resume["stream"]) if same else 0)
        self._replay = _Replay(
            streams,
            names,
            start=time.time() if start is None else start,
            pace=Pace.begin(len(streams), settings.chunk_seconds, settings.speed, place),
        )

    async def next(self) -> list[Chunk]:
        """Wait until chunks are due, and return them.

        Raises:
            EndOfSource: all records have ended.
        """
        replay = self._replay
        assert replay is not None
        while True:
            if replay.is_over:
                raise EndOfSource
            places = await replay.pace.due()
            wanted = replay.wanted(places)
            if not all(stream.holds(number) for stream, number in wanted):
                for read in await asyncio.to_thread(_read_ahead, wanted):
                    self._keep(read)
            replay.pace.advance(len(places))
            chunks = [stream.chunk(n, replay.start) for stream, n in wanted if not stream.is_over(n)]
            if chunks:
                return chunks

    def snapshot(self) -> Mapping[str, Any]:
        """Return the next chunk and stream, and the time of the first sample. The stream is a number with a
        checksum of all names, as streams are named after files, which may name patients."""
        if self._replay is None:
            return {}
        place = self._replay.pace.place
        return {
            "start": self._replay.start,
            "chunk": place.chunk,
            "stream": place.stream,
            "names": self._replay.names,
        }

    async def close(self) -> None:
        """Close the records."""
        self._replay = None

    def _open_streams(self) -> list[RecordStream]:
        settings = self._settings
        listed = _list_records(settings)
        records: dict[str, EcgRecord] = {}
        self.unreadable = []
        self._notes = []
        for path in listed.paths:
            try:
                record = open_record(path, rate=settings.csv_rate, leads=settings.leads, pulse=True)
            except DataError as error:
                self.unreadable.append(error)
                continue
            records[_stream_name(path, listed.root, records)] = record
            self._notes += [f"{path}: {text}" for text in record.notes]
        if not records:
            raise _nothing_readable(self.unreadable)
        if self.unreadable:
            _LOG.warning(
                "%d of %d records cannot be read and were left out", len(self.unreadable), len(listed.paths)
            )
        named = list(records.items())
        streams = []
        for number in range(settings.streams or len(named)):
            name, record = named[number % len(named)]
            if number >= len(named):
                name = f"{name}#{number // len(named) + 1}"
            streams.append(RecordStream(number, name, record, settings))
        return streams

    def _keep(self, read: _Read) -> None:
        """Store the samples that were read for a stream, or end the stream after an error."""
        if isinstance(read.result, DataError):
            read.stream.broken = True
            self.unreadable.append(read.result)
            _LOG.warning("a record cannot be read to its end; its stream stops")
        else:
            read.stream.held = read.result


def check_replayable(settings: ReplaySettings) -> None:
    """Check that at least one record can be replayed.

    Raises:
        DataError: there are no records, or none can be read.
    """
    errors: list[DataError] = []
    for path in _list_records(settings).paths:
        try:
            open_record(path, rate=settings.csv_rate, leads=settings.leads, pulse=True)
        except DataError as error:
            errors.append(error)
        else:
            return
    raise _nothing_readable(errors)


@dataclass(frozen=True)
class _Replay:
    """The streams of a source that is open, and when their chunks are due.

    Attributes:
        names: checksum of the names of all streams.
        start: unix time of the first sample, seconds.
    """

    streams: list[RecordStream]
    names: str
    start: float
    pace: Pace

    @property
    def is_over(self) -> bool:
        """Whether all streams have ended."""
        number = self.pace.place.chunk
        return all(stream.is_over(number) for stream in self.streams)

    def wanted(self, places: Sequence[ChunkPlace]) -> list[_Wanted]:
        """Return the chunks that exist at `places`."""
        wanted = [_Wanted(self.streams[place.stream], place.chunk) for place in places]
        return [each for each in wanted if not each.stream.is_over(each.number)]


class _HeldSamples(NamedTuple):
    """Samples that were read ahead, (samples, leads), and the number of the first one, which counts on when
    the record starts again."""

    first: int
    samples: NDArray[np.int16]


class RecordStream:
    """Stream of a record, with the samples that were read ahead.

    Args:
        number: number of the stream among all.
        name: name of the stream.
        record: record that is replayed.
        settings: settings of the replay.

    Attributes:
        held: samples that were read ahead.
        broken: whether the rest of the record cannot be read.
    """

    def __init__(self, number: int, name: str, record: EcgRecord, settings: ReplaySettings) -> None:
        self.name = name
        self.record = record
        self.held = _HeldSamples(0, np.empty((0, len(record.leads)), np.int16))
        self.broken = False
        self._seconds = settings.chunk_seconds
        self._end = math.inf if settings.loop else record.samples
        # Streams read at different times, so that the work is spread evenly.
        self._ahead = max(1, math.ceil(_AHEAD / self._seconds))
        self._turn = number % self._ahead

    def is_over(self, number: int) -> bool:
        """Whether the stream has ended before chunk `number`."""
        return self.broken or self._bounds(number)[0] >= self._end

    def holds(self, number: int) -> bool:
        """Whether the samples of chunk `number` were read ahead."""
        first, samples = self.held
        start, stop = self._bounds(number)
        return first <= start and stop <= first + len(samples)

    def read(self, number: int) -> _HeldSamples:
        """Read the samples of chunk `number` and some after it."""
        start, _ = self._bounds(number)
        _, stop = self._bounds(number + self._ahead - 1 - (number + self._turn) % self._ahead)
        parts = []
        at, size = start, self.record.samples
        while at < stop:
            parts.append(self.record.read(at % size, min(at % size + stop - at, size)))
            at += len(parts[-1])
        return _HeldSamples(start, np.concatenate(parts))

    def chunk(self, number: int, begin: float) -> Chunk:
        """Return chunk `number` of a replay whose first sample has the unix time `begin`."""
        record = self.record
        first, samples = self.held
        start, stop = self._bounds(number)
        return Chunk(
            stream=self.name,
            sequence=number,
            start=begin + start / record.rate,
            rate=record.rate,
            leads=record.leads,
            gains=record.gains,
            kinds=record.kinds,
            samples=samples[start - first : stop - first],
        )

    def _bounds(self, number: int) -> tuple[int, int]:
        step = self._seconds * self.record.rate
        return round(number * step), int(min(round((number + 1) * step), self._end))


class _Wanted(NamedTuple):
    """A chunk that is due."""

    stream: RecordStream
    number: int


class _Read(NamedTuple):
    """Result of reading ahead for a stream."""

    stream: RecordStream
    result: _HeldSamples | DataError


def _read_ahead(wanted: Sequence[_Wanted]) -> list[_Read]:
    """Read ahead for the streams whose chunk was not read yet."""
    read: dict[RecordStream, _HeldSamples | DataError] = {}
    for stream, number in wanted:
        if stream not in read and not stream.holds(number):
            try:
                read[stream] = stream.read(number)
            except DataError as error:
                read[stream] = error
    return [_Read(stream, result) for stream, result in read.items()]


class _ListedRecords(NamedTuple):
    """Root that the settings name, and the paths of its records."""

    root: Path
    paths: list[Path]


def _list_records(settings: ReplaySettings) -> _ListedRecords:
    path = settings.path
    if "://" in path:
        raise DataError(
            f"only local records can be replayed, not {path}",
            where=_WHERE,
            hint="copy the records to this machine first",
        )
    root = Path(path).expanduser()
    if root.is_dir():
        if paths := find_records(root):
            return _ListedRecords(root, paths)
        hint = "set it to a folder with .hea, .edf, .bdf, .csv, .txt or .dcm files"
        raise DataError(f"no records in the folder {path}", where=_WHERE, hint=hint)
    # WFDB records are named without a suffix.
    if root.exists() or root.with_name(f"{root.name}.hea").exists():
        return _ListedRecords(root, [root])
    raise DataError(
        f"{path} does not exist", where=_WHERE, hint="set it to a record or to a folder of records"
    )


def _nothing_readable(errors: Sequence[DataError]) -> DataError:
    """Return the error for no readable record: that of the first, with the number of the others."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more cannot be read)" if len(errors) > 1 else ""
    return DataError(first.what + more, where=first.where, hint=first.hint)


def _checksum(streams: Sequence[RecordStream]) -> str:
    """Return a checksum of the names of all streams."""
    names = "\n".join(stream.name for stream in streams)
    return blake2b(names.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _stream_name(path: Path, root: Path, taken: Container[str]) -> str:
    inside = path.relative_to(root) if root != path else Path(path.name)
    name = inside.with_suffix("").as_posix()
    if name in taken:  # a record in two formats
        name = inside.as_posix()
    return printable(name)[-_LONGEST_NAME:]
