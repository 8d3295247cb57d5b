"""Streams that nobody watches: their shard is gone, or they have not come again since a restart, of the whole
or of their shard. No ward has a bed that could raise their alarm, so it is raised here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from monitors.alarms.events import Observation, Reading, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import acknowledge, discharge, step
from monitors.alarms.state import AlarmState, restore
from monitors.service.dispatcher import Dispatcher

_SETTLES = 30.0  # s that shards may need to begin; then streams that do not come are missed even so
_SHARD_LOST = "the process that watches this stream ended or hangs; it is being started again"
_NOT_BACK = "it was watched before a restart, and has not come again"


@dataclass(frozen=True)
class _Awaited:
    """A stream that is to come again: the unix time of its samples, which was so at `when` by the monotonic
    clock; and from when on it is missed. None: as soon as all shards watch."""

    sampled: float
    when: float
    since: float | None = None


class LostStreams:
    """Raises and ends the alarms of streams that nobody watches. One thing at a time: what is told is in the
    journal before the next is looked at.

    Args:
        telling: tells, and knows what was seen last; it remembers the alarms that were open.
        limits: of a stream.
        awaited: streams that were watched when the monitor ended, with the time (unix s) of their samples
            now, had they gone on.
    """

    def __init__(
        self, telling: Dispatcher, limits: Callable[[str], Limits], awaited: Mapping[str, float]
    ) -> None:
        self._telling, self._limits = telling, limits
        self._began = time.monotonic()
        self._settled: float | None = None
        self._awaited = {stream: _Awaited(at, self._began) for stream, at in awaited.items()}
        self._states: dict[str, AlarmState] = {}  # of the alarms that are raised here, none of another kind
        self._raised: set[str] = set()
        self._turn = asyncio.Lock()

    @property
    def awaited(self) -> dict[str, float]:
        """Streams that have not come again, with the time of their samples now, had they gone on."""
        now = time.monotonic()
        return {stream: each.sampled + now - each.when for stream, each in self._awaited.items()}

    @property
    def raised(self) -> frozenset[str]:
        """Alarms that are ended here when their stream comes: no shard is to know of them."""
        return frozenset(self._raised)

    def knows(self, stream: str) -> bool:
        """Whether there is anything to discharge."""
        return stream in self._awaited or stream in self._telling.beds or bool(self._alarms(stream))

    def silent(self, seconds: float) -> list[str]:
        """Streams of which nothing has come for so long."""
        told, since = self._telling, time.monotonic() - seconds
        silent = [stream for stream, (_, came) in told.beds.items() if came < since]
        if self._began < since:
            # Of another source, of before.
            before = {alarm.stream for alarm in told.alarms.values() if alarm.alarm in told.remembered}
            silent += [stream for stream in before | self._awaited.keys() if stream not in told.beds]
        return silent

    async def shard_lost(self, number: int) -> None:
        """Shard `number` is gone or hangs, or still so: its streams are lost at once."""
        async with self._turn:
            now = time.monotonic()
            missed = []
            for stream, (reading, came) in self._telling.beds.items():
                if self._telling.home.get(stream) == number:
                    least = self._limits(stream).stream_lost.medium
                    missed.append((stream, reading.time + now - came, max(now - came, least)))
            await self._miss(missed, _SHARD_LOST)

    def shard_back(self, number: int) -> None:
        """Its streams are to come again."""
        for stream, (reading, came) in self._telling.beds.items():
            if self._telling.home.get(stream) == number:
                self._awaited[stream] = _Awaited(reading.time, came, came)

    async def look(self, settled: bool) -> None:
        """Now and then: raise the alarm of streams that have not come again.

        Args:
            settled: whether all shards watch, so that they could have.
        """
        async with self._turn:
            now = time.monotonic()
            if self._settled is None and (settled or now - self._began > _SETTLES):
                self._settled = now
            missed = []
            for stream, each in self._awaited.items():
                since = self._settled if each.since is None else each.since
                if since is not None:
                    missed.append((stream, each.sampled + now - each.when, now - since))
            await self._miss(missed, _NOT_BACK)

    async def back(self, readings: Sequence[Reading]) -> None:
        """These have come; alarms that were raised here are over, others their shard will end."""
        if not self._awaited or not any(reading.stream in self._awaited for reading in readings):
            return
        async with self._turn:
            came = {each.stream: each.time for each in readings if each.stream in self._awaited}
            ended = [
                replace(
                    alarm,
                    change="ended",
                    state="ended",
                    time=max(alarm.time, came[alarm.stream]),
                    why={"reason": "it came again"},
                )
                for alarm in self._telling.alarms.values()
                if alarm.stream in came and alarm.alarm in self._raised
            ]
            for stream in came:
                self._forget(stream)
            await self._telling.announce(ended)

    async def acknowledge(self, name: str) -> bool:
        """Acknowledge an alarm of a stream that nobody watches."""
        async with self._turn:
            alarm = self._telling.alarms.get(name)
            if alarm is None:
                return False
            _, changes = acknowledge(restore(alarm.stream, [alarm]), name, alarm.time)
            self._states.pop(alarm.stream, None)
            await self._telling.announce(changes)
            return bool(changes)

    async def discharge(self, stream: str) -> None:
        """All alarms of `stream` end, whoever raised them, and it is awaited no more."""
        async with self._turn:
            self._forget(stream)
            reading, _ = self._telling.beds.get(stream, (None, 0.0))
            changes: list[Transition] = []
            for alarm in self._alarms(stream):
                at = max(alarm.time, reading.time) if reading else alarm.time
                changes += discharge(restore(stream, [alarm]), at)[1]
            await self._telling.announce(changes)
            self._telling.leave(stream)

    def _alarms(self, stream: str) -> list[Transition]:
        return [alarm for alarm in self._telling.alarms.values() if alarm.stream == stream]

    def _forget(self, stream: str) -> None:
        self._awaited.pop(stream, None)
        self._states.pop(stream, None)
        self._raised -= {alarm.alarm for alarm in self._alarms(stream)}

    async def _miss(self, missed: Sequence[tuple[str, float, float]], reason: str) -> None:
        """Step the alarms of streams, each with the time of its samples and the seconds for which it is lost,
        and tell what changed, all at once."""
        alarms = {
            alarm.stream: alarm for alarm in self._telling.alarms.values() if alarm.kind == "stream-lost"
        }
        changes: list[Transition] = []
        for stream, at, lost in missed:
            opened = [alarms[stream]] if stream in alarms else []
            before = self._states.get(stream) or restore(stream, opened)
            # An alarm that is open may have changed later than the last sample that is known.
            seen = Observation(time=max(at, before.time or at), good=False, lost=lost)
            self._states[stream], made = step(before, seen, self._limits(stream))
            changes += [
                replace(each, why={**each.why, "reason": reason})
                for each in made
                if each.kind == "stream-lost"
            ]
        self._raised |= {each.alarm for each in changes if each.change == "onset"}
        await self._telling.announce(changes)
