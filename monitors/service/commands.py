"""Commands that are given at the page: to acknowledge an alarm, to discharge a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from genray.errors import GenrayError
from monitors.service.backends import ShardLost, ShardState
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams

_COMMAND_TIMEOUT = 5.0  # s until the effect must be in the journal


class Commands:
    """Has the shard that watches a stream do it, or does it where none watches.

    Args:
        shards, dispatcher, lost_streams, checkpoint: of the monitor.
        pseudonym: of a stream, by the name that its source gives it.
    """

    def __init__(
        self,
        shards: Sequence[ShardState],
        dispatcher: Dispatcher,
        lost_streams: LostStreams,
        checkpoint: MonitorCheckpoint,
        pseudonym: Callable[[str], str],
    ) -> None:
        self._shards = shards
        self._dispatcher = dispatcher
        self._lost_streams = lost_streams
        self._checkpoint = checkpoint
        self._pseudonym = pseudonym

    async def acknowledge(self, alarm: str) -> bool:
        """Acknowledge an alarm; False if there is none of that name, or it takes too long."""
        return await self._dispatcher.confirmed(
            alarm, lambda: self._begin_acknowledge(alarm), _COMMAND_TIMEOUT
        )

    async def discharge(self, name: str) -> bool:
        """Discharge a stream, by its pseudonym or by the name that its source gives it; False if nothing is
        known of it, or it takes too long."""
        stream = name if self._knows(name) else self._pseudonym(name)
        return await self._dispatcher.confirmed(
            stream, lambda: self.begin_discharge(stream), _COMMAND_TIMEOUT
        )

    async def begin_discharge(self, stream: str) -> bool:
        """As `discharge`, by its pseudonym and without waiting for a shard to report it."""
        if not self._knows(stream):
            return False
        for shard in self._candidates(stream):
            if not shard.up:
                shard.to_discharge.add(stream)
                continue
            with suppress(ShardLost, GenrayError):
                if await shard.backend.discharge(stream):
                    return True
        await self.end_discharge(stream)
        return True

    async def end_discharge(self, stream: str) -> None:
        """A stream was discharged by its shard: end alarms that are open, delete what is saved."""
        await self._lost_streams.discharge(stream)
        await self._checkpoint.discharge(stream)
        self._dispatcher.confirm(stream)

    async def discharge_pending(self, shard: ShardState) -> None:
        """A shard watches that began with what was known before: have it discharge streams that were
        discharged meanwhile."""
        while shard.to_discharge:
            await shard.backend.discharge(shard.to_discharge.pop())

    async def _begin_acknowledge(self, alarm: str) -> bool:
        stream = alarm.partition(":")[0]
        for shard in self._candidates(stream):
            with suppress(ShardLost, GenrayError):
                if shard.up and await shard.backend.acknowledge(alarm):
                    return True
        if self._is_watched(stream):
            return False
        return await self._lost_streams.acknowledge(alarm)

    def _is_watched(self, stream: str) -> bool:
        watched = self._dispatcher.streams.get(stream)
        return (
            watched is not None
            and self._shards[watched.shard].up
            and stream not in self._lost_streams.awaited
        )

    def _knows(self, stream: str) -> bool:
        return self._lost_streams.knows(stream) or self._checkpoint.knows(stream)

    def _candidates(self, stream: str) -> Sequence[ShardState]:
        """The shard that has `stream`, or all if nobody knows which."""
        watched = self._dispatcher.streams.get(stream)
        return self._shards if watched is None else [self._shards[watched.shard]]
