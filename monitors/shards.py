"""Where shards run: one in this process, or several as actors on Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from genray.errors import GenrayError
from monitors.ecg_settings import EcgSettings
from monitors.observation import Transition
from monitors.shard import Report, Shard


class ShardLost(Exception):
    """The process of a shard has ended. `open` begins it anew."""


class Running(Protocol):
    """A shard wherever it runs. All but `open` and `close` raise ShardLost when its process is gone."""

    async def open(
        self, references: Mapping[str, bytes], alarms: Sequence[Transition], place: Mapping[str, Any]
    ) -> None:
        """Begin, or begin anew; see `Shard`."""

    async def collect(self) -> Report:
        """See `Shard.collect`."""

    async def watch(self, streams: frozenset[str]) -> None:
        """See `Shard.watch`."""

    async def acknowledge(self, alarm: str) -> list[Transition]:
        """See `Shard.acknowledge`."""

    async def close(self) -> None:
        """End it."""


class Here:
    """The only shard, in this process."""

    def __init__(self, settings: EcgSettings, key: bytes) -> None:
        self._settings, self._key = settings, key
        self._shard: Shard | None = None

    async def open(
        self, references: Mapping[str, bytes], alarms: Sequence[Transition], place: Mapping[str, Any]
    ) -> None:
        """See `Running`."""
        self._shard = Shard(self._settings, self._key, (0, 1), references, alarms, place)

    @property
    def _running(self) -> Shard:
        assert self._shard is not None
        return self._shard

    async def collect(self) -> Report:
        """See `Running`."""
        return await self._running.collect()

    async def watch(self, streams: frozenset[str]) -> None:
        """See `Running`."""
        self._running.watch(streams)

    async def acknowledge(self, alarm: str) -> list[Transition]:
        """See `Running`."""
        return self._running.acknowledge(alarm)

    async def close(self) -> None:
        """See `Running`."""
        if self._shard is not None:
            await self._shard.close()


class OnRay:
    """One of several shards, an actor on the Ray that this process is connected to."""

    def __init__(self, settings: EcgSettings, key: bytes, number: int, of: int) -> None:
        self._settings, self._key, self._part = settings, key, (number, of)
        self._ray: Any = import_module("ray")
        self._actor: Any = None

    async def open(
        self, references: Mapping[str, bytes], alarms: Sequence[Transition], place: Mapping[str, Any]
    ) -> None:
        """See `Running`."""
        await self.close()
        kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Actor)
        actor = kind.remote(
            self._settings, self._key, self._part, dict(references), list(alarms), dict(place)
        )
        self._actor = actor

    async def collect(self) -> Report:
        """See `Running`."""
        report: Report = await self._ask("collect")
        return report

    async def watch(self, streams: frozenset[str]) -> None:
        """See `Running`."""
        await self._ask("watch", streams)

    async def acknowledge(self, alarm: str) -> list[Transition]:
        """See `Running`."""
        changes: list[Transition] = await self._ask("acknowledge", alarm)
        return changes

    async def close(self) -> None:
        """See `Running`."""
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    async def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except self._ray.exceptions.RayActorError as error:
            raise ShardLost(f"shard {self._part[0]}: {type(error).__name__}") from error
        except self._ray.exceptions.RayTaskError as error:
            # What a shard raises on purpose means the same here; anything else is a bug, and is shown.
            if isinstance(error.cause, GenrayError):
                raise error.cause from None
            raise


class Actor:
    """A shard in a process of Ray."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._shard: Shard | None = None

    async def collect(self) -> Report:
        """See `Shard.collect`."""
        if self._shard is None:  # here, not in the constructor: it needs the event loop, and may raise
            self._shard = Shard(*self._arguments)
        return await self._shard.collect()

    async def watch(self, streams: frozenset[str]) -> None:
        """See `Shard.watch`."""
        if self._shard is not None:
            self._shard.watch(streams)

    async def acknowledge(self, alarm: str) -> list[Transition]:
        """See `Shard.acknowledge`."""
        return [] if self._shard is None else self._shard.acknowledge(alarm)
