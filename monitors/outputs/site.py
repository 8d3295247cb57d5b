"""Serving an aiohttp application: its address, its TLS, and clients that are not friends.

The metrics and the live page are both served by it: a client that connects and asks for nothing is closed,
one that asks under a name that is not this machine's is sent away.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from monitors.outputs.host_names import HostNames

CLIENT_TIMEOUT_S = 10.0
"""From connecting, in which a client finishes the handshake of TLS and sends its first request."""

_KEEP_ALIVE_S = 75.0  # between requests of one connection
_SHUTDOWN_S = 1.0  # for answers that are under way

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Certificates:
    """PEM files for TLS.

    Attributes:
        certfile: the certificate of the server.
        keyfile: its key.
        client_ca: only clients with a certificate of this authority are answered; None: all are.
    """

    certfile: str
    keyfile: str
    client_ca: str | None = None

    def tls_context(self, count_refused: Callable[[], None]) -> ssl.SSLContext:
        """A context for a server; `count_refused` is called for each handshake that fails.

        Raises:
            OSError: a file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certfile, self.keyfile)
        if self.client_ca:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED

        class CountedHandshake(ssl.SSLObject):
            """asyncio says nothing of a handshake that fails."""

            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except OSError:
                    count_refused()
                    raise

        context.sslobject_class = CountedHandshake
        return context


class Site:
    """An application that is served in the running loop. `start` makes it.

    Args:
        runner: of the application.
        server: that listens.
    """

    def __init__(self, runner: web.AppRunner, server: asyncio.Server) -> None:
        self._runner = runner
        self._server = server
        self.port = int(server.sockets[0].getsockname()[1])
        """On which it is served."""

    @classmethod
    async def start(
        cls,
        app: web.Application,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        count_refused: Callable[[], None] = lambda: None,
        timeout_s: float = CLIENT_TIMEOUT_S,
    ) -> Self:
        """Serve `app` from now on.

        Args:
            port: 0 for a free one.
            tls: of the server; None: plain HTTP.
            count_refused: called for each client that connects and asks for nothing.
            timeout_s: see `CLIENT_TIMEOUT_S`.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        silent: set[Any] = set()  # new connections that have not asked for anything yet

        @web.middleware
        async def note_request(request: web.Request, handler: _Handler) -> web.StreamResponse:
            silent.discard(request.protocol)
            return await handler(request)

        app.middlewares.insert(0, note_request)
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        web_server = runner.server
        assert web_server is not None

        def close_silent(protocol: web.RequestHandler) -> None:
            if protocol in silent and protocol in web_server.connections:
                count_refused()
                protocol.force_close()
            silent.discard(protocol)

        def accept() -> web.RequestHandler:
            protocol = web_server()
            silent.add(protocol)
            loop.call_later(timeout_s, close_silent, protocol)
            return protocol

        try:
            server = await loop.create_server(
                accept, host, port, ssl=tls, ssl_handshake_timeout=timeout_s if tls else None
            )
        except OSError as error:
            await runner.cleanup()
            if error.errno and error.errno in errno.errorcode:  # asyncio's text repeats the address
                raise OSError(error.errno, os.strerror(error.errno)) from error
            raise
        return cls(runner, server)

    async def close(self) -> None:
        """Stop serving."""
        self._server.close()
        await self._runner.cleanup()


def answer_only(names: HostNames, count_refused: Callable[[], None] = lambda: None) -> Any:
    """A middleware that sends away who comes under another name; `count_refused` is called for each."""

    @web.middleware
    async def check_host(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.headers.get("Host", "") in names:
            return await handler(request)
        count_refused()
        raise web.HTTPMisdirectedRequest(text="unknown host name: add it to the setting `names`\n")

    return check_host
