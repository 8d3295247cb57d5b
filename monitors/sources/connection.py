"""What the live sources need for a connection: optional packages, passwords that no settings hold, whom to
trust in TLS; and why the other side is not reached, for a person.

Libraries wrap that reason in errors of their own, some of which show a URL or a token that is nobody's
business.
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
    """The module `package`, which comes with genray's `extra`.

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
    """The password in the environment variable `variable`; None if there is to be none.

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
            hint=f"export {variable}=... where the monitor runs; settings never hold passwords",
        )
    return value


def require_tls_for_ca(settings: _Encrypted) -> _Encrypted:
    """A validator of settings: whoever names an authority means to encrypt.

    Raises:
        ValueError: `ca` without `tls`.
    """
    if settings.ca is not None and not settings.tls:
        raise ValueError("`ca` is given, but without `tls: true` nothing is encrypted")
    return settings


def tls_context(authority: str | None) -> ssl.SSLContext:
    """A context for TLS that trusts the authority in the file `authority`; None: those of the system.

    Raises:
        SettingsError: the file is missing or holds none.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise SettingsError(
            f"no authority to trust: {error.strerror}",
            where=f"source.ca={authority}",
            hint="name a PEM file of certificates, or leave it null",
        ) from error


def explain_tls_failure(error: BaseException) -> str | None:
    """What went wrong in TLS if that is what is behind `error`, without secrets; else None."""
    for cause in _causes(error):
        # aiohttp derives from these, and fills in neither.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_message"):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None):
            return f"TLS with it fails, if it speaks TLS at all: {cause.reason.replace('_', ' ').lower()}"
    return None


def explain_connection_failure(error: BaseException, host: str, port: int) -> str | None:
    """Why nothing at `host` and `port` is reached, without secrets; None if that is not what went wrong."""
    if failure := explain_tls_failure(error):
        return f"{host}:{port}: {failure}"
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return f"{host}:{port}: the host is not known"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host}:{port} refuses the connection: nothing listens there"
        if isinstance(cause, TimeoutError):
            return f"{host}:{port} does not answer"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it came of."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # Also where the library says `from None`.
        cause = cause.__cause__ or cause.__context__
