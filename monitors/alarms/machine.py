"""Alarm state machine of one bed: pure functions, driven by the time of the samples.

`step` takes a state and an observation and returns the next state and the transitions. It reads and writes
nothing else, so that a replay gives the same alarms with the same names. At most one alarm of each kind is
open. States of an alarm:

    active       the condition is true, and nobody has acknowledged the alarm
    suppressed   physiological, and the condition cannot be judged at present
    acknowledged somebody has acknowledged it; it ends when its condition ends
    latched      physiological, high priority: the condition is over, but nobody has acknowledged the alarm
    ended

It follows IEC 60601-1-8 for alarm systems (priorities by urgency, separate physiological and technical
conditions, latching, acknowledgement) and IEC 60601-2-27 for ECG monitors (heart-rate alarms within 10 s,
lead-off is technical). Choices that the standards leave open:

- A signal that cannot be judged suppresses physiological alarms of medium and low priority, not those of high
  priority: these latch in any case, and an asystole that was detected on a good signal must not disappear
  because the electrodes come off afterwards. It stays active until QRS complexes are detected again or
  somebody acknowledges it.
- The priority of an open alarm never falls.
- A latched alarm whose condition is true again within `again_after` is active again, as the same alarm. Later
  it is a new episode that has to be announced: the latched alarm ends, and a new one begins with at least its
  priority, as nobody has acknowledged that.
- An acknowledged alarm is silent until it escalates: then it is announced again at its higher priority.
- A clock that is set back is a new clock, as its times occurred before. Timers restart, open alarms stay
  open, and new alarms have the number of the clock in their names (`AlarmState.clock`), so that a device that
  counts from 0 at each start never repeats a name. Replayed samples fall back at the same place and give the
  same names.
- An alarm that recurs within `again_after` of its end is the same alarm, and then ends only when its
  condition has been over for `again_after`: a condition near its limit opens and ends an alarm at most once
  in that time.
- Alarms beyond `announcements` per hour are recorded but not announced. If the condition is still true when
  another announcement is allowed, the alarm is announced then, as "resumed".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genray.text import duration
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
    contradicted_kinds,
    measured_values,
    unknown_reason,
    update_missing,
)
from monitors.alarms.events import AlarmKind, AlarmStateName, Change, Observation, Priority, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.state import Alarm, AlarmState, Track

_HOUR = 3600.0
_VENTRICULAR_OVER = 5.0  # s after a ventricular rhythm, while the window of its judgment still shows it
_JITTER = 2.0  # seconds by which the time may go back without counting as a new clock
_LAST_TIME = 1e11  # unix seconds; a time beyond this is invalid


def step(
    state: AlarmState, observation: Observation, limits: Limits
) -> tuple[AlarmState, tuple[Transition, ...]]:
    """Return the state after `observation`, and the transitions. Never raises, whatever was observed."""
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
            elif kind.startswith("ventricular-") and track.timer.clear < _VENTRICULAR_OVER:
                current.situation = current.situation._replace(ventricular_open=True)
            elif kind == "lead-off":
                current.situation = current.situation._replace(lead_off_open=True)
    # While no data arrives, `now` follows the wall clock; late samples continue from their own time.
    time = state.time if observation.lost > 0 else now
    after = AlarmState(
        state.stream,
        time,
        tracks,
        current.missing,
        current.announcements,
        current.clock,
        current.unjudged,
    )
    return after, tuple(current.transitions)


def acknowledge(state: AlarmState, alarm_name: str, time: float) -> tuple[AlarmState, tuple[Transition, ...]]:
    """Acknowledge an alarm at `time` of the samples. A latched alarm ends; an alarm that is unknown, already
    acknowledged or ended does not change."""
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
    """End all alarms at `time` of the samples and return an empty state for the next patient."""
    transitions = []
    for kind, alarm in state.open.items():
        changed = time if abs(time) < _LAST_TIME else alarm.changed
        ended = replace(alarm, state="ended", changed=changed)
        why = {"reason": "discharged"}
        transitions.append(_transition(state.stream, kind, ended, "ended", changed, why))
    return AlarmState(state.stream), tuple(transitions)


@dataclass
class _BedStep:
    """One step of the state machine: its input, and the transitions so far.

    Attributes:
        gap: seconds of samples that were missing right before it.
        situation: input of the conditions; updated with the open alarms while kinds are evaluated in turn.
        missing, unjudged, announcements, clock: values of the next state.
    """

    stream: str
    now: float
    limits: Limits
    gap: float
    situation: Situation
    missing: MissingSeconds
    unjudged: MissingSeconds
    announcements: tuple[float, ...]
    clock: int
    transitions: list[Transition] = field(default_factory=list)

    @classmethod
    def begin(cls, state: AlarmState, now: float, observation: Observation, limits: Limits) -> _BedStep:
        """Begin the step from `state` to `observation`, at `now`."""
        gap = observation.gap if observation.gap > 0 else 0.0
        lost = state.tracks.get("stream-lost")
        # The alarm of a lost stream covers the samples that it missed: no gap alarm for the same cause.
        missing = update_missing(state.missing, now, 0.0 if lost and lost.is_open else gap)
        situation = Situation(observation, limits, _total(missing))
        unjudged = update_missing(state.unjudged, now, _unjudged_seconds(state, now, situation))
        return cls(
            stream=state.stream,
            now=now,
            limits=limits,
            gap=gap,
            situation=situation._replace(unjudged=_total(unjudged)),
            missing=missing,
            unjudged=unjudged,
            announcements=tuple(min(time, now) for time in state.announcements),
            clock=state.clock + (state.time is not None and now < state.time),
        )

    def update_track(self, kind: AlarmKind, track: Track | None, level: int) -> Track | None:
        """Return the track of `kind` after this step; None: nothing to remember."""
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
        """Whether the condition of an alarm could not be judged for `suppress_after` seconds."""
        if alarm.state != "active" or alarm.priority == "high" or CONDITIONS[kind].category == "technical":
            return False
        return not 0 <= self.now - timer.judged < self.limits.suppress_after

    def _open(self, kind: AlarmKind, ended: Alarm | None, timer: Timer, reached: int) -> Alarm:
        """Open the alarm `kind`, or reopen the one that `ended` within `again_after`."""
        priority = PRIORITIES[reached - 1]
        if ended:
            priority = max(priority, ended.priority, key=PRIORITIES.index)
            alarm = replace(ended, priority=priority, announced=self._may_announce(priority), again=True)
            reason = f"recurred within {self.limits.again_after:g} s of its end"
            return self._change(kind, alarm, timer, "resumed", "active", reason, announce=alarm.announced)
        return self._open_new(kind, timer, priority)

    def _open_new(
        self, kind: AlarmKind, timer: Timer, priority: Priority, reason: str | None = None
    ) -> Alarm:
        name = f"{self.stream}:{kind}:{round(self.now * 1000)}"
        if self.clock:
            name += f":{self.clock}"
        alarm = Alarm(name, priority, "active", self.now, self.now, self._may_announce(priority))
        return self._change(kind, alarm, timer, "onset", "active", reason, announce=alarm.announced)

    def _recur(self, kind: AlarmKind, latched: Alarm, timer: Timer, reached: int) -> Alarm:
        """Return the alarm of a condition that is true again after its alarm latched: the same one within
        `again_after`, a new one later."""
        seconds = self.now - latched.changed
        if 0 <= seconds <= self.limits.again_after:
            reason = f"recurred within {self.limits.again_after:g} s of its end"
            return self._change(kind, replace(latched, again=True), timer, "resumed", "active", reason)
        when = f"{duration(seconds)} after" if seconds > 0 else "on an earlier clock than"
        self._change(kind, latched, timer, "ended", "ended", "recurred: a new alarm begins")
        priority = max(PRIORITIES[reached - 1], latched.priority, key=PRIORITIES.index)
        reason = f"recurred {when} an alarm that nobody acknowledged ended"
        return self._open_new(kind, timer, priority, reason)

    def _update_open(self, kind: AlarmKind, alarm: Alarm, timer: Timer, level: int, reached: int) -> Alarm:
        """Return an open alarm after its condition was judged."""
        reason: str | None = None
        if self._is_unanswered(kind, alarm, timer, level) and reached < HIGH:
            reached = HIGH
            reason = f"not acknowledged for {self.limits.anomaly.escalate_after:g} s"
        if reached > PRIORITIES.index(alarm.priority) + 1:
            priority = PRIORITIES[reached - 1]
            announced = alarm.announced or self._may_announce(priority)
            alarm = replace(alarm, priority=priority, announced=announced)
            return self._change(kind, alarm, timer, "escalated", "active", reason, announce=announced)
        if alarm.state == "latched":
            return self._recur(kind, alarm, timer, reached) if reached else alarm
        if level == CLEAR:
            return self._clear(kind, alarm, timer)
        if alarm.state == "suppressed":
            return self._change(kind, alarm, timer, "resumed", "active")
        if alarm.state == "active" and not alarm.announced and reached and self._may_announce(alarm.priority):
            alarm = replace(alarm, announced=True)
            reason = "announced late: the hourly limit of this bed was reached"
            return self._change(kind, alarm, timer, "resumed", "active", reason, announce=True)
        return alarm

    def _is_unanswered(self, kind: AlarmKind, alarm: Alarm, timer: Timer, level: int) -> bool:
        """Whether an anomaly alarm was not acknowledged for `escalate_after` seconds: it escalates."""
        patience = self.limits.anomaly.escalate_after
        if kind != "anomaly" or alarm.state != "active" or level < LOW or patience is None:
            return False
        return timer.lasted >= patience

    def _clear(self, kind: AlarmKind, alarm: Alarm, timer: Timer) -> Alarm:
        """Return an open alarm whose condition is over: it ends or latches after the delay of its kind."""
        condition = CONDITIONS[kind]
        again_after = self.limits.again_after if alarm.again else 0.0
        if timer.clear < max(condition.end_after(self.limits), again_after):
            return alarm
        if alarm.state == "active" and alarm.priority == "high" and condition.category == "physiological":
            return self._change(kind, alarm, timer, "latched", "latched")
        return self._change(kind, alarm, timer, "ended", "ended")

    def _may_announce(self, priority: Priority) -> bool:
        """Whether the hourly limit of the bed allows another announcement now."""
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
        """Return `alarm` in its new state, and add the transition with its reason. `announce`: count it as an
        announcement."""
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


def _unjudged_seconds(state: AlarmState, now: float, situation: Situation) -> float:
    """Return the seconds before `now` without a judgment of the rhythm, or with one that a steady pulse
    contradicts; 0 while an alarm about the signal covers them: no second alarm for the same cause."""
    observation = situation.observation
    if observation.lost > 0 or state.time is None:
        return 0.0
    if observation.rhythm and not contradicted_kinds(situation):
        return 0.0
    if "poor-signal" in state.open or ("lead-off" in state.open and not observation.poor):
        return 0.0
    return min(max(now - state.time, 0.0), situation.limits.longest_hop)


def _total(stretches: MissingSeconds) -> float:
    return sum(seconds for _, seconds in stretches)


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
    """Return the time of a step: `last` if `time` is invalid or at most 2 s earlier, else `time`; much
    earlier, it is a new clock."""
    if not abs(time) < _LAST_TIME:
        return last
    return last if last is not None and last - _JITTER < time < last else time
