"""Lost streams: their shard is gone, or they have not come again since a restart, of the whole monitor or of
their shard. No ward has a bed that could raise their alarm, so it is raised here.
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

_SETTLING = 30.0  # s that shards may need to begin; then streams that do not come are missed even so
_SHARD_LOST = "the process that watches this stream ended or hangs; it is being started again"
_NOT_BACK = "it was watched before a restart, and has not come again"


@dataclass(frozen=True)
class _AwaitedStream:
    """A stream that is to come again.

    Attributes:
        sampled: unix time of its samples, which was so at `sampled_at` by the monotonic clock.
        missed_from: when it begins to be missed, by the monotonic clock; None: as soon as all shards watch.
    """

    sampled: float
    sampled_at: float
    missed_from: float | None = None

    def sampled_by(self, now: float) -> float:
        """Unix time of its samples at `now`, had they gone on."""
        return self.sampled + now - self.sampled_at


@dataclass(frozen=True)
class _MissedStream:
    """A stream of which nothing comes.

    Attributes:
        sampled: unix time of its samples, had they gone on.
        seconds: for which it is lost.
    """

    stream: str
    sampled: float
    seconds: float


class LostStreams:
    """Raises and ends the alarms of streams that nobody watches. One thing at a time: what is announced is in
    the journal before the next is looked at.

    Args:
        dispatcher: has restored the alarms that were open.
        limits: of a stream.
        awaited: streams that were watched when the monitor ended, with the time (unix s) of their samples
            now, had they gone on.
    """

    def __init__(
        self, dispatcher: Dispatcher, limits: Callable[[str], Limits], awaited: Mapping[str, float]
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._began = time.monotonic()
        self._settled: float | None = None
        self._awaited = {stream: _AwaitedStream(sampled, self._began) for stream, sampled in awaited.items()}
        # Only of alarms that are raised here, none of another kind.
        self._alarm_states: dict[str, AlarmState] = {}
        self._raised: set[str] = set()
        self._turn = asyncio.Lock()

    @property
    def awaited(self) -> dict[str, float]:
        """Streams that have not come again, with the time of their samples now, had they gone on."""
        now = time.monotonic()
        return {stream: awaited.sampled_by(now) for stream, awaited in self._awaited.items()}

    @property
    def raised(self) -> frozenset[str]:
        """Alarms that are ended here when their stream comes: no shard is to know of them."""
        return frozenset(self._raised)

    def knows(self, stream: str) -> bool:
        """Whether there is anything to discharge."""
        return (
            stream in self._awaited or stream in self._dispatcher.streams or bool(self._open_alarms(stream))
        )

    def silent(self, seconds: float) -> list[str]:
        """Streams of which nothing has come for so long."""
        streams = self._dispatcher.streams
        since = time.monotonic() - seconds
        silent = [stream for stream, watched in streams.items() if watched.arrived < since]
        if self._began < since:
            # Of another source, of before.
            restored = {
                alarm.stream
                for alarm in self._dispatcher.alarms.values()
                if alarm.alarm in self._dispatcher.restored_alarms
            }
            silent += [stream for stream in restored | self._awaited.keys() if stream not in streams]
        return silent

    async def raise_for_shard(self, number: int) -> None:
        """Shard `number` is gone or hangs, or still so: its streams are lost at once."""
        async with self._turn:
            now = time.monotonic()
            missed = []
            for stream, watched in self._dispatcher.streams.items():
                if watched.shard == number:
                    silence = now - watched.arrived
                    least = self._limits(stream).stream_lost.medium
                    missed.append(_MissedStream(stream, watched.reading.time + silence, max(silence, least)))
            await self._step_alarms(missed, _SHARD_LOST)

    def await_shard(self, number: int) -> None:
        """Shard `number` is back: its streams are to come again."""
        for stream, watched in self._dispatcher.streams.items():
            if watched.shard == number:
                arrived = watched.arrived
                self._awaited[stream] = _AwaitedStream(watched.reading.time, arrived, arrived)

    async def raise_for_awaited(self, *, all_up: bool) -> None:
        """Now and then: raise the alarm of streams that have not come again.

        Args:
            all_up: whether all shards watch, so that they could have.
        """
        async with self._turn:
            now = time.monotonic()
            if self._settled is None and (all_up or now - self._began > _SETTLING):
                self._settled = now
            missed = []
            for stream, awaited in self._awaited.items():
                missed_from = self._settled if awaited.missed_from is None else awaited.missed_from
                if missed_from is not None:
                    missed.append(_MissedStream(stream, awaited.sampled_by(now), now - missed_from))
            await self._step_alarms(missed, _NOT_BACK)

    async def end_for(self, readings: Sequence[Reading]) -> None:
        """Streams have come; their alarms that were raised here are over, others their shard will end."""
        if not self._awaited or not any(reading.stream in self._awaited for reading in readings):
            return
        async with self._turn:
            sampled = {
                reading.stream: reading.time for reading in readings if reading.stream in self._awaited
            }
            ended = [
                replace(
                    alarm,
                    change="ended",
                    state="ended",
                    time=max(alarm.time, sampled[alarm.stream]),
                    why={"reason": "it came again"},
                )
                for alarm in self._dispatcher.alarms.values()
                if alarm.stream in sampled and alarm.alarm in self._raised
            ]
            for stream in sampled:
                self._forget(stream)
            await self._dispatcher.announce(ended)

    async def acknowledge(self, name: str) -> bool:
        """Acknowledge an alarm of a stream that nobody watches."""
        async with self._turn:
            alarm = self._dispatcher.alarms.get(name)
            if alarm is None:
                return False
            _, changes = acknowledge(restore(alarm.stream, [alarm]), name, alarm.time)
            self._alarm_states.pop(alarm.stream, None)
            await self._dispatcher.announce(changes)
            return bool(changes)

    async def discharge(self, stream: str) -> None:
        """All alarms of `stream` end, whoever raised them, and it is awaited no more."""
        async with self._turn:
            self._forget(stream)
            watched = self._dispatcher.streams.get(stream)
            changes: list[Transition] = []
            for alarm in self._open_alarms(stream):
                at = max(alarm.time, watched.reading.time) if watched else alarm.time
                changes += discharge(restore(stream, [alarm]), at)[1]
            await self._dispatcher.announce(changes)
            self._dispatcher.remove_stream(stream)

    def _open_alarms(self, stream: str) -> list[Transition]:
        return [alarm for alarm in self._dispatcher.alarms.values() if alarm.stream == stream]

    def _forget(self, stream: str) -> None:
        self._awaited.pop(stream, None)
        self._alarm_states.pop(stream, None)
        self._raised -= {alarm.alarm for alarm in self._open_alarms(stream)}

    async def _step_alarms(self, missed: Sequence[_MissedStream], reason: str) -> None:
        """Step the alarms of streams that are missed, and announce what changed, all at once."""
        alarms = {
            alarm.stream: alarm for alarm in self._dispatcher.alarms.values() if alarm.kind == "stream-lost"
        }
        changes: list[Transition] = []
        for lost in missed:
            stream = lost.stream
            open_alarms = [alarms[stream]] if stream in alarms else []
            before = self._alarm_states.get(stream) or restore(stream, open_alarms)
            # An alarm that is open may have changed later than the last sample that is known.
            time_now = max(lost.sampled, before.time or lost.sampled)
            observation = Observation(time=time_now, good=False, lost=lost.seconds)
            self._alarm_states[stream], transitions = step(before, observation, self._limits(stream))
            changes += [
                replace(change, why={**change.why, "reason": reason})
                for change in transitions
                if change.kind == "stream-lost"
            ]
        self._raised |= {change.alarm for change in changes if change.change == "onset"}
        await self._dispatcher.announce(changes)
