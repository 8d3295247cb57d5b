import math

from monitors.alarms.limits import AnomalyLimits
from monitors.alarms.machine import acknowledge, discharge
from monitors.alarms.state import AlarmState
from tests.monitors.alarms.scripted_bed import NOISE, OFF, START, STILL, WELL, ScriptedBed


def test_a_slow_heart_is_told_within_ten_seconds_and_says_why() -> None:
    bed = ScriptedBed()
    bed.observe(60)
    assert bed.observe(6, heart_rate=36.0) == ["bradycardia onset"]
    (onset,) = bed.log
    # 2 s until the next observation, 4 s of delay; 4 s are left to estimate the rate.
    assert onset.time - START - 60 <= 6
    assert (onset.priority, onset.state, onset.announced) == ("medium", "active", True)
    assert onset.alarm == f"bed:bradycardia:{round(onset.onset * 1000)}"
    assert onset.why["measured"] == {"heart_rate": 36.0, "silence": 0.5}
    assert {"medium": 40, "high": 30, "back": 5, "delay": 4}.items() <= onset.why["limits"].items()
    assert (onset.why["since"], onset.why["lasted"]) == (START + 62, 4)


def test_a_short_slow_spell_is_no_alarm() -> None:
    bed = ScriptedBed()
    for _ in range(10):
        assert bed.observe(4, heart_rate=36.0) == []
        assert bed.observe(2) == []


def test_a_rate_about_the_limit_is_one_alarm() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=39.0)
    for rate in (41.0, 39.0, 44.0, 38.0) * 5:
        assert bed.observe(2, heart_rate=rate) == []
    assert bed.observe(4, heart_rate=46.0) == []
    assert bed.observe(6, heart_rate=46.0) == ["bradycardia ended"], "medium ends by itself"
    assert not bed.state.open


def test_a_slower_heart_is_high_and_stays_until_somebody_looks() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=36.0)
    assert bed.observe(6, heart_rate=28.0) == ["bradycardia escalated"]
    assert bed.observe(300, heart_rate=36.0) == [], "the priority does not fall"
    assert bed.alarm("bradycardia").priority == "high"
    assert bed.observe(300) == ["bradycardia latched"]
    assert bed.acknowledge("bradycardia") == ["acknowledged", "ended"]
    assert not bed.state.open


def test_a_very_fast_heart_is_high_at_once() -> None:
    bed = ScriptedBed()
    assert bed.observe(6, heart_rate=200.0) == ["tachycardia onset"]
    assert bed.alarm("tachycardia").priority == "high"


def test_what_is_latched_and_comes_again_soon_is_the_same_alarm_and_says_so() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=200.0)
    name = bed.alarm("tachycardia").name
    assert bed.observe(60) == ["tachycardia latched"]
    assert bed.observe(6, heart_rate=150.0) == ["tachycardia resumed"]
    alarm = bed.alarm("tachycardia")
    assert (alarm.name, alarm.state, alarm.priority) == (name, "active", "high")
    assert bed.log[-1].why["reason"] == "recurred within 60 s of its end"
    assert bed.observe(58) == [], "it then ends only when its condition has been over for as long"
    assert bed.observe(10) == ["tachycardia latched"]


def test_what_is_latched_and_comes_again_later_is_a_new_alarm_that_is_announced() -> None:
    bed = ScriptedBed(again_after=90)
    bed.observe(6, heart_rate=200.0)
    first = bed.alarm("tachycardia").name
    bed.observe(21 * 60 + 2)
    # At a medium rate, but nobody has seen that it was high.
    assert bed.observe(6, heart_rate=150.0) == ["tachycardia ended", "tachycardia onset"]
    ended, onset = bed.log[-2:]
    assert (ended.alarm, ended.state) == (first, "ended")
    assert onset.alarm == f"bed:tachycardia:{round(bed.now * 1000)}"
    assert (onset.onset, onset.priority, onset.announced) == (bed.now, "high", True)
    assert onset.why["reason"] == "recurred 21 min 0 s after an alarm that nobody acknowledged ended"
    assert list(bed.state.open) == ["tachycardia"]


def test_limits_are_of_the_stream() -> None:
    bed = ScriptedBed(bradycardia={"medium": 90, "high": 70}, tachycardia={"medium": 200, "high": 230})
    assert bed.observe(10, heart_rate=170.0) == []
    assert bed.observe(10, heart_rate=80.0) == ["bradycardia onset"]


def test_an_asystole_is_one_alarm_and_no_slow_heart_besides() -> None:
    bed = ScriptedBed()
    assert bed.observe(2, silence=3.9) == []
    assert bed.observe(60, heart_rate=8.0, silence=6.0) == ["asystole onset"]
    assert bed.alarm("asystole").priority == "high"
    assert bed.observe(60, **WELL) == ["asystole latched"]
    assert bed.acknowledge("asystole") == ["acknowledged", "ended"]


def test_a_slow_heart_after_an_asystole_is_told() -> None:
    bed = ScriptedBed()
    bed.observe(4, **STILL)
    assert bed.observe(20, heart_rate=25.0) == ["asystole latched", "bradycardia onset"]


def test_a_slow_heart_that_stops_is_suppressed_by_the_asystole() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=35.0)
    assert bed.observe(20, **STILL) == ["asystole onset", "bradycardia suppressed"]
    assert bed.log[-1].why["reason"] == "asystole alarm active"


def test_an_asystole_does_not_vanish_when_the_signal_does() -> None:
    bed = ScriptedBed()
    bed.observe(4, **STILL)
    assert bed.observe(3600, **OFF) == ["lead-off onset"]
    assert bed.alarm("asystole").state == "active"
    assert bed.observe(20) == ["lead-off ended", "asystole latched"]
    assert bed.observe(3600) == []


def test_an_acknowledged_asystole_stays_open_until_qrs_are_seen() -> None:
    bed = ScriptedBed()
    bed.observe(4, **STILL)
    assert bed.acknowledge("asystole") == ["acknowledged"]
    assert bed.acknowledge("asystole") == [], "once is enough"
    bed.observe(60, **OFF)
    bed.observe(60, lost=30.0)
    assert bed.alarm("asystole").state == "acknowledged"
    assert "asystole ended" in bed.observe(20)


def test_a_bad_signal_suppresses_the_physiological_alarm_and_raises_the_technical() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=150.0)
    assert bed.observe(20, **NOISE) == ["tachycardia suppressed", "poor-signal onset"]
    assert bed.log[1].why["reason"] == "no lead with good signal"
    assert bed.observe(2, heart_rate=150.0) == ["tachycardia resumed"]
    bed.observe(20, **NOISE)
    assert bed.observe(20)[-1] == "tachycardia ended"


def test_one_noisy_moment_changes_nothing() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=150.0)
    for _ in range(8):
        assert bed.observe(2, **NOISE) == []
        assert bed.observe(2, heart_rate=150.0) == []


def test_a_suppressed_alarm_can_be_acknowledged_and_then_ends_with_its_condition() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=150.0)
    bed.observe(8, **NOISE)
    assert bed.acknowledge("tachycardia") == ["acknowledged"]
    assert bed.observe(20, heart_rate=150.0) == []
    assert bed.observe(20) == ["tachycardia ended"]


def test_values_of_a_bad_signal_raise_nothing_physiological() -> None:
    bed = ScriptedBed()
    bed.observe(60, **NOISE, heart_rate=250.0, silence=30.0, burden=1.0)
    assert {each.kind for each in bed.log} == {"poor-signal"}


def test_what_is_not_known_ends_nothing() -> None:
    bed = ScriptedBed()
    bed.observe(2, burden=0.5)
    assert bed.observe(600, burden=None) == ["anomaly suppressed"]
    assert bed.log[-1].why["reason"] == "measurement not available"
    assert bed.observe(2, burden=0.3) == ["anomaly resumed"]


def test_an_anomaly_comes_at_forty_and_goes_under_twenty_percent() -> None:
    bed = ScriptedBed()
    assert bed.observe(60, burden=0.35) == []
    assert bed.observe(2, burden=0.40) == ["anomaly onset"]
    assert bed.alarm("anomaly").priority == "medium"
    assert bed.observe(60, burden=0.20) == []
    assert bed.observe(2, burden=0.15) == ["anomaly ended"]


def test_an_anomaly_that_nobody_looks_at_becomes_high() -> None:
    bed = ScriptedBed()
    bed.observe(2, burden=0.35)
    assert bed.observe(600, burden=0.5) == ["anomaly onset"]
    assert bed.observe(4, burden=0.5) == ["anomaly escalated"]
    assert ScriptedBed(anomaly={"escalate_after": None}).observe(7200, burden=0.5) == ["anomaly onset"]


def test_an_acknowledged_anomaly_is_quiet_until_it_is_worse() -> None:
    bed = ScriptedBed()
    bed.observe(4, burden=0.5)
    bed.acknowledge("anomaly")
    assert bed.observe(3600, burden=0.6) == []
    assert bed.observe(AnomalyLimits().severe_for + 2, burden=0.9) == ["anomaly escalated"]
    assert (bed.log[-1].priority, bed.log[-1].state, bed.log[-1].announced) == ("high", "active", True)


def test_missing_time_counts_in_no_delay() -> None:
    for gap in (30.0, 0.0):  # reported, and not
        bed = ScriptedBed()
        for _ in range(20):
            bed.observe(4, heart_rate=150.0)
            bed.now += 30
            bed.observe(2, heart_rate=150.0, gap=gap)
            bed.observe(2)
        assert {each.kind for each in bed.log} <= {"gap"}


def test_acknowledging_what_is_not_there_changes_nothing() -> None:
    bed = ScriptedBed()
    bed.observe(4, burden=0.5)
    name = bed.alarm("anomaly").name
    bed.observe(4, burden=0.0)
    for each in (name, "bed:anomaly:1", ""):
        assert acknowledge(bed.state, each, bed.now) == (bed.state, ())


def test_a_discharge_ends_everything() -> None:
    bed = ScriptedBed()
    bed.observe(8, heart_rate=200.0, burden=0.5)
    bed.observe(20, **OFF)
    state, ended = discharge(bed.state, bed.now)
    assert {each.kind for each in ended} == {"tachycardia", "anomaly", "lead-off"}
    assert {(each.change, each.state, each.why["reason"]) for each in ended} == {
        ("ended", "ended", "discharged")
    }
    assert state == AlarmState("bed")
    assert discharge(state, math.nan) == (state, ())
