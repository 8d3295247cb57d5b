"""Where shards run: one in this process, or several as actors on Ray."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any, Protocol

from genray.errors import GenrayError
from monitors.service.shard import Shard, ShardReport, Start
from monitors.settings import EcgSettings

_SILENT = 30.0  # s; a step takes a fraction of one


class ShardLost(Exception):
    """The process of a shard has ended. `open` begins it anew."""


class ShardBackend(Protocol):
    """A shard wherever it runs. All but `open` and `close` raise ShardLost when its process is gone."""

    async def open(self, start: Start) -> None:
        """Begin, or begin anew."""

    async def collect(self, keep: bool) -> ShardReport:
        """See `Shard.collect`."""

    async def watch(self, streams: frozenset[str]) -> None:
        """See `Shard.watch`."""

    async def acknowledge(self, alarm: str) -> bool:
        """See `Shard.acknowledge`."""

    async def discharge(self, stream: str) -> bool:
        """See `Shard.discharge`."""

    async def close(self) -> None:
        """End it."""


class LocalBackend:
    """The only shard, in this process."""

    def __init__(self, settings: EcgSettings, key: bytes) -> None:
        self._settings, self._key = settings, key
        self._shard: Shard | None = None

    async def open(self, start: Start) -> None:
        """See `ShardBackend`."""
        await self.close()
        self._shard = Shard(self._settings, self._key, (0, 1), start)

    @property
    def _running(self) -> Shard:
        assert self._shard is not None
        return self._shard

    async def collect(self, keep: bool) -> ShardReport:
        """See `ShardBackend`."""
        return await self._running.collect(keep)

    async def watch(self, streams: frozenset[str]) -> None:
        """See `ShardBackend`."""
        self._running.watch(streams)

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
        silent: seconds without an answer after which it is taken for dead.
    """

    def __init__(
        self, settings: EcgSettings, key: bytes, number: int, of: int, silent: float = _SILENT
    ) -> None:
        self._settings, self._key, self._part, self._silent = settings, key, (number, of), silent
        self._ray: Any = import_module("ray")
        self._actor: Any = None
        self._answered = False

    async def open(self, start: Start) -> None:
        """See `ShardBackend`."""
        await self.close()
        # It is begun anew here, with what was kept, and not by Ray.
        kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(ShardActor)
        self._answered = False
        self._actor = kind.remote(self._settings, self._key, self._part, start)

    async def collect(self, keep: bool) -> ShardReport:
        """See `ShardBackend`."""
        report: ShardReport = await self._ask("collect", keep)
        self._answered = True
        return report

    async def watch(self, streams: frozenset[str]) -> None:
        """See `ShardBackend`."""
        await self._ask("watch", streams)

    async def acknowledge(self, alarm: str) -> bool:
        """See `ShardBackend`."""
        done: bool = await self._ask("acknowledge", alarm)
        return done

    async def discharge(self, stream: str) -> bool:
        """See `ShardBackend`."""
        done: bool = await self._ask("discharge", stream)
        return done

    async def close(self) -> None:
        """See `ShardBackend`."""
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    async def _ask(self, method: str, *arguments: Any) -> Any:
        name, errors = f"shard {self._part[0]}", self._ray.exceptions
        if self._actor is None:
            raise ShardLost(f"{name} is not there")
        try:
            # A cluster may need long to find a place for it.
            async with asyncio.timeout(self._silent if self._answered else None):
                return await getattr(self._actor, method).remote(*arguments)
        except TimeoutError:
            raise ShardLost(f"{name} does not answer for {self._silent:g} s; it is begun anew") from None
        except errors.RayTaskError as error:
            # What a shard raises on purpose means the same here; of anything else the others are spared.
            if isinstance(error.cause, GenrayError):
                raise error.cause from None
            raise ShardLost(f"{name} failed, and is begun anew: {error}") from error
        except errors.RayError as error:
            raise ShardLost(f"{name} ended ({type(error).__name__}), and is begun anew") from error


class ShardActor:
    """A shard in a process of Ray. Whatever is asked first begins it."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._begun: Shard | None = None

    def _shard(self) -> Shard:
        if self._begun is None:  # here, not in the constructor: it needs the event loop, and may raise
            self._begun = Shard(*self._arguments)
        return self._begun

    async def collect(self, keep: bool) -> ShardReport:
        """See `Shard.collect`."""
        return await self._shard().collect(keep)

    async def watch(self, streams: frozenset[str]) -> None:
        """See `Shard.watch`."""
        self._shard().watch(streams)

    async def acknowledge(self, alarm: str) -> bool:
        """See `Shard.acknowledge`."""
        return self._shard().acknowledge(alarm)

    async def discharge(self, stream: str) -> bool:
        """See `Shard.discharge`."""
        return self._shard().discharge(stream)
