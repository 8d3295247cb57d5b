import math
from typing import Any

import pytest

from monitors.alarms.conditions import (
    BETWEEN,
    CLEAR,
    CONDITIONS,
    HIGH,
    LOW,
    MEDIUM,
    UNKNOWN,
    Situation,
    Timer,
    contradicted_kinds,
    measured_values,
    unknown_reason,
    update_missing,
)
from monitors.alarms.events import AlarmKind, JudgedBeat, Observation, Pulse
from monitors.alarms.limits import Limits

PHYSIOLOGICAL = [kind for kind, each in CONDITIONS.items() if each.category == "physiological"]


def situation(
    missing: float = 0.0,
    *,
    unjudged: float = 0.0,
    asystole_open: bool = False,
    lead_off_open: bool = False,
    **observed: Any,
) -> Situation:
    observation = Observation(time=0.0, **observed)
    return Situation(observation, Limits(), missing, unjudged, asystole_open, lead_off_open=lead_off_open)


@pytest.mark.parametrize(
    ("kind", "observed", "level"),
    [
        ("asystole", {"silence": 3.9}, CLEAR),
        ("asystole", {"silence": 4.0}, HIGH),
        ("asystole", {"silence": math.inf}, HIGH),
        ("bradycardia", {"heart_rate": 55}, CLEAR),
        ("bradycardia", {"heart_rate": 50}, BETWEEN),
        ("bradycardia", {"heart_rate": 49.9}, MEDIUM),
        ("bradycardia", {"heart_rate": 39.9}, HIGH),
        ("bradycardia", {"heart_rate": 20, "asystole_open": True}, UNKNOWN),
        ("tachycardia", {"heart_rate": 115}, CLEAR),
        ("tachycardia", {"heart_rate": 120}, BETWEEN),
        ("tachycardia", {"heart_rate": 120.1}, MEDIUM),
        ("tachycardia", {"heart_rate": 140.1}, HIGH),
        ("anomaly", {"burden": 0.19}, CLEAR),
        ("anomaly", {"burden": 0.2}, BETWEEN),
        ("anomaly", {"burden": 0.4}, MEDIUM),
        ("anomaly", {"burden": 0.8}, HIGH),
        ("lead-off", {}, CLEAR),
        ("lead-off", {"off": ("V5",)}, LOW),
        ("lead-off", {"off": ("V5",), "good": False}, MEDIUM),
        ("lead-off", {"off": ("V5",), "lost": 1}, UNKNOWN),
        ("poor-signal", {"poor": ("I",)}, CLEAR),
        ("poor-signal", {"poor": ("I",), "good": False}, MEDIUM),
        ("poor-signal", {"off": ("I",), "good": False}, MEDIUM),
        ("poor-signal", {"off": ("I",), "good": False, "lead_off_open": True}, UNKNOWN),
        ("poor-signal", {"off": ("I",), "poor": ("II",), "good": False, "lead_off_open": True}, MEDIUM),
        ("poor-signal", {"good": False, "lost": 3}, UNKNOWN),
        ("ventricular-fibrillation", {"fibrillation": 0.4}, CLEAR),
        ("ventricular-fibrillation", {"fibrillation": 0.6}, BETWEEN),
        ("ventricular-fibrillation", {"fibrillation": 0.8}, HIGH),
        ("ventricular-tachycardia", {"tachycardia": 0.8}, HIGH),
        ("ventricular-tachycardia", {"tachycardia": 0.8, "rhythm": False}, UNKNOWN),
        ("ventricular-tachycardia", {"tachycardia": math.nan}, UNKNOWN),
        ("unjudged", {"unjudged": 10.0}, CLEAR),
        ("unjudged", {"unjudged": 15.0}, BETWEEN),
        ("unjudged", {"unjudged": 20.0}, MEDIUM),
        ("gap", {"missing": 3.0}, CLEAR),
        ("gap", {"missing": 4.0}, BETWEEN),
        ("gap", {"missing": 6.0}, LOW),
        ("stream-lost", {"lost": 0}, CLEAR),
        ("stream-lost", {"lost": 9}, BETWEEN),
        ("stream-lost", {"lost": 10}, MEDIUM),
        ("stream-lost", {"lost": 60}, HIGH),
        ("stream-lost", {"lost": math.nan}, UNKNOWN),
        ("behind", {"behind": 2.5}, CLEAR),
        ("behind", {"behind": 5.0}, BETWEEN),
        ("behind", {"behind": 5.1}, MEDIUM),
        ("behind", {"behind": math.nan}, UNKNOWN),
    ],
)
def test_a_condition_holds_at_a_level(kind: AlarmKind, observed: dict[str, Any], level: int) -> None:
    assert CONDITIONS[kind].level(situation(**observed)) == level


@pytest.mark.parametrize("kind", PHYSIOLOGICAL)
@pytest.mark.parametrize("bad", [{"good": False, "rhythm": False}, {"lost": 2.0}], ids=str)
def test_without_a_signal_nothing_physiological_is_judged(kind: AlarmKind, bad: dict[str, Any]) -> None:
    for rate in (20.0, 70.0, 200.0):
        observed = situation(heart_rate=rate, silence=9.0, burden=1.0, **bad)
        assert CONDITIONS[kind].level(observed) == UNKNOWN


@pytest.mark.parametrize("kind", PHYSIOLOGICAL)
@pytest.mark.parametrize("value", [None, math.nan, -1.0])
def test_what_is_no_measurement_is_not_judged(kind: AlarmKind, value: float | None) -> None:
    assert CONDITIONS[kind].level(situation(heart_rate=value, silence=value, burden=value)) == UNKNOWN


def test_a_timer_counts_while_its_level_holds() -> None:
    timer = Timer(10.0, 10.0)
    for now, level in ((10.0, MEDIUM), (12.0, HIGH), (14.0, HIGH), (16.0, MEDIUM)):
        timer = timer.after(level, now, 0.0, 2.5)
    assert timer.held == (6.0, 6.0, -1.0)
    assert (timer.since, timer.lasted) == (10.0, 6.0)
    assert timer.reached((math.inf, 6.0, 0.0)) == MEDIUM
    assert timer.reached((math.inf, 6.1, 0.0)) == 0
    assert timer.reached((0.0, 6.1, 0.0)) == LOW


def test_between_its_limits_a_timer_goes_on_but_nothing_holds() -> None:
    timer = Timer(0.0, 0.0).after(BETWEEN, 0.0, 0.0, 2.5)
    assert timer.lasted < 0
    timer = timer.after(LOW, 2.0, 0.0, 2.5).after(BETWEEN, 4.0, 0.0, 2.5)
    assert (timer.lasted, timer.held, timer.clear) == (2.0, (-1.0, -1.0, -1.0), -1.0)
    timer = timer.after(CLEAR, 6.0, 0.0, 2.5).after(CLEAR, 8.0, 0.0, 2.5)
    assert (timer.lasted, timer.clear) == (-1.0, 2.0)


@pytest.mark.parametrize(
    ("now", "gap", "held"),
    [(2.0, 1.5, 0.5), (2.0, 9.0, 0.0), (8.0, 0.0, 2.5), (30.0, 0.0, 0.0), (-5.0, 0.0, 0.0)],
)
def test_a_timer_counts_no_time_that_was_not_seen(now: float, gap: float, held: float) -> None:
    timer = Timer(0.0, 0.0).after(LOW, 0.0, 0.0, 2.5).after(LOW, now, gap, 2.5)
    assert timer.held[0] == held


def test_missing_seconds_are_of_the_last_minute_and_few_numbers() -> None:
    missing = update_missing((), 1000.0, 4.0)
    assert sum(seconds for _, seconds in update_missing(missing, 1050.0, 1.0)) == 5.0
    assert update_missing(missing, 1060.0, 0.0) == ()
    assert update_missing(missing, 500.0, 0.0) == (), "the clock was set back"
    assert update_missing((), 0.0, math.inf) == ((0, 60.0),)
    assert update_missing((), 0.0, math.nan) == update_missing((), 0.0, -3.0) == ()
    for hop in range(1000):
        missing = update_missing(missing, 1000.0 + hop / 4, 0.1)
    assert len(missing) <= 12


def test_a_reason_says_what_stands_in_the_way() -> None:
    assert unknown_reason("tachycardia", situation(lost=3.0, good=False)) == "no data from the stream"
    assert unknown_reason("tachycardia", situation(good=False, rhythm=False)) == "no lead with good signal"
    assert unknown_reason("bradycardia", situation(asystole_open=True)) == "asystole alarm active"
    assert unknown_reason("tachycardia", situation(asystole_open=True)) == "heart rate not available"


def test_what_was_measured_is_plain_json() -> None:
    assert measured_values("lead-off", situation(off=("I",))) == {"off": ["I"], "good": True}
    assert measured_values("stream-lost", situation(lost=math.inf)) == {"lost": None}
    assert measured_values("gap", situation(gap=2.0, missing=7.0)) == {"gap": 2.0, "missing": 7.0}


def beats_at(per_minute: float, *chances: float) -> dict[str, Any]:
    """The last beats, at a rate, with the probability that each is ventricular; the last at second 100."""
    period = 60 / per_minute
    first = 100 - period * (len(chances) - 1)
    beats = tuple(JudgedBeat(first + period * n, chance) for n, chance in enumerate(chances))
    return {"time": 101.0, "tachycardia": 0.0, "beats": beats}


@pytest.mark.parametrize(
    ("beats", "level"),
    [
        (beats_at(120, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9), HIGH),
        (beats_at(120, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1), HIGH),
        (beats_at(120, 0.1, 0.9, 0.9, 0.9, 0.9, 0.1), BETWEEN),
        (beats_at(90, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9), CLEAR),
        (beats_at(150, 0.9, 0.9, math.nan, 0.9, 0.9, 0.9), CLEAR),
        (beats_at(120, 0.7, 0.7, 0.7, 0.7, 0.7), BETWEEN),
        (beats_at(120, 0.9, 0.9), CLEAR),
        (beats_at(120, 0.9, 0.9, 0.9, 0.9, 0.9) | {"time": 106.0}, CLEAR),
        (beats_at(120, 0.9, 0.9, 0.9, 0.9, 0.9) | {"fibrillation": 0.9}, CLEAR),
    ],
)
def test_five_ventricular_beats_in_a_row_above_the_rate_are_tachycardia(
    beats: dict[str, Any], level: int
) -> None:
    now = Situation(Observation(**beats), Limits())
    assert CONDITIONS["ventricular-tachycardia"].level(now) == level


def test_a_patient_may_have_other_limits_of_ventricular_runs() -> None:
    limits = Limits.model_validate({"ventricular_tachycardia": {"beats": 3, "rate": 60}})
    seen = Situation(Observation(**beats_at(80, 0.1, 0.9, 0.9, 0.9)), limits)
    assert CONDITIONS["ventricular-tachycardia"].level(seen) == HIGH
    assert measured_values("ventricular-tachycardia", seen)["tachycardia"] == pytest.approx(0.9)


def pulse(rate: float, *, steady: bool = True) -> Pulse:
    return Pulse("ABP", rate, 0.4, steady)


@pytest.mark.parametrize(
    ("kind", "observed", "rate", "level"),
    [
        ("asystole", {"silence": 6.0}, 70, UNKNOWN),
        ("asystole", {"silence": 1.0}, 70, CLEAR),
        ("bradycardia", {"heart_rate": 35}, 70, UNKNOWN),
        ("bradycardia", {"heart_rate": 35}, 36, HIGH),
        ("bradycardia", {"heart_rate": 70}, 36, CLEAR),
        ("tachycardia", {"heart_rate": 150}, 75, UNKNOWN),
        ("tachycardia", {"heart_rate": 150}, 148, HIGH),
        ("tachycardia", {"heart_rate": 80}, 148, CLEAR),
        ("ventricular-tachycardia", {"tachycardia": 0.9}, 80, UNKNOWN),
        ("ventricular-tachycardia", {"tachycardia": 0.9}, 150, HIGH),
        ("ventricular-fibrillation", {"fibrillation": 0.9}, 80, UNKNOWN),
        ("ventricular-fibrillation", {"fibrillation": 0.1}, 80, CLEAR),
    ],
)
def test_a_steady_pulse_contradicts_an_alarm_that_it_does_not_share_and_an_unsteady_one_none(
    kind: AlarmKind, observed: dict[str, Any], rate: float, level: int
) -> None:
    alone = CONDITIONS[kind].level(situation(**observed))
    steady = situation(pulse=pulse(rate), **observed)
    assert CONDITIONS[kind].level(steady) == level
    assert CONDITIONS[kind].level(situation(pulse=pulse(rate, steady=False), **observed)) == alone
    assert contradicted_kinds(steady) == ((kind,) if level == UNKNOWN else ())
    if level == UNKNOWN:
        assert unknown_reason(kind, steady) == f"contradicted by a steady pulse of {rate}/min in ABP"


def test_a_ventricular_rhythm_needs_less_while_the_pulse_is_not_steady() -> None:
    condition = CONDITIONS["ventricular-tachycardia"].level
    assert condition(situation(tachycardia=0.7)) == BETWEEN
    assert condition(situation(tachycardia=0.7, pulse=pulse(80, steady=False))) == HIGH


def test_a_steady_pulse_gives_the_rate_while_no_lead_of_the_ecg_can_be_judged() -> None:
    unseen = {"rhythm": False, "good": False}
    assert CONDITIONS["tachycardia"].level(situation(pulse=pulse(150), **unseen)) == HIGH
    assert CONDITIONS["bradycardia"].level(situation(pulse=pulse(35), **unseen)) == HIGH
    for bad in (
        situation(pulse=pulse(150, steady=False), **unseen),
        situation(pulse=pulse(150), lost=3, **unseen),
    ):
        assert CONDITIONS["tachycardia"].level(bad) == UNKNOWN
