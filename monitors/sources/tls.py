"""Why the other side is not reached, or TLS with it failed, for a person: libraries wrap it in errors of
their own, some of which show a URL or a token that is nobody's business."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator


def tls_failure(error: BaseException) -> str | None:
    """What went wrong in TLS if that is what is behind `error`, without secrets; else None."""
    for cause in _behind(error):
        # aiohttp derives from these, and fills in neither.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_message"):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None):
            return f"TLS with it fails, if it speaks TLS at all: {cause.reason.replace('_', ' ').lower()}"
    return None


def connection_failure(error: BaseException, host: str, port: int) -> str | None:
    """Why nothing at `host` and `port` is reached, without secrets; None if that is not what went wrong."""
    if failure := tls_failure(error):
        return f"{host}:{port}: {failure}"
    for cause in _behind(error):
        if isinstance(cause, socket.gaierror):
            return f"{host}:{port}: the host is not known"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host}:{port} refuses the connection: nothing listens there"
        if isinstance(cause, TimeoutError):
            return f"{host}:{port} does not answer"
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it came of."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # Also where the library says `from None`.
        cause = cause.__cause__ or cause.__context__
