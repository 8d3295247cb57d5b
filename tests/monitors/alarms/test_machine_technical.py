import pytest

from monitors.alarms.events import Priority
from tests.monitors.alarms.scripted_bed import NOISE, OFF, START, WELL, ScriptedBed


def test_a_lead_that_is_off_is_low_while_another_is_good() -> None:
    bed = ScriptedBed()
    assert bed.observe(8, off=("V5",)) == ["lead-off onset"]
    (onset,) = bed.log
    assert (onset.category, onset.priority, onset.why["measured"]["off"]) == ("technical", "low", ["V5"])
    assert bed.observe(8, **OFF) == ["lead-off escalated"]
    assert bed.alarm("lead-off").priority == "medium"
    assert bed.observe(8, off=("V5",)) == [], "the priority does not fall"
    assert bed.observe(8) == ["lead-off ended"], "technical alarms do not latch"


def test_electrodes_that_are_all_off_are_one_alarm() -> None:
    assert ScriptedBed().observe(3600, **OFF) == ["lead-off onset"]


def test_noise_on_all_leads_is_low_and_after_a_minute_medium() -> None:
    bed = ScriptedBed()
    bed.observe(60)
    assert bed.observe(10, **NOISE) == []
    assert bed.observe(2, **NOISE) == ["poor-signal onset"]
    assert bed.log[0].priority == "low"
    assert bed.observe(50, **NOISE) == ["poor-signal escalated"]
    assert bed.alarm("poor-signal").priority == "medium"
    assert bed.observe(6) == ["poor-signal ended"]


def test_a_lead_that_is_noisy_and_off_in_turn_does_not_go_unseen() -> None:
    bed = ScriptedBed()
    for _ in range(10):
        bed.observe(2, **NOISE)
        bed.observe(2, **OFF)
    assert [each.kind for each in bed.log] == ["poor-signal"]


def test_missing_samples_are_told_until_the_last_minute_is_whole() -> None:
    bed = ScriptedBed()
    assert bed.observe(10, gap=1.0) == []
    assert bed.observe(2, gap=1.0) == ["gap onset"]
    assert (bed.log[0].priority, bed.log[0].why["measured"]["missing"]) == ("low", 6.0)
    assert bed.observe(70) == ["gap ended"]


def test_a_lost_stream_is_medium_and_after_a_minute_high() -> None:
    bed = ScriptedBed()
    bed.observe(10)
    for lost in range(2, 62, 2):
        bed.observe(2, lost=float(lost))
    onset, escalated = bed.log
    assert (onset.kind, onset.priority, onset.time) == ("stream-lost", "medium", START + 20)
    assert (escalated.change, escalated.priority, escalated.time) == ("escalated", "high", START + 70)
    assert bed.observe(6) == ["stream-lost ended"]


def test_what_a_lost_stream_missed_is_told_once() -> None:
    bed = ScriptedBed()
    bed.observe(60, lost=30.0)
    assert bed.observe(2, gap=60.0) == []
    assert bed.observe(20) == ["stream-lost ended"]


def test_a_lost_stream_says_nothing_of_its_leads() -> None:
    bed = ScriptedBed()
    bed.observe(4, **NOISE)
    assert bed.observe(60, lost=5.0, good=False, off=("I",), poor=("II",)) == []


@pytest.mark.parametrize(("lag", "told"), [(4.9, []), (5.1, ["behind onset"])])
def test_a_monitor_that_does_not_keep_up_says_so(lag: float, told: list[str]) -> None:
    bed = ScriptedBed()
    assert bed.observe(2, behind=30.0) == [], "one hiccup is none"
    bed.observe(2)
    assert bed.observe(60, behind=lag) == told
    assert bed.observe(60, behind=3.0) == []
    assert bed.observe(8) == [each.replace("onset", "ended") for each in told]


def flap(bed: ScriptedBed, times: int, priority: Priority = "low") -> None:
    """Alarms of one priority that come and go, each an alarm of its own."""
    for _ in range(times):
        bed.observe(8, **({"off": ("I",)} if priority == "low" else {"heart_rate": 150.0}))
        bed.observe(90)


def test_an_alarm_that_comes_again_soon_is_the_same_alarm_and_lasts_longer() -> None:
    bed = ScriptedBed()
    bed.observe(2, burden=0.5)
    name = bed.alarm("anomaly").name
    assert bed.observe(2) == ["anomaly ended"]
    bed.observe(54)
    assert bed.observe(2, burden=0.5) == ["anomaly resumed"]
    assert bed.alarm("anomaly").name == name
    assert bed.log[-1].why["reason"] == "recurred within 60 s of its end"
    for _ in range(20):
        assert bed.observe(50) == []
        assert bed.observe(2, burden=0.5) == []
    assert bed.observe(62) == ["anomaly ended"]
    bed.observe(62)
    assert bed.observe(2, burden=0.5) == ["anomaly onset"]
    assert bed.alarm("anomaly").name != name


def test_what_was_acknowledged_and_comes_again_is_told_again() -> None:
    bed = ScriptedBed()
    bed.observe(6, heart_rate=200.0)
    bed.acknowledge("tachycardia")
    assert bed.observe(8) == ["tachycardia ended"]
    assert bed.observe(6, heart_rate=150.0) == ["tachycardia resumed"]
    assert (bed.log[-1].state, bed.log[-1].priority, bed.log[-1].announced) == ("active", "high", True)


def test_no_more_than_so_many_alarms_are_announced_in_an_hour() -> None:
    bed = ScriptedBed(announcements=4)
    flap(bed, 8, "medium")
    onsets = [each.announced for each in bed.log if each.change == "onset"]
    assert onsets == [True] * 4 + [False] * 4, "all are recorded"
    assert [each.announced for each in bed.log if each.change == "ended"] == onsets
    bed.observe(3600)
    assert bed.observe(6, heart_rate=150.0) == ["tachycardia onset"]
    assert bed.log[-1].announced, "an hour later there is room"


def test_low_alarms_leave_room_for_those_above() -> None:
    bed = ScriptedBed(announcements=4)
    flap(bed, 6)
    assert sum(each.announced for each in bed.log if each.change == "onset") == 2
    bed.observe(6, heart_rate=150.0)
    assert bed.log[-1].announced


def test_high_alarms_always_come_through() -> None:
    bed = ScriptedBed(announcements=1)
    flap(bed, 3, "medium")
    assert not bed.log[-1].announced
    bed.observe(6, heart_rate=150.0)
    assert not bed.log[-1].announced
    assert bed.observe(6, heart_rate=190.0) == ["tachycardia escalated"]
    assert bed.log[-1].announced
    assert bed.observe(2, **WELL | {"silence": 5.0}) == ["asystole onset"]
    assert bed.log[-1].announced


def test_an_alarm_that_was_held_back_and_still_holds_is_announced_late() -> None:
    bed = ScriptedBed(announcements=1)
    bed.observe(2, burden=0.5)
    bed.observe(2)
    assert bed.observe(6, heart_rate=150.0) == ["tachycardia onset"]
    assert not bed.log[-1].announced
    assert bed.observe(3580, heart_rate=150.0) == []
    assert bed.observe(20, heart_rate=150.0) == ["tachycardia resumed"]
    assert (bed.log[-1].announced, bed.log[-1].why["reason"]) == (
        True,
        "announced late: the hourly limit of this bed was reached",
    )
    assert bed.observe(600, heart_rate=150.0) == []
    bed.observe(2, heart_rate=150.0, burden=0.5)
    assert not bed.log[-1].announced, "late or not, it counts"


def test_an_alarm_that_was_told_and_gets_worse_is_told_even_without_room() -> None:
    bed = ScriptedBed(announcements=1)
    bed.observe(8, off=("I",))
    assert bed.observe(8, **OFF) == ["lead-off escalated"]
    assert (bed.log[-1].priority, bed.log[-1].announced) == ("medium", True)


def test_a_clock_that_is_set_back_holds_nothing_back_for_longer_than_an_hour() -> None:
    bed = ScriptedBed(announcements=1)
    flap(bed, 1, "medium")
    bed.now -= 86400
    flap(bed, 1, "medium")
    assert not bed.log[-1].announced
    bed.observe(3600)
    flap(bed, 1, "medium")
    assert bed.log[-1].announced


def test_what_ended_before_a_clock_was_set_back_does_not_come_again() -> None:
    bed = ScriptedBed()
    bed.observe(2, burden=0.5)
    bed.observe(2)
    bed.now -= 86400
    assert bed.observe(2, burden=0.5) == ["anomaly onset"]


def test_a_clock_that_goes_back_a_little_stands_still() -> None:
    bed = ScriptedBed()
    bed.observe(60)
    before = bed.state.time
    bed.now -= 3.9
    bed.observe(2)
    assert (bed.state.time, bed.state.clock) == (before, 0)


@pytest.mark.parametrize("back", [5, 10, 30, 55, 70, 3600])
def test_a_clock_that_was_set_back_delays_no_alarm(back: float) -> None:
    bed = ScriptedBed()
    bed.observe(120)
    bed.now -= back
    assert bed.observe(6, heart_rate=150.0) == ["tachycardia onset"]


def test_a_device_that_counts_from_nought_at_each_start_has_other_alarms_each_time() -> None:
    bed = ScriptedBed()
    for _ in range(3):
        bed.now = 0.0
        bed.observe(20)
        assert bed.observe(2, silence=5.0)[-1] == "asystole onset"
        bed.acknowledge("asystole")
        bed.observe(80)
    assert [each.alarm for each in bed.log if each.change == "onset"] == [
        "bed:asystole:22000", "bed:asystole:22000:1", "bed:asystole:22000:2"
    ]  # fmt: skip


def test_samples_that_come_late_to_a_stream_that_was_lost_are_of_the_same_clock() -> None:
    bed = ScriptedBed()
    bed.observe(10)
    for lost in range(2, 32, 2):
        bed.observe(2, lost=float(lost))
    bed.now -= 30
    bed.observe(40, heart_rate=150.0)
    assert bed.state.clock == 0
    assert [f"{each.kind} {each.change}" for each in bed.log] == [
        "stream-lost onset", "tachycardia onset", "stream-lost ended"
    ]  # fmt: skip
    assert bed.log[1].onset == START + 16


def test_what_is_remembered_stays_small() -> None:
    bed = ScriptedBed(announcements=2)
    for _ in range(40):
        bed.observe(2, silence=5.0, gap=0.1)
        bed.observe(8)
        bed.acknowledge("asystole")
        bed.observe(62)
    assert sum(each.change == "onset" for each in bed.log) == 40
    assert len(bed.state.announcements) == 2


def test_noise_every_few_seconds_is_told_although_no_stretch_of_it_is_long() -> None:
    bed = ScriptedBed()
    changes = []
    for _ in range(8):
        changes += bed.observe(4, **NOISE) + bed.observe(4)
    assert changes == ["unjudged onset"]
    onset = bed.log[0]
    assert (onset.priority, onset.category, onset.why["measured"]["unjudged"]) == ("medium", "technical", 20)
    assert bed.observe(60) == ["unjudged ended"]


def test_seconds_that_another_alarm_accounts_for_are_not_told_twice() -> None:
    bed = ScriptedBed()
    for bad in (NOISE, OFF):
        bed.observe(300, **bad)
        bed.observe(120)
    assert {each.kind for each in bed.log} == {"poor-signal", "lead-off"}
