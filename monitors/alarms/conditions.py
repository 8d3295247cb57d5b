"""Alarm conditions: pure functions of an observation and the limits, and the timers of their delays.

A condition returns a level: clear, between its limits (hysteresis), or true at a priority. Physiological
conditions are judged only while samples arrive and show what each one needs (QRS complexes for the rhythm,
the shapes of beats for the burden), as a value computed from noise is no value (IEC 60601-2-27 separates
physiological alarms from technical ones). Timers count only the time in
which the condition was judged, so that missing samples count neither towards an alarm nor towards its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, floor, inf, isfinite, log, nan
from typing import Any, NamedTuple

from genray.text import label_value
from monitors.alarms.events import AlarmKind, Category, Observation, Priority
from monitors.alarms.limits import EctopyLimits, Limits, VentricularLimits, VentricularTachycardiaLimits

UNKNOWN, CLEAR, BETWEEN, LOW, MEDIUM, HIGH = -2, -1, 0, 1, 2, 3
"""Levels: cannot be judged; clear; between the limits (hysteresis); true at low, medium or high priority."""
PRIORITIES: tuple[Priority, ...] = ("low", "medium", "high")
"""Priorities of the levels LOW, MEDIUM and HIGH."""

ByPriority = tuple[float, float, float]
"""Seconds for each priority: low, medium, high."""
MissingSeconds = tuple[tuple[int, float], ...]
"""Seconds of missing samples, or of samples that were not judged, in each 5 s of the last minute: (number of
the 5 s, seconds)."""
_STRETCH, _STRETCHES = 5.0, 12
_RECENT_RUN = (
    5.0  # s for which a run of ventricular beats counts after its end, as a window of the rhythm does
)


class Situation(NamedTuple):
    """Input of a condition: the observation, the limits and the open alarms that it depends on.

    Attributes:
        missing: seconds of samples missing in the last minute.
        unjudged: seconds of the last minute in which the rhythm could not be judged and no alarm about the
            signal was open.
        asystole_open: whether an asystole alarm is open.
        ventricular_open: whether an alarm for ventricular tachycardia or fibrillation is open.
        lead_off_open: whether a lead-off alarm is open.
    """

    observation: Observation
    limits: Limits
    missing: float = 0.0
    unjudged: float = 0.0
    asystole_open: bool = False
    ventricular_open: bool = False
    lead_off_open: bool = False

    @property
    def has_signal(self) -> bool:
        """Whether samples arrive and at least one lead is good."""
        return self.observation.good and not self.observation.lost > 0

    @property
    def has_rhythm(self) -> bool:
        """Whether samples arrive and QRS complexes can be detected in at least one lead."""
        return self.observation.rhythm and not self.observation.lost > 0

    @property
    def rate(self) -> float | None:
        """Heart rate by the ECG; while no lead of it can be judged, by a steady pulse; None: neither."""
        observation = self.observation
        if self.has_rhythm:
            return observation.heart_rate
        pulse = observation.pulse
        return pulse.rate if pulse is not None and pulse.steady and not observation.lost > 0 else None

    def pulse_contradicts(self, kind: AlarmKind) -> bool:
        """Whether a steady pulse shows that the ECG is wrong about a condition: there is no asystole with
        pulses on time, no ventricular rhythm with a normal pulse, and no rate that these do not share. A
        pulse wave that is poor, or pulses that are not steady, contradict nothing."""
        pulse, limits = self.observation.pulse, self.limits
        if pulse is None or not pulse.steady:
            return False
        match kind:
            case "asystole":
                return True
            case "bradycardia":
                return pulse.rate >= limits.bradycardia.medium + limits.bradycardia.back
            case "tachycardia":
                return pulse.rate <= limits.tachycardia.medium - limits.tachycardia.back
            case "ventricular-tachycardia" | "ventricular-fibrillation":
                return limits.bradycardia.medium <= pulse.rate < limits.ventricular_tachycardia.rate
            case _:
                return False


def asystole(situation: Situation) -> int:
    """Return the level of asystole: no QRS complex for 4 s (CinC 2015). There is no further delay. Unknown
    while a steady pulse shows that complexes were missed."""
    silence = situation.observation.silence
    if not situation.has_rhythm or silence is None or not silence >= 0:
        return UNKNOWN
    if silence < situation.limits.asystole.silence:
        return CLEAR
    return UNKNOWN if situation.pulse_contradicts("asystole") else HIGH


def ventricular_fibrillation(situation: Situation) -> int:
    """Return the level of ventricular fibrillation or flutter."""
    limits = situation.limits.ventricular_fibrillation
    level = _ventricular(situation, situation.observation.fibrillation, limits)
    return _unless_contradicted(situation, "ventricular-fibrillation", level)


def ventricular_tachycardia(situation: Situation) -> int:
    """Return the level of ventricular tachycardia."""
    limits = situation.limits.ventricular_tachycardia
    level = _ventricular(situation, tachycardia_probability(situation), limits)
    return _unless_contradicted(situation, "ventricular-tachycardia", level)


def _unless_contradicted(situation: Situation, kind: AlarmKind, level: int) -> int:
    """Return `level`, or unknown where a steady pulse contradicts it."""
    return UNKNOWN if level >= BETWEEN and situation.pulse_contradicts(kind) else level


def tachycardia_probability(situation: Situation) -> float:
    """Return the probability of ventricular tachycardia: of the rhythm of the last 5 s, or of the ventricular
    beats in a row, whichever is higher. While the rhythm is rather fibrillation, whose waves may count as
    beats, that of the rhythm."""
    observation, limits = situation.observation, situation.limits.ventricular_tachycardia
    if observation.fibrillation >= limits.end:
        return observation.tachycardia
    known = [p for p in (observation.tachycardia, ventricular_run(observation, limits)) if p == p]
    return max(known, default=nan)


def ventricular_run(observation: Observation, limits: VentricularTachycardiaLimits) -> float:
    """Return the geometric mean of the probabilities that beats are ventricular, of as many beats in a row as
    `limits` ask for and at its rate, the highest of the last seconds; NaN: there are not as many."""
    beats, count = observation.beats, limits.beats
    best = nan
    for end in range(len(beats), count - 1, -1):
        last = beats[end - 1].time
        if last < observation.time - _RECENT_RUN:
            break
        seconds = last - beats[end - count].time
        if seconds <= 0:
            continue
        found = 0.0
        if 60 * (count - 1) >= limits.rate * seconds:
            chances = [beat.ventricular for beat in beats[end - count : end]]
            if all(chance > 0 for chance in chances):  # NaN: not judged
                found = exp(sum(map(log, chances)) / count)
        if not best >= found:
            best = found
    return best


def _ventricular(situation: Situation, probability: float, limits: VentricularLimits) -> int:
    if not situation.has_rhythm or not 0 <= probability <= 1:
        return UNKNOWN
    if probability < limits.end:
        return CLEAR
    pulse = situation.observation.pulse
    begin = limits.begin if pulse is None or pulse.steady else limits.begin_with_pulse
    return HIGH if probability >= begin else BETWEEN


def bradycardia(situation: Situation) -> int:
    """Return the level of bradycardia; unknown during an alarm for asystole or a ventricular rhythm, so that
    one cause is one alarm: the complexes of torsades are hard to detect, and they are not a slow rhythm."""
    rate, limits = situation.rate, situation.limits.bradycardia
    other = situation.asystole_open or situation.ventricular_open
    if other or rate is None or not 0 <= rate < inf:
        return UNKNOWN
    if rate >= limits.medium + limits.back:
        return CLEAR
    if rate >= limits.medium:
        return BETWEEN
    return _unless_contradicted(situation, "bradycardia", MEDIUM if rate >= limits.high else HIGH)


def tachycardia(situation: Situation) -> int:
    """Return the level of tachycardia."""
    rate, limits = situation.rate, situation.limits.tachycardia
    if rate is None or not 0 <= rate < inf:
        return UNKNOWN
    if rate <= limits.medium - limits.back:
        return CLEAR
    if rate <= limits.medium:
        return BETWEEN
    return _unless_contradicted(situation, "tachycardia", MEDIUM if rate <= limits.high else HIGH)


def ventricular_beats_in_a_row(situation: Situation) -> int:
    """Return the level of a ventricular run."""
    limits = situation.limits.ventricular_run
    return _ectopy(situation, limits, MEDIUM, max(_rows(situation, limits), default=0) >= limits.beats)


def couplet(situation: Situation) -> int:
    """Return the level of couplets: exactly two ventricular beats in a row."""
    limits = situation.limits.couplet
    return _ectopy(situation, limits, LOW, 2 in _rows(situation, limits))


def bigeminy(situation: Situation) -> int:
    """Return the level of bigeminy."""
    limits = situation.limits.bigeminy
    last = situation.observation.beats[-2 * limits.pairs - 1 :]
    ventricular = [beat.ventricular >= limits.probability for beat in last]
    alternates = all(now != after for now, after in pairwise(ventricular))
    return _ectopy(situation, limits, LOW, len(ventricular) > 2 * limits.pairs and alternates)


def _ectopy(situation: Situation, limits: EctopyLimits, level: int, holds: bool) -> int:
    """Return `level` where a condition about ventricular beats `holds`; unknown during an alarm for a
    ventricular rhythm, so that one cause is one alarm."""
    if not limits.enabled:
        return CLEAR
    if situation.ventricular_open or not situation.has_rhythm or not situation.observation.beats:
        return UNKNOWN
    return level if holds else CLEAR


def _rows(situation: Situation, limits: EctopyLimits) -> list[int]:
    """Return the lengths of the rows of ventricular beats that ended in the last seconds: another beat came
    after them."""
    since = situation.observation.time - _RECENT_RUN
    rows: list[int] = []
    count = 0
    has_ended = False
    for beat in reversed(situation.observation.beats):
        if beat.ventricular >= limits.probability:
            count += has_ended
            continue
        if count:
            rows.append(count)
        count = 0
        has_ended = beat.time >= since
        if not has_ended:
            return rows
    return [*rows, count] if count else rows


def atrial_fibrillation(situation: Situation) -> int:
    """Return the level of atrial fibrillation: RR intervals without any order. Unknown while there are too
    few, or ventricular beats are frequent."""
    limits, measured = situation.limits.atrial_fibrillation, situation.observation.irregularity
    if not limits.enabled:
        return CLEAR
    if measured is None or not situation.has_rhythm or not measured.ectopic <= limits.ectopic:
        return UNKNOWN
    irregular = measured.variation >= limits.variation and measured.entropy >= limits.entropy
    random = limits.turning_low <= measured.turning <= limits.turning_high
    return LOW if irregular and random else CLEAR


def anomaly(situation: Situation) -> int:
    """Return the level of the anomaly burden. It covers many beats already, so medium needs no delay."""
    burden, limits = situation.observation.burden, situation.limits.anomaly
    if not situation.has_signal or burden is None or not 0 <= burden <= 1:
        return UNKNOWN
    if burden < limits.end:
        return CLEAR
    if burden < limits.begin:
        return BETWEEN
    return MEDIUM if burden < limits.severe else HIGH


def lead_off(situation: Situation) -> int:
    """Return the level of lead-off: low while another lead is good, else medium."""
    observation = situation.observation
    if observation.lost > 0:
        return UNKNOWN
    if not observation.off:
        return CLEAR
    return LOW if observation.good else MEDIUM


def poor_signal(situation: Situation) -> int:
    """Return the level of poor signal: no lead is good, so that leads that alternate between noisy and off
    raise an alarm too. Unknown while a lead-off alarm is open and all bad leads are off."""
    observation = situation.observation
    if observation.lost > 0:
        return UNKNOWN
    if observation.good:
        return CLEAR
    only_off = observation.off and not observation.poor
    return UNKNOWN if situation.lead_off_open and only_off else MEDIUM


def unjudged(situation: Situation) -> int:
    """Return the level of a rhythm that could not be judged for much of the last minute."""
    limits = situation.limits.unjudged
    if situation.unjudged >= limits.begin:
        return MEDIUM
    return CLEAR if situation.unjudged <= limits.end else BETWEEN


def gap(situation: Situation) -> int:
    """Return the level of missing samples in the last minute."""
    limits = situation.limits.gap
    if situation.missing >= limits.begin:
        return LOW
    return CLEAR if situation.missing <= limits.end else BETWEEN


def stream_lost(situation: Situation) -> int:
    """Return the level of a lost stream, by the seconds without data on the wall clock; no further delay."""
    lost, limits = situation.observation.lost, situation.limits.stream_lost
    if lost != lost:
        return UNKNOWN
    if lost <= 0:
        return CLEAR
    if lost >= limits.high:
        return HIGH
    return MEDIUM if lost >= limits.medium else BETWEEN


def behind(situation: Situation) -> int:
    """Return the level of the delay between the arrival of samples and their analysis."""
    lag, limits = situation.observation.behind, situation.limits.behind
    if lag != lag:
        return UNKNOWN
    if lag > limits.begin:
        return MEDIUM
    return CLEAR if lag <= limits.end else BETWEEN


class Condition(NamedTuple):
    """Rules of one kind of alarm.

    Attributes:
        level: returns the level at which the condition is true now.
        delays: seconds for which it must be true until the alarm is low, medium, high.
        end_after: seconds for which it must be clear until the alarm ends.
        measurements: names of the values of an observation that it depends on.
        limits_name: name of its limits in `Limits`.
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
    "ventricular-fibrillation": Condition(
        "physiological",
        ventricular_fibrillation,
        lambda limits: (inf, inf, limits.ventricular_fibrillation.delay),
        lambda limits: limits.ventricular_fibrillation.end_after,
        ("fibrillation", "heart_rate"),
        "ventricular_fibrillation",
    ),
    "ventricular-tachycardia": Condition(
        "physiological",
        ventricular_tachycardia,
        lambda limits: (inf, inf, limits.ventricular_tachycardia.delay),
        lambda limits: limits.ventricular_tachycardia.end_after,
        ("tachycardia", "heart_rate"),
        "ventricular_tachycardia",
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
    "ventricular-run": Condition(
        "physiological",
        ventricular_beats_in_a_row,
        lambda _: (inf, 0.0, inf),
        lambda limits: limits.ventricular_run.end_after,
        ("heart_rate",),
        "ventricular_run",
    ),
    "couplet": Condition(
        "physiological",
        couplet,
        lambda _: (0.0, inf, inf),
        lambda limits: limits.couplet.end_after,
        ("heart_rate",),
        "couplet",
    ),
    "bigeminy": Condition(
        "physiological",
        bigeminy,
        lambda _: (0.0, inf, inf),
        lambda limits: limits.bigeminy.end_after,
        ("heart_rate",),
        "bigeminy",
    ),
    "atrial-fibrillation": Condition(
        "physiological",
        atrial_fibrillation,
        lambda limits: (limits.atrial_fibrillation.delay, inf, inf),
        lambda limits: limits.atrial_fibrillation.end_after,
        ("heart_rate",),
        "atrial_fibrillation",
    ),
    "anomaly": Condition(
        "physiological",
        anomaly,
        lambda limits: (inf, 0.0, limits.anomaly.severe_for),
        lambda _: 0.0,
        ("burden", "reference", "heart_rate"),
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
    "unjudged": Condition(
        "technical", unjudged, lambda _: (inf, 0.0, inf), lambda _: 0.0, ("poor", "off"), "unjudged"
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
"""Rules of each kind, in order of evaluation: asystole and ventricular rhythms before bradycardia, lead-off
before poor-signal."""


@dataclass(frozen=True, slots=True)
class Timer:
    """Timer of a condition: how long it has been true, in seconds of judged time; -1: it is not.

    Attributes:
        judged: unix time of the last judgment.
        since: unix time at which it last became true.
        lasted: seconds since then without being clear.
        held: seconds at low or above, at medium or above, at high.
        clear: seconds for which it has been clear.
    """

    judged: float
    since: float
    lasted: float = -1.0
    held: ByPriority = (-1.0, -1.0, -1.0)
    clear: float = -1.0

    def after(self, level: int, now: float, gap: float, longest: float) -> Timer:
        """Return the timer after a judgment at `now`. At most `longest` seconds count, and the `gap` seconds
        of missing samples do not; it restarts after four times `longest` without a judgment, or when the
        clock was set back."""
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
        """Return the level at which the condition was true for its delay; 0: none."""
        low, medium, high = self.held
        if high >= delays[2]:
            return HIGH
        if medium >= delays[1]:
            return MEDIUM
        return LOW if low >= delays[0] else 0


def _prolonged(seconds: float, credit: float) -> float:
    """Return `seconds` plus `credit`; 0 at the first judgment at which the condition is true."""
    return seconds + credit if seconds >= 0 else 0.0


def update_missing(missing: MissingSeconds, now: float, gap: float) -> MissingSeconds:
    """Return `missing` plus `gap` seconds at `now`, without entries older than a minute or in the future."""
    if not missing and not gap > 0:
        return missing
    current = floor(now / _STRETCH)
    recent = {stretch: seconds for stretch, seconds in missing if current - _STRETCHES < stretch <= current}
    if gap > 0:
        recent[current] = recent.get(current, 0.0) + min(gap, _STRETCH * _STRETCHES)
    return tuple(recent.items())


_RHYTHM: tuple[AlarmKind, ...] = (
    "asystole",
    "ventricular-fibrillation",
    "ventricular-tachycardia",
    "bradycardia",
    "tachycardia",
)


def contradicted_kinds(situation: Situation) -> tuple[AlarmKind, ...]:
    """Return the conditions that hold by the ECG, and that a steady pulse contradicts."""
    pulse = situation.observation.pulse
    if pulse is None or not pulse.steady:
        return ()
    ecg_alone = situation._replace(observation=replace(situation.observation, pulse=None))
    return tuple(
        kind
        for kind in _RHYTHM
        if situation.pulse_contradicts(kind) and CONDITIONS[kind].level(ecg_alone) >= LOW
    )


def unknown_reason(kind: AlarmKind, situation: Situation) -> str:
    """Return the reason why the condition cannot be judged, for a person."""
    if situation.observation.lost > 0:
        return "no data from the stream"
    pulse = situation.observation.pulse
    if pulse is not None and situation.pulse_contradicts(kind):
        return f"contradicted by a steady pulse of {pulse.rate:.0f}/min in {label_value(pulse.lead, 16)}"
    if not situation.observation.good and not (kind in _RHYTHM and situation.has_rhythm):
        return "no lead with good signal"
    if kind == "bradycardia" and situation.asystole_open:
        return "asystole alarm active"
    if kind == "bradycardia" and situation.ventricular_open:
        return "alarm for a ventricular rhythm active"
    if kind in ("bradycardia", "tachycardia"):
        return "heart rate not available"
    return "measurement not available"


def measured_values(kind: AlarmKind, situation: Situation) -> dict[str, Any]:
    """Return the values that the condition depends on, as plain JSON values; NaN and infinity as None."""
    observation = situation.observation
    values = {name: _as_json(getattr(observation, name)) for name in CONDITIONS[kind].measurements}
    if kind == "gap":
        values["missing"] = situation.missing
    elif kind == "ventricular-tachycardia":
        values["tachycardia"] = _as_json(tachycardia_probability(situation))
    elif kind in ("bradycardia", "tachycardia"):
        values["heart_rate"] = _as_json(situation.rate)
    elif kind == "ventricular-run":
        values["run"] = max(_rows(situation, situation.limits.ventricular_run), default=0)
    elif kind == "atrial-fibrillation" and observation.irregularity is not None:
        values |= {name: _as_json(value) for name, value in observation.irregularity._asdict().items()}
    elif kind == "unjudged":
        values["unjudged"] = situation.unjudged
        values["contradicted"] = list(contradicted_kinds(situation))
    if observation.pulse is not None and (kind in _RHYTHM or kind == "unjudged"):
        values["pulse"] = {name: _as_json(value) for name, value in observation.pulse._asdict().items()}
    return values


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not isfinite(value) else value
