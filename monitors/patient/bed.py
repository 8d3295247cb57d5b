"""Bed: the state of one stream between hops."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from genray.ecg.qrs import QrsThresholds
from genray.ecg.quality import SignalQuality
from monitors.alarms.events import JudgedBeat, Observation, Pulse, QualityWord, Reading
from monitors.alarms.state import AlarmState
from monitors.patient.hops import Hop, HopQueue
from monitors.patient.ordering import Ordered, Sequencer
from monitors.patient.reference import Reference
from monitors.patient.rhythm.heart_rate import UNKNOWN_INTERVAL, RelativeInterval, RrIntervals
from monitors.patient.rhythm.irregularity import IrregularityMeter
from monitors.patient.rhythm.pulse import PulseLeads
from monitors.patient.rhythm.ventricular import ORDERLY, VentricularRhythm
from monitors.patient.strips import StripRecorder
from monitors.sources.message import Chunk

Floats = NDArray[np.float32]

_UNUSUAL = 8  # last anomalous beats that are stored, of which an alarm shows those with the highest scores
_JUDGED = 40  # last beats whose kind is stored, for runs of ventricular beats
_LONGEST_PAUSE = 4.0  # s that cannot be judged, over which the seconds without a beat still add up
_QUALITY_WORDS = {int(quality): cast(QualityWord, quality.word) for quality in SignalQuality}


class PendingBeat(NamedTuple):
    """A beat that waits for the rest of its samples.

    Attributes:
        sample: sample of its QRS complex, counted from the beginning of the stream.
        interval: RR interval before it.
    """

    sample: int
    interval: RelativeInterval


class PreviousBeat(NamedTuple):
    """The last beat, from which a reference learns once the interval after it is known.

    Attributes:
        shapes: (leads, samples), z-normalised, NaN in leads that are not good.
        ratio: ratio of the RR interval before it to the usual one.
        surprise: its surprise; NaN: unknown.
        ventricular: probability that it is ventricular; NaN: unknown.
        time: its unix time.
    """

    shapes: Floats
    ratio: float
    surprise: float
    ventricular: float
    time: float


@dataclass(frozen=True, slots=True)
class UnusualBeat:
    """Picture of an anomalous beat for an alarm, in the lead in which it differs most from the reference.

    Attributes:
        time: unix time of its peak, seconds.
        values: the beat, (samples,), z-normalised like the other two.
        reconstruction: reconstruction by the model, (samples,); None: the model was not trained on the lead.
        reference: the patient's reference, (samples,).
    """

    time: float
    score: float
    lead: str
    values: Floats
    reconstruction: Floats | None
    reference: Floats

    def as_json(self) -> dict[str, Any]:
        """Return the beat as plain JSON values."""
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
    """State of one stream between hops.

    It is responsible for the order of messages and cutting them into hops, the beats that wait and their
    rhythm, the patient's reference, and the input of the alarms. It leaves filtering, detection and scoring,
    which run on all beds of one rate together, to `LeadBank`, and the alarm rules to `monitors.alarms`.

    Attributes:
        channels: names of all leads of its messages, of pulse waves too.
        leads: names of those that are an ECG.
        rows: rows of these in the arrays of its sampling rate.
        strips: strips of its alarms, of its ECG.
        sample_count: number of samples that were analysed.
        end_time: unix time just after the last of them, seconds.
        received: monotonic time at which the last ordered message arrived, seconds.
        arrived: monotonic time at which the last new message arrived, seconds.
        missing_seconds: seconds of missing samples since the last observation.
        lost_seconds: seconds without data; 0 while samples arrive.
        new_patient: whether no hop was analysed yet.
        quality: signal quality of each lead.
        recent_anomalous: whether each of the last beats was anomalous; the burden is the share of these.
        rhythm_judged: whether QRS complexes can be detected in at least one lead.
        ventricular: probabilities of ventricular rhythms.
        pulse_leads: pulse waves beside the ECG; None: there are none.
        pulse: pulse of the best of them; None: none is good.
        judged_beats: the last beats, by time, and whether they are ventricular.
        irregularity: of the RR intervals.
        observed: number of samples at the last observation.
        unjudged: number of samples since complexes could last be detected.
        silent_since: sample of the last beat, or since which beats could be detected, plus the samples since
            then that could not be judged; -1: unknown.
        last_beat: sample of the last beat; -1: unknown.
    """

    stream: str
    rate: float
    channels: tuple[str, ...]
    leads: tuple[str, ...]
    rows: NDArray[np.intp]
    sequencer: Sequencer
    hops: HopQueue
    reference: Reference
    alarms: AlarmState
    decisions: QrsThresholds
    strips: StripRecorder
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
    rhythm_judged: bool = True
    ventricular: VentricularRhythm = ORDERLY
    pulse_leads: PulseLeads | None = None
    pulse: Pulse | None = None
    judged_beats: list[JudgedBeat] = field(default_factory=list)
    irregularity: IrregularityMeter = field(default_factory=IrregularityMeter)
    observed: int = 0
    unjudged: int = 0
    silent_since: int = -1
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
        return chunk.leads == self.channels and chunk.rate == self.rate

    def push(self, chunk: Chunk, now: float) -> None:
        """Add a chunk that fits this bed. A chunk that is dropped does not count as data: a gateway may
        repeat the last message of a device for ever."""
        held = self.sequencer.held
        ordered = self.sequencer.push(chunk)
        if ordered or self.sequencer.held > held:
            self.arrived = now
            self.lost_seconds = 0.0
        self._add_samples(ordered)

    def flush(self) -> None:
        """Stop waiting for missing messages."""
        self._add_samples(self.sequencer.flush())

    def _add_samples(self, ordered: list[Ordered]) -> None:
        for message in ordered:
            self.missing_seconds += message.missing
            self.hops.push(message)
            self.received = message.chunk.received

    def next_hop(self) -> Hop:
        """Remove and return the ECG of the next hop, which is analysed now; `hops.ready` must be true."""
        hop = self.hops.pop()
        self.sample_count += len(hop.samples)
        self.end_time = hop.end_time
        if self.pulse_leads is not None:
            self.pulse_leads.push(hop.samples, restarted=hop.restarted)
            hop = replace(hop, samples=np.delete(hop.samples, self.pulse_leads.columns, axis=1))
        self.strips.add(hop)
        return hop

    def time_of(self, sample: int) -> float:
        """Return the unix time of a sample of the last hops, seconds."""
        return self.end_time - (self.sample_count - sample) / self.rate

    def interrupt(self) -> None:
        """Prepare for a hop that does not continue the one before."""
        self.decisions.restart()
        self.intervals.interrupt()
        self.pending_beats.clear()
        self.previous_beat = None
        self.judged_beats.clear()
        self.irregularity = IrregularityMeter()
        self.last_beat = -1
        self.silent_since = -1

    def add_complexes(self, samples: list[int]) -> None:
        """Add detected QRS complexes; their beats are scored when all of their samples have arrived."""
        for sample in sorted(samples):
            interval = UNKNOWN_INTERVAL
            if self.last_beat >= 0:
                interval = self.intervals.add(max(1, sample - self.last_beat) / self.rate)
            self.last_beat = max(sample, self.last_beat)
            self.silent_since = max(sample, self.silent_since)
            self.pending_beats.append(PendingBeat(sample, interval))

    def add_judged_beat(self, beat: JudgedBeat) -> None:
        """Add a beat whose kind is known now; search-back finds some late."""
        late = bool(self.judged_beats) and beat.time < self.judged_beats[-1].time
        self.judged_beats.append(beat)
        self.irregularity.add(beat)
        if late:
            self.judged_beats.sort()
        del self.judged_beats[:-_JUDGED]

    def count_scored_beat(self, *, anomalous: bool) -> None:
        """Count a beat that was scored with the reference."""
        self.anomalous_count += anomalous
        self.recent_anomalous.append(anomalous)
        while len(self.recent_anomalous) > self.burden_beats:
            self.recent_anomalous.popleft()

    @property
    def burden(self) -> float | None:
        """Share of the last beats that were anomalous; None until there are `burden_beats` beats."""
        recent = self.recent_anomalous
        return sum(recent) / len(recent) if len(recent) == self.burden_beats else None

    def observe(self, delay: int, now: float) -> Observation:
        """Return the observation after a hop.

        Args:
            delay: delay of the beat detection, in samples.
            now: monotonic time, seconds.
        """
        good = bool((self.quality == SignalQuality.GOOD).any())
        silence = self._silence(delay)
        self.heart_rate = None if silence is None else self.intervals.heart_rate(silence)
        missing_seconds = self.missing_seconds
        self.missing_seconds = 0.0
        return Observation(
            time=self.end_time,
            heart_rate=self.heart_rate,
            silence=silence,
            tachycardia=self.ventricular.tachycardia,
            fibrillation=self.ventricular.fibrillation,
            beats=tuple(self.judged_beats),
            irregularity=self.irregularity.now,
            pulse=self.pulse,
            burden=self.burden,
            reference=self.reference.judged,
            good=good,
            rhythm=self.rhythm_judged,
            off=self._leads_that_are(SignalQuality.OFF),
            poor=self._leads_that_are(SignalQuality.POOR),
            gap=missing_seconds,
            behind=max(0.0, now - self.received) + self.hops.seconds,
        )

    def _silence(self, delay: int) -> float | None:
        """Return the judged seconds without a beat; None: it cannot be judged now. A short stretch that is
        not judged pauses the count, as a quality that changes every few seconds would otherwise hide an
        asystole; a long one restarts it."""
        new = self.sample_count - self.observed
        self.observed = self.sample_count
        if not self.rhythm_judged:
            self.last_beat = -1  # beats may have been missed, so the next interval is unknown
            self.unjudged += new
            if self.silent_since >= 0:
                self.silent_since += new
            if self.unjudged > _LONGEST_PAUSE * self.rate:
                self.silent_since = -1
            return None
        self.unjudged = 0
        if self.silent_since < 0:
            self.silent_since = self.sample_count
        return max(0, self.sample_count - delay - self.silent_since) / self.rate

    def _leads_that_are(self, quality: SignalQuality) -> tuple[str, ...]:
        if not self.quality.any():
            return ()
        return tuple(name for name, code in zip(self.leads, self.quality, strict=True) if code == quality)

    def reading(self) -> Reading:
        """Return the reading for metrics and the page."""
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
            reference=self.reference.judged,
        )
