"""Lost streams: streams whose shard is down, or that have not returned since a restart of the monitor or of
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

_SETTLING = (
    30.0  # s that shards may need to start; after that, streams that do not return are lost in any case
)
_SHARD_LOST = "the worker process of this stream stopped or does not respond; it is being restarted"
_NOT_BACK = "no data since the restart of the monitor; the stream was monitored before"


@dataclass(frozen=True)
class _AwaitedStream:
    """A stream that is expected to return.

    Attributes:
        sampled: unix time of its samples at `sampled_at`, seconds.
        sampled_at: monotonic time that belongs to `sampled`, seconds.
        missed_from: monotonic time from which it counts as lost, seconds; None: once all shards are up.
    """

    sampled: float
    sampled_at: float
    missed_from: float | None = None

    def sampled_by(self, now: float) -> float:
        """Return the unix time that its samples would have at the monotonic time `now`."""
        return self.sampled + now - self.sampled_at


@dataclass(frozen=True)
class _MissedStream:
    """A stream without data.

    Attributes:
        sampled: unix time that its samples would have now, seconds.
        seconds: seconds for which it has been lost.
    """

    stream: str
    sampled: float
    seconds: float


class LostStreams:
    """Raises and ends the stream-lost alarms of streams that no shard monitors.

    It is responsible for streams of a shard that is down or hangs, and for streams that have not returned
    since a restart. It leaves streams with a bed to their ward. Operations run one at a time, so that a
    change is in the journal before the next is computed.

    Args:
        dispatcher: dispatcher that has restored the open alarms.
        limits: returns the limits of a stream.
        awaited: streams that were monitored when the monitor stopped, with the unix time (s) that their
            samples would have now.
    """

    def __init__(
        self, dispatcher: Dispatcher, limits: Callable[[str], Limits], awaited: Mapping[str, float]
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._began = time.monotonic()
        self._settled: float | None = None
        self._awaited = {stream: _AwaitedStream(sampled, self._began) for stream, sampled in awaited.items()}
        # Contains only the stream-lost alarms that are raised here.
        self._alarm_states: dict[str, AlarmState] = {}
        self._raised: set[str] = set()
        self._turn = asyncio.Lock()

    @property
    def awaited(self) -> dict[str, float]:
        """Streams that have not returned, with the unix time (s) that their samples would have now."""
        now = time.monotonic()
        return {stream: awaited.sampled_by(now) for stream, awaited in self._awaited.items()}

    @property
    def raised(self) -> frozenset[str]:
        """Alarms raised here, which end here when their stream returns; they are not passed to shards."""
        return frozenset(self._raised)

    def knows(self, stream: str) -> bool:
        """Whether `stream` is awaited, monitored or has an open alarm."""
        return (
            stream in self._awaited or stream in self._dispatcher.streams or bool(self._open_alarms(stream))
        )

    def postpone(self, seconds: float) -> None:
        """Do not count the last `seconds` as time without data: this process was paused and read nothing."""
        now = time.monotonic()
        self._began += seconds
        if self._settled is not None:
            self._settled += seconds
        for stream, awaited in self._awaited.items():
            if awaited.missed_from is not None:
                self._awaited[stream] = replace(awaited, missed_from=awaited.missed_from + seconds)
        for watched in self._dispatcher.streams.values():
            watched.arrived = min(now, watched.arrived + seconds)

    def silent(self, seconds: float) -> list[str]:
        """Return the streams without data for `seconds`."""
        streams = self._dispatcher.streams
        since = time.monotonic() - seconds
        silent = [stream for stream, watched in streams.items() if watched.arrived < since]
        if self._began < since:
            # Also streams of an earlier source that have nothing but restored alarms.
            restored = {
                alarm.stream
                for alarm in self._dispatcher.alarms.values()
                if alarm.alarm in self._dispatcher.restored_alarms
            }
            silent += [stream for stream in restored | self._awaited.keys() if stream not in streams]
        return silent

    async def raise_for_shard(self, number: int) -> None:
        """Raise the alarms of the streams of shard `number`, which is down or hangs: they are lost at
        once."""
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
        """Expect the streams of shard `number`, which is up again, to return."""
        for stream, watched in self._dispatcher.streams.items():
            if watched.shard == number:
                arrived = watched.arrived
                self._awaited[stream] = _AwaitedStream(watched.reading.time, arrived, arrived)

    async def raise_for_awaited(self, *, all_up: bool) -> None:
        """Raise the alarms of streams that have not returned; called every few seconds.

        Args:
            all_up: whether all shards are up, so that every stream could have returned.
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
        """End the alarms that were raised here for the streams of `readings`; their shard ends the others."""
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
                    why={"reason": "data is arriving again"},
                )
                for alarm in self._dispatcher.alarms.values()
                if alarm.stream in sampled and alarm.alarm in self._raised
            ]
            for stream in sampled:
                self._forget(stream)
            await self._dispatcher.announce(ended)

    async def acknowledge(self, name: str) -> bool:
        """Acknowledge an alarm of a stream that no shard monitors; False if there is no such alarm."""
        async with self._turn:
            alarm = self._dispatcher.alarms.get(name)
            if alarm is None:
                return False
            _, changes = acknowledge(restore(alarm.stream, [alarm]), name, alarm.time)
            self._alarm_states.pop(alarm.stream, None)
            await self._dispatcher.announce(changes)
            return bool(changes)

    async def discharge(self, stream: str) -> None:
        """End all alarms of `stream`, wherever they were raised, and stop expecting it."""
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
        """Step the alarms of all `missed` streams, and announce the changes together."""
        alarms = {
            alarm.stream: alarm for alarm in self._dispatcher.alarms.values() if alarm.kind == "stream-lost"
        }
        changes: list[Transition] = []
        for lost in missed:
            stream = lost.stream
            open_alarms = [alarms[stream]] if stream in alarms else []
            before = self._alarm_states.get(stream) or restore(stream, open_alarms)
            # An open alarm may have changed later than the last known sample.
            time_now = max(lost.sampled, before.time or lost.sampled)
            observation = Observation(time=time_now, good=False, rhythm=False, lost=lost.seconds)
            self._alarm_states[stream], transitions = step(before, observation, self._limits(stream))
            changes += [
                replace(change, why={**change.why, "reason": reason})
                for change in transitions
                if change.kind == "stream-lost"
            ]
        self._raised |= {change.alarm for change in changes if change.change == "onset"}
        await self._dispatcher.announce(changes)
