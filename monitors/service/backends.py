"""Where shards run: one in this process, or several as actors on Ray; and what the monitor knows of each."""

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
    """The process of a shard has ended. `open` begins it again."""


class ShardBackend(Protocol):
    """A shard wherever it runs. All but `open` and `close` raise ShardLost when its process is gone."""

    async def open(self, start: Start) -> None:
        """Begin, or begin again."""

    async def collect(self, *, save: bool) -> ShardReport:
        """See `Shard.collect`."""

    async def show_streams(self, streams: frozenset[str]) -> None:
        """See `Shard.show_streams`."""

    async def acknowledge(self, alarm: str) -> bool:
        """See `Shard.acknowledge`."""

    async def discharge(self, stream: str) -> bool:
        """See `Shard.discharge`."""

    async def close(self) -> None:
        """End it."""


@dataclass(eq=False)
class ShardState:
    """What the monitor knows of one shard.

    Attributes:
        up: whether it watches now.
        was_connected: whether its source was ever there.
        last_report: None while it is not up.
        behind: seconds by which its work lagged behind the arrival of samples.
        collecting_since: when it was asked what is new, by the monotonic clock; None: it has answered.
        hangs: whether it does not answer for so long that its streams are lost.
        to_discharge: streams that it is to discharge when it begins.
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
        """It watches no more."""
        self.up = False
        self.last_report = None
        self.behind = 0.0


class LocalBackend:
    """The only shard, in this process."""

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
    """One of several shards, an actor on the Ray that this process is connected to.

    Args:
        answer_timeout: seconds without an answer after which it is taken for dead.
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
        # It is begun again here, with what was saved, and not by Ray.
        actor_class = _ray().remote(num_cpus=1, max_restarts=0, max_task_retries=0)(ShardActor)
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
            raise ShardLost(f"{name} is not there")
        try:
            # A cluster may need long to find a place for it.
            async with asyncio.timeout(self._answer_timeout if self._has_answered else None):
                return await getattr(self._actor, method).remote(*arguments, **options)
        except TimeoutError:
            raise ShardLost(
                f"{name} does not answer for {self._answer_timeout:g} s; it is begun anew"
            ) from None
        except errors.RayTaskError as error:
            # What a shard raises on purpose means the same here; of anything else the others are spared.
            if isinstance(error.cause, GenrayError):
                raise error.cause from None
            raise ShardLost(f"{name} failed, and is begun anew: {error}") from error
        except errors.RayError as error:
            raise ShardLost(f"{name} ended ({type(error).__name__}), and is begun anew") from error


class ShardActor:
    """A shard in a process of Ray. The first call begins it."""

    def __init__(self, settings: EcgSettings, key: bytes, partition: Partition, start: Start) -> None:
        self._settings = settings
        self._key = key
        self._partition = partition
        self._start = start
        self._shard: Shard | None = None

    def _running(self) -> Shard:
        if self._shard is None:  # here, not in the constructor: it needs the event loop, and may raise
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
    """Ray takes seconds to import, and a monitor with one shard does without it."""
    return import_module("ray")
