"""What the streams of a ward go on with after a restart, as if it had not stopped.

A source is resumed some time before the last samples that were looked at. What comes again fills the memory
of detectors and rhythm, while the alarms stay as they were kept; from the first new sample on they move. So
an alarm has the name that it would have had, and none is told that was told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genray.errors import GenrayError
from monitors.alarms.events import Transition
from monitors.alarms.state import AlarmState, Track, restore
from monitors.patient.bed import Bed

WARM_UP = 40.0
"""Seconds of samples that come again: 20 beats of a slow heart, by which a burden is judged."""

_MOST = 300.0  # s of samples that can come again; more is another time


@dataclass
class _ResumedStream:
    """A stream that goes on.

    Attributes:
        last: unix time of its last hop that came again; None: it is beyond them.
        later: alarms that were open, and changed after its state was kept.
    """

    last: float | None
    later: list[Transition]


class Resumption:
    """What a ward knows of its streams from before the restart, until they are where they were.

    Args:
        alarms: that were open, as the journal knows them: the last transition of each.
        states: of the alarms of streams at the last moment that was kept; a stream without one is seen from
            its beginning again. None: nothing comes again, so streams go by `alarms` alone.
    """

    def __init__(
        self, alarms: Sequence[Transition] = (), states: Mapping[str, AlarmState] | None = None
    ) -> None:
        self._open: dict[str, list[Transition]] = {}
        for transition in alarms:
            self._open.setdefault(transition.stream, []).append(transition)
        self._states = None if states is None else dict(states)
        self._resumed: dict[str, _ResumedStream] = {}

    @classmethod
    def from_kept(cls, alarms: Sequence[Transition], states: Mapping[str, bytes] | None) -> Resumption:
        """With states as `Ward.states` gave them; one that is damaged is none."""
        if states is None:
            return cls(alarms)
        decoded = {stream: _decoded(stream, data) for stream, data in states.items()}
        return cls(alarms, {stream: state for stream, state in decoded.items() if state})

    def begin(self, stream: str) -> AlarmState:
        """With what the alarms of a stream begin that comes for the first time."""
        opened = self._open.pop(stream, [])
        if self._states is None:
            return restore(stream, opened) if opened else AlarmState(stream)
        state = self._states.pop(stream, AlarmState(stream))
        later = [each for each in opened if state.time is None or each.time > state.time]
        last = None if state.time is None else state.time - _MOST
        if later or last is not None:
            self._resumed[stream] = _ResumedStream(last, later)
        return state

    def forget(self, stream: str) -> None:
        """Whoever comes in `stream` next is another patient."""
        self._open.pop(stream, None)
        self._resumed.pop(stream, None)
        if self._states is not None:
            self._states.pop(stream, None)

    def comes_again(self, bed: Bed, references: Mapping[str, bytes]) -> bool:
        """Whether the hop of `bed` was looked at before the restart. Time that falls back is not that: nobody
        may be unwatched because a clock was set. At the first that was not, the patient's reference is again
        as it was kept in `references`, for it has followed these samples before."""
        resumed = self._resumed.get(bed.stream)
        if resumed is None or resumed.last is None:
            return False
        assert bed.alarms.time is not None
        if resumed.last < bed.end_time <= bed.alarms.time:
            resumed.last = bed.end_time
            return True
        resumed.last = None
        if kept := references.get(bed.stream):
            bed.reference.restore(kept)
        return False

    def join_later_alarms(self, bed: Bed) -> list[Transition]:
        """Give `bed` the alarms that the journal alone knows, when their time has come; returns the end of
        those that go on under another name."""
        resumed = self._resumed.get(bed.stream)
        if resumed is None:
            return []
        due = [opened for opened in resumed.later if opened.time < bed.end_time]
        resumed.later = [opened for opened in resumed.later if opened.time >= bed.end_time]
        ended = [replaced for opened in due if (replaced := _join(bed, opened))]
        if not resumed.later:
            del self._resumed[bed.stream]
        return ended


def _join(bed: Bed, opened: Transition) -> Transition | None:
    """Give `bed` what the journal knows of an alarm that changed after the state was kept; the end of that
    alarm if the bed has another of its kind."""
    state = bed.alarms
    alarm = state.open.get(opened.kind)
    if alarm is None:
        track = restore(state.stream, [opened]).tracks[opened.kind]
        bed.alarms = replace(state, tracks={**state.tracks, opened.kind: track})
    elif alarm.name != opened.alarm:
        # It was found at another moment this time: of a kind one alarm is open, the other is over.
        return replace(opened, change="ended", state="ended", why={"reason": f"goes on as {alarm.name}"})
    elif opened.state == "acknowledged" and alarm.state != "acknowledged":
        acknowledged = replace(alarm, state="acknowledged", changed=opened.time)
        track = Track(state.tracks[opened.kind].timer, acknowledged)
        bed.alarms = replace(state, tracks={**state.tracks, opened.kind: track})
    return None


def _decoded(stream: str, data: bytes) -> AlarmState | None:
    try:
        state = AlarmState.from_json(json.loads(data))
    except (GenrayError, ValueError):
        return None
    return state if state.stream == stream else None
