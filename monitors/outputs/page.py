"""The live page: shows beds, traces, alarms and their strips over HTTP and server-sent events, and takes
acknowledgements and discharges.

Everybody who reaches the port can see and do all this, so by default it is served on the loopback address.
Pages of other origins in a local browser are refused as well: by the Host header (DNS rebinding), and by the
Origin header and a JSON content type (forged requests).

A slow browser delays nobody else: each has an `Outbox`, in which all alarms wait, but only the newest state
of each bed and a limited number of traces.
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
from typing import Any, Literal

from aiohttp import web
from pydantic import Field, model_validator

from genray.errors import GenrayError, ResourceError
from genray.serving.connections import ConnectionLimits
from genray.serving.host_names import HostNames, is_loopback
from genray.serving.site import Site, answer_only
from genray.settings.base import Settings

_FILES = {
    "/": ("live.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
    "/live_alarms.js": ("live_alarms.js", "text/javascript"),
    "/live_beats.js": ("live_beats.js", "text/javascript"),
    "/live_strips.js": ("live_strips.js", "text/javascript"),
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
# Connections beside those of the open pages: a browser loads the files of a page over up to six.
_FURTHER_CONNECTIONS, _FURTHER_PER_ADDRESS = 44, 12
_URGENT_BYTES = 64 * 1024 * 1024
# Small, as data that waits in the system's buffer for a slow page is out of date when it arrives.
_SEND_BUFFER_BYTES = 128 * 1024
_GATHER_SECONDS = 0.25  # in which frames that are not urgent are collected into one piece

PIECE_BYTES = 64 * 1024
"""Approximate bytes of one piece of frames. An alarm overtakes all frames that are not in a piece yet."""

CommandStatus = Literal["done", "unknown", "late"]
_HTTP_STATUS: Mapping[CommandStatus, int] = {"done": 200, "unknown": 404, "late": 503}

_EVENT_TYPES = ("snapshot", "bed", "trace", "beats", "alarm", "discharge", "status")


class PageSettings(Settings):
    """Settings of the live page."""

    host: str = Field("127.0.0.1", min_length=1, description="address that the page is served on")
    port: int | None = Field(
        8090, ge=0, le=65535, description="port of the live page (0 picks a free one, null: no page)"
    )
    names: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="further host names of the page; needed if `host` is not a loopback address. There is no "
        "login: put a proxy with a login in front",
    )
    clients: int = Field(20, ge=1, le=1000, description="most pages open at a time")
    traces: int = Field(12, ge=1, le=100, description="most beds whose traces are sent to one page")
    backlog: int = Field(
        32,
        ge=1,
        le=10_000,
        description="most trace messages of each shown bed that wait for a slow page (the oldest are "
        "dropped); a bed sends one for each lead and second",
    )
    patience: float = Field(
        30, gt=0, le=3600, description="seconds for which a page may read nothing before it is disconnected"
    )

    @model_validator(mode="after")
    def _check_access(self) -> PageSettings:
        if not self.names and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines: list the host names of the page in "
                "`names`, and make sure that only people who may acknowledge alarms and discharge patients "
                "can reach it"
            )
        return self


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Result of a command; true if it was carried out.

    Attributes:
        status: whether it was carried out, concerns an unknown alarm or stream, or was not confirmed in time.
        reason: why it was not carried out, and what to do next.
    """

    status: CommandStatus
    reason: str = ""

    def __bool__(self) -> bool:
        return self.status == "done"


class LivePage:
    """Serves the page and sends events to all browsers that have it open.

    It is responsible for:

    - serving the files of the page, to permitted hosts and origins only,
    - sending each browser a snapshot first, then every alarm, the newest state of each bed, and the traces of
      the beds that it shows,
    - sending the strip of an alarm,
    - passing on commands from the page: acknowledge an alarm, discharge a stream; a command that was not
      carried out is answered with its reason.

    It leaves the effect of these commands, and what events contain, to the service (`Dispatcher`,
    `Commands`).

    Args:
        snapshot: returns the initial content of a page: `{"beds": [...], "alarms": [...], "note": text}`.
        acknowledge: acknowledges the alarm of a name.
        discharge: discharges the stream of a name.
        strip: returns the strip of the alarm of a name as JSON values; None: there is none.
        count_refused: called for each connection that asks for nothing or finds no place.
    """

    def __init__(
        self,
        settings: PageSettings,
        snapshot: Callable[[], dict[str, Any]],
        acknowledge: Callable[[str], Awaitable[CommandResult]],
        discharge: Callable[[str], Awaitable[CommandResult]],
        strip: Callable[[str], Awaitable[Mapping[str, Any] | None]],
        count_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._count_refused = count_refused
        self._snapshot = snapshot
        self._acknowledge = acknowledge
        self._discharge = discharge
        self._strip = strip
        self._viewers: set[_Viewer] = set()
        self._status: bytes | None = None
        self._site: Site | None = None
        self._names = HostNames(settings.host, settings.names)

    async def start(self) -> int | None:
        """Start serving in the running event loop; return the port, None if the settings ask for no page.

        Raises:
            ResourceError: the port is in use or the address does not exist.
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
        app.router.add_get("/strip", self._answer_strip)
        app.router.add_post("/acknowledge", self._answer_acknowledge)
        app.router.add_post("/discharge", self._answer_discharge)
        # A proxy in front has one address for all pages.
        limits = ConnectionLimits(
            most=self._settings.clients + _FURTHER_CONNECTIONS,
            most_per_address=self._settings.clients + _FURTHER_PER_ADDRESS,
        )
        try:
            self._site = await Site.start(
                app,
                self._settings.host,
                self._settings.port,
                limits=limits,
                count_refused=self._count_refused,
            )
        except OSError as error:
            raise ResourceError(
                f"cannot serve the live page: {error.strerror}",
                where=f"{self._settings.host}:{self._settings.port}",
                hint="set page.port to another port (0 picks a free one, null: no page)",
            ) from error
        return self._site.port

    async def close(self) -> None:
        """Close all pages and stop serving."""
        for viewer in self._viewers:
            viewer.outbox.close()
        if self._site is not None:
            await self._site.close()

    def shown_streams(self) -> set[str]:
        """Return the streams whose traces and beats are shown in some browser."""
        return {stream for viewer in self._viewers for stream in viewer.shown}

    def publish(self, event: Mapping[str, Any]) -> None:
        """Send `event` to the browsers that it concerns, without waiting. Numbers that are not finite are
        sent as null.

        Raises:
            ValueError: unknown type of event.
        """
        event_type = event["type"]
        stream = event.get("stream", "")
        if event_type not in _EVENT_TYPES:
            raise ValueError(f"unknown type of event: {event_type!r}")
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
            raise web.HTTPServiceUnavailable(
                text="too many pages are open (page.clients)\n", headers={"Retry-After": "10"}
            )
        viewer = _Viewer(
            Outbox(urgent_bytes=_URGENT_BYTES, traces=self._settings.backlog * self._settings.traces)
        )
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
            if viewer.outbox.closed and transport is not None:
                transport.abort()
            return response
        finally:
            self._viewers.discard(viewer)

    def _send_snapshot(self, viewer: _Viewer, chosen: str) -> None:
        """Send the initial content.

        Args:
            chosen: streams whose traces the page shows, separated by commas; empty: as many as there is room
                for, streams with alarms first.
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
        """Send pieces until the browser disconnects or reads nothing for `patience` seconds."""
        try:
            while True:
                piece = await outbox.next_piece(_ALIVE_PERIOD)
                if outbox.closed:
                    return
                async with asyncio.timeout(self._settings.patience):
                    await response.write(piece or frame({"type": "alive"}))
        except TimeoutError:
            outbox.close()
        except ConnectionError:
            return

    async def _answer_strip(self, request: web.Request) -> web.Response:
        try:
            strip = await self._strip(request.query.get("alarm", ""))
        except GenrayError as error:
            return web.json_response({"reason": str(error)}, status=500)
        if strip is None:
            reason = (
                "no strip is stored with this alarm: no samples had arrived around its onset, it is older "
                "than the strips that are stored (strips.most), or its name is unknown (/strip?alarm=NAME)"
            )
            return web.json_response({"reason": reason}, status=404)
        return web.json_response(strip)

    async def _answer_acknowledge(self, request: web.Request) -> web.Response:
        alarm = await _read_name(request, "alarm")
        return _answer("acknowledged", await _finish(self._acknowledge(alarm)))

    async def _answer_discharge(self, request: web.Request) -> web.Response:
        stream = await _read_name(request, "stream")
        return _answer("discharged", await _finish(self._discharge(stream)))


class Outbox:
    """Queue of frames for one page: alarms first, none dropped; only the newest state of each bed and of the
    monitor; a limited number of traces, of which the oldest are dropped.

    Args:
        urgent_bytes: most bytes of alarms that may wait. Beyond it the queue is `closed`, and the page is to
            be disconnected.
        traces: most frames of traces that may wait.
    """

    def __init__(self, *, urgent_bytes: int, traces: int) -> None:
        self._urgent: deque[bytes] = deque()
        self._free_bytes = urgent_bytes
        self._states: dict[str, bytes] = {}
        self._traces: deque[bytes] = deque(maxlen=traces)
        self._any_waits = asyncio.Event()
        self._urgent_waits = asyncio.Event()
        self.closed = False

    def put_urgent(self, data: bytes) -> None:
        """Add a frame that must not be lost; such frames keep their order."""
        self._free_bytes -= len(data)
        if self._free_bytes < 0:
            self.close()
            return
        self._urgent.append(data)
        self._any_waits.set()
        self._urgent_waits.set()

    def put_state(self, name: str, data: bytes) -> None:
        """Add the newest state of `name`, which replaces one that still waits."""
        self._states[name] = data
        self._any_waits.set()

    def drop_state(self, name: str) -> None:
        """Drop the waiting state of `name`, which was removed."""
        self._states.pop(name, None)

    def put_trace(self, data: bytes) -> None:
        """Add a frame of traces, which may be dropped."""
        self._traces.append(data)
        self._any_waits.set()

    def close(self) -> None:
        """Drop everything and mark the queue as `closed`; a waiting `next_piece` returns at once."""
        self.closed = True
        self._urgent.clear()
        self._states.clear()
        self._traces.clear()
        self._any_waits.set()
        self._urgent_waits.set()

    async def next_piece(self, patience: float) -> bytes:
        """Return the next frames as one piece of about `PIECE_BYTES`: alarms at once, the others four times
        per second; empty if there is none for `patience` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._any_waits.wait()
        if not self._any_waits.is_set():
            return b""
        # Collected, as a thousand beds would otherwise cause a thousand writes.
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
    """Return `event` as a server-sent event; numbers that are not finite become null."""
    try:
        text = json.dumps(event, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(event), separators=(",", ":"))
    return f"data: {text}\n\n".encode()


@dataclass(eq=False)
class _Viewer:
    """A browser that has the page open, and its queue.

    Attributes:
        shown: streams whose traces and beats it receives.
        follows: whether it chose no beds itself, so that new beds are shown while there is room.
    """

    outbox: Outbox
    shown: list[str] = field(default_factory=list)
    follows: bool = False

    def follow(self, stream: str, most: int) -> None:
        """Show a new bed too if the browser follows and shows fewer than `most`."""
        if stream and self.follows and stream not in self.shown and len(self.shown) < most:
            self.shown.append(stream)
            self.outbox.put_urgent(frame({"type": "shown", "streams": self.shown}))

    def drop(self, stream: str) -> None:
        """Stop showing `stream`, which frees its place."""
        self.outbox.drop_state(stream)
        if self.follows and stream in self.shown:
            self.shown.remove(stream)


@web.middleware
async def _refuse_other_origins(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    origin = request.headers.get("Origin")
    # Browsers send Origin with cross-origin requests and with POST; other programs do not send it.
    if origin is not None and origin.partition("://")[2].lower() != request.host.lower():
        raise web.HTTPForbidden(text="requests from pages of another origin are refused\n")
    return await handler(request)


async def _read_name(request: web.Request, key: str) -> str:
    """Return the text under `key` in the JSON object of the request's body."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the content type must be application/json\n")
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            body = await request.json()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"no body within {_BODY_TIMEOUT} s\n") from error
    except (ValueError, LookupError, RecursionError) as error:  # invalid JSON or unknown charset
        raise web.HTTPBadRequest(text="the body is not valid JSON\n") from error
    name = body.get(key) if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise web.HTTPBadRequest(text=f'the body must be {{"{key}": NAME}}\n')
    return name


async def _finish(command: Awaitable[CommandResult]) -> CommandResult:
    # Shielded: a page that disconnects meanwhile must not cancel the command.
    return await asyncio.shield(asyncio.ensure_future(command))


def _answer(key: str, result: CommandResult) -> web.Response:
    why = {"reason": result.reason} if result.reason else {}
    return web.json_response({key: bool(result), **why}, status=_HTTP_STATUS[result.status])


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
