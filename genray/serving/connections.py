"""Connections of a server, within limits: clients that ask for nothing take no place from those that do.

asyncio's own servers have no limits. When the process has no descriptor left they log an error for each
connection in the backlog, every second (https://github.com/python/cpython/issues/127529), and neither a
source nor the journal can open anything meanwhile. So connections are accepted here, one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network
from math import inf
from pathlib import Path

from aiohttp import web

_LOG = logging.getLogger(__name__)
_ACCEPT_PAUSE_S = 1.0  # after an accept that failed
_LOG_PERIOD_S = 600.0  # between log lines about failed accepts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits on the connections of one server.

    Attributes:
        most: connections at a time.
        most_per_address: connections of one address at a time; of one /64 network with IPv6.
        first_request_s: seconds from connecting within which a client finishes the TLS handshake and sends
            the header of its first request.
        idle_s: seconds between two requests of one connection, including the header of the second.
        reserve: file descriptors that stay free for the rest of the process.
    """

    most: int = 64
    most_per_address: int = 24
    first_request_s: float = 10.0
    idle_s: float = 30.0
    reserve: int = 64


@dataclass(eq=False)
class _Connection:
    """One connection.

    Attributes:
        address: whose it is, as counted by `most_per_address`.
        opening: task that opens it, which includes the TLS handshake.
        waits_since: time of the loop since which it waits for a request; None: a request is being answered.
        has_asked: whether it sent a request.
    """

    address: str
    protocol: web.RequestHandler
    waits_since: float | None
    opening: asyncio.Task[None] | None = None
    has_asked: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether it is closed, by either side."""
        return (self.opening is None or self.opening.done()) and self.protocol.transport is None

    def close(self) -> None:
        """Close it at once."""
        if self.opening is not None:
            self.opening.cancel()
        self.protocol.force_close()


class Connections:
    """Accepts the connections of one server.

    It is responsible for the limits: where a new connection finds no place, the one that has waited longest
    for a request is closed; where all are being answered, the new one is. It leaves requests to the
    application, for which `note_request` is a middleware, and closing idle connections to aiohttp.

    Args:
        count_refused: called for each connection that is closed because it asks for nothing, fails the TLS
            handshake or finds no place.
        tls: TLS context of the server; None: plain HTTP.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        count_refused: Callable[[], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._count_refused = count_refused
        self._tls = tls
        self._open: dict[web.RequestHandler, _Connection] = {}
        self._logged_at = -_LOG_PERIOD_S

    @web.middleware
    async def note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware that notes which connections are being answered."""
        connection = self._open.get(request.protocol)
        if connection is None:
            return await handler(request)
        connection.has_asked = True
        connection.waits_since = None
        try:
            return await handler(request)
        finally:
            connection.waits_since = asyncio.get_running_loop().time()

    async def accept(self, listener: socket.socket, make_protocol: Callable[[], web.RequestHandler]) -> None:
        """Accept connections on `listener`, a non-blocking socket, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except ConnectionAbortedError:  # the client is gone already
                continue
            except OSError as error:
                self._log_failure(error)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            if self._make_room(origin := _origin(address[0])):
                connection = _Connection(origin, make_protocol(), loop.time())
                self._open[connection.protocol] = connection
                connection.opening = loop.create_task(self._begin(connection, client))
                connection.opening.add_done_callback(partial(_close_cancelled, client))
            else:
                client.close()
            # `sock_accept` does not wait while connections are in the backlog, and other tasks must run.
            await asyncio.sleep(0)

    async def _begin(self, connection: _Connection, client: socket.socket) -> None:
        """Open a connection; it is closed if no request follows in time."""
        loop = asyncio.get_running_loop()
        seconds = self._limits.first_request_s
        try:
            await loop.connect_accepted_socket(
                lambda: connection.protocol,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=seconds if self._tls else None,
            )
        except OSError:  # also a handshake that failed or took too long
            self._refuse(connection)
        else:
            assert connection.waits_since is not None
            loop.call_at(connection.waits_since + seconds, self._close_silent, connection)

    def _close_silent(self, connection: _Connection) -> None:
        if not connection.has_asked and not connection.is_closed:
            self._refuse(connection)

    def _make_room(self, origin: str) -> bool:
        """Whether there is room for one more connection of `origin`."""
        self._open = {key: each for key, each in self._open.items() if not each.is_closed}
        limits = self._limits
        own = [each for each in self._open.values() if each.address == origin]
        if len(own) >= limits.most_per_address:
            return self._close_longest_waiting(own)
        if len(self._open) >= limits.most or _free_descriptors() < limits.reserve:
            return self._close_longest_waiting(self._open.values())
        return True

    def _close_longest_waiting(self, connections: Iterable[_Connection]) -> bool:
        """Close the one of `connections` that has waited longest for a request; False: none waits, so that
        the new one is refused."""
        waiting = [(each.waits_since, each) for each in connections if each.waits_since is not None]
        if not waiting:
            self._count_refused()
            return False
        self._refuse(min(waiting, key=lambda pair: pair[0])[1])
        return True

    def _refuse(self, connection: _Connection) -> None:
        self._open.pop(connection.protocol, None)
        connection.close()
        self._count_refused()

    def _log_failure(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_PERIOD_S:
            self._logged_at = now
            _LOG.warning("connections cannot be accepted; trying again every second: %s", error.strerror)


def _close_cancelled(client: socket.socket, opening: asyncio.Task[None]) -> None:
    """Close a connection whose opening was cancelled: before its first step, a task closes nothing itself."""
    if opening.cancelled():
        client.close()


def _free_descriptors() -> float:
    """Return how many more files and sockets the process can open; infinite where that is not known."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return inf if most == resource.RLIM_INFINITY else most - len(os.listdir("/dev/fd"))
    except OSError:  # no descriptor is left to list them, or the system has no such folder
        return 0 if Path("/dev/fd").is_dir() else inf


def _origin(address: str) -> str:
    """Return what counts as one address: with IPv6 a network, as each host has a whole one to itself."""
    parsed = ip_address(address.partition("%")[0])
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
