"""A registry over HTTP, in an application of its own. Beside it, of processes that report their health,
/health (200: it is alive) and /ready (200: it does its work); 503 with the reasons otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Protocol, Self

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import gzip_accepted

from genray.errors import ResourceError
from genray.serving.connections import ConnectionLimits
from genray.serving.exposition import render
from genray.serving.host_names import HostNames
from genray.serving.settings import ServerSettings
from genray.serving.site import Site, answer_only

_LIMITS = ConnectionLimits(most=32, most_per_address=16)


class HealthChecks(Protocol):
    """What /health and /ready answer, asked for from another thread."""

    def not_alive(self) -> Sequence[str]:
        """Return why the process is not alive; empty if it is."""

    def not_ready(self) -> Sequence[str]:
        """Return why the process does not do its work; empty if it does."""


class MetricsServer:
    """A server that was started; it answers in a thread of its own, so that a scrape delays no work, and is
    answered while the process is busy or hangs.

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
        count_refused: Callable[[], None] = lambda: None,
        health: HealthChecks | None = None,
        *,
        limits: ConnectionLimits = _LIMITS,
        where: str = "metrics",
    ) -> Self:
        """Serve `registry`.

        Args:
            settings: where and to whom.
            count_refused: called for each client that is refused: no TLS, no certificate, no request, no
                place, another name, or an answer that it does not take.
            health: what /health and /ready answer; None: they are not there.
            limits: limits on connections; an answer must be taken within `first_request_s`.
            where: settings that errors name.

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
                where=where,
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
    health: HealthChecks | None,
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
        if health is not None:
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

    async def answer(request: web.Request) -> web.StreamResponse:
        names = request.query.getall("name[]", [])
        wanted = registry.restricted_registry(names) if names else registry
        body, content_type = render(wanted, ",".join(request.headers.getall(hdrs.ACCEPT, [])))
        response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
        # aiohttp would choose deflate where both are accepted, which not all clients mean alike.
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
