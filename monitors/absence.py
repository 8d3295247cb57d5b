"""Streams that nobody watches: their shard is gone, or they were watched when the monitor ended last and have
not come again. No ward has a bed that could raise their alarm, so it is raised here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from monitors.alarm_settings import Limits
from monitors.alarm_state import AlarmState
from monitors.alarms import acknowledge, discharge, step
from monitors.observation import Observation, Transition
from monitors.telling import Telling

_SETTLES = 30.0  # s that shards may need to begin; then streams that do not come are missed even so
_SHARD_LOST = "the process that watches this stream ended; it is being started again"
_NOT_BACK = "it was watched when the monitor ended, and has not come again"


class Absence:
    """Raises and ends the alarms of streams that nobody watches.

    Args:
        telling: tells, and knows what was seen last.
        limits: of a stream.
        awaited: streams that were watched when the monitor ended, with the time (unix s) of their samples
            now, had they gone on.
    """

    def __init__(
        self, telling: Telling, limits: Callable[[str], Limits], awaited: Mapping[str, float]
    ) -> None:
        self._telling, self._limits = telling, limits
        self._awaited = dict(awaited)
        self._states: dict[str, AlarmState] = {}
        self._raised: set[str] = set()  # alarms of those that are awaited
        self._began = time.monotonic()
        self._settled: float | None = None

    @property
    def awaited(self) -> dict[str, float]:
        """What was given, but for streams that came."""
        return dict(self._awaited)

    async def shard_lost(self, number: int) -> None:
        """Shard `number` is gone, or still so: its streams are lost at once."""
        now = time.monotonic()
        changes: list[Transition] = []
        for stream, (reading, came) in self._telling.beds.items():
            if self._telling.home.get(stream) == number:
                least = self._limits(stream).stream_lost.medium
                changes += self._miss(stream, reading.time + now - came, max(now - came, least), _SHARD_LOST)
        await self._telling.announce(changes)

    def shard_back(self, number: int) -> None:
        """It knows of all that was told meanwhile."""
        for stream in [s for s in self._states if self._telling.home.get(s) == number]:
            del self._states[stream]

    async def look(self, settled: bool) -> None:
        """Now and then: raise the alarm of streams that have not come again.

        Args:
            settled: whether all shards watch, so that they could have.
        """
        now = time.monotonic()
        if self._settled is None and (settled or now - self._began > _SETTLES):
            self._settled = now
        if self._settled is None:
            return
        changes: list[Transition] = []
        for stream, at in self._awaited.items():
            changes += self._miss(stream, at + now - self._began, now - self._settled, _NOT_BACK)
        self._raised |= {each.alarm for each in changes if each.change == "onset"}
        await self._telling.announce(changes)

    async def back(self, streams: Iterable[str]) -> None:
        """These have come; alarms that were raised here are over."""
        for stream in [each for each in streams if each in self._awaited]:
            self._forget(stream)
            ended = [
                replace(alarm, change="ended", state="ended", why={"reason": "it came again"})
                for alarm in self._telling.alarms.values()
                if alarm.stream == stream and alarm.alarm in self._raised
            ]
            self._raised -= {alarm.alarm for alarm in ended}
            await self._telling.announce(ended)

    async def acknowledge(self, alarm: str) -> bool:
        """Acknowledge an alarm of a stream that nobody watches."""
        stream = alarm.partition(":")[0]
        state = self._states.get(stream) or self._telling.state(stream)
        state, changes = acknowledge(state, alarm, state.time or 0.0)
        if stream in self._states:
            self._states[stream] = state
        await self._telling.announce(changes)
        return bool(changes)

    async def discharge(self, stream: str) -> bool:
        """Give up a stream that nobody watches; False if nothing is known of it."""
        known = stream in self._awaited or self._telling.knows(stream)
        self._forget(stream)
        state = self._telling.state(stream)
        await self._telling.announce(discharge(state, state.time or 0.0)[1])
        self._telling.leave(stream)
        return known

    def _forget(self, stream: str) -> None:
        self._awaited.pop(stream, None)
        self._states.pop(stream, None)

    def _miss(self, stream: str, at: float, lost: float, reason: str) -> list[Transition]:
        before = self._states.get(stream) or self._telling.state(stream)
        # An alarm that is open may have changed later than the last sample that is known.
        at = max(at, before.time or at)
        seen = Observation(time=at, good=False, lost=lost)
        self._states[stream], changes = step(before, seen, self._limits(stream))
        # Of the others its shard knows, when it is back.
        return [
            replace(each, why={**each.why, "reason": reason})
            for each in changes
            if each.kind == "stream-lost"
        ]
