"""What comes out of a ward: readings, changes of alarms; traces and beats of streams that are looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from monitors.alarms.events import Reading, Transition


@dataclass(frozen=True, slots=True)
class ScoredBeat:
    """A beat of a stream that is looked at.

    Attributes:
        time: of its peak, unix seconds.
        score: 1 is at the threshold.
        anomalous: whether it is unusual for this patient.
    """

    time: float
    score: float
    anomalous: bool

    def as_json(self) -> dict[str, Any]:
        """As the page takes it."""
        return {"time": self.time, "score": self.score, "anomalous": self.anomalous}


@dataclass(frozen=True, slots=True)
class Trace:
    """A hop of one lead of a stream that is looked at, thinned out.

    Attributes:
        start: unix time of the first value.
        rate: values a second.
        values: millivolts, None where a sample is missing.
    """

    stream: str
    lead: str
    start: float
    rate: float
    values: list[float | None]

    def as_json(self) -> dict[str, Any]:
        """As the page takes it."""
        return {
            "stream": self.stream,
            "lead": self.lead,
            "start": self.start,
            "rate": self.rate,
            "values": self.values,
        }


@dataclass
class WardOutput:
    """What came of one call.

    Attributes:
        beats: of the streams that are looked at.
        complexes: of the streams that are looked at: unix times of all QRS that were detected.
        scores: of all beats.
        delays: seconds from R peak to score, of all beats.
        traces: of the streams that are looked at.
        references: that were just learned, as bytes to keep.
        discharged: streams that have no bed any more.
        faults: of the order of messages, by kind.
        behind: seconds that the work lags behind the arrival of samples, of the stream where it is the most.
    """

    readings: list[Reading] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    beats: dict[str, list[ScoredBeat]] = field(default_factory=dict)
    complexes: dict[str, list[float]] = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    references: dict[str, bytes] = field(default_factory=dict)
    discharged: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    behind: float = 0.0

    def extend(self, later: WardOutput) -> None:
        """Add what came of a later call."""
        self.readings += later.readings
        self.transitions += later.transitions
        for stream, beats in later.beats.items():
            self.beats.setdefault(stream, []).extend(beats)
        for stream, times in later.complexes.items():
            self.complexes.setdefault(stream, []).extend(times)
        self.traces += later.traces
        self.scores += later.scores
        self.delays += later.delays
        self.references |= later.references
        self.discharged += later.discharged
        self.faults += later.faults
        self.behind = max(self.behind, later.behind)
