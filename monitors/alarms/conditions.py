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

Missing = tuple[tuple[int, float], ...]
"""Seconds of samples that were missing, by stretches of 5 s of the last minute: (number, seconds)."""
_STRETCH, _STRETCHES = 5.0, 12


class Finding(NamedTuple):
    """What a condition is judged by.

    Attributes:
        missing: seconds of samples that were missing in the last minute.
        asystole: whether an alarm tells of it already.
        lead_off: likewise.
    """

    observation: Observation
    limits: Limits
    missing: float = 0.0
    asystole: bool = False
    lead_off: bool = False

    @property
    def judged(self) -> bool:
        """Whether a lead can be judged."""
        return self.observation.good and not self.observation.lost > 0


def asystole(seen: Finding) -> int:
    """No QRS for 4 s (CinC 2015). Needs no further delay: the silence is one."""
    silence = seen.observation.silence
    if not seen.judged or silence is None or not silence >= 0:
        return UNKNOWN
    return HIGH if silence >= seen.limits.asystole.silence else CLEAR


def bradycardia(seen: Finding) -> int:
    """A slow heart; not judged while an asystole is told of: one cause, one alarm."""
    rate, limits = seen.observation.heart_rate, seen.limits.bradycardia
    if seen.asystole or not seen.judged or rate is None or not 0 <= rate < inf:
        return UNKNOWN
    if rate >= limits.medium + limits.back:
        return CLEAR
    return BETWEEN if rate >= limits.medium else MEDIUM if rate >= limits.high else HIGH


def tachycardia(seen: Finding) -> int:
    """A fast heart."""
    rate, limits = seen.observation.heart_rate, seen.limits.tachycardia
    if not seen.judged or rate is None or not 0 <= rate < inf:
        return UNKNOWN
    if rate <= limits.medium - limits.back:
        return CLEAR
    return BETWEEN if rate <= limits.medium else MEDIUM if rate <= limits.high else HIGH


def anomaly(seen: Finding) -> int:
    """Many beats of unusual shape; the burden is of many beats, so it needs no delay to be medium."""
    burden, limits = seen.observation.burden, seen.limits.anomaly
    if not seen.judged or burden is None or not 0 <= burden <= 1:
        return UNKNOWN
    if burden < limits.end:
        return CLEAR
    return BETWEEN if burden < limits.begin else MEDIUM if burden < limits.severe else HIGH


def lead_off(seen: Finding) -> int:
    """An electrode is off."""
    if seen.observation.lost > 0:
        return UNKNOWN
    if not seen.observation.off:
        return CLEAR
    return LOW if seen.observation.good else MEDIUM


def poor_signal(seen: Finding) -> int:
    """No lead is good, for whatever reason: leads that change between noisy and off must not go unseen.
    Not judged while an alarm says that the electrodes are off, and that is all that is wrong."""
    observation = seen.observation
    if observation.lost > 0:
        return UNKNOWN
    if observation.good:
        return CLEAR
    return UNKNOWN if seen.lead_off and observation.off and not observation.poor else MEDIUM


def gap(seen: Finding) -> int:
    """Samples were missing in the last minute."""
    limits = seen.limits.gap
    return LOW if seen.missing >= limits.begin else CLEAR if seen.missing <= limits.end else BETWEEN


def stream_lost(seen: Finding) -> int:
    """Nothing arrives. Its time goes by the wall clock and is a delay by itself."""
    lost, limits = seen.observation.lost, seen.limits.stream_lost
    if lost != lost:
        return UNKNOWN
    if lost <= 0:
        return CLEAR
    return HIGH if lost >= limits.high else MEDIUM if lost >= limits.medium else BETWEEN


def behind(seen: Finding) -> int:
    """The monitor's work lags behind."""
    lag, limits = seen.observation.behind, seen.limits.behind
    if lag != lag:
        return UNKNOWN
    return MEDIUM if lag > limits.begin else CLEAR if lag <= limits.end else BETWEEN


class Condition(NamedTuple):
    """How the alarms of a kind come and go.

    Attributes:
        level: at which it holds now.
        delays: seconds for which it must hold until it is low, medium, high.
        end_after: seconds for which it must be over.
        measured: what of an observation it is judged by.
        limits: the name of its limits.
    """

    category: Category
    level: Callable[[Finding], int]
    delays: Callable[[Limits], tuple[float, float, float]]
    end_after: Callable[[Limits], float]
    measured: tuple[str, ...]
    limits: str


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
    held: tuple[float, float, float] = (-1.0, -1.0, -1.0)
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
            -1.0 if level < LOW else low + credit if low >= 0 else 0.0,
            -1.0 if level < MEDIUM else medium + credit if medium >= 0 else 0.0,
            -1.0 if level < HIGH else high + credit if high >= 0 else 0.0,
        )
        if level == CLEAR:
            return Timer(now, self.since, -1.0, held, clear + credit if clear >= 0 else 0.0)
        if lasted >= 0:
            return Timer(now, self.since, lasted + credit, held)
        return Timer(now, now, -1.0 if level == BETWEEN else 0.0, held)

    def reached(self, delays: tuple[float, float, float]) -> int:
        """The level at which it has held long enough; 0: none."""
        held = self.held
        return HIGH if held[2] >= delays[2] else MEDIUM if held[1] >= delays[1] else int(held[0] >= delays[0])


def missed(missing: Missing, now: float, gap: float) -> Missing:
    """`missing` with `gap` seconds more, and without what is longer ago than a minute or lies ahead."""
    if not missing and not gap > 0:
        return missing
    stretch = floor(now / _STRETCH)
    kept = dict(each for each in missing if stretch - _STRETCHES < each[0] <= stretch)
    if gap > 0:
        kept[stretch] = kept.get(stretch, 0.0) + min(gap, _STRETCH * _STRETCHES)
    return tuple(kept.items())


def unjudged(kind: AlarmKind, seen: Finding) -> str:
    """Why the condition cannot be judged, in words."""
    if seen.observation.lost > 0:
        return "no samples arrive"
    if not seen.observation.good:
        return "no lead is good"
    return "an asystole is told of" if kind == "bradycardia" and seen.asystole else "it is not known"


def measured(kind: AlarmKind, seen: Finding) -> dict[str, Any]:
    """What the condition was judged by, as plain JSON values; what is not a number is None."""
    condition = CONDITIONS[kind]
    values = {name: _plain(getattr(seen.observation, name)) for name in condition.measured}
    return values | ({"missing": seen.missing} if kind == "gap" else {})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not isfinite(value) else value
