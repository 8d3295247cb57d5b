"""A registry over HTTP: the server of prometheus_client, made fit for clients that are not friends."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Self

from prometheus_client import CollectorRegistry, start_http_server
from pydantic import Field, field_validator, model_validator

from genray.errors import ResourceError
from genray.settings.base import Location, Settings
from monitors.outputs.host_names import HostNames

_PATIENCE_S = 10.0
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
    def _an_address(cls, host: str) -> str:
        return str(ip_address(host))

    @model_validator(mode="after")
    def _guarded(self) -> Self:
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
    """Serves at once, in threads of its own.

    Args:
        registry: what is served.
        settings: where and to whom.
        refused: called for each connection that failed: no TLS, no certificate, too slow, under another name.

    Raises:
        ResourceError: the port is taken, or a certificate cannot be used.
    """

    def __init__(
        self, registry: CollectorRegistry, settings: ServerSettings, refused: Callable[[], None]
    ) -> None:
        s = settings
        try:
            if s.certfile:
                # First here: the library leaves its socket open when a file of these is of no use.
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                tls.load_cert_chain(s.certfile, s.keyfile)
                if s.client_ca:
                    tls.load_verify_locations(s.client_ca)
            self._server, self._thread = start_http_server(
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
        server: Any = self._server
        if s.certfile:
            # By default the thread that accepts shakes hands: one silent client would stop all scrapes.
            server.socket.do_handshake_on_connect = False
        # With client_ca no browser gets here that has no certificate of it.
        names = None if s.client_ca else HostNames(s.host, s.names)
        server.RequestHandlerClass = _guarded(server.RequestHandlerClass, names, refused)
        server.handle_error = lambda request, address: refused()
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _guarded(handler: Any, names: HostNames | None, refused: Callable[[], None]) -> Any:
    """`handler`, but neither for ever nor under names that are not its own."""

    def parse_request(self: Any) -> bool:
        if not handler.parse_request(self):
            return False
        if names is None or self.headers.get("Host", "") in names:
            return True
        refused()
        self.send_error(_MISDIRECTED, "this is not served under that name")
        return False

    return type("GuardedHandler", (handler,), {"timeout": _PATIENCE_S, "parse_request": parse_request})
