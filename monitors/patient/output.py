"""Output of a ward: readings and alarm changes; traces and beats of the streams that are shown on a page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitors.alarms.events import Reading, Transition
from monitors.patient.scoring import ScoreInputs


@dataclass(frozen=True, slots=True)
class ScoredBeat:
    """A beat of a stream that is shown.

    Attributes:
        time: unix time of its peak, seconds.
        score: score of the beat; the threshold is 1.
        anomalous: whether it is anomalous for this patient.
        inputs: what the score was computed from.
    """

    time: float
    score: float
    anomalous: bool
    inputs: ScoreInputs

    def as_json(self) -> dict[str, Any]:
        """Return the beat as JSON values for the page."""
        return {"time": self.time, "score": self.score, "anomalous": self.anomalous}


@dataclass(frozen=True, slots=True)
class Trace:
    """One hop of one lead of a stream that is shown, reduced to a lower rate with its peaks (`keep_peaks`).

    Attributes:
        start: unix time of the first value, seconds.
        rate: values per second.
        values: values in mV, None where a sample is missing.
    """

    stream: str
    lead: str
    start: float
    rate: float
    values: list[float | None]

    def as_json(self) -> dict[str, Any]:
        """Return the trace as JSON values for the page."""
        return {
            "stream": self.stream,
            "lead": self.lead,
            "start": self.start,
            "rate": self.rate,
            "values": self.values,
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Strip:
    """Samples around the onset of an alarm.

    Attributes:
        alarm, stream, kind, priority: as in the transition that began the alarm.
        reason: what was measured at the onset, for a person.
        onset: unix time of the onset, seconds.
        start: unix time of the first sample, seconds.
        rate: samples per second.
        leads: names of the leads.
        left_out: number of further leads of the stream, of which no samples are stored.
        microvolts: (samples, leads); `MISSING` where a sample is missing.
        until: unix time just after the last sample, seconds.
        complete: whether all samples after the onset are there, up to `AFTER` seconds.
    """

    alarm: str
    stream: str
    kind: str
    priority: str
    reason: str
    onset: float
    start: float
    rate: float
    leads: tuple[str, ...]
    left_out: int
    microvolts: NDArray[np.int16]
    until: float
    complete: bool


@dataclass(frozen=True, slots=True)
class SavedBed:
    """State of a bed to save for a restart, all of it as of one moment.

    Attributes:
        alarms: alarm state, see `monitors.patient.resume`.
        reference: the patient's reference, or what was collected to learn it.
    """

    alarms: bytes
    reference: bytes


@dataclass
class WardOutput:
    """Results of one call of a ward.

    Attributes:
        readings: state of each stream after a hop.
        transitions: changes of alarms, in order.
        beats: beats of the streams that are shown.
        complexes: unix times of the detected QRS complexes of the streams that are shown, seconds.
        traces: traces of the streams that are shown.
        strips: strips of alarms, each as of now; a later one of an alarm has more samples.
        scores: scores of all beats.
        delays: seconds from R peak to score, of all beats.
        learned: streams whose reference was just learned.
        discharged: streams that have no bed any more.
        faults: number of faults in the order of messages, by kind.
        behind: seconds from the arrival of samples to their analysis, of the slowest stream.
    """

    readings: list[Reading] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    beats: dict[str, list[ScoredBeat]] = field(default_factory=dict)
    complexes: dict[str, list[float]] = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    learned: list[str] = field(default_factory=list)
    discharged: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    behind: float = 0.0

    def extend(self, later: WardOutput) -> None:
        """Add the results of a later call."""
        self.readings += later.readings
        self.transitions += later.transitions
        for stream, beats in later.beats.items():
            self.beats.setdefault(stream, []).extend(beats)
        for stream, times in later.complexes.items():
            self.complexes.setdefault(stream, []).extend(times)
        self.traces += later.traces
        self.strips += later.strips
        self.scores += later.scores
        self.delays += later.delays
        self.learned += later.learned
        self.discharged += later.discharged
        self.faults += later.faults
        self.behind = max(self.behind, later.behind)
