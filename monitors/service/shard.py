"""A shard: some of the streams, from their source to alarms. It works when it is asked what is new, so that
one who cannot keep up with its answers slows the source down and nothing piles up."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from genray.bundle import load_bundle
from monitors.alarms.events import Transition
from monitors.patient.output import WardOutput
from monitors.patient.resume import WARM_UP, Resumption
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward
from monitors.settings import EcgSettings
from monitors.sources import make_source
from monitors.sources.feed import Feed
from monitors.sources.message import Chunk
from monitors.sources.pseudonyms import Pseudonyms

_PERIOD = 0.1  # s between looks, where samples come no faster than they are looked at
_MOST = 3.0  # s of samples of each stream that may wait; then the source waits
_TICK = 1.0  # s
_PLACES = 2.0  # s of samples between places that are remembered
_PARTS = 12  # references follow their patients: each time places are kept, so are those of every twelfth bed


@dataclass(frozen=True)
class Start:
    """With what a shard begins.

    Attributes:
        references: of patients, that were kept.
        alarms: that are open.
        place: from where its source goes on; empty: from where that begins by itself.
        states: of the alarms of streams, that belong to `place`.
    """

    references: Mapping[str, bytes] = field(default_factory=dict)
    alarms: Sequence[Transition] = ()
    place: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class ShardReport:
    """What is new in a shard.

    Attributes:
        found: what came of the samples.
        faults: what was wrong with messages, by source and reason.
        connected: whether the source is there.
        streams: that are watched; `refused`: chunks of streams that were one too many.
        steps: seconds that each step took.
        place: from where the source would go on, so that no sample is missed; empty: it keeps none.
        states: of alarms, to be kept with the place: of streams where they changed, or of all.
        left_out: what of the source cannot be read.
        over: whether the source has ended, and all of it was looked at.
        process: of the system, in which the shard is.
    """

    found: WardOutput
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    connected: Mapping[str, bool] = field(default_factory=dict)
    streams: int = 0
    refused: int = 0
    steps: list[float] = field(default_factory=list)
    place: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, bytes] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    over: bool = False
    process: int = field(default_factory=os.getpid)


class Shard:
    """One part of the streams, in a running event loop.

    Args:
        settings: of the monitor.
        key: of the pseudonyms.
        part: number of this shard and of all: a stream belongs to one by the hash of its name.
        start: what it goes on with.
    """

    def __init__(
        self, settings: EcgSettings, key: bytes, part: tuple[int, int] = (0, 1), start: Start | None = None
    ) -> None:
        # Networks of beats are small: threads would only get into each other's way.
        torch.set_num_threads(1)
        start = start or Start()
        pseudonyms = Pseudonyms(key)
        self._ward = Ward(
            settings.ward,
            BeatModel.from_bundle(load_bundle(Path(settings.bundle))),
            settings.limits_by(pseudonyms.of),
            start.references,
            Resumption.from_kept(start.alarms, start.states if start.place else None),
        )
        self._source = make_source(settings.source)
        self._feed = Feed(self._source, self._deliver, self._fault, settings.feed, pseudonyms, _mine(*part))
        self._start = start.place
        self._places: deque[tuple[float, Mapping[str, Any]]] = deque()  # and when, by samples
        self._faults: Counter[tuple[str, str]] = Counter()
        self._refused = self._told = 0
        self._taken = 0.0  # s of samples of a stream, on average
        self._new = 0.0  # s of samples of all streams since the last look
        self._answers = WardOutput()
        self._task: asyncio.Task[None] | None = None
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._ticked = time.monotonic()
        self._part = 0

    async def collect(self, keep: bool = False) -> ShardReport:
        """Look at what has come, waiting a moment for it; the first call opens the source.

        Args:
            keep: give the states of all streams, to be kept, and the references of some.

        Raises:
            GenrayError: the source can never be opened.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._feed.run(self._start))
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
            found.extend(self._ward.tick(now))
        if keep:
            self._part = (self._part + 1) % _PARTS
            found.references |= self._ward.references(self._part, _PARTS)
        # What was answered came before this step.
        answers, self._answers = self._answers, WardOutput()
        found.transitions[:0] = answers.transitions
        found.discharged[:0] = answers.discharged
        if self._ward.waiting:
            self._wake.set()
        else:
            self._new = 0.0
            self._room.set()
            self._remember()
        return self._report(found, now - began, over and not self._ward.waiting, keep)

    def _report(self, found: WardOutput, seconds: float, over: bool, keep: bool) -> ShardReport:
        faults, self._faults = self._faults, Counter()
        faults.update({("order", reason): count for reason, count in found.faults.items()})
        refused, self._refused = self._refused, 0
        left_out = self._source.left_out[self._told :]
        self._told += len(left_out)
        place = self._places[0][1] if self._places else {}
        changed = self._ward.streams if keep else [each.stream for each in found.transitions]
        return ShardReport(
            found=found,
            faults=faults,
            connected={self._source.name: self._feed.connected},
            streams=len(self._ward),
            refused=refused,
            steps=[seconds] if found.readings else [],
            place=place,
            states=self._ward.states(changed) if place else {},
            left_out=left_out,
            over=over,
        )

    def _remember(self) -> None:
        """Where the source is, now that all that it gave was looked at."""
        at, place = self._taken, self._feed.snapshot()
        if place and (not self._places or at - self._places[-1][0] >= _PLACES):
            self._places.append((at, dict(place)))
        while len(self._places) > 1 and self._places[1][0] <= at - WARM_UP:
            self._places.popleft()

    def watch(self, streams: frozenset[str]) -> None:
        """Give traces and beats of these streams."""
        self._ward.watched = streams

    def acknowledge(self, alarm: str) -> bool:
        """See `Ward.acknowledge`; what changes is in the next report, in its order."""
        changes = self._ward.acknowledge(alarm)
        self._answers.transitions += changes
        self._wake.set()
        return bool(changes)

    def discharge(self, stream: str) -> bool:
        """See `Ward.discharge`; what changes is in the next report. False if it was not watched."""
        watched = stream in self._ward
        made = self._ward.discharge(stream)
        if watched:  # else whoever knows of it tells it, for other shards may know as much
            self._answers.extend(made)
            self._wake.set()
        return watched

    async def close(self) -> None:
        """Let go of the source."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _deliver(self, chunk: Chunk) -> None:
        if not self._places:
            self._remember()  # where the source began
        if not self._ward.push(chunk, time.monotonic()):
            self._refused += 1
            return
        seconds = len(chunk.samples) / chunk.rate
        self._taken += seconds / len(self._ward)
        self._new += seconds
        if self._ward.waiting and self._new >= _MOST * len(self._ward):
            self._room.clear()
            self._wake.set()
            await self._room.wait()

    def _fault(self, reason: str, count: int) -> None:
        self._faults[self._source.name, reason] += count


def _mine(number: int, of: int) -> Callable[[str], bool] | None:
    if of == 1:
        return None

    @lru_cache(maxsize=65_536)
    def mine(stream: str) -> bool:
        # Not a checksum: that of names that differ in a digit is often the same in its last bits.
        return int.from_bytes(blake2b(stream.encode(), digest_size=8).digest()) % of == number

    return mine
