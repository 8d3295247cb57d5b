"""Connections of live sources: optional packages, passwords from environment variables, TLS, and explanations
of failed connections for a person.

Libraries wrap the cause of a failure in errors of their own, and some of these show a URL or a token, so the
explanation is made here.
"""

from __future__ import annotations

import importlib
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, StringConstraints

from genray.errors import SettingsError, UsageError

PASSWORD_HINT = "give `username`, and in `password_env` the environment variable that holds the password"
"""What to do with a password instead of putting it into a setting."""


class _Encrypted(Protocol):
    tls: bool
    ca: str | None


def _refuse_user(host: str) -> str:
    if "@" in host:
        raise ValueError(f"a host is named without a user or a password: {PASSWORD_HINT}")
    return host


Host = Annotated[str, StringConstraints(min_length=1), AfterValidator(_refuse_user)]
"""The name or address of a host; or several with their ports."""


def import_extra(package: str, *, extra: str) -> Any:
    """Import the module `package`, which is installed with genray's `extra`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package {package.partition('.')[0]} is not installed",
            where=f"source.kind={extra}",
            hint=f"pip install 'genray[{extra}]'",
        ) from error


def read_password(variable: str | None) -> str | None:
    """Return the password in the environment variable `variable`; None: no password.

    Raises:
        SettingsError: the variable is not set.
    """
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise SettingsError(
            f"the environment variable {variable} is not set",
            where="source.password_env",
            hint=f"export {variable}=PASSWORD where the monitor runs (settings contain no passwords)",
        )
    return value


def require_tls_for_ca(settings: _Encrypted) -> _Encrypted:
    """Check settings: an authority makes sense only with encryption.

    Raises:
        ValueError: `ca` without `tls`.
    """
    if settings.ca is not None and not settings.tls:
        raise ValueError("`ca` needs `tls: true`: without it the connection is not encrypted")
    return settings


def tls_context(authority: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the certificate authority in a PEM file; None: those of the system.

    Raises:
        SettingsError: the file is missing or contains no certificate.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise SettingsError(
            f"cannot read the certificate authority: {error.strerror}",
            where=f"source.ca={authority}",
            hint="set it to a PEM file of certificates, or to null for the authorities of the system",
        ) from error


def explain_tls_failure(error: BaseException) -> str | None:
    """Return an explanation of a TLS failure behind `error`, without secrets; None: it is no TLS failure."""
    for cause in _causes(error):
        # Errors of aiohttp derive from these classes but do not set their attributes.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_message"):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None):
            return f"TLS failed, or the server does not use TLS: {cause.reason.replace('_', ' ').lower()}"
    return None


def explain_connection_failure(error: BaseException, host: str, port: int) -> str | None:
    """Return why `host` and `port` cannot be reached, without secrets; None: that is not the problem."""
    if failure := explain_tls_failure(error):
        return f"{host}:{port}: {failure}"
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return f"{host}:{port}: unknown host name"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host}:{port}: connection refused, nothing listens on this port"
        if isinstance(cause, TimeoutError):
            return f"{host}:{port}: no answer within the time limit"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # Also where the library raises `from None`.
        cause = cause.__cause__ or cause.__context__
