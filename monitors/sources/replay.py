"""Recorded ECG as if it were live, for trying a monitor out and for measuring it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

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
from monitors.sources.pace import Pace

_LOG = logging.getLogger(__name__)
_AHEAD = 10.0  # seconds of each stream that are read at once, at least
_LONGEST_NAME = 120
_WHERE = "source.path"


class ReplaySettings(Settings):
    """Settings of recorded streams."""

    kind: Literal["replay"] = Field("replay", description="recorded ECG: WFDB, EDF, BDF or CSV")
    path: Location = Field("data/ecg", description="a record, or a folder of them")
    speed: float = Field(
        1.0, ge=0, le=10_000, description="seconds of samples in a second; 0: as fast as they are taken"
    )
    streams: int | None = Field(
        None, ge=1, le=100_000, description="repeat the records to have so many streams; null: one for each"
    )
    loop: bool = Field(False, description="begin a record again when it ends")
    chunk_seconds: float = Field(1.0, ge=0.1, le=10, description="of samples in each message")
    start: float | None = Field(
        None, ge=0, le=4e9, description="unix time of the first sample; null: when it is opened"
    )
    csv_rate: float | None = Field(
        None, ge=50, le=4000, description="samples a second of CSV files without a column `time`"
    )


class ReplaySource:
    """Replays all records at once. The n-th chunk of a stream begins n chunks after `start`, whatever else
    is replayed, so that a replay with the same `start` has the same times.

    Attributes:
        faults: records that were left out, each said once; its text names files, so it is not logged.
    """

    name = "replay"

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self.faults: list[DataError] = []
        self._streams: list[_Stream] = []
        self._names = ""
        self._pace = Pace(1, 1.0, 0)
        self._start = 0.0

    @property
    def left_out(self) -> Sequence[str]:
        """Records that cannot be read, or not to their end, and why."""
        return [str(error) for error in self.faults]

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Open the records; those that cannot be read are left out.

        Raises:
            DataError: there are no records, or none can be read.
        """
        self._streams = await asyncio.to_thread(self._open)
        self._names = _names(self._streams)
        start, place = self._settings.start, (0, 0)
        if resume:
            start = float(resume["start"])
            same = resume.get("names") == self._names
            place = int(resume["chunk"]), int(resume["stream"]) if same else 0
        self._start = time.time() if start is None else start
        self._pace = Pace(len(self._streams), self._settings.chunk_seconds, self._settings.speed, place)

    async def next(self) -> list[Chunk]:
        """The chunks that are due.

        Raises:
            EndOfSource: all records are over.
        """
        while True:
            number, _ = self._pace.place
            if all(stream.over(number) for stream in self._streams):
                raise EndOfSource
            places = await self._pace.due()
            wanted = [(n, self._streams[s]) for n, s in places if not self._streams[s].over(n)]
            if not all(stream.holds(n) for n, stream in wanted):
                read = await asyncio.to_thread(_read_ahead, wanted)
                for stream, held in read:
                    self._keep(stream, held)
            self._pace.passed(len(places))
            chunks = [stream.chunk(n, self._start) for n, stream in wanted if not stream.over(n)]
            if chunks:
                return chunks

    def snapshot(self) -> Mapping[str, Any]:
        """The chunk and stream that come next, and the time of the first sample. Streams are named by their
        files, which may name patients: so it has a number, and a checksum of all names."""
        if not self._streams:
            return {}
        number, stream = self._pace.place
        return {"start": self._start, "chunk": number, "stream": stream, "names": self._names}

    async def close(self) -> None:
        """Let go of the records."""
        self._streams = []

    def _open(self) -> list[_Stream]:
        settings = self._settings
        root, paths = _paths(settings)
        records: dict[str, EcgRecord] = {}
        self.faults = []
        for path in paths:
            try:
                record = open_record(path, rate=settings.csv_rate)
            except DataError as error:
                self.faults.append(error)
                continue
            records[_stream_name(path, root, records)] = record
        if not records:
            raise _none(self.faults)
        if self.faults:
            _LOG.warning("%d of %d records cannot be read and are left out", len(self.faults), len(paths))
        named = list(records.items())
        wanted = settings.streams or len(named)
        return [
            _Stream(n, f"{name}#{n // len(named) + 1}" if n >= len(named) else name, record, settings)
            for n, (name, record) in ((n, named[n % len(named)]) for n in range(wanted))
        ]

    def _keep(self, stream: _Stream, held: tuple[int, NDArray[np.int16]] | DataError) -> None:
        if isinstance(held, DataError):
            stream.broken = True
            self.faults.append(held)
            _LOG.warning("a record cannot be read any more; its stream ends")
        else:
            stream.held = held


class _Stream:
    """A record under a name, with the samples that were read ahead.

    Attributes:
        held: number of the first sample that is held, counting on when the record begins again, and them.
        broken: whether it could not be read any more.
    """

    def __init__(self, number: int, name: str, record: EcgRecord, settings: ReplaySettings) -> None:
        self.name = name
        self.record = record
        self.held: tuple[int, NDArray[np.int16]] = 0, np.empty((0, len(record.leads)), np.int16)
        self.broken = False
        self._seconds = settings.chunk_seconds
        self._end = math.inf if settings.loop else record.samples
        # Streams take turns in reading, so that no second has all the work.
        self._ahead = max(1, math.ceil(_AHEAD / self._seconds))
        self._turn = number % self._ahead

    def over(self, number: int) -> bool:
        """Whether there is no chunk `number`."""
        return self.broken or self._bounds(number)[0] >= self._end

    def holds(self, number: int) -> bool:
        """Whether the samples of chunk `number` were read."""
        first, samples = self.held
        start, stop = self._bounds(number)
        return first <= start and stop <= first + len(samples)

    def read(self, number: int) -> tuple[int, NDArray[np.int16]]:
        """The samples of chunk `number` and some after it, and the number of the first."""
        start, _ = self._bounds(number)
        _, stop = self._bounds(number + self._ahead - 1 - (number + self._turn) % self._ahead)
        parts, at, size = [], start, self.record.samples
        while at < stop:
            parts.append(self.record.read(at % size, min(at % size + stop - at, size)))
            at += len(parts[-1])
        return start, np.concatenate(parts)

    def chunk(self, number: int, begin: float) -> Chunk:
        """Chunk `number` of a replay whose first sample has the unix time `begin`."""
        record, (first, samples) = self.record, self.held
        start, stop = self._bounds(number)
        return Chunk(
            stream=self.name,
            sequence=number,
            start=begin + start / record.rate,
            rate=record.rate,
            leads=record.leads,
            gains=record.gains,
            samples=samples[start - first : stop - first],
        )

    def _bounds(self, number: int) -> tuple[int, int]:
        step = self._seconds * self.record.rate
        return round(number * step), int(min(round((number + 1) * step), self._end))


def check_replay(settings: ReplaySettings) -> None:
    """Find out, before anything starts, that nothing can be replayed.

    Raises:
        DataError: there are no records, or none can be read.
    """
    faults: list[DataError] = []
    for path in _paths(settings)[1]:
        try:
            open_record(path, rate=settings.csv_rate)
        except DataError as error:
            faults.append(error)
        else:
            return
    raise _none(faults)


def _paths(settings: ReplaySettings) -> tuple[Path, list[Path]]:
    """What `path` names, and the records that are there."""
    path = settings.path
    if "://" in path:
        raise DataError(f"only local records are replayed, not {path}", where=_WHERE, hint="copy them first")
    root = Path(path).expanduser()
    if root.is_dir():
        if found := find_records(root):
            return root, found
        hint = "it needs .hea, .edf, .bdf or .csv files"
        raise DataError(f"there are no records in the folder {path}", where=_WHERE, hint=hint)
    # Records of WFDB are named without a suffix.
    if root.exists() or root.with_name(f"{root.name}.hea").exists():
        return root, [root]
    raise DataError(f"{path} does not exist", where=_WHERE, hint="give a record, or a folder of records")


def _none(faults: Sequence[DataError]) -> DataError:
    """That none of the records can be read, by the first."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more cannot be read)" if len(faults) > 1 else ""
    return DataError(first.what + more, where=first.where, hint=first.hint)


_Held = tuple[int, NDArray[np.int16]] | DataError


def _read_ahead(wanted: list[tuple[int, _Stream]]) -> list[tuple[_Stream, _Held]]:
    read: dict[_Stream, _Held] = {}
    for number, stream in wanted:
        if stream not in read and not stream.holds(number):
            try:
                read[stream] = stream.read(number)
            except DataError as error:
                read[stream] = error
    return list(read.items())


def _names(streams: Sequence[_Stream]) -> str:
    names = "\n".join(stream.name for stream in streams)
    return blake2b(names.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _stream_name(path: Path, root: Path, taken: Mapping[str, Any]) -> str:
    inside = path.relative_to(root) if root != path else Path(path.name)
    name = inside.with_suffix("").as_posix()
    if name in taken:  # a record in two formats
        name = inside.as_posix()
    return printable(name)[-_LONGEST_NAME:]
