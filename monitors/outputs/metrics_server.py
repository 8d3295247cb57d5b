"""A registry over HTTP: the server of prometheus_client, made fit for clients that are not friends."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from ipaddress import ip_address
from threading import Thread
from typing import Any, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from pydantic import Field, field_validator, model_validator

from genray.errors import ResourceError
from genray.settings.base import Location, Settings
from monitors.outputs.host_names import HostNames

_CLIENT_TIMEOUT_S = 10.0
_MISDIRECTED = 421


class ServerSettings(Settings):
    """Settings of the metrics endpoint."""

    host: str = Field("127.0.0.1", description="IP address to serve on; beyond loopback needs client_ca")
    port: int = Field(9750, ge=0, le=65535, description="0: a free one")
    names: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="further names by which it is reached, say through a proxy; any name with client_ca",
    )
    certfile: Location | None = Field(None, description="PEM: the server's certificate; null: plain HTTP")
    keyfile: Location | None = Field(None, description="PEM: the key of certfile")
    client_ca: Location | None = Field(
        None, description="PEM: only clients with a certificate of this authority are answered"
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


class MetricsServer:
    """A server that was started; it answers in threads of its own.

    Args:
        server, thread: of prometheus_client.
    """

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    @classmethod
    def start(
        cls, registry: CollectorRegistry, settings: ServerSettings, count_refused: Callable[[], None]
    ) -> Self:
        """Serve `registry`.

        Args:
            settings: where and to whom.
            count_refused: called for each connection that failed: no TLS, no certificate, too slow, under
                another name.

        Raises:
            ResourceError: the port is taken, or a certificate cannot be used.
        """
        s = settings
        try:
            if s.certfile:
                # First here: the library leaves its socket open when a file of these is of no use.
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                tls.load_cert_chain(s.certfile, s.keyfile)
                if s.client_ca:
                    tls.load_verify_locations(s.client_ca)
            server, thread = start_http_server(
                s.port,
                addr=s.host,
                registry=registry,
                certfile=s.certfile,
                keyfile=s.keyfile,
                client_cafile=s.client_ca,
                client_auth_required=s.client_ca is not None,
            )
        except OSError as error:  # those of ssl are among them
            raise ResourceError(
                f"metrics cannot be served on {s.host}:{s.port}: {error.strerror or error}",
                where="exporter",
                hint="give another port, or 0 for a free one; with TLS, check the files of certificates",
            ) from error
        _guard(server, settings, count_refused)
        return cls(server, thread)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _guard(server: Any, settings: ServerSettings, count_refused: Callable[[], None]) -> None:
    """Have `server` wait for no client for ever, and answer only by its own names."""
    if settings.certfile:
        # By default the thread that accepts shakes hands: one silent client would stop all scrapes.
        server.socket.do_handshake_on_connect = False
    # With client_ca no browser gets here that has no certificate of it.
    names = None if settings.client_ca else HostNames(settings.host, settings.names)
    handler: Any = server.RequestHandlerClass

    def parse_request(self: Any) -> bool:
        if not handler.parse_request(self):
            return False
        if names is None or self.headers.get("Host", "") in names:
            return True
        count_refused()
        self.send_error(_MISDIRECTED, "this is not served under that name")
        return False

    attributes = {"timeout": _CLIENT_TIMEOUT_S, "parse_request": parse_request}
    server.RequestHandlerClass = type("GuardedHandler", (handler,), attributes)
    server.handle_error = lambda request, address: count_refused()
