"""A bed: what is kept of one stream between hops."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from genray.ecg.qrs import QrsThresholds
from genray.ecg.quality import SignalQuality
from monitors.alarms.events import Observation, QualityWord, Reading
from monitors.alarms.state import AlarmState
from monitors.patient.heart_rate import UNKNOWN_INTERVAL, RelativeInterval, RrIntervals
from monitors.patient.hops import Hop, HopQueue
from monitors.patient.ordering import Ordered, Sequencer
from monitors.patient.reference import Reference
from monitors.sources.message import Chunk

Floats = NDArray[np.float32]

_UNUSUAL = 8  # last anomalous beats, of which an alarm shows the most unusual
_QUALITY_WORDS = {int(quality): cast(QualityWord, quality.word) for quality in SignalQuality}


class PendingBeat(NamedTuple):
    """A beat whose samples are not all there yet.

    Attributes:
        sample: of its complex, counted from the beginning of the stream.
        interval: before it.
    """

    sample: int
    interval: RelativeInterval


class PreviousBeat(NamedTuple):
    """The beat before, from which a reference learns once the interval after it is known.

    Attributes:
        shapes: (leads, samples), z-normalised, NaN in leads that are not good.
        ratio: of the interval before it to the usual one.
    """

    shapes: Floats
    ratio: float


@dataclass(frozen=True, slots=True)
class UnusualBeat:
    """What an alarm shows of an anomalous beat, in the lead in which it is the most unusual.

    Attributes:
        time: of its peak, unix seconds.
        values: (samples,), z-normalised, as are all three.
        reconstruction: by the model; None: it does not know the lead.
        reference: of the patient.
    """

    time: float
    score: float
    lead: str
    values: Floats
    reconstruction: Floats | None
    reference: Floats

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "time": self.time,
            "score": self.score,
            "lead": self.lead,
            "values": _rounded(self.values),
            "reconstruction": None if self.reconstruction is None else _rounded(self.reconstruction),
            "reference": _rounded(self.reference),
        }


def _rounded(values: Floats) -> list[float]:
    return [round(value, 3) for value in values.tolist()]


@dataclass(slots=True)
class Bed:
    """One stream: its messages in order and cut into hops, its beats and their rhythm, the patient's
    reference, and the alarms.

    Attributes:
        rows: of its leads in the arrays of its rate.
        sample_count: samples that were looked at.
        end_time: unix time just after the last of them.
        received: when what was put into order last had arrived, by the monotonic clock.
        arrived: when anything new did.
        missing_seconds: of samples since the last observation.
        lost_seconds: for which nothing has come; 0 while samples come.
        new_patient: whether no hop was looked at yet.
        quality: of each lead.
        recent_anomalous: of the last beats, whether each was; of these the burden is the share.
        good_since: sample from which on a lead has been good; -1: none is.
        last_beat: sample of the last beat; -1: not known.
    """

    stream: str
    rate: float
    leads: tuple[str, ...]
    rows: NDArray[np.intp]
    sequencer: Sequencer
    hops: HopQueue
    reference: Reference
    alarms: AlarmState
    decisions: QrsThresholds
    burden_beats: int
    intervals: RrIntervals = field(default_factory=RrIntervals)
    sample_count: int = 0
    end_time: float = 0.0
    received: float = 0.0
    arrived: float = 0.0
    missing_seconds: float = 0.0
    lost_seconds: float = 0.0
    new_patient: bool = True
    quality: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    good_since: int = -1
    heart_rate: float | None = None
    last_beat: int = -1
    pending_beats: list[PendingBeat] = field(default_factory=list)
    previous_beat: PreviousBeat | None = None
    beat_count: int = 0
    anomalous_count: int = 0
    recent_anomalous: deque[bool] = field(default_factory=deque)
    unusual_beats: deque[UnusualBeat] = field(default_factory=lambda: deque(maxlen=_UNUSUAL))

    def fits(self, chunk: Chunk) -> bool:
        """Whether `chunk` has the leads and the rate of this bed."""
        return chunk.leads == self.leads and chunk.rate == self.rate

    def push(self, chunk: Chunk, now: float) -> None:
        """Take a chunk in that fits. One that is dropped is no sign of life: a gateway may repeat the last
        message of a device for ever."""
        held = self.sequencer.held
        ordered = self.sequencer.push(chunk)
        if ordered or self.sequencer.held > held:
            self.arrived = now
            self.lost_seconds = 0.0
        self._add_samples(ordered)

    def flush(self) -> None:
        """Wait no longer for messages that did not come."""
        self._add_samples(self.sequencer.flush())

    def _add_samples(self, ordered: list[Ordered]) -> None:
        for message in ordered:
            self.missing_seconds += message.missing
            self.hops.push(message)
            self.received = message.chunk.received

    def next_hop(self) -> Hop:
        """The next hop, which is looked at now; `hops.ready` must hold."""
        hop = self.hops.pop()
        self.sample_count += len(hop.samples)
        self.end_time = hop.end_time
        return hop

    def time_of(self, sample: int) -> float:
        """Unix time of a sample of the last hops."""
        return self.end_time - (self.sample_count - sample) / self.rate

    def interrupt(self) -> None:
        """The hop to come does not continue what was."""
        self.decisions.restart()
        self.intervals.interrupt()
        self.pending_beats.clear()
        self.previous_beat = None
        self._forget_last_beat()

    def _forget_last_beat(self) -> None:
        """Nobody knows how many beats there are until the next one that is seen."""
        self.last_beat = -1
        self.good_since = -1

    def add_complexes(self, samples: list[int]) -> None:
        """Complexes that were detected: their beats are scored when their samples are there."""
        for sample in sorted(samples):
            interval = UNKNOWN_INTERVAL
            if self.last_beat >= 0:
                interval = self.intervals.add(max(1, sample - self.last_beat) / self.rate)
            self.last_beat = max(sample, self.last_beat)
            self.pending_beats.append(PendingBeat(sample, interval))

    def count_scored_beat(self, *, anomalous: bool) -> None:
        """A beat was scored against the reference."""
        self.anomalous_count += anomalous
        self.recent_anomalous.append(anomalous)
        while len(self.recent_anomalous) > self.burden_beats:
            self.recent_anomalous.popleft()

    @property
    def burden(self) -> float | None:
        """Share of the last beats that were anomalous; None until there are enough."""
        recent = self.recent_anomalous
        return sum(recent) / len(recent) if len(recent) == self.burden_beats else None

    def observe(self, delay: int, now: float) -> Observation:
        """What is known after a hop.

        Args:
            delay: samples by which the detection of beats lags behind.
            now: by the monotonic clock.
        """
        good = bool((self.quality == SignalQuality.GOOD).any())
        decided = self.sample_count - delay
        if not good:
            self._forget_last_beat()
        elif self.good_since < 0:
            self.good_since = self.sample_count
        silence = None
        self.heart_rate = None
        if good:
            silence = max(0, decided - max(self.last_beat, self.good_since)) / self.rate
            self.heart_rate = self.intervals.heart_rate(silence)
        missing_seconds = self.missing_seconds
        self.missing_seconds = 0.0
        return Observation(
            time=self.end_time,
            heart_rate=self.heart_rate,
            silence=silence,
            burden=self.burden,
            good=good,
            off=self._leads_that_are(SignalQuality.OFF),
            poor=self._leads_that_are(SignalQuality.POOR),
            gap=missing_seconds,
            behind=max(0.0, now - self.received) + self.hops.seconds,
        )

    def _leads_that_are(self, quality: SignalQuality) -> tuple[str, ...]:
        if not self.quality.any():
            return ()
        return tuple(name for name, code in zip(self.leads, self.quality, strict=True) if code == quality)

    def reading(self) -> Reading:
        """For metrics and the page."""
        return Reading(
            stream=self.stream,
            time=self.end_time,
            heart_rate=self.heart_rate,
            burden=self.burden,
            quality={
                lead: _QUALITY_WORDS[int(code)] for lead, code in zip(self.leads, self.quality, strict=False)
            },
            learned=self.reference.learned_share,
            beats=self.beat_count,
            anomalous=self.anomalous_count,
        )
