"""A live page that is served for a test, and pages without a browser that look at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from genray.errors import DataError
from monitors.outputs.page import CommandResult, LivePage, PageSettings

Event = dict[str, Any]


def bed(stream: str, **more: Any) -> Event:
    return {
        "type": "bed",
        "stream": stream,
        "time": 1.0,
        "heart_rate": 60.0,
        "quality": {"II": "good"},
        **more,
    }


def alarm(name: str, stream: str = "a") -> Event:
    return {"type": "alarm", "alarm": name, "stream": stream, "kind": "asystole", "why": {}}


def trace(stream: str, values: list[float]) -> Event:
    return {"type": "trace", "stream": stream, "lead": "II", "start": 1.0, "rate": 100, "values": values}


class Watcher:
    """A page without a browser."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def next(self) -> Event:
        async with asyncio.timeout(10):
            while not (line := await self._content.readline()).startswith(b"data: "):
                assert line, "the stream of events ended"
        return dict(json.loads(line[6:]))

    async def until(self, kind: str) -> list[Event]:
        """Events up to the first of `kind`."""
        events = [await self.next()]
        while events[-1]["type"] != kind:
            events.append(await self.next())
        return events


class Served:
    """A page of beds a, b and c that is served, and a browser's session for it."""

    def __init__(self, live: LivePage, port: int, session: aiohttp.ClientSession) -> None:
        self.live, self.port, self.session = live, port, session
        self.url = f"http://127.0.0.1:{port}"

    @asynccontextmanager
    async def watch(self, streams: str = "") -> AsyncIterator[Watcher]:
        async with self.session.get(f"{self.url}/events", params={"streams": streams}) as response:
            assert response.content_type == "text/event-stream"
            yield Watcher(response.content)


def serve(use: Callable[[Served], Awaitable[None]], **settings: Any) -> list[str]:
    """Runs `use` beside a server; returns what was asked: alarms to acknowledge, streams to discharge."""
    commanded: list[str] = []

    async def answer(name: str) -> CommandResult:
        commanded.append(name)
        if name == "late":
            return CommandResult("late", "not confirmed")
        return CommandResult("unknown", "no such name") if name == "unknown" else CommandResult("done")

    async def strip(alarm: str) -> Event | None:
        if alarm == "damaged":
            raise DataError("the strip is damaged")
        return {"alarm": alarm} if alarm != "unknown" else None

    async def run() -> None:
        snapshot = {"beds": [bed("a"), bed("b"), bed("c")], "alarms": [alarm("c/asystole/5", "c")]}
        live = LivePage(PageSettings(port=0, **settings), lambda: snapshot, answer, answer, strip)
        port = await live.start()
        assert port
        try:
            async with aiohttp.ClientSession(read_bufsize=2**22) as session:
                await use(Served(live, port, session))
        finally:
            await live.close()

    asyncio.run(run())
    return commanded
