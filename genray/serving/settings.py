"""Where metrics are served, and to whom: settings, and certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

from pydantic import Field, field_validator, model_validator

from genray.settings.base import Location, Settings


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

    def tls_context(self) -> ssl.SSLContext:
        """Return a TLS context for a server.

        Raises:
            OSError: a file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certfile, self.keyfile)
        if self.client_ca:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


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
        _check_access(self.host, self.certfile, self.keyfile, self.client_ca)
        return self

    def address(self, port: int) -> str:
        """Return the URL of the metrics on the `port` that was chosen."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certfile else 'http'}://{host}:{port}/metrics"

    @property
    def certificates(self) -> Certificates | None:
        """Of TLS; None: plain HTTP."""
        if self.certfile is None or self.keyfile is None:
            return None
        return Certificates(self.certfile, self.keyfile, self.client_ca)


class MetricsEndpoint(Settings):
    """Settings of the metrics of a run, in a group that has others, too. They are off by default, and guarded
    as those of the monitor are."""

    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port of Prometheus metrics during the run (0 picks a free port; null: no metrics)",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="IP address of the metrics (beyond loopback metrics_client_ca is needed)"
    )
    metrics_certfile: Location | None = Field(
        None, description="PEM file of the certificate of the metrics (null: plain HTTP)"
    )
    metrics_keyfile: Location | None = Field(None, description="PEM file of the key of metrics_certfile")
    metrics_client_ca: Location | None = Field(
        None, description="PEM file of the authority whose clients get metrics (null: any client)"
    )

    @field_validator("metrics_host")
    @classmethod
    def _check_metrics_address(cls, host: str) -> str:
        return str(ip_address(host))

    @model_validator(mode="after")
    def _check_metrics_access(self) -> Self:
        _check_access(
            self.metrics_host, self.metrics_certfile, self.metrics_keyfile, self.metrics_client_ca, "metrics_"
        )
        return self

    @property
    def metrics_server(self) -> ServerSettings | None:
        """Settings of the server of the metrics; None: there is none."""
        if self.metrics_port is None:
            return None
        return ServerSettings(
            host=self.metrics_host,
            port=self.metrics_port,
            certfile=self.metrics_certfile,
            keyfile=self.metrics_keyfile,
            client_ca=self.metrics_client_ca,
        )


def _check_access(
    host: str, certfile: str | None, keyfile: str | None, client_ca: str | None, prefix: str = ""
) -> None:
    """Raise a ValueError if certificates are incomplete, or if they are missing beyond loopback.

    Args:
        host: address to serve on.
        certfile, keyfile, client_ca: certificate, its key, and the authority of the clients.
        prefix: what the names of the settings begin with.
    """
    cert, key, authority = (f"{prefix}{name}" for name in ("certfile", "keyfile", "client_ca"))
    if (certfile is None) != (keyfile is None):
        raise ValueError(f"{cert} and {key} go together")
    if client_ca and not certfile:
        raise ValueError(f"{authority} needs {cert} and {key}")
    if not ip_address(host).is_loopback and not client_ca:
        raise ValueError(
            f"beyond loopback, metrics need {cert}, {key} and {authority}: they have no password"
        )
