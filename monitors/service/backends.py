"""Backends of shards: one in this process, or several as actors on Ray; and the monitor's view of each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from genray.errors import GenrayError
from monitors.service.shard import Partition, Shard, ShardReport, Start
from monitors.settings import EcgSettings

_ANSWER_TIMEOUT = 30.0  # s; a step takes a fraction of one


class ShardLost(Exception):
    """The process of a shard has stopped or does not respond; `open` starts it again."""


class ShardBackend(Protocol):
    """A shard, wherever it runs. All methods but `open` and `close` raise ShardLost if its process is
    gone."""

    async def open(self, start: Start) -> None:
        """Start the shard, or restart it."""

    async def collect(self, *, save: bool) -> ShardReport:
        """See `Shard.collect`."""

    async def show_streams(self, streams: frozenset[str]) -> None:
        """See `Shard.show_streams`."""

    async def acknowledge(self, alarm: str) -> bool:
        """See `Shard.acknowledge`."""

    async def discharge(self, stream: str) -> bool:
        """See `Shard.discharge`."""

    async def close(self) -> None:
        """Stop the shard."""


@dataclass(eq=False)
class ShardState:
    """The monitor's view of one shard.

    Attributes:
        up: whether it is running and has answered.
        was_connected: whether its source was ever connected.
        last_report: its last report; None while it is not up.
        behind: seconds from the arrival of samples to their analysis.
        collecting_since: monotonic time of the request that it has not answered, seconds; None: it answered.
        hangs: whether it has not answered for so long that its streams count as lost.
        to_discharge: streams to discharge when it starts.
    """

    number: int
    backend: ShardBackend
    up: bool = False
    was_connected: bool = False
    last_report: ShardReport | None = None
    behind: float = 0.0
    collecting_since: float | None = None
    hangs: bool = False
    to_discharge: set[str] = field(default_factory=set)

    def mark_down(self) -> None:
        """Mark the shard as not running."""
        self.up = False
        self.last_report = None
        self.behind = 0.0


class LocalBackend:
    """Runs the only shard in this process."""

    def __init__(self, settings: EcgSettings, key: bytes) -> None:
        self._settings = settings
        self._key = key
        self._shard: Shard | None = None

    async def open(self, start: Start) -> None:
        """See `ShardBackend`."""
        await self.close()
        self._shard = Shard.begin(self._settings, self._key, start=start)

    @property
    def _running(self) -> Shard:
        assert self._shard is not None
        return self._shard

    async def collect(self, *, save: bool) -> ShardReport:
        """See `ShardBackend`."""
        return await self._running.collect(save=save)

    async def show_streams(self, streams: frozenset[str]) -> None:
        """See `ShardBackend`."""
        self._running.show_streams(streams)

    async def acknowledge(self, alarm: str) -> bool:
        """See `ShardBackend`."""
        return self._shard is not None and self._shard.acknowledge(alarm)

    async def discharge(self, stream: str) -> bool:
        """See `ShardBackend`."""
        return self._shard is not None and self._shard.discharge(stream)

    async def close(self) -> None:
        """See `ShardBackend`."""
        if self._shard is not None:
            await self._shard.close()
            self._shard = None


class RayBackend:
    """Runs one of several shards as an actor on the Ray cluster that this process is connected to.

    Args:
        answer_timeout: seconds without an answer after which the shard counts as lost.
    """

    def __init__(
        self,
        settings: EcgSettings,
        key: bytes,
        partition: Partition,
        *,
        answer_timeout: float = _ANSWER_TIMEOUT,
    ) -> None:
        self._settings = settings
        self._key = key
        self._partition = partition
        self._answer_timeout = answer_timeout
        self._actor: Any = None
        self._has_answered = False

    async def open(self, start: Start) -> None:
        """See `ShardBackend`."""
        await self.close()
        # The monitor restarts it from the checkpoint, so Ray must not. A lost node takes few shards with it.
        options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        actor_class = _ray().remote(**options)(ShardActor)
        self._has_answered = False
        self._actor = actor_class.remote(self._settings, self._key, self._partition, start)

    async def collect(self, *, save: bool) -> ShardReport:
        """See `ShardBackend`."""
        report: ShardReport = await self._call("collect", save=save)
        self._has_answered = True
        return report

    async def show_streams(self, streams: frozenset[str]) -> None:
        """See `ShardBackend`."""
        await self._call("show_streams", streams)

    async def acknowledge(self, alarm: str) -> bool:
        """See `ShardBackend`."""
        done: bool = await self._call("acknowledge", alarm)
        return done

    async def discharge(self, stream: str) -> bool:
        """See `ShardBackend`."""
        done: bool = await self._call("discharge", stream)
        return done

    async def close(self) -> None:
        """See `ShardBackend`."""
        if self._actor is not None:
            _ray().kill(self._actor)
            self._actor = None

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        name = f"shard {self._partition.number}"
        errors = _ray().exceptions
        if self._actor is None:
            raise ShardLost(f"{name} is not running")
        try:
            # No limit for the first answer: a cluster may take long to find resources for the actor.
            async with asyncio.timeout(self._answer_timeout if self._has_answered else None):
                return await getattr(self._actor, method).remote(*arguments, **options)
        except TimeoutError:
            raise ShardLost(
                f"{name} has not responded for {self._answer_timeout:g} s; restarting it"
            ) from None
        except errors.RayTaskError as error:
            # An error of genray is passed on as it is; any other one only restarts this shard.
            if isinstance(error.cause, GenrayError):
                raise error.cause from None
            raise ShardLost(f"{name} failed; restarting it ({error})") from error
        except errors.RayError as error:
            raise ShardLost(
                f"the process of {name} stopped; restarting it ({type(error).__name__})"
            ) from error


class ShardActor:
    """A shard in a Ray actor; the first call starts it."""

    def __init__(self, settings: EcgSettings, key: bytes, partition: Partition, start: Start) -> None:
        self._settings = settings
        self._key = key
        self._partition = partition
        self._start = start
        self._shard: Shard | None = None

    def _running(self) -> Shard:
        if self._shard is None:  # not in the constructor: a shard needs the event loop and may raise
            self._shard = Shard.begin(self._settings, self._key, self._partition, self._start)
        return self._shard

    async def collect(self, *, save: bool) -> ShardReport:
        """See `Shard.collect`."""
        return await self._running().collect(save=save)

    async def show_streams(self, streams: frozenset[str]) -> None:
        """See `Shard.show_streams`."""
        self._running().show_streams(streams)

    async def acknowledge(self, alarm: str) -> bool:
        """See `Shard.acknowledge`."""
        return self._running().acknowledge(alarm)

    async def discharge(self, stream: str) -> bool:
        """See `Shard.discharge`."""
        return self._running().discharge(stream)


def _ray() -> Any:
    """Import Ray late, as that takes seconds and a monitor with one shard does not need it."""
    return import_module("ray")
