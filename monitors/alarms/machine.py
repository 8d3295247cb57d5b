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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from monitors.alarms.conditions import (
    BETWEEN,
    CLEAR,
    CONDITIONS,
    HIGH,
    LOW,
    PRIORITIES,
    UNKNOWN,
    MissingSeconds,
    Situation,
    Timer,
    measured_values,
    unknown_reason,
    update_missing,
)
from monitors.alarms.events import AlarmKind, AlarmStateName, Change, Observation, Priority, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.state import Alarm, AlarmState, Track

_HOUR = 3600.0
_JITTER = 2.0  # seconds that the time may go back without the clock having been set anew
_LAST_TIME = 1e11  # unix seconds; what lies beyond is no time


def step(
    state: AlarmState, observation: Observation, limits: Limits
) -> tuple[AlarmState, tuple[Transition, ...]]:
    """The state after `observation`, and what changed. Never raises, whatever was observed."""
    now = _next_time(state.time, observation.time)
    if now is None:
        return state, ()
    current = _BedStep.begin(state, now, observation, limits)
    tracks: dict[AlarmKind, Track] = {}
    for kind, condition in CONDITIONS.items():
        level = condition.level(current.situation)
        before = state.tracks.get(kind)
        if before is None and level <= BETWEEN:
            continue
        track = current.update_track(kind, before, level)
        if track is None:
            continue
        tracks[kind] = track
        if track.is_open:
            if kind == "asystole" and track.timer.clear < limits.asystole.end_after:
                current.situation = current.situation._replace(asystole_open=True)
            elif kind == "lead-off":
                current.situation = current.situation._replace(lead_off_open=True)
    # While nothing arrives the time is the wall clock's; samples that come late go on from where they were.
    time = state.time if observation.lost > 0 else now
    after = AlarmState(state.stream, time, tracks, current.missing, current.announcements, current.clock)
    return after, tuple(current.transitions)


def acknowledge(state: AlarmState, alarm_name: str, time: float) -> tuple[AlarmState, tuple[Transition, ...]]:
    """Somebody has looked at an alarm, at `time` of the samples. One that is latched ends with it; one that
    is unknown, acknowledged already or ended does not change."""
    for kind, alarm in state.open.items():
        if alarm.name == alarm_name and alarm.state != "acknowledged":
            changed = time if abs(time) < _LAST_TIME else alarm.changed
            changes: list[tuple[Change, AlarmStateName]] = [("acknowledged", "acknowledged")]
            if alarm.state == "latched":
                changes.append(("ended", "ended"))
            transitions = []
            for change, new_state in changes:
                alarm = replace(alarm, state=new_state, changed=changed)
                why = {"reason": "acknowledged"}
                transitions.append(_transition(state.stream, kind, alarm, change, changed, why))
            tracks = {**state.tracks, kind: replace(state.tracks[kind], alarm=alarm)}
            return replace(state, tracks=tracks), tuple(transitions)
    return state, ()


def discharge(state: AlarmState, time: float) -> tuple[AlarmState, tuple[Transition, ...]]:
    """End all alarms, at `time` of the samples, and forget the patient: the next is another one."""
    transitions = []
    for kind, alarm in state.open.items():
        changed = time if abs(time) < _LAST_TIME else alarm.changed
        ended = replace(alarm, state="ended", changed=changed)
        why = {"reason": "discharged"}
        transitions.append(_transition(state.stream, kind, ended, "ended", changed, why))
    return AlarmState(state.stream), tuple(transitions)


@dataclass
class _BedStep:
    """One step: what it reads, and what it gathers.

    Attributes:
        gap: seconds of samples that were missing right before it.
        situation: what conditions are judged by; it gains the alarms that are open as they are judged.
        missing, announcements, clock: of the state to come.
    """

    stream: str
    now: float
    limits: Limits
    gap: float
    situation: Situation
    missing: MissingSeconds
    announcements: tuple[float, ...]
    clock: int
    transitions: list[Transition] = field(default_factory=list)

    @classmethod
    def begin(cls, state: AlarmState, now: float, observation: Observation, limits: Limits) -> _BedStep:
        """The step from `state` to `observation`, at `now`."""
        gap = observation.gap if observation.gap > 0 else 0.0
        lost = state.tracks.get("stream-lost")
        # What a lost stream missed is told by its alarm.
        missing = update_missing(state.missing, now, 0.0 if lost and lost.is_open else gap)
        return cls(
            stream=state.stream,
            now=now,
            limits=limits,
            gap=gap,
            situation=Situation(observation, limits, sum(seconds for _, seconds in missing)),
            missing=missing,
            announcements=tuple(min(time, now) for time in state.announcements),
            clock=state.clock + (state.time is not None and now < state.time),
        )

    def update_track(self, kind: AlarmKind, track: Track | None, level: int) -> Track | None:
        """The track of `kind` after this step; None: nothing to remember."""
        timer = track.timer if track else Timer(self.now, self.now)
        alarm = track.alarm if track else None
        if level == UNKNOWN:
            if alarm and self._must_suppress(kind, alarm, timer):
                reason = unknown_reason(kind, self.situation)
                alarm = self._change(kind, alarm, timer, "suppressed", "suppressed", reason)
            return Track(timer, alarm)
        timer = timer.after(level, self.now, self.gap, self.limits.longest_hop)
        if alarm and not alarm.is_open and not 0 <= self.now - alarm.changed <= self.limits.again_after:
            alarm = None
        if alarm is None and level == CLEAR:
            return None
        reached = timer.reached(CONDITIONS[kind].delays(self.limits))
        if alarm and alarm.is_open:
            return Track(timer, self._update_open(kind, alarm, timer, level, reached))
        return Track(timer, self._open(kind, alarm, timer, reached) if reached else alarm)

    def _must_suppress(self, kind: AlarmKind, alarm: Alarm, timer: Timer) -> bool:
        """Whether an alarm whose condition cannot be judged has been so for too long."""
        if alarm.state != "active" or alarm.priority == "high" or CONDITIONS[kind].category == "technical":
            return False
        return not 0 <= self.now - timer.judged < self.limits.suppress_after

    def _open(self, kind: AlarmKind, ended: Alarm | None, timer: Timer, reached: int) -> Alarm:
        """The alarm `kind` at its onset, or the one that `ended` lately again."""
        priority = PRIORITIES[reached - 1]
        if ended:
            priority = max(priority, ended.priority, key=PRIORITIES.index)
            alarm = replace(ended, priority=priority, announced=self._may_announce(priority), again=True)
            reason = f"again within {self.limits.again_after:g} s"
            return self._change(kind, alarm, timer, "resumed", "active", reason, announce=alarm.announced)
        name = f"{self.stream}:{kind}:{round(self.now * 1000)}"
        if self.clock:
            name += f":{self.clock}"
        alarm = Alarm(name, priority, "active", self.now, self.now, self._may_announce(priority))
        return self._change(kind, alarm, timer, "onset", "active", announce=alarm.announced)

    def _update_open(self, kind: AlarmKind, alarm: Alarm, timer: Timer, level: int, reached: int) -> Alarm:
        """An open alarm after its condition was judged."""
        reason: str | None = None
        if self._is_unanswered(kind, alarm, timer, level) and reached < HIGH:
            reached = HIGH
            reason = f"nobody answered for {self.limits.anomaly.escalate_after:g} s"
        if reached > PRIORITIES.index(alarm.priority) + 1:
            priority = PRIORITIES[reached - 1]
            announced = alarm.announced or self._may_announce(priority)
            alarm = replace(alarm, priority=priority, announced=announced)
            return self._change(kind, alarm, timer, "escalated", "active", reason, announce=announced)
        if alarm.state == "latched":
            return self._change(kind, alarm, timer, "resumed", "active") if reached else alarm
        if level == CLEAR:
            return self._clear(kind, alarm, timer)
        if alarm.state == "suppressed":
            return self._change(kind, alarm, timer, "resumed", "active")
        if alarm.state == "active" and not alarm.announced and reached and self._may_announce(alarm.priority):
            alarm = replace(alarm, announced=True)
            return self._change(kind, alarm, timer, "resumed", "active", "announced late", announce=True)
        return alarm

    def _is_unanswered(self, kind: AlarmKind, alarm: Alarm, timer: Timer, level: int) -> bool:
        """Whether nobody has looked at an anomaly for so long that it is to escalate."""
        patience = self.limits.anomaly.escalate_after
        if kind != "anomaly" or alarm.state != "active" or level < LOW or patience is None:
            return False
        return timer.lasted >= patience

    def _clear(self, kind: AlarmKind, alarm: Alarm, timer: Timer) -> Alarm:
        """An open alarm whose condition is over: it ends or latches when that has lasted long enough."""
        condition = CONDITIONS[kind]
        again_after = self.limits.again_after if alarm.again else 0.0
        if timer.clear < max(condition.end_after(self.limits), again_after):
            return alarm
        if alarm.state == "active" and alarm.priority == "high" and condition.category == "physiological":
            return self._change(kind, alarm, timer, "latched", "latched")
        return self._change(kind, alarm, timer, "ended", "ended")

    def _may_announce(self, priority: Priority) -> bool:
        """Whether an alarm may be announced now."""
        most = self.limits.announcements if priority == "medium" else (self.limits.announcements + 1) // 2
        return priority == "high" or sum(self.now - time < _HOUR for time in self.announcements) < most

    def _change(
        self,
        kind: AlarmKind,
        alarm: Alarm,
        timer: Timer,
        change: Change,
        state: AlarmStateName,
        reason: str | None = None,
        *,
        announce: bool = False,
    ) -> Alarm:
        """`alarm` in its new state, with a transition that says why. `announce`: it is an announcement."""
        if announce:
            recent = [time for time in self.announcements if self.now - time < _HOUR]
            self.announcements = tuple([*recent, self.now][-self.limits.announcements :])
        why = {
            "measured": measured_values(kind, self.situation),
            "limits": getattr(self.limits, CONDITIONS[kind].limits_name).model_dump(mode="json"),
            "since": timer.since,
            "lasted": max(timer.lasted, 0.0),
            "over": max(timer.clear, 0.0),
        }
        if reason:
            why["reason"] = reason
        alarm = replace(alarm, state=state, changed=self.now)
        self.transitions.append(_transition(self.stream, kind, alarm, change, self.now, why))
        return alarm


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


def _next_time(last: float | None, time: float) -> float | None:
    """The time to go by: what is no time changes nothing, a little back is now, far back is a new clock."""
    if not abs(time) < _LAST_TIME:
        return last
    return last if last is not None and last - _JITTER < time < last else time
