"""A bed: what is kept of one stream between hops."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.ecg.qrs import Decisions
from genray.ecg.quality import SignalQuality
from monitors.alarms.events import Observation, Reading, Transition
from monitors.alarms.state import AlarmState
from monitors.patient.heart_rate import HeartRate
from monitors.patient.ordering import Ordered, Sequencer
from monitors.patient.reference import Reference
from monitors.sources.message import MISSING, Chunk

_BRIDGED = 2.0  # s: a longer gap in the samples ends what came before
_SHOWN = 8  # last anomalous beats, of which an alarm shows the most unusual


@dataclass(slots=True)
class Waiting:
    """A beat whose samples are not all there yet, or that is being scored."""

    sample: int
    share: float  # of the usual interval, NaN: not known
    spread: float


@dataclass(slots=True)
class Hop:
    """A hop's samples (hop, leads) in mV, NaN where missing."""

    samples: NDArray[np.float32]
    fresh: bool  # whether it does not continue the hop before


@dataclass(slots=True)
class Bed:
    """One stream.

    Attributes:
        rows: of its leads in the arrays of its rate's ward.
        end: samples that went through, `time` the unix time just after them.
        received: when what was pushed last arrived, by the monotonic clock; `arrived`: when anything new did.
        gap: seconds of samples that went missing since the last observation.
    """

    stream: str
    rate: float
    leads: tuple[str, ...]
    rows: NDArray[np.intp]
    hop: int
    sequencer: Sequencer
    reference: Reference
    alarms: AlarmState
    decisions: Decisions
    burden_beats: int
    rhythm: HeartRate = field(default_factory=HeartRate)
    end: int = 0
    time: float = 0.0
    received: float = 0.0
    arrived: float = 0.0
    gap: float = 0.0
    beats: int = 0
    anomalous: int = 0
    fresh: bool = True
    new: bool = True
    waiting: list[Waiting] = field(default_factory=list)
    quality: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    flags: deque[bool] = field(default_factory=deque)
    shown: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_SHOWN))
    good_since: int = -1
    last_beat: int = -1
    before: tuple[NDArray[np.float32], float] | None = None
    lost: float = 0.0
    heart_rate: float | None = None
    _pending: deque[tuple[NDArray[np.float32], float]] = field(default_factory=deque)  # and its end, unix s
    _held: int = 0
    _breaks: deque[int] = field(default_factory=deque)  # where in what is held something new begins

    def fits(self, chunk: Chunk) -> bool:
        """Whether `chunk` has the leads and the rate of this bed."""
        return chunk.leads == self.leads and chunk.rate == self.rate

    def push(self, chunk: Chunk, now: float) -> None:
        """Take a chunk in that fits. One that is dropped is no sign of life: a gateway may repeat the last
        message of a device for ever."""
        held = self.sequencer.held
        taken = self.sequencer.push(chunk)
        if taken or self.sequencer.held > held:
            self.arrived, self.lost = now, 0.0
        for each in taken:
            self._take(each)

    def flush(self) -> None:
        """Wait no longer for messages that did not come."""
        for each in self.sequencer.flush():
            self._take(each)

    @property
    def ready(self) -> bool:
        """Whether a hop can be taken."""
        return self._held >= self.hop

    @property
    def held(self) -> float:
        """Seconds of samples that wait."""
        return self._held / self.rate

    def _take(self, ordered: Ordered) -> None:
        chunk, missing, restarted = ordered
        self.gap += missing
        if restarted or missing > _BRIDGED:
            if remainder := self._held % self.hop:
                count = self.hop - remainder
                self._skip(count, self._pending[-1][1] + count / self.rate)
            if self._held not in self._breaks:
                self._breaks.append(self._held)
        elif missing:
            self._skip(round(missing * self.rate), chunk.start)
        gains: NDArray[np.float32] = np.array(chunk.gains, np.float32)
        values: NDArray[np.float32] = np.divide(chunk.samples, gains, dtype=np.float32)
        absent = chunk.samples == MISSING
        if absent.any():
            values[absent] = np.nan
        self._append(values, chunk.end)
        self.received = chunk.received

    def _skip(self, count: int, end: float) -> None:
        self._append(np.full((count, len(self.rows)), np.nan, np.float32), end)

    def _append(self, values: NDArray[np.float32], end: float) -> None:
        if len(values):
            self._pending.append((values, end))
            self._held += len(values)

    def take(self) -> Hop:
        """The next hop of samples; `ready` must hold."""
        parts, count = [], 0
        while count < self.hop:
            part, end = self._pending.popleft()
            if (rest := count + len(part) - self.hop) > 0:
                self._pending.appendleft((part[-rest:], end))
                part, end = part[:-rest], end - rest / self.rate
            parts.append(part)
            count += len(part)
        self._held -= self.hop
        self.end += self.hop
        self.time = end
        fresh, self.fresh = self.fresh, False
        if self._breaks:
            if self._breaks[0] == 0:
                self._breaks.popleft()
                fresh = True
            self._breaks = deque(at - self.hop for at in self._breaks)
        return Hop(parts[0] if len(parts) == 1 else np.concatenate(parts), fresh)

    def moment(self, sample: int) -> float:
        """Unix time of a sample of the last hops."""
        return self.time - (self.end - sample) / self.rate

    def interrupt(self) -> None:
        """The hop to come does not continue what was."""
        self.decisions.restart()
        self.rhythm.interrupt()
        self.waiting.clear()
        self.before = None
        self.last_beat = self.good_since = -1

    def found(self, samples: list[int]) -> None:
        """Beats that were detected."""
        for sample in sorted(samples):
            share = spread = math.nan
            if self.last_beat >= 0:
                share, spread = self.rhythm.beat(max(1, sample - self.last_beat) / self.rate)
            self.last_beat = max(sample, self.last_beat)
            self.waiting.append(Waiting(sample, share, spread))

    def judged(self, anomalous: bool) -> None:
        """A beat was scored against the reference."""
        self.anomalous += anomalous
        self.flags.append(anomalous)
        while len(self.flags) > self.burden_beats:
            self.flags.popleft()

    @property
    def burden(self) -> float | None:
        """Share of the last beats that were anomalous; None until there are enough."""
        return sum(self.flags) / len(self.flags) if len(self.flags) == self.burden_beats else None

    def observe(self, delay: int, now: float) -> Observation:
        """What is known after a hop."""
        good = bool((self.quality == SignalQuality.GOOD).any())
        decided = self.end - delay
        if not good:
            # Nobody knows how many beats there are until the next one that is seen.
            self.last_beat = self.good_since = -1
        elif self.good_since < 0:
            self.good_since = self.end
        silence = None
        if good:
            silence = max(0, decided - max(self.last_beat, self.good_since)) / self.rate
        self.heart_rate = self.rhythm.rate(silence) if silence is not None else None
        gap, self.gap = self.gap, 0.0
        return Observation(
            time=self.time,
            heart_rate=self.heart_rate,
            silence=silence,
            burden=self.burden,
            good=good,
            off=self._with(SignalQuality.OFF),
            poor=self._with(SignalQuality.POOR),
            gap=gap,
            behind=max(0.0, now - self.received) + self.held,
        )

    def _with(self, quality: SignalQuality) -> tuple[str, ...]:
        if not self.quality.any():
            return ()
        return tuple(name for name, code in zip(self.leads, self.quality, strict=True) if code == quality)

    def reading(self) -> Reading:
        """For metrics and the page."""
        return Reading(
            stream=self.stream,
            time=self.time,
            heart_rate=self.heart_rate,
            burden=self.burden,
            quality={n: _WORDS[int(c)] for n, c in zip(self.leads, self.quality, strict=False)},
            learned=self.reference.learned,
            beats=self.beats,
            anomalous=self.anomalous,
        )


_WORDS: dict[int, Any] = {int(each): each.word for each in SignalQuality}


@dataclass
class Round:
    """What came of the hops of one call.

    Attributes:
        beats: of the streams that are looked at: time (unix s), score (1: at the threshold), anomalous.
        complexes: of the streams that are looked at: unix times of all QRS that were detected.
        scores: of all beats; `delays`: seconds from R peak to score.
        traces: of the streams that are looked at.
        references: that were just learned, as bytes to keep.
        faults: of the order of messages, by reason.
    """

    readings: list[Reading] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    beats: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    complexes: dict[str, list[float]] = field(default_factory=dict)
    traces: list[dict[str, Any]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    references: dict[str, bytes] = field(default_factory=dict)
    discharged: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    behind: float = 0.0

    def add(self, other: Round) -> None:
        """Take in what came later."""
        self.readings += other.readings
        self.transitions += other.transitions
        self.discharged += other.discharged
        self.references |= other.references
        self.faults += other.faults
