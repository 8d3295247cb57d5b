"""What passes between the parts of the monitor: what is observed of a stream, and how its alarms change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

AlarmKind = Literal[
    "asystole",
    "bradycardia",
    "tachycardia",
    "anomaly",
    "lead-off",
    "poor-signal",
    "gap",
    "stream-lost",
    "behind",
]
Priority = Literal["low", "medium", "high"]
Category = Literal["physiological", "technical"]
Change = Literal["onset", "escalated", "suppressed", "resumed", "acknowledged", "latched", "ended"]
AlarmStateName = Literal["active", "suppressed", "acknowledged", "latched", "ended"]
QualityWord = Literal["good", "poor", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is known of a stream at `time`, the end of the samples that were looked at. One comes each hop
    (2 s of samples); when a stream stops, its time goes on by the wall clock with `lost`.

    Attributes:
        time: unix time of the stream's own samples, seconds.
        heart_rate: beats a minute; None: not known.
        silence: seconds since the last QRS in which at least one lead was good; None: nothing can be said.
        burden: share of the last scored beats that are anomalous; None: too few, or no reference yet.
        good: whether at least one lead can be judged.
        off: leads whose electrode is off, saturated or flat.
        poor: leads that are too noisy to be judged.
        gap: seconds of samples that were missing since the observation before.
        behind: seconds that the monitor's work lags behind the arrival of samples.
        lost: seconds since anything arrived, 0 while samples come.
    """

    time: float
    heart_rate: float | None = None
    silence: float | None = None
    burden: float | None = None
    good: bool = True
    off: tuple[str, ...] = ()
    poor: tuple[str, ...] = ()
    gap: float = 0.0
    behind: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of one alarm.

    Attributes:
        alarm: its name, the same in every transition of it and when samples are replayed:
            stream, kind and onset in milliseconds, and the number of the clock if its time fell back.
        stream: pseudonym.
        change: what happened.
        state: what it is from now on.
        time: of the stream's samples, unix seconds.
        onset: when its condition began to hold long enough, unix seconds.
        announced: whether anybody is to be told; False where the rate limit of the bed holds it back.
        why: what was measured, the limits, and the beats that speak for it; plain JSON values.
    """

    alarm: str
    stream: str
    kind: AlarmKind
    category: Category
    priority: Priority
    change: Change
    state: AlarmStateName
    time: float
    onset: float
    announced: bool = True
    why: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The state of a stream after a hop, for metrics and the page.

    Attributes:
        time: end of its last samples, unix seconds.
        quality: of each lead.
        learned: share of the patient's reference that is learned, 0 to 1.
        beats: number of those that were found since the stream began.
        anomalous: how many of them were.
    """

    stream: str
    time: float
    heart_rate: float | None
    burden: float | None
    quality: Mapping[str, QualityWord]
    learned: float
    beats: int
    anomalous: int
