"""What tests of sources send, and who takes in what a feed delivers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import numpy as np

from monitors.sources.base import EcgSource
from monitors.sources.feed import Feed, FeedSettings
from monitors.sources.message import Chunk
from monitors.sources.pseudonyms import Pseudonyms

KEY = Pseudonyms(b"a key for tests only")
START = 1_700_000_000.0


def chunk(sequence: int = 0, *, stream: str = "bed-17", rate: float = 360.0, seconds: float = 1.0) -> Chunk:
    """The message `sequence` of a stream of two leads whose samples count from its beginning."""
    count = round(rate * seconds)
    first = sequence * count
    samples = np.arange(first, first + count)[:, None] + [0, 7]
    return Chunk(
        stream=stream,
        sequence=sequence,
        start=START + sequence * seconds,
        rate=rate,
        leads=("MLII", "V5"),
        gains=(200.0, 200.0),
        samples=(samples % 30_000).astype(np.int16),
    )


class FeedWatcher:
    """Takes what a feed of `source` delivers, and lets a test wait for it."""

    def __init__(self, source: EcgSource, accepts: Callable[[str], bool] | None = None) -> None:
        self.chunks: list[Chunk] = []
        self.faults: Counter[str] = Counter()
        self._changed = asyncio.Event()
        settings = FeedSettings(first_wait=0.05, longest_wait=0.2)
        self.feed = Feed(source, self._deliver, self._fault, settings, KEY, accepts)

    async def _deliver(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._changed.set()

    def _fault(self, reason: str, count: int) -> None:
        self.faults[reason] += count
        self._changed.set()

    async def until(self, happened: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until `happened`, which is asked after each chunk, each fault, and from time to time."""
        async with asyncio.timeout(seconds):
            while not happened():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.02)
                except TimeoutError:
                    continue

    @property
    def sequences(self) -> list[int]:
        return [each.sequence for each in self.chunks]
