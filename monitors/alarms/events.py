"""Events between the parts of the monitor: observations of a stream, changes of its alarms, its readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal, NamedTuple

AlarmKind = Literal[
    "asystole",
    "ventricular-fibrillation",
    "ventricular-tachycardia",
    "bradycardia",
    "tachycardia",
    "ventricular-run",
    "couplet",
    "bigeminy",
    "atrial-fibrillation",
    "anomaly",
    "lead-off",
    "poor-signal",
    "unjudged",
    "gap",
    "stream-lost",
    "behind",
]
Priority = Literal["low", "medium", "high"]
Category = Literal["physiological", "technical"]
Change = Literal["onset", "escalated", "suppressed", "resumed", "acknowledged", "latched", "ended"]
AlarmStateName = Literal["active", "suppressed", "acknowledged", "latched", "ended"]
QualityWord = Literal["good", "poor", "off"]

ReferenceWord = Literal["", "rare", "abnormal"]
"""What the model of normal beats says of a patient's reference: nothing; that most of the beats that it was
learned from are abnormal, so that it shows a rarer one; that it is abnormal itself."""


class JudgedBeat(NamedTuple):
    """Unix time of a beat, and the probability that it is ventricular; NaN: it could not be judged."""

    time: float
    ventricular: float


class Pulse(NamedTuple):
    """Pulse of the last seconds, in a wave of good quality.

    Attributes:
        lead: name of its lead.
        rate: pulses per minute.
        silence: seconds since the last pulse.
        steady: whether the pulses of the last 6 s came on time, and were of one shape and height.
    """

    lead: str
    rate: float
    silence: float
    steady: bool


class Irregularity(NamedTuple):
    """Irregularity of the last RR intervals between beats that are not ventricular.

    Attributes:
        variation: root mean square of their differences, as a share of their mean.
        entropy: Shannon entropy of their lengths, 0 to 1.
        turning: share of them that are longer or shorter than both beside them.
        ectopic: share of ventricular beats among the last ones.
    """

    variation: float
    entropy: float
    turning: float
    ectopic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Measurements of a stream at `time`, the end of the samples that were analysed. There is one after each
    hop (`ward.hop`); when a stream stops, its time continues by the wall clock with `lost`.

    Attributes:
        time: unix time of the stream's own samples, seconds.
        heart_rate: beats per minute; None: not available.
        silence: judged seconds without a QRS complex; None: no complexes can be detected in any lead.
        tachycardia: probability of a ventricular rhythm that is rather tachycardia; NaN: not judged.
        fibrillation: probability of a ventricular rhythm that is rather fibrillation or flutter; NaN: not
            judged.
        beats: the last beats, by time.
        irregularity: of the last RR intervals; None: too few in the last minutes.
        pulse: pulse of the best pulse wave; None: there is none of good quality.
        burden: share of the last scored beats that are anomalous; None: too few, or no reference yet.
        reference: what the model says of the patient's reference.
        good: whether at least one lead is good, so that the shapes of beats can be judged.
        rhythm: whether QRS complexes can be detected in at least one lead.
        off: leads whose electrode is off, saturated or flat.
        poor: leads that are too noisy to be analysed.
        gap: seconds of samples that were missing since the observation before.
        behind: seconds from the arrival of samples to their analysis.
        lost: seconds since anything arrived, 0 while samples arrive.
    """

    time: float
    heart_rate: float | None = None
    silence: float | None = None
    tachycardia: float = nan
    fibrillation: float = nan
    beats: tuple[JudgedBeat, ...] = ()
    irregularity: Irregularity | None = None
    pulse: Pulse | None = None
    burden: float | None = None
    reference: ReferenceWord = ""
    good: bool = True
    rhythm: bool = True
    off: tuple[str, ...] = ()
    poor: tuple[str, ...] = ()
    gap: float = 0.0
    behind: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of an alarm.

    Attributes:
        alarm: name of the alarm, the same in all of its transitions and when samples are replayed: stream,
            kind and onset in milliseconds, and the number of the clock if that was set back.
        stream: pseudonym.
        change: what happened.
        state: state of the alarm from now on.
        time: unix time of the stream's samples, seconds.
        onset: unix time at which the condition had been true for its delay, seconds.
        announced: whether somebody is to be notified; False where the rate limit of the bed prevents it.
        why: measured values, limits, and the beats that show the condition; plain JSON values.
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
    """State of a stream after a hop, for metrics and the page.

    Attributes:
        time: unix time of the end of its last samples, seconds.
        heart_rate: beats per minute; None: not available.
        burden: share of the last scored beats that are anomalous; None: not available.
        quality: signal quality of each lead.
        learned: progress of learning the patient's reference, 0 to 1.
        reference: what the model says of it.
        beats: number of beats since the stream began.
        anomalous: number of anomalous beats since the stream began.
    """

    stream: str
    time: float
    heart_rate: float | None
    burden: float | None
    quality: Mapping[str, QualityWord]
    learned: float
    beats: int
    anomalous: int
    reference: ReferenceWord = ""
