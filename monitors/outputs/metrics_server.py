"""A registry over HTTP, in an application of its own: prometheus_client's handler for aiohttp. Beside it
/health (200: the monitor is alive) and /ready (200: it watches its patients); 503 with the reasons otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Thread
from typing import Self

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.exposition import gzip_accepted
from pydantic import Field, field_validator, model_validator

from genray.errors import ResourceError
from genray.settings.base import Location, Settings
from monitors.outputs.connections import ConnectionLimits
from monitors.outputs.health import Health
from monitors.outputs.host_names import HostNames
from monitors.outputs.site import Certificates, Site, answer_only

_LIMITS = ConnectionLimits(most=32, most_per_address=16)


class ServerSettings(Settings):
    """Settings of the metrics endpoint."""

    host: str = Field("127.0.0.1", description="IP address to serve on (beyond loopback client_ca is needed)")
    port: int = Field(9750, ge=0, le=65535, description="port of /metrics (0 picks a free one)")
    names: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="further host names that are answered, such as that of a proxy (with client_ca: any "
        "name)",
    )
    certfile: Location | None = Field(
        None, description="PEM file of the server's certificate (null: plain HTTP)"
    )
    keyfile: Location | None = Field(None, description="PEM file of the key of certfile")
    client_ca: Location | None = Field(
        None, description="PEM file of the authority whose clients are answered (null: any client)"
    )

    @field_validator("host")
    @classmethod
    def _check_address(cls, host: str) -> str:
        return str(ip_address(host))

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile go together")
        if self.client_ca and not self.certfile:
            raise ValueError("client_ca needs certfile and keyfile")
        if not ip_address(self.host).is_loopback and not self.client_ca:
            raise ValueError(
                "beyond loopback, metrics need certfile, keyfile and client_ca: they have no password"
            )
        return self

    @property
    def certificates(self) -> Certificates | None:
        """Of TLS; None: plain HTTP."""
        if self.certfile is None or self.keyfile is None:
            return None
        return Certificates(self.certfile, self.keyfile, self.client_ca)


class MetricsServer:
    """A server that was started; it answers in a thread of its own, so that a scrape delays no alarm, and is
    answered while the monitor is busy or hangs.

    Args:
        thread: that it runs in.
        running: what it runs there.
    """

    def __init__(self, thread: Thread, running: _Running) -> None:
        self._thread = thread
        self._running = running
        self.port = running.port

    @classmethod
    def start(
        cls,
        registry: CollectorRegistry,
        settings: ServerSettings,
        count_refused: Callable[[], None],
        health: Health,
        *,
        limits: ConnectionLimits = _LIMITS,
    ) -> Self:
        """Serve `registry`.

        Args:
            settings: where and to whom.
            count_refused: called for each client that is refused: no TLS, no certificate, no request, no
                place, another name, or an answer that it does not take.
            health: what /health and /ready answer.
            limits: limits on connections; an answer must be taken within `first_request_s`.

        Raises:
            ResourceError: the port is taken, or a certificate cannot be used.
        """
        started: Future[_Running] = Future()
        serving = _serve(registry, settings, count_refused, health, limits, started)
        thread = Thread(target=lambda: asyncio.run(serving), name="metrics", daemon=True)
        thread.start()
        try:
            return cls(thread, started.result())
        except OSError as error:  # those of ssl are among them
            thread.join()
            raise ResourceError(
                f"metrics cannot be served on {settings.host}:{settings.port}: {error.strerror or error}",
                where="metrics",
                hint="give another port, or 0 for a free one; with TLS, check the files of certificates",
            ) from error

    def close(self) -> None:
        """Stop serving."""
        self._running.loop.call_soon_threadsafe(self._running.stop.set)
        self._thread.join()


@dataclass(frozen=True)
class _Running:
    """What serves: its loop, what stops it, and its port."""

    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    port: int


async def _serve(
    registry: CollectorRegistry,
    settings: ServerSettings,
    count_refused: Callable[[], None],
    health: Health,
    limits: ConnectionLimits,
    started: Future[_Running],
) -> None:
    """Serve until it is stopped; what it needs for that, or why it cannot be, goes to `started`."""
    try:
        certificates = settings.certificates
        tls = certificates.tls_context() if certificates else None
        # With client_ca no browser gets here that has no certificate of it.
        names = None if settings.client_ca else HostNames(settings.host, settings.names)
        app = web.Application(middlewares=[answer_only(names, count_refused)] if names else [])
        app.router.add_get("/health", _health_handler(health.not_alive))
        app.router.add_get("/ready", _health_handler(health.not_ready))
        # As of prometheus_client's own server, at any other path.
        app.router.add_get("/{path:.*}", _handler(registry, count_refused, limits.first_request_s))
        site = await Site.start(
            app, settings.host, settings.port, limits=limits, tls=tls, count_refused=count_refused
        )
    except BaseException as error:
        started.set_exception(error)
        return
    stop = asyncio.Event()
    started.set_result(_Running(asyncio.get_running_loop(), stop, site.port))
    await stop.wait()
    await site.close()


def _health_handler(
    problems: Callable[[], Sequence[str]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        found = problems()
        return web.json_response({"ok": not found, "problems": list(found)}, status=503 if found else 200)

    return answer


def _handler(
    registry: CollectorRegistry, count_refused: Callable[[], None], timeout_s: float
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answers with `registry` in the format and the encoding that the client takes; who takes no answer is
    closed."""
    # aiohttp would choose deflate where both are accepted, which not all clients mean alike.
    render = make_aiohttp_handler(registry, disable_compression=True)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await render(request)
        if gzip_accepted(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
            response.enable_compression(web.ContentCoding.gzip)
        try:
            async with asyncio.timeout(timeout_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            count_refused()
            if request.transport is not None:
                request.transport.abort()
        return response

    return answer
