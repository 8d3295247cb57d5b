"""A ward that goes on where another stopped, as if it had not.

A source is resumed some time before the last samples that were looked at. What comes again fills the memory
of detectors and rhythm, while the alarms stay as they were kept; from the first new sample on they move. So
an alarm has the name that it would have had, and none is told that was told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from genray.errors import GenrayError
from monitors.alarms.events import Transition
from monitors.alarms.limits import Limits
from monitors.alarms.state import Alarm, AlarmState, Track, restore
from monitors.patient.bed import Bed, Round
from monitors.patient.scoring import Scorer
from monitors.patient.ward import Ward, WardSettings

WARM_UP = 40.0
"""Seconds of samples that come again: 20 beats of a slow heart, by which a burden is judged."""

_MOST = 300.0  # s of samples that can come again; more is another time


class ResumedWard(Ward):
    """A ward whose source goes on from a place.

    Args:
        alarms: that were open, as the journal knows them.
        states: of the alarms of streams at the last moment that was kept, as `states` gave them; a stream
            without one is seen from its beginning again. None: nothing comes again, so streams go by `alarms`
            alone.
    """

    def __init__(
        self,
        settings: WardSettings,
        scorer: Scorer,
        limits: Callable[[str], Limits],
        references: Mapping[str, bytes],
        alarms: Sequence[Transition],
        states: Mapping[str, bytes] | None,
    ) -> None:
        super().__init__(settings, scorer, limits, references, alarms)
        self._resumed = states is not None
        kept = (states or {}).items()
        self._kept = {stream: state for stream, data in kept if (state := _read(stream, data))}
        self._later: dict[str, list[Transition]] = {}
        self._seen: dict[str, float] = {}  # of streams that come again: the time of the last hop

    def states(self, streams: Iterable[str]) -> dict[str, bytes]:
        """The alarms' states of those of `streams` that are here and were observed."""
        beds = [self._beds[stream] for stream in streams if stream in self._beds]
        return {
            bed.stream: json.dumps(bed.alarms.to_json()).encode()
            for bed in beds
            if bed.alarms.time is not None
        }

    def references(self, part: int, of: int) -> dict[str, bytes]:
        """Of every so many-th bed, if its patient is learned, as they are now: they follow."""
        beds = islice(self._beds.values(), part, None, of)
        return {bed.stream: bed.reference.save() for bed in beds if bed.reference.shape is not None}

    @property
    def streams(self) -> list[str]:
        """That have a bed."""
        return list(self._beds)

    def _forget(self, stream: str) -> None:
        super()._forget(stream)
        for kept in (self._kept, self._later, self._seen):
            kept.pop(stream, None)

    def _restored(self, stream: str) -> AlarmState:
        if not self._resumed:
            return super()._restored(stream)
        state = self._kept.pop(stream, AlarmState(stream))
        opened = self._open.pop(stream, [])
        self._later[stream] = [each for each in opened if state.time is None or each.time > state.time]
        if state.time is not None:
            self._seen[stream] = state.time - _MOST
        return state

    def _observe(self, bed: Bed, made: Round, now: float) -> None:
        if self._comes_again(bed):
            before, told = bed.alarms, len(made.transitions)
            super()._observe(bed, made, now)
            bed.alarms = before
            del made.transitions[told:]
            return
        later = self._later.get(bed.stream)
        if later:
            due = [each for each in later if each.time < bed.time]
            self._later[bed.stream] = [each for each in later if each.time >= bed.time]
            for each in due:
                bed.alarms = _joined(bed.alarms, each, made)
        super()._observe(bed, made, now)

    def _comes_again(self, bed: Bed) -> bool:
        """Whether the hop was looked at before the stop. Time that falls back is not that: nobody may be
        unwatched because a clock was set."""
        last = self._seen.get(bed.stream)
        if last is None:
            return False
        assert bed.alarms.time is not None
        if last < bed.time <= bed.alarms.time:
            self._seen[bed.stream] = bed.time
            return True
        del self._seen[bed.stream]
        if kept := self._references.get(bed.stream):
            bed.reference.restore(kept)  # it has followed these samples before
        return False


def _joined(state: AlarmState, opened: Transition, made: Round) -> AlarmState:
    """`state` with what the journal knows of an alarm that changed after the state was kept."""
    here = state.open.get(opened.kind)
    if here is None:
        track = restore(state.stream, [opened]).tracks[opened.kind]
        return replace(state, tracks={**state.tracks, opened.kind: track})
    if here.name != opened.alarm:
        # It was found at another moment this time: of a kind one alarm is open, the other is over.
        why = {"reason": f"goes on as {here.name}"}
        made.transitions.append(replace(opened, change="ended", state="ended", why=why))
        return state
    if opened.state == "acknowledged" and here.state != "acknowledged":
        known: Alarm = replace(here, state="acknowledged", changed=opened.time)
        tracks = {**state.tracks, opened.kind: Track(state.tracks[opened.kind].timer, known)}
        return replace(state, tracks=tracks)
    return state


def _read(stream: str, data: bytes) -> AlarmState | None:
    try:
        state = AlarmState.from_json(json.loads(data))
    except (GenrayError, ValueError):
        return None
    return state if state.stream == stream else None
