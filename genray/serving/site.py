"""Site: an aiohttp application that is served, with its address, its TLS, and limits on its clients.

It serves metrics, and the live page of the monitor: a client that connects and asks for nothing is closed,
one that asks under a name that is not this machine's is sent away.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Self

from aiohttp import web

from genray.serving.connections import ConnectionLimits, Connections, Handler
from genray.serving.host_names import HostNames

_SHUTDOWN_S = 1.0  # for answers that are under way
_BACKLOG = 1024  # connections that wait to be accepted; beyond it a client tries again after a second


class Site:
    """An application that is served in the running loop. `start` makes it.

    Args:
        runner: runner of the application.
        listeners: sockets on which it is served.
        accepting: tasks that accept connections.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        listeners: Sequence[socket.socket],
        accepting: Sequence[asyncio.Task[None]],
    ) -> None:
        self._runner = runner
        self._listeners = listeners
        self._accepting = accepting
        self.port = int(listeners[0].getsockname()[1])
        """Port on which it is served."""

    @classmethod
    async def start(
        cls,
        app: web.Application,
        host: str,
        port: int,
        *,
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None = None,
        count_refused: Callable[[], None] = lambda: None,
    ) -> Self:
        """Serve `app` from now on.

        Args:
            port: 0 for a free one.
            limits: limits on its connections.
            tls: TLS context of the server; None: plain HTTP.
            count_refused: called for each connection that asks for nothing or finds no place.

        Raises:
            OSError: the address cannot be had.
        """
        connections = Connections(limits, count_refused, tls)
        app.middlewares.insert(0, connections.note_request)
        listeners = await _listen(host, port)
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=limits.idle_s, shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        assert runner.server is not None
        accepting = [
            asyncio.create_task(connections.accept(listener, runner.server)) for listener in listeners
        ]
        return cls(runner, listeners, accepting)

    async def close(self) -> None:
        """Stop serving."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        await self._runner.cleanup()


async def _listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of `host`, all with the same port.

    Raises:
        OSError: an address cannot be had.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            port = listener.getsockname()[1]
            listener.listen(_BACKLOG)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def answer_only(names: HostNames, count_refused: Callable[[], None] = lambda: None) -> Any:
    """A middleware that sends away who comes under another name; `count_refused` is called for each."""

    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Host", "") in names:
            return await handler(request)
        count_refused()
        raise web.HTTPMisdirectedRequest(text="unknown host name: add it to the setting `names`\n")

    return check_host
