"""The live page: beds and their discharge, traces, alarms and their acknowledgement, by HTTP and server-sent
events.

Whoever reaches the port sees the beds and may do all this, so it is bound to this machine. A page of another
origin in a browser here is kept out too: by the name in Host, against DNS rebinding, and by Origin and a JSON
content type, against forged requests.

What waits to be sent to one page: every alarm, and of all else only what is new.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import Field, model_validator

from genray.errors import ResourceError
from genray.settings.base import Settings
from monitors.outputs.host_names import HostNames, is_loopback

_FILES = {
    "/": ("live.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
    "/live_alarms.js": ("live_alarms.js", "text/javascript"),
    "/live_beats.js": ("live_beats.js", "text/javascript"),
    "/live_traces.js": ("live_traces.js", "text/javascript"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_BODY = 4096
_SECONDS_FOR_BODY = 5
_ALIVE_EVERY = 5.0
_URGENT_BYTES = 64 * 1024 * 1024
# What the system holds back for a slow page is old when it arrives.
_SEND_BUFFER = 128 * 1024


class PageSettings(Settings):
    """Settings of the live page."""

    host: str = Field("127.0.0.1", min_length=1, description="address that it is served on")
    port: int | None = Field(8090, ge=0, le=65535, description="0: a free port; null: no page")
    names: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="further names by which browsers reach it; needed with a host that is not this machine. "
        "There is no login: put a proxy that has one before it",
    )
    clients: int = Field(20, ge=1, le=1000, description="most pages at a time")
    traces: int = Field(12, ge=1, le=100, description="most beds whose traces one page is sent")
    backlog: int = Field(
        256, ge=1, le=100_000, description="traces, of a second or two, that wait for a slow page"
    )
    patience: float = Field(
        30, gt=0, le=3600, description="seconds in which a page takes nothing before it is given up"
    )

    @model_validator(mode="after")
    def _is_meant(self) -> PageSettings:
        if not self.names and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reached from other machines: say in `names` by which names, "
                "and see that only those who may acknowledge alarms and discharge patients get there"
            )
        return self


@dataclass(eq=False)
class _Viewer:
    """A page that is open: what it is shown, and what waits for it.

    Attributes:
        follows: whether it asked for no beds of its own and gets new ones while there is room.
    """

    outbox: Outbox
    shown: list[str] = field(default_factory=list)
    follows: bool = False

    def leave(self, stream: str) -> None:
        """No more of `stream`; its place is free."""
        self.outbox.drop_state(stream)
        if self.follows and stream in self.shown:
            self.shown.remove(stream)


class LivePage:
    """Serves the page and sends events to all that have it open.

    Args:
        snapshot: gives all that a page shows at first: `{"beds": [...], "alarms": [...]}` and a "note".
        acknowledge: is given an alarm's name; says whether there was such an alarm to acknowledge.
        discharge: is given a stream's name; says whether there was such a stream to give up.
    """

    def __init__(
        self,
        settings: PageSettings,
        snapshot: Callable[[], dict[str, Any]],
        acknowledge: Callable[[str], Awaitable[bool]],
        discharge: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._acknowledge = acknowledge
        self._discharge = discharge
        self._pages: set[_Viewer] = set()
        self._status: bytes | None = None
        self._runner: web.AppRunner | None = None
        self._names = HostNames(settings.host, settings.names)

    async def start(self) -> int | None:
        """Serve, in the running loop; returns the port, None if there is to be no page.

        Raises:
            ResourceError: the address cannot be had.
        """
        if self._settings.port is None:
            return None
        app = web.Application(client_max_size=_BODY, middlewares=[self._guard])
        app.on_response_prepare.append(_harden)
        for path, (name, kind) in _FILES.items():
            app.router.add_get(path, _file((Path(__file__).parent / "static" / name).read_bytes(), kind))
        app.router.add_get("/favicon.ico", _no_icon)
        app.router.add_get("/events", self._events)
        app.router.add_post("/acknowledge", self._acknowledged)
        app.router.add_post("/discharge", self._discharged)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._settings.host, self._settings.port).start()
        except OSError as error:
            await runner.cleanup()
            raise ResourceError(
                f"the live page cannot be served: {error.strerror}",
                where=f"{self._settings.host}:{self._settings.port}",
                hint="choose another `port`, 0 for a free one, or null for no page",
            ) from error
        self._runner = runner
        return int(runner.addresses[0][1])

    async def close(self) -> None:
        """Let go of all pages and stop serving."""
        for page in self._pages:
            page.outbox.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def wanted(self) -> set[str]:
        """Streams whose traces and beats somebody looks at."""
        return {stream for page in self._pages for stream in page.shown}

    def publish(self, event: Mapping[str, Any]) -> None:
        """Send `event` to the pages that it concerns, without waiting. A number that is not finite is
        sent as null.

        Raises:
            ValueError: nothing is known of events of this type.
        """
        kind, stream = event["type"], event.get("stream", "")
        if kind not in ("snapshot", "bed", "trace", "beats", "alarm", "discharge", "status"):
            raise ValueError(f"no event of the page is a {kind!r}")
        traced = kind in ("trace", "beats")
        pages = [page for page in self._pages if not traced or stream in page.shown]
        if not pages and kind != "status":
            return
        data = frame(event)
        if kind == "status":
            self._status = data
        for page in pages:
            if traced:
                page.outbox.put_trace(data)
            elif kind in ("bed", "status"):
                page.outbox.put_state(stream, data)
                self._follow(page, stream)
            else:
                if kind == "discharge":
                    page.leave(stream)
                page.outbox.put_urgent(data)

    def _follow(self, page: _Viewer, stream: str) -> None:
        if stream and page.follows and stream not in page.shown and len(page.shown) < self._settings.traces:
            page.shown.append(stream)
            page.outbox.put_urgent(frame({"type": "shown", "streams": page.shown}))

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.host not in self._names:
            raise web.HTTPMisdirectedRequest(text="this is not served under that name\n")
        origin = request.headers.get("Origin")
        # A browser names the origin of a page that sends or that reads across origins; other programs do not.
        if origin is not None and origin.partition("://")[2].lower() != request.host.lower():
            raise web.HTTPForbidden(text="not from a page of another origin\n")
        return await handler(request)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if len(self._pages) >= self._settings.clients:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n", headers={"Retry-After": "10"})
        page = _Viewer(Outbox(urgent=_URGENT_BYTES, traces=self._settings.backlog))
        self._pages.add(page)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            transport = request.transport
            if transport is not None:
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER
                )
            self._begin(page, request.query.get("streams", ""))
            await self._send(page.outbox, response)
            if page.outbox.hopeless and transport is not None:
                transport.abort()
            return response
        finally:
            self._pages.discard(page)

    def _begin(self, page: _Viewer, asked: str) -> None:
        snapshot = self._snapshot()
        streams = [bed["stream"] for bed in snapshot["beds"]]
        chosen = [name for name in dict.fromkeys(asked.split(",")) if name]
        if not chosen:
            alarmed = dict.fromkeys(alarm["stream"] for alarm in snapshot["alarms"])
            page.follows = True
            chosen = list(dict.fromkeys([*(name for name in alarmed if name in streams), *streams]))
        page.shown = chosen[: self._settings.traces]
        about = {"type": "snapshot", "shown": page.shown, "traces": self._settings.traces}
        page.outbox.put_urgent(frame({**snapshot, **about}))
        if self._status is not None:
            page.outbox.put_state("", self._status)

    async def _send(self, outbox: Outbox, response: web.StreamResponse) -> None:
        try:
            while True:
                piece = await outbox.take(_ALIVE_EVERY)
                if outbox.hopeless:
                    return
                async with asyncio.timeout(self._settings.patience):
                    await response.write(piece or frame({"type": "alive"}))
        except TimeoutError:
            outbox.close()
        except ConnectionError:
            return

    async def _acknowledged(self, request: web.Request) -> web.Response:
        return await _done("acknowledged", self._acknowledge, await _named(request, "alarm"))

    async def _discharged(self, request: web.Request) -> web.Response:
        return await _done("discharged", self._discharge, await _named(request, "stream"))


async def _named(request: web.Request, of: str) -> str:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="JSON is taken here\n")
    try:
        async with asyncio.timeout(_SECONDS_FOR_BODY):
            said = await request.json()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="the request took too long\n") from error
    except (ValueError, LookupError, RecursionError) as error:  # of the text or its charset
        raise web.HTTPBadRequest(text="this is not JSON\n") from error
    name = said.get(of) if isinstance(said, dict) else None
    if not isinstance(name, str) or not name:
        raise web.HTTPBadRequest(text=f'{{"{of}": its name}} is asked for\n')
    return name


async def _done(what: str, do: Callable[[str], Awaitable[bool]], name: str) -> web.Response:
    # A page that goes away meanwhile does not undo it.
    done = await asyncio.shield(asyncio.ensure_future(do(name)))
    return web.json_response({what: done}, status=200 if done else 404)


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


async def _no_icon(_: web.Request) -> web.Response:
    return web.Response(status=204)


def _file(content: bytes, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return handler


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
