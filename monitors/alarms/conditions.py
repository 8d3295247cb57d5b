"""When the condition of each alarm holds: pure functions of an observation, the limits, and timers.

A condition says at what level it holds. Physiological ones are judged only while at least one lead is good
and samples come: a value that was computed from noise is none (IEC 60601-2-27 tells apart what the patient
has and what the monitor cannot see). Timers count only time that was judged, so that missing samples are
never taken for good ones, neither for an alarm nor for its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, inf, isfinite
from typing import Any, NamedTuple

from monitors.alarms.events import AlarmKind, Category, Observation, Priority
from monitors.alarms.limits import Limits

UNKNOWN, CLEAR, BETWEEN, LOW, MEDIUM, HIGH = -2, -1, 0, 1, 2, 3
"""Levels: cannot be judged; over; neither over nor holding (hysteresis); holding at a priority."""
PRIORITIES: tuple[Priority, ...] = ("low", "medium", "high")
"""Of the levels 1, 2, 3."""

ByPriority = tuple[float, float, float]
"""Seconds of each priority: low, medium, high."""
MissingSeconds = tuple[tuple[int, float], ...]
"""Seconds of samples that were missing, by stretches of 5 s of the last minute: (number, seconds)."""
_STRETCH, _STRETCHES = 5.0, 12


class Situation(NamedTuple):
    """What a condition is judged by.

    Attributes:
        missing: seconds of samples that were missing in the last minute.
        asystole_open: whether there is an alarm of it already.
        lead_off_open: likewise.
    """

    observation: Observation
    limits: Limits
    missing: float = 0.0
    asystole_open: bool = False
    lead_off_open: bool = False

    @property
    def has_signal(self) -> bool:
        """Whether a lead can be judged."""
        return self.observation.good and not self.observation.lost > 0


def asystole(situation: Situation) -> int:
    """No QRS for 4 s (CinC 2015). Needs no further delay: the silence is one."""
    silence = situation.observation.silence
    if not situation.has_signal or silence is None or not silence >= 0:
        return UNKNOWN
    return HIGH if silence >= situation.limits.asystole.silence else CLEAR


def bradycardia(situation: Situation) -> int:
    """A slow heart; not judged while there is an alarm of an asystole: one cause, one alarm."""
    rate, limits = situation.observation.heart_rate, situation.limits.bradycardia
    if situation.asystole_open or not situation.has_signal or rate is None or not 0 <= rate < inf:
        return UNKNOWN
    if rate >= limits.medium + limits.back:
        return CLEAR
    if rate >= limits.medium:
        return BETWEEN
    return MEDIUM if rate >= limits.high else HIGH


def tachycardia(situation: Situation) -> int:
    """A fast heart."""
    rate, limits = situation.observation.heart_rate, situation.limits.tachycardia
    if not situation.has_signal or rate is None or not 0 <= rate < inf:
        return UNKNOWN
    if rate <= limits.medium - limits.back:
        return CLEAR
    if rate <= limits.medium:
        return BETWEEN
    return MEDIUM if rate <= limits.high else HIGH


def anomaly(situation: Situation) -> int:
    """Many beats of unusual shape; the burden is of many beats, so it needs no delay to be medium."""
    burden, limits = situation.observation.burden, situation.limits.anomaly
    if not situation.has_signal or burden is None or not 0 <= burden <= 1:
        return UNKNOWN
    if burden < limits.end:
        return CLEAR
    if burden < limits.begin:
        return BETWEEN
    return MEDIUM if burden < limits.severe else HIGH


def lead_off(situation: Situation) -> int:
    """An electrode is off."""
    observation = situation.observation
    if observation.lost > 0:
        return UNKNOWN
    if not observation.off:
        return CLEAR
    return LOW if observation.good else MEDIUM


def poor_signal(situation: Situation) -> int:
    """No lead is good, for whatever reason: leads that change between noisy and off must not go unseen.
    Not judged while an alarm says that the electrodes are off, and that is all that is wrong."""
    observation = situation.observation
    if observation.lost > 0:
        return UNKNOWN
    if observation.good:
        return CLEAR
    only_off = observation.off and not observation.poor
    return UNKNOWN if situation.lead_off_open and only_off else MEDIUM


def gap(situation: Situation) -> int:
    """Samples were missing in the last minute."""
    limits = situation.limits.gap
    if situation.missing >= limits.begin:
        return LOW
    return CLEAR if situation.missing <= limits.end else BETWEEN


def stream_lost(situation: Situation) -> int:
    """Nothing arrives. Its time goes by the wall clock and is a delay by itself."""
    lost, limits = situation.observation.lost, situation.limits.stream_lost
    if lost != lost:
        return UNKNOWN
    if lost <= 0:
        return CLEAR
    if lost >= limits.high:
        return HIGH
    return MEDIUM if lost >= limits.medium else BETWEEN


def behind(situation: Situation) -> int:
    """The monitor's work lags behind."""
    lag, limits = situation.observation.behind, situation.limits.behind
    if lag != lag:
        return UNKNOWN
    if lag > limits.begin:
        return MEDIUM
    return CLEAR if lag <= limits.end else BETWEEN


class Condition(NamedTuple):
    """How the alarms of a kind come and go.

    Attributes:
        level: at which it holds now.
        delays: seconds for which it must hold until it is low, medium, high.
        end_after: seconds for which it must be over.
        measurements: names of the values of an observation that it is judged by.
        limits_name: of its limits in `Limits`.
    """

    category: Category
    level: Callable[[Situation], int]
    delays: Callable[[Limits], ByPriority]
    end_after: Callable[[Limits], float]
    measurements: tuple[str, ...]
    limits_name: str


CONDITIONS: dict[AlarmKind, Condition] = {
    "asystole": Condition(
        "physiological",
        asystole,
        lambda _: (inf, inf, 0.0),
        lambda limits: limits.asystole.end_after,
        ("silence", "heart_rate"),
        "asystole",
    ),
    "bradycardia": Condition(
        "physiological",
        bradycardia,
        lambda limits: (inf, limits.bradycardia.delay, limits.bradycardia.delay),
        lambda limits: limits.bradycardia.end_after,
        ("heart_rate", "silence"),
        "bradycardia",
    ),
    "tachycardia": Condition(
        "physiological",
        tachycardia,
        lambda limits: (inf, limits.tachycardia.delay, limits.tachycardia.delay),
        lambda limits: limits.tachycardia.end_after,
        ("heart_rate",),
        "tachycardia",
    ),
    "anomaly": Condition(
        "physiological",
        anomaly,
        lambda limits: (inf, 0.0, limits.anomaly.severe_for),
        lambda _: 0.0,
        ("burden", "heart_rate"),
        "anomaly",
    ),
    "lead-off": Condition(
        "technical",
        lead_off,
        lambda limits: (limits.lead_off.delay, limits.lead_off.delay, inf),
        lambda limits: limits.lead_off.end_after,
        ("off", "good"),
        "lead_off",
    ),
    "poor-signal": Condition(
        "technical",
        poor_signal,
        lambda limits: (limits.poor_signal.low, limits.poor_signal.medium, inf),
        lambda limits: limits.poor_signal.end_after,
        ("poor", "off", "good"),
        "poor_signal",
    ),
    "gap": Condition("technical", gap, lambda _: (0.0, inf, inf), lambda _: 0.0, ("gap",), "gap"),
    "stream-lost": Condition(
        "technical",
        stream_lost,
        lambda _: (inf, 0.0, 0.0),
        lambda limits: limits.stream_lost.end_after,
        ("lost",),
        "stream_lost",
    ),
    "behind": Condition(
        "technical",
        behind,
        lambda limits: (inf, limits.behind.delay, inf),
        lambda limits: limits.behind.end_after,
        ("behind",),
        "behind",
    ),
}
"""In the order in which they are judged: asystole before bradycardia, lead-off before poor-signal."""


@dataclass(frozen=True, slots=True)
class Timer:
    """How long a condition has held, in seconds of judged time; -1: it does not.

    Attributes:
        judged: time of the last judgment.
        since: when it last began to hold.
        lasted: seconds since then, without having been over.
        held: at low or above, at medium or above, at high.
        clear: how long it has been over.
    """

    judged: float
    since: float
    lasted: float = -1.0
    held: ByPriority = (-1.0, -1.0, -1.0)
    clear: float = -1.0

    def after(self, level: int, now: float, gap: float, longest: float) -> Timer:
        """The timer after a judgment. Seconds that were `gap`, or more than `longest`, do not count; after
        four times `longest` without a judgment, or when the clock went back, it begins anew."""
        elapsed = now - self.judged
        lasted, (low, medium, high), clear = self.lasted, self.held, self.clear
        if not 0 <= elapsed <= 4 * longest:
            lasted = low = medium = high = clear = -1.0
        credit = min(max(elapsed - gap, 0.0), longest)
        held = (
            _prolonged(low, credit) if level >= LOW else -1.0,
            _prolonged(medium, credit) if level >= MEDIUM else -1.0,
            _prolonged(high, credit) if level >= HIGH else -1.0,
        )
        if level == CLEAR:
            return Timer(now, self.since, -1.0, held, _prolonged(clear, credit))
        if lasted >= 0:
            return Timer(now, self.since, lasted + credit, held)
        return Timer(now, now, -1.0 if level == BETWEEN else 0.0, held)

    def reached(self, delays: ByPriority) -> int:
        """The level at which it has held long enough; 0: none."""
        low, medium, high = self.held
        if high >= delays[2]:
            return HIGH
        if medium >= delays[1]:
            return MEDIUM
        return LOW if low >= delays[0] else 0


def _prolonged(seconds: float, credit: float) -> float:
    """How long something has held that has just been seen to hold: it begins with the first judgment."""
    return seconds + credit if seconds >= 0 else 0.0


def update_missing(missing: MissingSeconds, now: float, gap: float) -> MissingSeconds:
    """`missing` with `gap` seconds more, and without what is longer ago than a minute or lies ahead."""
    if not missing and not gap > 0:
        return missing
    current = floor(now / _STRETCH)
    recent = {stretch: seconds for stretch, seconds in missing if current - _STRETCHES < stretch <= current}
    if gap > 0:
        recent[current] = recent.get(current, 0.0) + min(gap, _STRETCH * _STRETCHES)
    return tuple(recent.items())


def unknown_reason(kind: AlarmKind, situation: Situation) -> str:
    """Why the condition cannot be judged, in words."""
    if situation.observation.lost > 0:
        return "no samples arrive"
    if not situation.observation.good:
        return "no lead is good"
    if kind == "bradycardia" and situation.asystole_open:
        return "an asystole is told of"
    return "it is not known"


def measured_values(kind: AlarmKind, situation: Situation) -> dict[str, Any]:
    """What the condition was judged by, as plain JSON values; what is not a number is None."""
    observation = situation.observation
    values = {name: _as_json(getattr(observation, name)) for name in CONDITIONS[kind].measurements}
    if kind == "gap":
        values["missing"] = situation.missing
    return values


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not isfinite(value) else value
