"""Alarm state of one bed, between two steps of the state machine and across a restart.

A state is stored as JSON and read back without loss. Where none was stored, `restore` rebuilds one from the
journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from genray.errors import GenrayError
from monitors.alarms.conditions import MissingSeconds, Timer
from monitors.alarms.events import AlarmKind, AlarmStateName, Priority, Transition

VERSION = 1
"""Version of the JSON form of a state."""
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is open, or ended so recently that it may recur.

    Attributes:
        onset: unix time at which it opened, seconds.
        changed: unix time of its last change, seconds.
        announced: whether somebody was notified.
        again: whether it recurred after its end, or after it latched.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    priority: Priority
    state: AlarmStateName
    onset: float
    changed: float
    announced: bool
    again: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state != "ended"


@dataclass(frozen=True, slots=True)
class Track:
    """State of one kind of alarm: the timer of its condition, and the alarm if there is one."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    timer: Timer
    alarm: Alarm | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is an alarm that has not ended."""
        return self.alarm is not None and self.alarm.is_open


@dataclass(frozen=True, slots=True)
class AlarmState:
    """Alarm state of one stream.

    Attributes:
        stream: pseudonym.
        time: unix time of the last samples that were observed, seconds; None: none yet.
        tracks: state of the kinds that are not clear.
        missing: seconds of samples missing in the last minute.
        unjudged: seconds of the last minute in which the rhythm could not be judged and no alarm about the
            signal was open.
        announcements: unix times of the announcements in the last hour.
        clock: how often the clock was set back, which is part of alarm names.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    stream: str
    time: float | None = None
    tracks: Mapping[AlarmKind, Track] = field(default_factory=dict)
    missing: MissingSeconds = ()
    announcements: Annotated[tuple[float, ...], Field(alias="told")] = ()
    clock: int = 0
    unjudged: MissingSeconds = ()

    @property
    def open(self) -> dict[AlarmKind, Alarm]:
        """Open alarm of each kind that has one."""
        alarms = {kind: track.alarm for kind, track in self.tracks.items()}
        return {kind: alarm for kind, alarm in alarms.items() if alarm and alarm.is_open}

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values, from which `from_json` restores it exactly."""
        return {"version": VERSION, **_ADAPTER.dump_python(self, mode="json", by_alias=True)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AlarmState:
        """Restore a state from the result of `to_json`.

        Raises:
            GenrayError: `values` has another version or is not a result of `to_json`.
        """
        hint = "delete it: open alarms are restored from the journal"
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != VERSION:
            raise GenrayError(f"the alarm state has version {version!r}, not {VERSION}", hint=hint)
        try:
            text = json.dumps({key: value for key, value in values.items() if key != "version"})
            state = _ADAPTER.validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise GenrayError(f"invalid alarm state: {first['msg']}", where=where, hint=hint) from None
        except (TypeError, ValueError) as error:
            raise GenrayError(f"invalid alarm state: {error}", hint=hint) from None
        for kind, alarm in state.open.items():
            if not alarm.name.startswith(f"{state.stream}:{kind}:"):
                raise GenrayError(
                    f"invalid alarm state: {alarm.name} is not a {kind} alarm of {state.stream}", hint=hint
                )
        return state


_ADAPTER = TypeAdapter(AlarmState)


def restore(stream: str, transitions: Sequence[Transition]) -> AlarmState:
    """Rebuild the state of a stream from the last transition of each of its open alarms in the journal.

    The alarms keep their states and are not announced again. The journal does not store how long conditions
    have been true (so an anomaly has its full time until it escalates), which alarms ended recently or
    recurred, and the announcements of ended alarms: all of that restarts.

    Raises:
        GenrayError: a transition belongs to another stream.
    """
    tracks: dict[AlarmKind, Track] = {}
    opened = (transition for transition in transitions if transition.state != "ended")
    latest = sorted(opened, key=lambda transition: transition.onset)
    for last in latest:
        if last.stream != stream:
            raise GenrayError(
                f"cannot restore the stream: {last.alarm} is an alarm of another stream",
                where=stream,
                hint="pass the transitions of this stream only",
            )
        alarm = Alarm(last.alarm, last.priority, last.state, last.onset, last.time, last.announced)
        tracks[last.kind] = Track(Timer(last.time, last.onset), alarm)
    return AlarmState(
        stream,
        time=max((last.time for last in latest), default=None),
        tracks=tracks,
        announcements=tuple(last.onset for last in latest if last.announced),
    )
