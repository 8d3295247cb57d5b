"""When the chunks of many streams are due, for sources that make or replay them."""

from __future__ import annotations

import asyncio
import time

_MOST = 256  # chunks that are given at once
_COARSEST = 0.02  # seconds; streams that are due within it are given together


class Pace:
    """Walks through the chunks of streams: the first of each stream in turn, then the second of each.

    A chunk is due when its last sample is over, and the streams are spread evenly over the seconds of a
    chunk, as monitors of patients are.

    Args:
        streams: how many there are.
        seconds: of a chunk.
        speed: seconds of samples in a second; 0: everything is due at once.
        place: chunk and stream to begin with.
    """

    def __init__(self, streams: int, seconds: float, speed: float, place: tuple[int, int] = (0, 0)) -> None:
        self._streams, self._seconds, self._speed = streams, seconds, speed
        self._most = min(streams, _MOST)
        self._next = place[0] * streams + place[1]
        self._first, self._began = self._next, time.monotonic()

    @property
    def place(self) -> tuple[int, int]:
        """The chunk and the stream that come next."""
        return divmod(self._next, self._streams)

    async def due(self) -> list[tuple[int, int]]:
        """Wait until a chunk is due; then those that are, at most one of each stream. They come again until
        they are `passed`."""
        if self._speed:
            await asyncio.sleep(max(0.0, self._due(self._next) - time.monotonic()))
        last = self._next + 1
        now = time.monotonic() + _COARSEST
        while last - self._next < self._most and (not self._speed or self._due(last) <= now):
            last += 1
        return [divmod(number, self._streams) for number in range(self._next, last)]

    def passed(self, chunks: int) -> None:
        """So many chunks were given, or do not exist."""
        self._next += chunks

    def _due(self, number: int) -> float:
        return self._began + ((number - self._first) / self._streams + 1) * self._seconds / self._speed
