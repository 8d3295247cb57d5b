"""Shard: analyses a part of the streams, from the source to alarms. It works when it is asked for a report,
so that a monitor that is too slow slows the source down and no samples pile up."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Self

import torch

from genray.bundle import load_bundle
from monitors.alarms.events import Transition
from monitors.patient.output import SavedBed, WardOutput
from monitors.patient.resume import WARM_UP, Resumption
from monitors.patient.rhythm.ventricular import RhythmModel
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward
from monitors.service.newcomers import Newcomers
from monitors.settings import EcgSettings
from monitors.sources import make_source
from monitors.sources.base import EcgSource
from monitors.sources.demo import DemoSettings
from monitors.sources.feed import Feed, FeedSettings
from monitors.sources.message import Chunk
from monitors.sources.pseudonyms import Pseudonyms
from monitors.sources.replay import ReplaySettings

_STEP_PERIOD = 0.1  # s between steps while the analysis keeps up with the samples
_MOST_WAITING = 3.0  # s of samples of each stream that may wait; beyond it the source waits
_TICK_PERIOD = 1.0  # s
_PAUSE = 2.0  # s by which a tick may be late; beyond it this process was paused, or too busy to read
_PLACE_PERIOD = 2.0  # s of samples between stored places
_SAVE_SECONDS = 20.0  # of samples after which all beds are saved, at a replay that is faster than the clock
_BEDS_PER_SAVE = 64  # beds that are saved together; more take turns
_MOST_TURNS = 12


@dataclass(frozen=True)
class Partition:
    """Number of a shard among all: a stream belongs to one shard by the hash of its name."""

    number: int = 0
    count: int = 1

    def stream_filter(self) -> Callable[[str], bool] | None:
        """Return a function that says whether a stream, by its source's name, belongs here; None: all do."""
        if self.count == 1:
            return None

        @lru_cache(maxsize=65_536)
        def belongs(stream: str) -> bool:
            # Not a CRC: for names that differ in one digit its last bits are often equal.
            digest = blake2b(stream.encode(), digest_size=8).digest()
            return int.from_bytes(digest) % self.count == self.number

        return belongs


@dataclass(frozen=True)
class Start:
    """Initial state of a shard.

    Attributes:
        references: saved references of patients, by stream.
        alarms: open alarms.
        place: place at which its source resumes; empty: the source starts where its settings say.
        alarm_states: saved alarm states that belong to `place`, by stream.
        expected: streams that were monitored before, for which the ward keeps a place.
    """

    references: Mapping[str, bytes] = field(default_factory=dict)
    alarms: Sequence[Transition] = ()
    place: Mapping[str, Any] = field(default_factory=dict)
    alarm_states: Mapping[str, bytes] = field(default_factory=dict)
    expected: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """Streams of which a state is saved."""
        alarmed = (alarm.stream for alarm in self.alarms)
        return frozenset((*self.references, *self.alarm_states, *alarmed))


@dataclass(frozen=True)
class Moment:
    """What a restart needs, as of one moment; it is saved together or not at all.

    Attributes:
        beds: state of streams: of those whose alarms changed, or of many.
        place: place of the source that is older than the states of all streams; None: no new one.
    """

    beds: Mapping[str, SavedBed] = field(default_factory=dict)
    place: Mapping[str, Any] | None = None


@dataclass
class ShardReport:
    """Report of a shard: everything new since the last one.

    Attributes:
        output: output of the ward.
        faults: number of faults of messages, by source and reason.
        connected: whether the source is connected, by its name.
        streams: number of monitored streams.
        refused: number of chunks of streams beyond the most that are allowed.
        named_once: number of stream names of which a second message did not arrive.
        steps: seconds that each step took.
        place: place at which the source must resume so that no sample is missed; empty: it has none.
        moment: what to save for a restart.
        left_out: parts of the source that cannot be read, for a person.
        over: whether the source has ended and all of its samples were analysed.
        process: process id of the shard.
    """

    output: WardOutput
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    connected: Mapping[str, bool] = field(default_factory=dict)
    streams: int = 0
    refused: int = 0
    named_once: int = 0
    steps: list[float] = field(default_factory=list)
    place: Mapping[str, Any] = field(default_factory=dict)
    moment: Moment = field(default_factory=Moment)
    left_out: Sequence[str] = ()
    over: bool = False
    process: int = field(default_factory=os.getpid)


@dataclass(frozen=True, slots=True)
class _Place:
    """Place of the source when streams had `seconds` of samples on average."""

    seconds: float
    value: Mapping[str, Any]


class Shard:
    """Analyses one part of the streams in a running event loop.

    It is responsible for:

    - feeding the ward from the source, and making the source wait while too many samples wait in the ward,
    - places in the ward: new names do not take those of known streams,
    - running the ward when a report is asked for,
    - the place at which the source must resume: a warm-up before the samples that were analysed,
    - commands to the ward, whose effects are in the next report.

    It leaves the analysis to `Ward`, the connection to `Feed`, and storing and sending to the monitor.

    Args:
        feed: settings of the reconnection to the source.
        place: place at which the source resumes; empty: it starts where its settings say.
        most_streams: most streams of the ward.
        newcomers: streams without a bed; None: each stream gets a bed at once.
    """

    def __init__(
        self,
        ward: Ward,
        source: EcgSource,
        feed: FeedSettings,
        pseudonyms: Pseudonyms,
        partition: Partition,
        place: Mapping[str, Any],
        *,
        most_streams: int,
        newcomers: Newcomers | None,
    ) -> None:
        self._ward = ward
        self._most_streams = most_streams
        self._newcomers = newcomers
        self._source = source
        self._feed = Feed(
            source, self._deliver, self._count_fault, feed, pseudonyms, partition.stream_filter()
        )
        self._feeding: asyncio.Task[None] | None = None
        self._start_place = place
        self._places: deque[_Place] = deque()
        self._faults: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._left_out_reported = 0
        self._average_seconds = 0.0  # of samples per stream
        self._waiting_seconds = 0.0  # of samples of all streams that wait for analysis
        self._commanded = WardOutput()  # effects of commands since the last report
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._ticked_at = time.monotonic()
        self._saved_seconds = 0.0  # average seconds of samples at the last save
        self._round: list[list[str]] = []  # streams that are still to be saved, by turn
        self._round_place: Mapping[str, Any] = {}  # at the first turn

    @classmethod
    def begin(
        cls,
        settings: EcgSettings,
        key: bytes,
        partition: Partition | None = None,
        start: Start | None = None,
    ) -> Self:
        """Return a shard that uses the bundle of `settings`, with the initial state `start`.

        Args:
            key: key for pseudonyms.

        Raises:
            BundleError, UsageError: the bundle or the source cannot be used.
        """
        # Beat networks are small: more threads would only slow each other down.
        torch.set_num_threads(1)
        start = start or Start()
        pseudonyms = Pseudonyms(key)
        ward = Ward(
            settings.ward,
            BeatModel.from_bundle(load_bundle(settings.bundle)),
            settings.limits_by(pseudonyms.of),
            start.references,
            Resumption.from_saved(start.alarms, start.alarm_states if start.place else None),
            RhythmModel.from_bundle(load_bundle(settings.rhythm)),
        )
        source = make_source(settings.source)
        partition = partition or Partition()
        newcomers = None
        # The names of records and generated patients come from nobody else, and a record may be one message.
        if not isinstance(settings.source, ReplaySettings | DemoSettings):
            keep_until = time.monotonic() + settings.ward.discharge_after
            newcomers = Newcomers(start.known, start.expected, partition.count, keep_until)
        return cls(
            ward,
            source,
            settings.feed,
            pseudonyms,
            partition,
            start.place,
            most_streams=settings.ward.streams,
            newcomers=newcomers,
        )

    async def collect(self, *, save: bool = False) -> ShardReport:
        """Analyse the samples that have arrived, after a short wait for them; the first call opens the
        source.

        Args:
            save: include the states of all streams, or of the next of many, to be saved.

        Raises:
            GenrayError: the source can never be opened.
        """
        source_over = await self._wait_for_samples()
        began = time.monotonic()
        output = self._ward.step(began)
        now = time.monotonic()
        if now - self._ticked_at >= _TICK_PERIOD:
            if now - self._ticked_at > _TICK_PERIOD + _PAUSE:
                self._ward.postpone(now - self._ticked_at, now)
            self._ticked_at = now
            output.extend(self._ward.tick(now))
        self._put_commanded_first(output)
        if self._ward.waiting:
            self._wake.set()
        else:
            self._waiting_seconds = 0.0
            self._has_room.set()
            self._remember_place()
        over = source_over and not self._ward.waiting
        return self._report(output, now - began, over=over, save=save)

    def show_streams(self, streams: frozenset[str]) -> None:
        """Include traces and beats of these streams in reports."""
        self._ward.watched = streams

    def acknowledge(self, alarm: str) -> bool:
        """See `Ward.acknowledge`; the change is in the next report, in its order."""
        changes = self._ward.acknowledge(alarm)
        self._commanded.transitions += changes
        self._wake.set()
        return bool(changes)

    def discharge(self, stream: str) -> bool:
        """See `Ward.discharge`; the change is in the next report. False if the stream has no bed here."""
        watched = stream in self._ward
        output = self._ward.discharge(stream)
        if watched:  # otherwise the monitor ends the alarms, as several shards may have restored them
            self._commanded.extend(output)
            self._wake.set()
        return watched

    async def close(self) -> None:
        """Close the source."""
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)

    async def _wait_for_samples(self) -> bool:
        """Wait up to 0.1 s for samples; return whether the source has ended."""
        if self._feeding is None:
            self._feeding = asyncio.create_task(self._feed.run(self._start_place))
            self._feeding.add_done_callback(lambda task: self._wake.set())
        with suppress(TimeoutError):
            async with asyncio.timeout(_STEP_PERIOD):
                await self._wake.wait()
        self._wake.clear()
        over = self._feeding.done()
        if over:
            self._feeding.result()
        return over

    def _put_commanded_first(self, output: WardOutput) -> None:
        """Insert the effects of commands before those of this step, which came later."""
        commanded = self._commanded
        self._commanded = WardOutput()
        output.transitions[:0] = commanded.transitions
        output.strips[:0] = commanded.strips
        output.discharged[:0] = commanded.discharged

    def _report(self, output: WardOutput, seconds: float, *, over: bool, save: bool) -> ShardReport:
        faults = self._faults
        self._faults = Counter()
        faults.update({("order", reason): count for reason, count in output.faults.items()})
        refused = self._refused
        self._refused = 0
        left_out = self._source.left_out[self._left_out_reported :]
        self._left_out_reported += len(left_out)
        place = self._places[0].value if self._places else {}
        return ShardReport(
            output=output,
            faults=faults,
            connected={self._source.name: self._feed.connected},
            streams=len(self._ward),
            refused=refused,
            named_once=0 if self._newcomers is None else self._newcomers.pop_named_once(time.monotonic()),
            steps=[seconds] if output.readings else [],
            place=place,
            moment=self._moment(output, save=save or over),
            left_out=left_out,
            over=over,
        )

    def _moment(self, output: WardOutput, *, save: bool) -> Moment:
        """Return what to save: the streams that `output` changed; and if it is time, those whose turn it is.
        After the last turn comes the place that the source had at the first, so that no stream has a state
        from before its place."""
        streams = {change.stream for change in output.transitions} | set(output.learned)
        turns = min(_MOST_TURNS, 1 + len(self._ward) // _BEDS_PER_SAVE)
        place = None
        if save or self._average_seconds - self._saved_seconds >= _SAVE_SECONDS / turns:
            self._saved_seconds = self._average_seconds
            if not self._round:
                self._round = [self._ward.streams[turn::turns] for turn in range(turns)]
                self._round_place = self._places[0].value if self._places else {}
            streams.update(self._round.pop())
            place = None if self._round else self._round_place
        return Moment(self._ward.saved_beds(streams), place)

    def _remember_place(self) -> None:
        """Store the place of the source, now that all of its samples were analysed."""
        now = self._average_seconds
        place = self._feed.snapshot()
        if place and (not self._places or now - self._places[-1].seconds >= _PLACE_PERIOD):
            self._places.append(_Place(now, dict(place)))
        while len(self._places) > 1 and self._places[1].seconds <= now - WARM_UP:
            self._places.popleft()

    async def _deliver(self, chunk: Chunk) -> None:
        if not self._places:
            self._remember_place()  # the start of the source
        now = time.monotonic()
        if self._newcomers is None or chunk.stream in self._ward:
            await self._push(chunk, now)
            return
        admitted = self._newcomers.admitted(chunk, now)
        # A stream known from before takes one of the places that are kept.
        room = self._most_streams - len(self._ward) - self._newcomers.kept_places(now)
        if admitted and room <= 0 and not self._newcomers.knows(chunk.stream):
            self._refused += len(admitted)
            return
        for each in admitted:
            await self._push(each, now)

    async def _push(self, chunk: Chunk, now: float) -> None:
        if not self._ward.push(chunk, now):
            self._refused += 1
            return
        seconds = len(chunk.samples) / chunk.rate
        self._average_seconds += seconds / len(self._ward)
        self._waiting_seconds += seconds
        if self._ward.waiting and self._waiting_seconds >= _MOST_WAITING * len(self._ward):
            self._has_room.clear()
            self._wake.set()
            await self._has_room.wait()

    def _count_fault(self, reason: str, count: int) -> None:
        self._faults[self._source.name, reason] += count
