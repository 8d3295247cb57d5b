"""Host names: by which names a server of this machine answers.

A page of another site whose name is made to lead here (DNS rebinding) is kept out by it: its browser says
that name in Host.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit


class HostNames:
    """The names of this machine, the address `host` that is served on, and `further` names."""

    def __init__(self, host: str, further: Iterable[str] = ()) -> None:
        names = {"localhost", "127.0.0.1", "::1", host, *further}
        self._names = {name.strip("[]").lower() for name in names}

    def __contains__(self, header: str) -> bool:
        """Whether `header`, the value of Host with any port, is one of them."""
        try:
            return urlsplit(f"//{header}").hostname in self._names
        except ValueError:
            return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
