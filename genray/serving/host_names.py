"""Host names under which a server on this machine answers.

This refuses DNS rebinding, where the name of another site is made to resolve to this machine: the browser
sends that name in the Host header.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit


class HostNames:
    """Set of permitted host names: loopback names, the address `host` of the server, and `further` names."""

    def __init__(self, host: str, further: Iterable[str] = ()) -> None:
        names = {"localhost", "127.0.0.1", "::1", host, *further}
        self._names = {name.strip("[]").lower() for name in names}

    def __contains__(self, header: str) -> bool:
        """Whether `header`, the value of a Host header with or without port, is permitted."""
        try:
            return urlsplit(f"//{header}").hostname in self._names
        except ValueError:
            return False


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address, reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
