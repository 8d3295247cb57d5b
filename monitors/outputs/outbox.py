"""What waits to be sent to one page: every alarm, and of all else only what is new."""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PIECE = 64 * 1024
"""Bytes after which more is no longer put into one piece: an alarm overtakes all that was not yet taken."""

_TICK = 0.25


class Outbox:
    """Frames for one page. Alarms come first and are never left out; of beds and the status only the newest
    state waits; of traces the oldest are let go.

    Args:
        urgent: most bytes of alarms that may wait. With more the page is `hopeless`.
        traces: most frames of traces that may wait.
    """

    def __init__(self, *, urgent: int, traces: int) -> None:
        self._urgent: deque[bytes] = deque()
        self._room = urgent
        self._states: dict[str, bytes] = {}
        self._traces: deque[bytes] = deque(maxlen=traces)
        self._some, self._pressing = asyncio.Event(), asyncio.Event()
        self.hopeless = False

    def put_urgent(self, data: bytes) -> None:
        """Add what must not be lost, in order."""
        self._room -= len(data)
        if self._room < 0:
            self.close()
            return
        self._urgent.append(data)
        self._some.set()
        self._pressing.set()

    def put_state(self, name: str, data: bytes) -> None:
        """Add the newest state of `name`, in place of one that still waits."""
        self._states[name] = data
        self._some.set()

    def drop_state(self, name: str) -> None:
        """Forget a state that still waits: `name` is gone."""
        self._states.pop(name, None)

    def put_trace(self, data: bytes) -> None:
        """Add what may be lost."""
        self._traces.append(data)
        self._some.set()

    def close(self) -> None:
        """Let go of everything; whoever waits in `take` gets nothing and finds it `hopeless`."""
        self.hopeless = True
        self._urgent.clear()
        self._states.clear()
        self._traces.clear()
        self._some.set()
        self._pressing.set()

    async def take(self, patience: float) -> bytes:
        """The next frames together, about `PIECE` bytes of them: alarms at once, all else four times a
        second; empty if nothing comes for `patience` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._some.wait()
        if not self._some.is_set():
            return b""
        # A thousand beds would otherwise be a thousand writes.
        with suppress(TimeoutError):
            async with asyncio.timeout(_TICK):
                await self._pressing.wait()
        return self._piece()

    def _piece(self) -> bytes:
        frames: list[bytes] = []
        size = 0
        while size < PIECE and (data := self._next()) is not None:
            frames.append(data)
            size += len(data)
        if not self._urgent:
            self._pressing.clear()
            if not self._states and not self._traces:
                self._some.clear()
        return b"".join(frames)

    def _next(self) -> bytes | None:
        if self._urgent:
            data = self._urgent.popleft()
            self._room += len(data)
            return data
        if self._states:
            return self._states.pop(next(iter(self._states)))
        return self._traces.popleft() if self._traces else None


def frame(event: Mapping[str, Any]) -> bytes:
    """`event` as a server-sent event; a number that is not finite is null."""
    try:
        text = json.dumps(event, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(event), separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
