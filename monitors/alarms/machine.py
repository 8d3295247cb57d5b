"""The alarms of one bed: a pure state machine on the time of its samples.

`step` takes a state and an observation and gives the next state and what changed; nothing else goes in or
out, so that a replay gives the same alarms with the same names. Of each kind at most one alarm is open.

    active       its condition holds, and somebody is to look
    suppressed   physiological, and its condition cannot be judged now
    acknowledged somebody has looked; it ends with its condition
    latched      high and physiological, its condition is over, and nobody has looked yet
    ended

It follows what IEC 60601-1-8 asks of alarm systems (priorities by urgency, physiological and technical
conditions apart, latching, acknowledgment) and 60601-2-27 of ECG monitors (heart-rate alarms within 10 s, a
lead off is technical). Where they leave a choice:

- A signal that cannot be judged suppresses physiological alarms up to medium, not high ones. A high one
  would stay until acknowledged anyway, and an asystole that was seen on a good signal must not vanish because
  then the electrodes come off. It stays active until QRS are seen again or somebody acknowledges it.
- The priority of an open alarm never falls. A latched alarm whose condition holds again is active again.
- An acknowledged alarm is quiet, unless it gets worse: then it is announced anew at its higher priority.
- A clock that falls back is a new clock: its times were there before. What is timed begins anew, alarms that
  are open stay open, and new ones have the number of the clock in their names (`AlarmState.clock`), so that
  those of a device that counts from 0 at each start are never taken for those of its last start. Samples that
  are replayed fall back where they did, and give the same names.
- An alarm that comes again within `again_after` of its end is the same alarm, and then lasts until its
  condition has been over for that long: one that flaps comes and goes at most once in that time.
- Alarms beyond `announcements` an hour are recorded and not announced. One that still holds when there is
  room again is announced then, as "resumed".

What is remembered of the alarms of one bed, between two steps and over a restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from genray.errors import GenrayError
from monitors.alarms.conditions import (
    BETWEEN,
    CLEAR,
    CONDITIONS,
    HIGH,
    LOW,
    PRIORITIES,
    UNKNOWN,
    Finding,
    Missing,
    Timer,
    measured,
    missed,
    unjudged,
)
from monitors.alarms.events import AlarmKind, AlarmStateName, Change, Observation, Priority, Transition
from monitors.alarms.limits import Limits

_HOUR = 3600.0
_JITTER = 2.0  # seconds that the time may go back without the clock having been set anew
_LAST = 1e11  # unix seconds; what lies beyond is no time


class _BedStep:
    """One step: what it reads, and what it gathers."""

    def __init__(self, state: AlarmState, now: float, observation: Observation, limits: Limits) -> None:
        self.stream, self.now, self.limits = state.stream, now, limits
        self.clock = state.clock + (state.time is not None and now < state.time)
        self.gap = observation.gap if observation.gap > 0 else 0.0
        # What a lost stream missed is told by its alarm.
        lost = _open(state.tracks.get("stream-lost"))
        self.missing = missed(state.missing, now, 0.0 if lost else self.gap)
        self.seen = Finding(observation, limits, sum(seconds for _, seconds in self.missing))
        self.told = tuple(min(each, now) for each in state.told)
        self.transitions: list[Transition] = []

    def follow(self, kind: AlarmKind, track: Track | None, level: int) -> Track | None:
        """The track of `kind` after this step; None: nothing to remember."""
        timer, alarm = (track.timer, track.alarm) if track else (Timer(self.now, self.now), None)
        if level == UNKNOWN:
            if alarm and self.suppresses(kind, alarm, timer):
                reason = unjudged(kind, self.seen)
                alarm = self.change(kind, alarm, timer, "suppressed", "suppressed", reason)
            return Track(timer, alarm)
        timer = timer.after(level, self.now, self.gap, self.limits.longest_hop)
        if alarm and alarm.state == "ended":
            alarm = alarm if 0 <= self.now - alarm.changed <= self.limits.again_after else None
        if alarm is None and level == CLEAR:
            return None
        reached = timer.reached(CONDITIONS[kind].delays(self.limits))
        if alarm is None or alarm.state == "ended":
            return Track(timer, self.opened(kind, alarm, timer, reached) if reached else alarm)
        return Track(timer, self.moved(kind, alarm, timer, level, reached))

    def suppresses(self, kind: AlarmKind, alarm: Alarm, timer: Timer) -> bool:
        """Whether an alarm whose condition cannot be judged has been so for too long."""
        if alarm.state != "active" or alarm.priority == "high" or CONDITIONS[kind].category == "technical":
            return False
        return not 0 <= self.now - timer.judged < self.limits.suppress_after

    def opened(self, kind: AlarmKind, before: Alarm | None, timer: Timer, reached: int) -> Alarm:
        """The alarm `kind` at its onset, or `before` again."""
        priority = PRIORITIES[reached - 1]
        if before:
            priority = max(priority, before.priority, key=PRIORITIES.index)
            alarm = replace(before, priority=priority, announced=self.room(priority), again=True)
            reason = f"again within {self.limits.again_after:g} s"
            return self.change(kind, alarm, timer, "resumed", "active", reason, tell=alarm.announced)
        name = f"{self.stream}:{kind}:{round(self.now * 1000)}" + (f":{self.clock}" if self.clock else "")
        alarm = Alarm(name, priority, "active", self.now, self.now, self.room(priority))
        return self.change(kind, alarm, timer, "onset", "active", tell=alarm.announced)

    def moved(self, kind: AlarmKind, alarm: Alarm, timer: Timer, level: int, reached: int) -> Alarm:
        """An open alarm after its condition was judged."""
        condition, limits = CONDITIONS[kind], self.limits
        reason: str | None = None
        if kind == "anomaly" and alarm.state == "active" and level >= LOW:
            patience = limits.anomaly.escalate_after
            if patience is not None and timer.lasted >= patience and reached < HIGH:
                reached, reason = HIGH, f"nobody answered for {patience:g} s"
        if reached > PRIORITIES.index(alarm.priority) + 1:
            priority = PRIORITIES[reached - 1]
            told = alarm.announced or self.room(priority)
            alarm = replace(alarm, priority=priority, announced=told)
            return self.change(kind, alarm, timer, "escalated", "active", reason, tell=told)
        if alarm.state == "latched":
            return self.change(kind, alarm, timer, "resumed", "active") if reached else alarm
        if level != CLEAR:
            if alarm.state == "suppressed":
                return self.change(kind, alarm, timer, "resumed", "active")
            if alarm.state == "active" and not alarm.announced and reached and self.room(alarm.priority):
                alarm = replace(alarm, announced=True)
                return self.change(kind, alarm, timer, "resumed", "active", "announced late", tell=True)
            return alarm
        if timer.clear < max(condition.end_after(limits), limits.again_after if alarm.again else 0.0):
            return alarm
        if alarm.state == "active" and alarm.priority == "high" and condition.category == "physiological":
            return self.change(kind, alarm, timer, "latched", "latched")
        return self.change(kind, alarm, timer, "ended", "ended")

    def room(self, priority: Priority) -> bool:
        """Whether an alarm may be announced now."""
        most = self.limits.announcements if priority == "medium" else (self.limits.announcements + 1) // 2
        return priority == "high" or sum(self.now - time < _HOUR for time in self.told) < most

    def change(
        self,
        kind: AlarmKind,
        alarm: Alarm,
        timer: Timer,
        change: Change,
        state: AlarmStateName,
        reason: str | None = None,
        *,
        tell: bool = False,
    ) -> Alarm:
        """`alarm` in its new state, with a transition that says why. `tell`: it is an announcement."""
        if tell:
            kept = [time for time in self.told if self.now - time < _HOUR]
            self.told = tuple([*kept, self.now][-self.limits.announcements :])
        why = {
            "measured": measured(kind, self.seen),
            "limits": getattr(self.limits, CONDITIONS[kind].limits).model_dump(mode="json"),
            "since": timer.since,
            "lasted": max(timer.lasted, 0.0),
            "over": max(timer.clear, 0.0),
        }
        why |= {"reason": reason} if reason else {}
        alarm = replace(alarm, state=state, changed=self.now)
        self.transitions.append(_transition(self.stream, kind, alarm, change, self.now, why))
        return alarm


def step(
    state: AlarmState, observation: Observation, limits: Limits
) -> tuple[AlarmState, tuple[Transition, ...]]:
    """The state after `observation`, and what changed. Never raises, whatever was observed."""
    now = _clock(state.time, observation.time)
    if now is None:
        return state, ()
    here = _BedStep(state, now, observation, limits)
    tracks: dict[AlarmKind, Track] = {}
    for kind, condition in CONDITIONS.items():
        level = condition.level(here.seen)
        before = state.tracks.get(kind)
        if before is None and level <= BETWEEN:
            continue
        track = here.follow(kind, before, level)
        if track is None:
            continue
        tracks[kind] = track
        if _open(track):
            if kind == "asystole" and track.timer.clear < limits.asystole.end_after:
                here.seen = here.seen._replace(asystole=True)
            elif kind == "lead-off":
                here.seen = here.seen._replace(lead_off=True)
    # While nothing arrives the time is the wall clock's; samples that come late go on from where they were.
    last = state.time if observation.lost > 0 else now
    return AlarmState(state.stream, last, tracks, here.missing, here.told, here.clock), tuple(
        here.transitions
    )


def acknowledge(state: AlarmState, alarm_name: str, time: float) -> tuple[AlarmState, tuple[Transition, ...]]:
    """Somebody has looked at an alarm, at `time` of the samples. One that is latched ends with it; one that
    is unknown, acknowledged already or ended does not change."""
    for kind, alarm in state.open.items():
        if alarm.name == alarm_name and alarm.state != "acknowledged":
            at = time if abs(time) < _LAST else alarm.changed
            after: list[tuple[Change, AlarmStateName]] = [("acknowledged", "acknowledged")]
            after += [("ended", "ended")] if alarm.state == "latched" else []
            transitions = []
            for change, new in after:
                alarm = replace(alarm, state=new, changed=at)
                why = {"reason": "acknowledged"}
                transitions.append(_transition(state.stream, kind, alarm, change, at, why))
            tracks = {**state.tracks, kind: replace(state.tracks[kind], alarm=alarm)}
            return replace(state, tracks=tracks), tuple(transitions)
    return state, ()


def discharge(state: AlarmState, time: float) -> tuple[AlarmState, tuple[Transition, ...]]:
    """End all alarms, at `time` of the samples, and forget the patient: the next is another one."""
    transitions = []
    for kind, alarm in state.open.items():
        at = time if abs(time) < _LAST else alarm.changed
        ended = replace(alarm, state="ended", changed=at)
        transitions.append(_transition(state.stream, kind, ended, "ended", at, {"reason": "discharged"}))
    return AlarmState(state.stream), tuple(transitions)


def _transition(
    stream: str, kind: AlarmKind, alarm: Alarm, change: Change, time: float, why: Mapping[str, Any]
) -> Transition:
    return Transition(
        alarm=alarm.name,
        stream=stream,
        kind=kind,
        category=CONDITIONS[kind].category,
        priority=alarm.priority,
        change=change,
        state=alarm.state,
        time=time,
        onset=alarm.onset,
        announced=alarm.announced,
        why=why,
    )


def _open(track: Track | None) -> bool:
    return track is not None and track.alarm is not None and track.alarm.state != "ended"


def _clock(last: float | None, time: float) -> float | None:
    """The time to go by: what is no time changes nothing, a little back is now, far back is a new clock."""
    if not abs(time) < _LAST:
        return last
    return last if last is not None and last - _JITTER < time < last else time


VERSION = 1
"""Of the JSON form of a state."""
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is open, or ended so recently that it may come again.

    Attributes:
        onset: when it opened, and `changed`: when it last changed; unix seconds.
        announced: whether anybody was told.
        again: whether it came again after its end.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    priority: Priority
    state: AlarmStateName
    onset: float
    changed: float
    announced: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """What is followed of a kind: how long its condition has held, and its alarm if there is one."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    timer: Timer
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True)
class AlarmState:
    """The alarms of one stream.

    Attributes:
        stream: pseudonym.
        time: of the last samples that were observed, unix seconds; None: there were none.
        tracks: kinds about which there is something to remember.
        missing: samples that were missing lately.
        told: times of announcements in the last hour.
        clock: how often the time fell back, which is in the names of alarms.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    stream: str
    time: float | None = None
    tracks: Mapping[AlarmKind, Track] = field(default_factory=dict)
    missing: Missing = ()
    told: tuple[float, ...] = ()
    clock: int = 0

    @classmethod
    def new(cls, stream: str) -> AlarmState:
        """Of a stream that was never seen."""
        return cls(stream)

    @property
    def open(self) -> dict[AlarmKind, Alarm]:
        """The open alarm of each kind that has one."""
        alarms = {kind: track.alarm for kind, track in self.tracks.items()}
        return {kind: alarm for kind, alarm in alarms.items() if alarm and alarm.state != "ended"}

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` goes on exactly where this was."""
        return {"version": VERSION, **_ADAPTER.dump_python(self, mode="json")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AlarmState:
        """The inverse of `to_json`.

        Raises:
            GenrayError: it is of another version, or not what `to_json` writes.
        """
        hint = "delete it: the alarms that are open are restored from the journal"
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != VERSION:
            raise GenrayError(f"a state of alarms has version {version!r}, not {VERSION}", hint=hint)
        try:
            text = json.dumps({key: value for key, value in values.items() if key != "version"})
            state = _ADAPTER.validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise GenrayError(f"not a state of alarms: {first['msg']}", where=where, hint=hint) from None
        except (TypeError, ValueError) as error:
            raise GenrayError(f"not a state of alarms: {error}", hint=hint) from None
        for kind, alarm in state.open.items():
            if not alarm.name.startswith(f"{state.stream}:{kind}:"):
                raise GenrayError(f"{alarm.name} is no alarm {kind} of {state.stream}", hint=hint)
        return state


_ADAPTER = TypeAdapter(AlarmState)


def restore(stream: str, open: Sequence[Transition]) -> AlarmState:
    """The state of a stream from the last transition of each alarm that the journal knows as open.

    They are open as they were, and are not announced again. What the journal does not say begins anew: how
    long conditions have held (so an anomaly has its full time until it escalates), what ended lately or came
    again, and announcements of alarms that are over.

    Raises:
        GenrayError: one is of another stream.
    """
    tracks: dict[AlarmKind, Track] = {}
    latest = sorted((each for each in open if each.state != "ended"), key=lambda each: each.onset)
    for each in latest:
        if each.stream != stream:
            raise GenrayError(
                f"{each.alarm} is not an alarm of the stream that is restored",
                where=stream,
                hint="give it the transitions of this stream only",
            )
        alarm = Alarm(each.alarm, each.priority, each.state, each.onset, each.time, each.announced)
        tracks[each.kind] = Track(Timer(each.time, each.onset), alarm)
    time = max((each.time for each in latest), default=None)
    return AlarmState(stream, time, tracks, (), tuple(each.onset for each in latest if each.announced))
