"""Pace at which the chunks of many streams are due, for sources that generate or replay samples."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import NamedTuple

_MOST = 256  # chunks that are returned at once
_COARSEST = 0.02  # seconds; streams that are due within it are returned together


class ChunkPlace(NamedTuple):
    """Place of a chunk among all: its number in its stream, and the number of the stream."""

    chunk: int
    stream: int


FIRST_CHUNK = ChunkPlace(0, 0)


@dataclass
class Pace:
    """Goes through the chunks of streams: the first of each stream in turn, then the second of each.

    A chunk is due when its last sample is over, and the streams are spread evenly over the seconds of a
    chunk, like those of real bedside monitors.

    Attributes:
        streams: number of streams.
        seconds: seconds of a chunk.
        speed: seconds of samples per second; 0: everything is due at once.
        first: number of chunks, of all streams, before the first one.
        began: monotonic time at which it began, seconds.
        next: number of chunks, of all streams, before the next one.
    """

    streams: int
    seconds: float
    speed: float
    first: int
    began: float
    next: int

    @classmethod
    def begin(cls, streams: int, seconds: float, speed: float, place: ChunkPlace = FIRST_CHUNK) -> Pace:
        """Start now, with the chunk at `place`."""
        first = place.chunk * streams + place.stream
        return cls(streams, seconds, speed, first, time.monotonic(), first)

    @property
    def place(self) -> ChunkPlace:
        """Place of the next chunk."""
        return ChunkPlace(*divmod(self.next, self.streams))

    async def due(self) -> list[ChunkPlace]:
        """Wait until a chunk is due; return the chunks that are, at most one of each stream. They are
        returned again until the pace is advanced beyond them."""
        if self.speed:
            await asyncio.sleep(max(0.0, self._due_at(self.next) - time.monotonic()))
        stop = self.next + 1
        most = min(self.streams, _MOST)
        now = time.monotonic() + _COARSEST
        while stop - self.next < most and (not self.speed or self._due_at(stop) <= now):
            stop += 1
        return [ChunkPlace(*divmod(number, self.streams)) for number in range(self.next, stop)]

    def advance(self, chunks: int) -> None:
        """Advance by `chunks` chunks that were delivered or do not exist."""
        self.next += chunks

    def _due_at(self, number: int) -> float:
        return self.began + ((number - self.first) / self.streams + 1) * self.seconds / self.speed
