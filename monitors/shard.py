"""A shard: some of the streams, from their source to alarms. It works when it is asked what is new, so that
one who cannot keep up with its answers slows the source down and nothing piles up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from genray.bundle import load_bundle
from monitors.chunk import Chunk
from monitors.ecg_settings import EcgSettings
from monitors.feed import Feed
from monitors.observation import Transition
from monitors.pseudonym import Pseudonyms
from monitors.scoring import Scorer
from monitors.sources import make_source
from monitors.ward import Round, Ward

_PERIOD = 0.1  # s between looks, where little comes
_WAITING = 512  # streams with a hop that waits, from which it is looked at once
_TICK = 1.0  # s


@dataclass
class Report:
    """What is new in a shard.

    Attributes:
        found: what came of the samples.
        faults: what was wrong with messages, by source and reason.
        connected: whether the source is there.
        streams: that are watched; `refused`: chunks of streams that were one too many.
        steps: seconds that each step took.
        place: from where the source would go on.
        over: whether the source has ended, and all of it was looked at.
    """

    found: Round
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    connected: Mapping[str, bool] = field(default_factory=dict)
    streams: int = 0
    refused: int = 0
    steps: list[float] = field(default_factory=list)
    place: Mapping[str, Any] = field(default_factory=dict)
    over: bool = False


class Shard:
    """One part of the streams, in a running event loop.

    Args:
        settings: of the monitor.
        key: of the pseudonyms.
        part: number of this shard and of all: a stream belongs to one by the checksum of its name.
        references: of patients, that were kept; alarms: that were open.
        place: from where its source goes on.
    """

    def __init__(
        self,
        settings: EcgSettings,
        key: bytes,
        part: tuple[int, int] = (0, 1),
        references: Mapping[str, bytes] | None = None,
        alarms: Sequence[Transition] = (),
        place: Mapping[str, Any] | None = None,
    ) -> None:
        # Networks of beats are small: threads would only get into each other's way.
        torch.set_num_threads(1)
        pseudonyms = Pseudonyms(key)
        special = {pseudonyms.of(name): limits for name, limits in settings.limits_of_patients().items()}
        self._ward = Ward(
            settings.ward,
            Scorer(load_bundle(Path(settings.bundle))),
            lambda stream: special.get(stream, settings.alarms),
            references,
            alarms,
        )
        self._source = make_source(settings.source)
        self._feed = Feed(self._source, self._deliver, self._fault, settings.feed, pseudonyms, _mine(*part))
        self._place = place
        self._faults: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._task: asyncio.Task[None] | None = None
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._ticked = time.monotonic()

    async def collect(self) -> Report:
        """Look at what has come, waiting a moment for it; the first call opens the source.

        Raises:
            GenrayError: the source can never be opened.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._feed.run(self._place))
            self._task.add_done_callback(lambda task: self._wake.set())
        try:
            async with asyncio.timeout(_PERIOD):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        over = self._task.done()
        if over:
            self._task.result()
        began = time.monotonic()
        found = self._ward.step(began)
        now = time.monotonic()
        if now - self._ticked >= _TICK:
            self._ticked = now
            found.add(self._ward.tick(now))
        self._room.set()
        # A source that is over has no more to wake us with, but hops may wait.
        if over and self._ward.waiting:
            self._wake.set()
        faults, self._faults = self._faults, Counter()
        faults.update({("order", reason): count for reason, count in found.faults.items()})
        refused, self._refused = self._refused, 0
        return Report(
            found=found,
            faults=faults,
            connected={self._source.name: self._feed.connected},
            streams=len(self._ward),
            refused=refused,
            steps=[now - began] if found.readings else [],
            place=dict(self._feed.snapshot()),
            over=over and not self._ward.waiting,
        )

    def watch(self, streams: frozenset[str]) -> None:
        """Give traces and beats of these streams."""
        self._ward.watched = streams

    def acknowledge(self, alarm: str) -> list[Transition]:
        """See `Ward.acknowledge`."""
        return self._ward.acknowledge(alarm)

    async def close(self) -> None:
        """Let go of the source."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _deliver(self, chunk: Chunk) -> None:
        if not self._ward.push(chunk, time.monotonic()):
            self._refused += 1
        if self._ward.waiting >= _WAITING:
            self._room.clear()
            self._wake.set()
            await self._room.wait()

    def _fault(self, reason: str, count: int) -> None:
        self._faults[self._source.name, reason] += count


def _mine(number: int, of: int) -> Callable[[str], bool] | None:
    return None if of == 1 else lambda stream: crc32(stream.encode()) % of == number
