"""What somebody at the page asks for: to acknowledge an alarm, to discharge a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from genray.errors import GenrayError
from monitors.service.backends import ShardBackend, ShardLost
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams

_PATIENCE = 5.0  # s until what was asked must be in the journal


class Commands:
    """Asks the shard that watches a stream, or does it where none does.

    Args:
        shards: see `Monitor`; `up`: which of them watch now.
        telling, absence, keeping: of the monitor.
        pseudonym: of a stream, by the name that its source gives it.
    """

    def __init__(
        self,
        shards: Sequence[ShardBackend],
        up: Sequence[bool],
        telling: Dispatcher,
        absence: LostStreams,
        keeping: MonitorCheckpoint,
        pseudonym: Callable[[str], str],
    ) -> None:
        self._shards, self._up = shards, up
        self._telling, self._absence, self._keeping = telling, absence, keeping
        self._pseudonym = pseudonym
        # Of each shard: streams that it is to discharge when it begins.
        self._left: list[set[str]] = [set() for _ in shards]

    async def acknowledge(self, alarm: str) -> bool:
        """Acknowledge an alarm; False if there is none of that name, or it takes too long."""

        async def ask() -> bool:
            stream = alarm.partition(":")[0]
            for number in self._homes(stream):
                with suppress(ShardLost, GenrayError):
                    if self._up[number] and await self._shards[number].acknowledge(alarm):
                        return True
            home = self._telling.home.get(stream)
            watched = home is not None and self._up[home] and stream not in self._absence.awaited
            return not watched and await self._absence.acknowledge(alarm)

        return await self._telling.answered(alarm, ask, _PATIENCE)

    async def discharge(self, name: str) -> bool:
        """Discharge a stream, by its pseudonym or by the name that its source gives it; False if nothing is
        known of it, or it takes too long."""
        stream = name if self._knows(name) else self._pseudonym(name)
        return await self._telling.answered(stream, lambda: self.leave(stream), _PATIENCE)

    async def leave(self, stream: str) -> bool:
        """As `discharge`, without waiting for a shard to report it."""
        if not self._knows(stream):
            return False
        for number in self._homes(stream):
            if not self._up[number]:
                self._left[number].add(stream)
                continue
            with suppress(ShardLost, GenrayError):
                if await self._shards[number].discharge(stream):
                    return True
        await self.left(stream)
        return True

    async def left(self, stream: str) -> None:
        """A stream was discharged: end what is open, forget what is kept."""
        await self._absence.discharge(stream)
        await self._keeping.forget(stream)
        self._telling.heard(stream)

    async def begun(self, number: int) -> None:
        """Shard `number` watches; it began with what was known before."""
        while self._left[number]:
            await self._shards[number].discharge(self._left[number].pop())

    def _knows(self, stream: str) -> bool:
        return self._absence.knows(stream) or self._keeping.knows(stream)

    def _homes(self, stream: str) -> list[int]:
        """The shard that has `stream`, or all if nobody knows which."""
        home = self._telling.home.get(stream)
        return list(range(len(self._shards))) if home is None else [home]
