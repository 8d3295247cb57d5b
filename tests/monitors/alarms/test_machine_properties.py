"""What holds whatever is observed, and whatever is done in between."""

import copy
import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from monitors.alarms.conditions import PRIORITIES
from monitors.alarms.events import Observation, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import acknowledge, discharge, step
from monitors.alarms.state import AlarmState, restore

LIMITS = Limits(announcements=3, again_after=20, anomaly={"escalate_after": 30})  # type: ignore[arg-type]
LEADS = st.sampled_from([(), ("I",), ("I", "II")])
# Values about the limits, so that alarms do come and go.
SENSIBLE = st.fixed_dictionaries(
    {
        "heart_rate": st.sampled_from([None, 25.0, 35.0, 42.0, 70.0, 70.0, 150.0, 200.0]),
        "silence": st.sampled_from([None, 0.5, 0.5, 0.5, 3.0, 5.0]),
        "burden": st.sampled_from([None, 0.0, 0.0, 0.3, 0.5, 0.9]),
        "good": st.sampled_from([True, True, True, False]),
        "rhythm": st.sampled_from([True, True, True, False]),
        "off": LEADS,
        "poor": LEADS,
        "gap": st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0]),
        "behind": st.sampled_from([0.0, 0.0, 3.0, 8.0]),
        "lost": st.sampled_from([0.0, 0.0, 0.0, 0.0, 5.0, 12.0, 70.0]),
    }
)
NUMBER = st.floats() | st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf, 1e308])
WILD = st.fixed_dictionaries(
    {
        "heart_rate": st.none() | NUMBER,
        "silence": st.none() | NUMBER,
        "burden": st.none() | NUMBER,
        "good": st.booleans(),
        "rhythm": st.booleans(),
        "off": LEADS,
        "gap": NUMBER,
        "behind": NUMBER,
        "lost": NUMBER,
    }
)
# What is observed, for how many hops, and what somebody does then.
EPISODES = st.lists(
    st.tuples(SENSIBLE, st.integers(1, 15), st.sampled_from(["", "", "", "look"])), max_size=25
)


def play(state: AlarmState, episodes: list[Any], now: float = 0.0) -> tuple[AlarmState, list[Transition]]:
    log: list[Transition] = []
    for observed, hops, act in episodes:
        for _ in range(hops):
            now += 2
            state, new = step(state, Observation(time=now, **observed), LIMITS)
            log += new
            onsets = {t.kind for t in new if t.change == "onset"}
            if not observed["good"] or observed["lost"]:
                assert "anomaly" not in onsets
            if not observed["rhythm"] or observed["lost"]:
                assert not onsets & {"asystole", "bradycardia", "tachycardia"}
        for alarm in state.open.values() if act == "look" else ():
            state, new = acknowledge(state, alarm.name, now)
            log += new
    return state, log


def replaced(end: Transition) -> bool:
    """Whether an alarm ended because it was latched and a new one of at least its priority began."""
    return end.why.get("reason") == "recurred: a new alarm begins"


def duration(episodes: list[Any]) -> float:
    return 2.0 * sum(hops for _, hops, _ in episodes)


@settings(max_examples=150, deadline=None)
@given(EPISODES)
def test_an_alarm_opens_once_ends_once_and_never_becomes_less_urgent(episodes: list[Any]) -> None:
    state, log = play(AlarmState("bed"), episodes)
    _, ended = discharge(state, duration(episodes))
    last: dict[str, Transition] = {}
    for each in [*log, *ended]:
        before = last.get(each.alarm)
        last[each.alarm] = each
        assert (before is None) == (each.change == "onset"), "nothing before an onset, and one onset"
        if before is None:
            others = {t.kind for t in last.values() if t.state != "ended" and t.alarm != each.alarm}
            assert each.kind not in others, "one alarm of a kind"
            if successor := [
                t for t in last.values() if replaced(t) and (t.kind, t.time) == (each.kind, each.time)
            ]:
                assert each.announced
                assert PRIORITIES.index(each.priority) >= PRIORITIES.index(successor[0].priority)
            continue
        assert PRIORITIES.index(each.priority) >= PRIORITIES.index(before.priority)
        assert (each.change == "escalated") <= (each.priority != before.priority)
        if before.state == "ended":
            assert each.change == "resumed"
            assert each.time - before.time <= LIMITS.again_after
        if each.change == "latched" or each.state == "latched":
            assert (each.priority, each.category) == ("high", "physiological")
        if each.change == "suppressed":
            assert (each.category, before.state) == ("physiological", "active")
            assert each.priority != "high"
        if each.state == "ended" and each.priority == "high" and each.category == "physiological":
            looked = before.state == "acknowledged" or each.why.get("reason") == "discharged"
            assert looked or replaced(each), "nothing high ends unseen"
    assert all(each.state == "ended" for each in last.values())


@settings(max_examples=150, deadline=None)
@given(EPISODES)
def test_announcements_are_bounded(episodes: list[Any]) -> None:
    _, log = play(AlarmState("bed"), episodes)
    times = [t.time for t in log if t.change == "onset" and t.announced and t.priority != "high"]
    for first in times:
        assert sum(first <= time < first + 3600 for time in times) <= LIMITS.announcements
    ends: dict[str, float] = {}
    for each in log:
        if each.change == "onset" and each.kind in ends:
            assert each.time - ends[each.kind] > LIMITS.again_after, "soon again is the same alarm"
        if each.state == "ended" and not replaced(each):
            ends[each.kind] = each.time
    assert all(
        each.announced for each in log if each.change in ("onset", "escalated") and each.priority == "high"
    )


@settings(max_examples=80, deadline=None)
@given(EPISODES, EPISODES)
def test_the_rest_is_the_same_after_a_restart(first: list[Any], then: list[Any]) -> None:
    state, _ = play(AlarmState("bed"), first)
    back = AlarmState.from_json(json.loads(json.dumps(state.to_json(), allow_nan=False)))
    assert back == state
    assert play(back, then, duration(first)) == play(state, then, duration(first))


@settings(max_examples=80, deadline=None)
@given(EPISODES, EPISODES)
def test_nothing_that_is_open_has_an_onset_again_after_a_kill(first: list[Any], then: list[Any]) -> None:
    state, log = play(AlarmState("bed"), first)
    last = {each.alarm: each for each in log}
    back = restore("bed", [each for each in last.values() if each.state != "ended"])
    # That an alarm came again is not in the journal.
    assert back.open == {kind: replace(alarm, again=False) for kind, alarm in state.open.items()}
    _, after = play(back, then, duration(first))
    assert not {t.alarm for t in after if t.change == "onset"} & last.keys()
    still = {alarm.name for alarm in state.open.values()}
    for each in after:
        if each.change == "onset":
            kinds = {last[name].kind for name in still}
            assert each.kind not in kinds
        elif each.state == "ended":
            still.discard(each.alarm)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SENSIBLE | WILD, NUMBER | st.floats(-90, 90)), max_size=60))
def test_whatever_is_observed_a_step_gives_a_state_and_changes_nothing_else(observations: list[Any]) -> None:
    state, now = AlarmState("bed"), 1000.0
    for values, hop in observations:
        # A clock that jitters, jumps either way, or is none.
        now = now + hop if abs(hop) <= 90 else now
        observation = Observation(time=now if abs(hop) <= 90 else hop, **values)
        before = copy.deepcopy(state)
        once, twice = step(state, observation, LIMITS), step(state, observation, LIMITS)
        assert once == twice
        assert state == before
        state, new = once
        json.dumps([dict(each.why) for each in new], allow_nan=False)
        assert len(json.dumps(state.to_json(), allow_nan=False)) < 8000
        assert AlarmState.from_json(state.to_json()) == state
        for alarm in state.open.values():
            acknowledge(state, alarm.name, hop)
        discharge(state, hop)
