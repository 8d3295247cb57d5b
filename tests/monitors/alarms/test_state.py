import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from genray.errors import GenrayError
from monitors.alarms.events import Transition
from monitors.alarms.state import AlarmState, restore
from tests.monitors.alarms.scripted_bed import NOISE, OFF, STILL, ScriptedBed


def busy() -> ScriptedBed:
    bed = ScriptedBed()
    bed.observe(8, heart_rate=150.0, burden=0.5, gap=1.0)
    bed.acknowledge("anomaly")
    bed.observe(10, **STILL, heart_rate=150.0, burden=0.5)
    bed.observe(20, **OFF)
    return bed


def last_of_open(bed: ScriptedBed) -> list[Transition]:
    """As the journal gives them."""
    last = {each.alarm: each for each in bed.log}
    return [each for each in last.values() if each.state != "ended"]


def test_a_state_goes_through_json_and_on_as_it_was() -> None:
    bed = busy()
    assert {"asystole", "anomaly", "tachycardia", "lead-off"} == set(bed.state.open)
    text = json.dumps(bed.state.to_json(), allow_nan=False)
    assert AlarmState.from_json(json.loads(text)) == bed.state
    assert len(text) < 4000


def test_a_stream_that_was_never_seen_goes_through_json() -> None:
    assert AlarmState.from_json(AlarmState("bed").to_json()) == AlarmState("bed")


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.update(version=2),
        lambda values: values.pop("version"),
        lambda values: values.pop("stream"),
        lambda values: values.update(more=1),
        lambda values: values.update(time="now"),
        lambda values: values.update(time=float("inf")),
        lambda values: values.update(told={1.0}),
        lambda values: values["tracks"].update(hiccups=values["tracks"]["asystole"]),
        lambda values: values["tracks"]["asystole"]["alarm"].update(state="sleeping"),
        lambda values: values["tracks"]["asystole"]["alarm"].update(name="other:asystole:1"),
        lambda values: values["tracks"]["asystole"]["timer"].update(held=[1.0]),
        lambda values: values["tracks"]["asystole"]["timer"].update(x=1),
    ],
)
def test_a_state_that_is_not_one_is_refused(damage: Callable[[Any], Any]) -> None:
    values = copy.deepcopy(busy().state.to_json())
    damage(values)
    with pytest.raises(GenrayError, match="alarm state") as caught:
        AlarmState.from_json(values)
    assert caught.value.hint


@pytest.mark.parametrize("values", [None, [], "", {"version": 1}, {}])
def test_what_is_no_state_at_all_is_refused(values: Any) -> None:
    with pytest.raises(GenrayError, match="alarm state"):
        AlarmState.from_json(values)


def test_after_a_kill_open_alarms_are_open_and_not_announced_again() -> None:
    bed = busy()
    before = bed.state.open
    bed.state = restore("bed", last_of_open(bed))
    assert bed.state.open == before
    assert bed.observe(600, **OFF) == [], "the same condition is the same alarm"
    changes = bed.observe(20)
    assert set(changes) == {"lead-off ended", "asystole latched", "tachycardia ended", "anomaly ended"}


def test_after_a_kill_an_alarm_gets_worse_as_before() -> None:
    bed = ScriptedBed()
    bed.observe(8, heart_rate=150.0)
    bed.state = restore("bed", last_of_open(bed))
    assert bed.observe(60, heart_rate=190.0) == ["tachycardia escalated"]


def test_what_was_latched_is_latched_after_a_kill() -> None:
    bed = ScriptedBed()
    bed.observe(4, **STILL)
    bed.observe(20)
    bed.state = restore("bed", last_of_open(bed))
    assert bed.observe(60) == []
    assert bed.acknowledge("asystole") == ["acknowledged", "ended"]


def test_what_was_announced_before_a_kill_counts_after_it() -> None:
    bed = ScriptedBed(announcements=1)
    bed.observe(4, burden=0.5)
    bed.state = restore("bed", last_of_open(bed))
    bed.observe(8, heart_rate=150.0)
    assert not bed.log[-1].announced


def test_what_has_ended_is_not_restored() -> None:
    bed = ScriptedBed()
    bed.observe(20, **NOISE)
    bed.observe(20)
    assert restore("bed", bed.log[-1:]) == AlarmState("bed")


def test_alarms_of_another_stream_are_not_restored() -> None:
    bed = busy()
    with pytest.raises(GenrayError, match="an alarm of another stream"):
        restore("bed", [replace(each, stream="other") for each in last_of_open(bed)])
