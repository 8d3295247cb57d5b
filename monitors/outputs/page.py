"""The live page: beds and their discharge, traces, alarms and their acknowledgement, by HTTP and server-sent
events.

Whoever reaches the port sees the beds and may do all this, so it is bound to this machine. A page of another
origin in a browser here is kept out too: by the name in Host, against DNS rebinding, and by Origin and a JSON
content type, against forged requests.

A browser that is slow holds nobody up: for each there is an `Outbox`, in which every alarm waits, and of all
else only what is new.
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
from monitors.outputs.site import Site, answer_only

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
_MOST_BODY_BYTES = 4096
_BODY_TIMEOUT = 5  # s
_ALIVE_PERIOD = 5.0  # s
_URGENT_BYTES = 64 * 1024 * 1024
# What the system holds back for a slow page is old when it arrives.
_SEND_BUFFER_BYTES = 128 * 1024
_GATHER_SECONDS = 0.25  # in which frames that are not urgent become one piece

PIECE_BYTES = 64 * 1024
"""Of frames in one piece, about: an alarm overtakes all that was not yet taken."""

_EVENT_TYPES = ("snapshot", "bed", "trace", "beats", "alarm", "discharge", "status")


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
    def _check_access(self) -> PageSettings:
        if not self.names and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reached from other machines: say in `names` by which names, "
                "and see that only those who may acknowledge alarms and discharge patients get there"
            )
        return self


class LivePage:
    """Serves the page and sends events to all browsers that have it open.

    It is responsible for:

    - the files of the page, and who may reach them,
    - what a browser is shown at first, and what it is sent then: every alarm, the newest state of each bed,
      and traces of the beds that it shows,
    - passing on what somebody does there: to acknowledge an alarm, to discharge a stream.

    Args:
        snapshot: gives all that a page shows at first: `{"beds": [...], "alarms": [...]}` and a "note".
        acknowledge: is given an alarm's name; says whether there was such an alarm to acknowledge.
        discharge: is given a stream's name; says whether there was such a stream to discharge.
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
        self._viewers: set[_Viewer] = set()
        self._status: bytes | None = None
        self._site: Site | None = None
        self._names = HostNames(settings.host, settings.names)

    async def start(self) -> int | None:
        """Serve, in the running loop; returns the port, None if there is to be no page.

        Raises:
            ResourceError: the address cannot be had.
        """
        if self._settings.port is None:
            return None
        app = web.Application(
            client_max_size=_MOST_BODY_BYTES, middlewares=[answer_only(self._names), _refuse_other_origins]
        )
        app.on_response_prepare.append(_add_headers)
        for path, (name, content_type) in _FILES.items():
            content = (Path(__file__).parent / "static" / name).read_bytes()
            app.router.add_get(path, _file_handler(content, content_type))
        app.router.add_get("/favicon.ico", _answer_no_icon)
        app.router.add_get("/events", self._answer_events)
        app.router.add_post("/acknowledge", self._answer_acknowledge)
        app.router.add_post("/discharge", self._answer_discharge)
        try:
            self._site = await Site.start(app, self._settings.host, self._settings.port)
        except OSError as error:
            raise ResourceError(
                f"the live page cannot be served: {error.strerror}",
                where=f"{self._settings.host}:{self._settings.port}",
                hint="choose another `port`, 0 for a free one, or null for no page",
            ) from error
        return self._site.port

    async def close(self) -> None:
        """Close all pages and stop serving."""
        for viewer in self._viewers:
            viewer.outbox.close()
        if self._site is not None:
            await self._site.close()

    def shown_streams(self) -> set[str]:
        """Streams whose traces and beats somebody looks at."""
        return {stream for viewer in self._viewers for stream in viewer.shown}

    def publish(self, event: Mapping[str, Any]) -> None:
        """Send `event` to the browsers that it concerns, without waiting. A number that is not finite is
        sent as null.

        Raises:
            ValueError: there are no events of this type.
        """
        event_type = event["type"]
        stream = event.get("stream", "")
        if event_type not in _EVENT_TYPES:
            raise ValueError(f"no event of the page is a {event_type!r}")
        traced = event_type in ("trace", "beats")
        viewers = [viewer for viewer in self._viewers if not traced or stream in viewer.shown]
        if not viewers and event_type != "status":
            return
        data = frame(event)
        if event_type == "status":
            self._status = data
        for viewer in viewers:
            if traced:
                viewer.outbox.put_trace(data)
            elif event_type in ("bed", "status"):
                viewer.outbox.put_state(stream, data)
                viewer.follow(stream, self._settings.traces)
            else:
                if event_type == "discharge":
                    viewer.drop(stream)
                viewer.outbox.put_urgent(data)

    async def _answer_events(self, request: web.Request) -> web.StreamResponse:
        if len(self._viewers) >= self._settings.clients:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n", headers={"Retry-After": "10"})
        viewer = _Viewer(Outbox(urgent_bytes=_URGENT_BYTES, traces=self._settings.backlog))
        self._viewers.add(viewer)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            transport = request.transport
            if transport is not None:
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES
                )
            self._send_snapshot(viewer, request.query.get("streams", ""))
            await self._send_pieces(viewer.outbox, response)
            if viewer.outbox.hopeless and transport is not None:
                transport.abort()
            return response
        finally:
            self._viewers.discard(viewer)

    def _send_snapshot(self, viewer: _Viewer, chosen: str) -> None:
        """Send all that is shown at first.

        Args:
            chosen: streams whose traces it shows, separated by commas; empty: as many as there is room for,
                those with alarms first.
        """
        snapshot = self._snapshot()
        streams = [name for name in dict.fromkeys(chosen.split(",")) if name]
        if not streams:
            viewer.follows = True
            beds = [bed["stream"] for bed in snapshot["beds"]]
            alarmed = [alarm["stream"] for alarm in snapshot["alarms"] if alarm["stream"] in beds]
            streams = list(dict.fromkeys([*alarmed, *beds]))
        viewer.shown = streams[: self._settings.traces]
        about = {"type": "snapshot", "shown": viewer.shown, "traces": self._settings.traces}
        viewer.outbox.put_urgent(frame({**snapshot, **about}))
        if self._status is not None:
            viewer.outbox.put_state("", self._status)

    async def _send_pieces(self, outbox: Outbox, response: web.StreamResponse) -> None:
        """Send what comes, until the browser is gone or reads nothing."""
        try:
            while True:
                piece = await outbox.next_piece(_ALIVE_PERIOD)
                if outbox.hopeless:
                    return
                async with asyncio.timeout(self._settings.patience):
                    await response.write(piece or frame({"type": "alive"}))
        except TimeoutError:
            outbox.close()
        except ConnectionError:
            return

    async def _answer_acknowledge(self, request: web.Request) -> web.Response:
        alarm = await _read_name(request, "alarm")
        return _answer("acknowledged", await _finish(self._acknowledge(alarm)))

    async def _answer_discharge(self, request: web.Request) -> web.Response:
        stream = await _read_name(request, "stream")
        return _answer("discharged", await _finish(self._discharge(stream)))


class Outbox:
    """Frames for one page. Alarms come first and are never left out; of beds and the status only the newest
    state waits; of traces the oldest are dropped.

    Args:
        urgent_bytes: most bytes of alarms that may wait. With more the page is `hopeless`.
        traces: most frames of traces that may wait.
    """

    def __init__(self, *, urgent_bytes: int, traces: int) -> None:
        self._urgent: deque[bytes] = deque()
        self._free_bytes = urgent_bytes
        self._states: dict[str, bytes] = {}
        self._traces: deque[bytes] = deque(maxlen=traces)
        self._any_waits = asyncio.Event()
        self._urgent_waits = asyncio.Event()
        self.hopeless = False

    def put_urgent(self, data: bytes) -> None:
        """Add what must not be lost, in order."""
        self._free_bytes -= len(data)
        if self._free_bytes < 0:
            self.close()
            return
        self._urgent.append(data)
        self._any_waits.set()
        self._urgent_waits.set()

    def put_state(self, name: str, data: bytes) -> None:
        """Add the newest state of `name`, in place of one that still waits."""
        self._states[name] = data
        self._any_waits.set()

    def drop_state(self, name: str) -> None:
        """Drop a state that still waits: `name` is gone."""
        self._states.pop(name, None)

    def put_trace(self, data: bytes) -> None:
        """Add what may be lost."""
        self._traces.append(data)
        self._any_waits.set()

    def close(self) -> None:
        """Drop everything; whoever waits in `next_piece` gets nothing and finds it `hopeless`."""
        self.hopeless = True
        self._urgent.clear()
        self._states.clear()
        self._traces.clear()
        self._any_waits.set()
        self._urgent_waits.set()

    async def next_piece(self, patience: float) -> bytes:
        """The next frames together, about `PIECE_BYTES` of them: alarms at once, all else four times a
        second; empty if nothing comes for `patience` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._any_waits.wait()
        if not self._any_waits.is_set():
            return b""
        # A thousand beds would otherwise be a thousand writes.
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await self._urgent_waits.wait()
        return self._pop_piece()

    def _pop_piece(self) -> bytes:
        frames: list[bytes] = []
        size = 0
        while size < PIECE_BYTES and (data := self._pop_frame()) is not None:
            frames.append(data)
            size += len(data)
        if not self._urgent:
            self._urgent_waits.clear()
            if not self._states and not self._traces:
                self._any_waits.clear()
        return b"".join(frames)

    def _pop_frame(self) -> bytes | None:
        if self._urgent:
            data = self._urgent.popleft()
            self._free_bytes += len(data)
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


@dataclass(eq=False)
class _Viewer:
    """A browser that has the page open: what it is shown, and what waits for it.

    Attributes:
        shown: streams whose traces and beats it is sent.
        follows: whether it asked for no beds of its own and gets new ones while there is room.
    """

    outbox: Outbox
    shown: list[str] = field(default_factory=list)
    follows: bool = False

    def follow(self, stream: str, most: int) -> None:
        """Show a new bed too, if it is to get new ones and there is room among `most`."""
        if stream and self.follows and stream not in self.shown and len(self.shown) < most:
            self.shown.append(stream)
            self.outbox.put_urgent(frame({"type": "shown", "streams": self.shown}))

    def drop(self, stream: str) -> None:
        """Show no more of `stream`; its place is free."""
        self.outbox.drop_state(stream)
        if self.follows and stream in self.shown:
            self.shown.remove(stream)


@web.middleware
async def _refuse_other_origins(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    origin = request.headers.get("Origin")
    # A browser names the origin of a page that sends or that reads across origins; other programs do not.
    if origin is not None and origin.partition("://")[2].lower() != request.host.lower():
        raise web.HTTPForbidden(text="not from a page of another origin\n")
    return await handler(request)


async def _read_name(request: web.Request, key: str) -> str:
    """The text under `key` in the JSON object that is the request's body."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="JSON is taken here\n")
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            body = await request.json()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="the request took too long\n") from error
    except (ValueError, LookupError, RecursionError) as error:  # of the text or its charset
        raise web.HTTPBadRequest(text="this is not JSON\n") from error
    name = body.get(key) if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise web.HTTPBadRequest(text=f'{{"{key}": its name}} is asked for\n')
    return name


async def _finish(command: Awaitable[bool]) -> bool:
    # A page that goes away meanwhile does not undo it.
    return await asyncio.shield(asyncio.ensure_future(command))


def _answer(key: str, done: bool) -> web.Response:
    return web.json_response({key: done}, status=200 if done else 404)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


async def _answer_no_icon(_: web.Request) -> web.Response:
    return web.Response(status=204)


def _file_handler(content: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=content_type, charset="utf-8")

    return handler


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
