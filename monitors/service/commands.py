"""Commands from the live page: acknowledge an alarm, discharge a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from genray.errors import GenrayError
from monitors.outputs.page import CommandResult, CommandStatus
from monitors.service.backends import ShardLost, ShardState
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams

_COMMAND_TIMEOUT = 5.0  # s until the effect must be in the journal
_LATE = (
    f"not confirmed within {_COMMAND_TIMEOUT:g} s: the worker process of this bed does not respond, or the "
    "monitor is busy. It may still take effect: look at the bed before you try again"
)
_NO_ALARM = (
    "there is no such alarm to acknowledge: it has ended, is acknowledged already, or its name is wrong; "
    "`genray monitor alarms --json` lists the names"
)
_NO_STREAM = (
    "there is no bed of this name or pseudonym: it was discharged already, or has sent nothing yet; "
    "`genray monitor names NAME --known` lists the pseudonyms that the journal knows"
)


class Commands:
    """Passes a command to the shard that monitors the stream, or carries it out itself if no shard does.

    Args:
        shards, dispatcher, lost_streams, checkpoint: parts of the monitor.
        pseudonym: returns the pseudonym of a stream, by the name that its source gives.
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

    async def acknowledge(self, alarm: str) -> CommandResult:
        """Acknowledge an alarm; not done if there is no such open alarm, or no confirmation within 5 s."""
        status = await self._dispatcher.confirmed(
            alarm, lambda: self._begin_acknowledge(alarm), _COMMAND_TIMEOUT
        )
        return _result(status, _NO_ALARM)

    async def discharge(self, name: str) -> CommandResult:
        """Discharge a stream, by its pseudonym or by the name that its source gives; not done if the stream
        is unknown, or without confirmation within 5 s."""
        stream = name if self._knows(name) else self._pseudonym(name)
        status = await self._dispatcher.confirmed(
            stream, lambda: self.begin_discharge(stream), _COMMAND_TIMEOUT
        )
        return _result(status, _NO_STREAM)

    async def begin_discharge(self, stream: str) -> bool:
        """Discharge a stream by its pseudonym, without waiting for the report of its shard."""
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
        """Complete a discharge: end the open alarms of the stream and delete its saved states."""
        await self._lost_streams.discharge(stream)
        await self._checkpoint.discharge(stream)
        self._dispatcher.confirm(stream)

    async def discharge_pending(self, shard: ShardState) -> None:
        """Discharge in a restarted shard the streams that were discharged while it was down, as it started
        from their old states."""
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
        """Return the shard that has `stream`, or all shards if that is unknown."""
        watched = self._dispatcher.streams.get(stream)
        return self._shards if watched is None else [self._shards[watched.shard]]


def _result(status: CommandStatus, unknown: str) -> CommandResult:
    """Return the result of a command; `unknown` is its reason for an unknown alarm or stream."""
    reasons: Mapping[CommandStatus, str] = {"done": "", "unknown": unknown, "late": _LATE}
    return CommandResult(status, reasons[status])
