"""What is remembered of the alarms of one bed, between two steps of the machine and over a restart.

A state goes through JSON and on exactly as it was. Where none was kept, `restore` makes one of what the
journal knows.
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

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state != "ended"


@dataclass(frozen=True, slots=True)
class Track:
    """What is followed of a kind: how long its condition has held, and its alarm if there is one."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    timer: Timer
    alarm: Alarm | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has an alarm that has not ended."""
        return self.alarm is not None and self.alarm.is_open


@dataclass(frozen=True, slots=True)
class AlarmState:
    """The alarms of one stream.

    Attributes:
        stream: pseudonym.
        time: of the last samples that were observed, unix seconds; None: there were none.
        tracks: kinds about which there is something to remember.
        missing: samples that were missing lately.
        announcements: their times in the last hour.
        clock: how often the time fell back, which is in the names of alarms.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    stream: str
    time: float | None = None
    tracks: Mapping[AlarmKind, Track] = field(default_factory=dict)
    missing: MissingSeconds = ()
    announcements: Annotated[tuple[float, ...], Field(alias="told")] = ()
    clock: int = 0

    @property
    def open(self) -> dict[AlarmKind, Alarm]:
        """The open alarm of each kind that has one."""
        alarms = {kind: track.alarm for kind, track in self.tracks.items()}
        return {kind: alarm for kind, alarm in alarms.items() if alarm and alarm.is_open}

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` goes on exactly where this was."""
        return {"version": VERSION, **_ADAPTER.dump_python(self, mode="json", by_alias=True)}

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


def restore(stream: str, transitions: Sequence[Transition]) -> AlarmState:
    """The state of a stream from the last transition of each alarm that the journal knows as open.

    They are open as they were, and are not announced again. What the journal does not say begins anew: how
    long conditions have held (so an anomaly has its full time until it escalates), what ended lately or came
    again, and announcements of alarms that are over.

    Raises:
        GenrayError: one is of another stream.
    """
    tracks: dict[AlarmKind, Track] = {}
    opened = (transition for transition in transitions if transition.state != "ended")
    latest = sorted(opened, key=lambda transition: transition.onset)
    for last in latest:
        if last.stream != stream:
            raise GenrayError(
                f"{last.alarm} is not an alarm of the stream that is restored",
                where=stream,
                hint="give it the transitions of this stream only",
            )
        alarm = Alarm(last.alarm, last.priority, last.state, last.onset, last.time, last.announced)
        tracks[last.kind] = Track(Timer(last.time, last.onset), alarm)
    return AlarmState(
        stream,
        time=max((last.time for last in latest), default=None),
        tracks=tracks,
        announcements=tuple(last.onset for last in latest if last.announced),
    )
