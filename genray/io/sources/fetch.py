"""Fetching of images by http(s) URL: within limits of time and size, at a polite rate.

The query of a URL may be a signature or a token. It is sent to the server and appears nowhere else: every
error of the HTTP library, whose text shows URLs, is replaced by a text of this module.

Safe defaults: only http and https, also after a redirect; never from https to http; at most 5 redirects; no
host inside the own network (an address that is not public, such as 127.0.0.1, 10.0.0.1 or 169.254.169.254),
because a list of URLs comes from outside and could otherwise reach internal services. The address is checked
on the open connection, so that a second answer of the name server cannot change it.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from pydantic import Field
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeout

import genray
from genray.io.bad_input import BadImage
from genray.settings.base import Settings

_SCHEMES = ("http", "https")
_MOST_REDIRECTS = 5
_READ_BYTES = 2**16
_CONNECTIONS = 16  # open connections to one host
_HOSTS = 64  # hosts with open connections
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 120.0  # s, of what a server asks for in Retry-After


class FetchSettings(Settings):
    """Settings of inputs that are http(s) URLs."""

    requests_per_second: float = Field(
        10.0, gt=0, le=10_000, description="largest number of requests per second to one host, of all workers"
    )
    timeout_seconds: float = Field(
        60.0, gt=0, le=3600, description="seconds for one request, from connecting to the last byte"
    )
    retries: int = Field(
        4,
        ge=0,
        le=20,
        description="number of further tries after a temporary failure (no answer, HTTP 408, 425, 429 and "
        "5xx), after 1, 2, 4, ... seconds or when the server says (Retry-After, at most 120 s)",
    )
    private_hosts: bool = Field(
        False,
        description="read from hosts inside the own network too (an address that is not public is otherwise "
        "refused: a list from outside could reach internal services)",
    )


@dataclass
class _Host:
    """Schedule of the requests to one host."""

    next_at: float = 0.0  # time.monotonic() of the next request


class _NotPublic(Exception):
    """The connection leads to an address of the own network."""


class _Late(Exception):
    """The body is not complete at the time limit."""


class _Temporary(Exception):
    """A failure that a later try may not have."""

    def __init__(self, detail: str, wait: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.wait = wait


class _PublicConnection(HTTPConnection):
    """Connection that refuses addresses of the own network."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        address = ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_global:
            connection.close()
            raise _NotPublic
        return connection


class _PublicSecureConnection(_PublicConnection, HTTPSConnection):
    """The same with TLS."""


class _PublicPool(HTTPConnectionPool):
    ConnectionCls = _PublicConnection


class _PublicSecurePool(HTTPSConnectionPool):
    ConnectionCls = _PublicSecureConnection


@dataclass
class Fetcher:
    """Reader of http(s) URLs. Any number of threads may use it; it is pickled as its settings.

    Responsible for: limits of time, bytes and redirects; the rate of requests to each host; tries again after
    temporary failures. It keeps queries of URLs out of every text.

    Attributes:
        settings: settings of fetching.
    """

    settings: FetchSettings
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _hosts: dict[str, _Host] = field(default_factory=dict, init=False, repr=False)
    _pools: Any = field(default=None, init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.settings,)

    def read(self, url: str, limit: int) -> bytes:
        """Read the content of `url`.

        Raises:
            BadImage: `too-large` (more than `limit` bytes), or `unreadable`.
        """
        tries = 1 + self.settings.retries
        for number in range(tries):
            try:
                return self._try(url, limit)
            except _Temporary as failure:
                if number + 1 == tries:
                    times = f" ({tries} tries)" if tries > 1 else ""
                    raise BadImage("unreadable", failure.detail + times) from None
                wait = failure.wait if failure.wait is not None else 2.0**number * random.uniform(0.75, 1.25)
                if failure.wait is not None:  # the whole host asks for it
                    self._delay(url, wait)
                time.sleep(min(wait, _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _try(self, url: str, limit: int) -> bytes:
        for _ in range(1 + _MOST_REDIRECTS):
            self._wait_for_turn(url)
            deadline = time.monotonic() + self.settings.timeout_seconds
            with _named_errors(self.settings.timeout_seconds), self._open(url) as response:
                target = response.get_redirect_location()
                if not target:
                    return _body(response, limit, deadline)
            url = _redirected(url, target)
        raise BadImage("unreadable", f"more than {_MOST_REDIRECTS} redirects")

    def _open(self, url: str) -> Any:
        return self._manager().request(
            "GET",
            url,
            headers={"User-Agent": f"genray/{genray.__version__}", "Accept": "image/*,*/*;q=0.8"},
            timeout=urllib3.Timeout(total=self.settings.timeout_seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def _manager(self) -> Any:
        with self._lock:
            if self._pools is None:
                self._pools = urllib3.PoolManager(_HOSTS, maxsize=_CONNECTIONS)
                if not self.settings.private_hosts:
                    self._pools.pool_classes_by_scheme = {"http": _PublicPool, "https": _PublicSecurePool}
            return self._pools

    def _wait_for_turn(self, url: str) -> None:
        with self._lock:
            host = self._hosts.setdefault(urlsplit(url).netloc, _Host())
            now = time.monotonic()
            at = max(now, host.next_at)
            host.next_at = at + 1 / self.settings.requests_per_second
        time.sleep(at - now)

    def _delay(self, url: str, seconds: float) -> None:
        with self._lock:
            host = self._hosts.setdefault(urlsplit(url).netloc, _Host())
            host.next_at = max(host.next_at, time.monotonic() + min(seconds, _LONGEST_WAIT))


def _body(response: Any, limit: int, deadline: float) -> bytes:
    """Read the body of an answer, as far as status, size and time allow."""
    if response.status != HTTPStatus.OK:
        detail = _status_text(response.status)
        if response.status in _TEMPORARY:
            raise _Temporary(detail, _retry_after(response.headers))
        raise BadImage("unreadable", detail)
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > limit:
        raise BadImage("too-large", f"{announced} bytes, the limit is {limit}")
    data = bytearray()
    while part := response.read1(_READ_BYTES, decode_content=True):
        data += part
        if len(data) > limit:
            raise BadImage("too-large", f"more than {limit} bytes")
        if time.monotonic() > deadline:
            raise _Late
    return bytes(data)


@contextmanager
def _named_errors(seconds: float) -> Iterator[None]:
    """Replace the errors of the HTTP library, whose texts show the URL."""
    try:
        yield
    except _NotPublic:
        raise BadImage(
            "unreadable",
            "its host has an address inside the own network, which read.fetch.private_hosts=true allows",
        ) from None
    except NameResolutionError:
        raise _Temporary("its host name cannot be resolved") from None
    except NewConnectionError as error:
        cause = error.__cause__
        detail = cause.strerror if isinstance(cause, OSError) and cause.strerror else "no answer"
        raise _Temporary(f"cannot connect to its host: {detail}") from None
    except ConnectTimeoutError:
        raise _Temporary("cannot connect to its host: no answer") from None
    except _Late:
        raise BadImage(
            "unreadable", f"not complete after {seconds:g} s (read.fetch.timeout_seconds)"
        ) from None
    except HTTPTimeout:
        raise _Temporary(f"no answer within {seconds:g} s (read.fetch.timeout_seconds)") from None
    except SSLError as error:
        why = getattr(error.args[0] if error.args else None, "verify_message", "") or "the handshake failed"
        raise BadImage("unreadable", f"no secure connection to its host: {why}") from None
    except ProtocolError:
        raise _Temporary("the connection ended early") from None
    except (LocationParseError, UnicodeError):
        raise BadImage("unreadable", "not a valid URL") from None
    except HTTPError as error:
        raise BadImage("unreadable", f"HTTP failed ({type(error).__name__})") from None


def _redirected(url: str, target: str) -> str:
    """Return the URL that a redirect leads to, if it may be followed."""
    try:
        joined = urljoin(url, target)
        before, after = urlsplit(url).scheme.lower(), urlsplit(joined).scheme.lower()
    except ValueError:
        raise BadImage("unreadable", "redirected to what is no valid URL") from None
    if after not in _SCHEMES:
        raise BadImage("unreadable", f"redirected to {after[:20]}:, which is not http or https")
    if before == "https" and after == "http":
        raise BadImage("unreadable", "redirected from https to http")
    return joined


def _status_text(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After: a number, or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isdigit():
        return min(float(text[:6]), _LONGEST_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - time.time()), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None
