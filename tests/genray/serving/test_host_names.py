"""Names by which a server may be called, and tricks with them."""

from __future__ import annotations

import pytest

from genray.serving.host_names import HostNames, is_loopback


@pytest.mark.parametrize("said", ["localhost", "127.0.0.1:9750", "[::1]:9", "10.0.0.7", "WARD.example:8443"])
def test_own_names_with_any_port_are_known(said: str) -> None:
    assert said in HostNames("10.0.0.7", ["Ward.example"])


@pytest.mark.parametrize(
    "said", ["", "[", "http://[", "evil.example", "localhost.evil.example", "localhost@evil.example", "::1"]
)
def test_other_names_are_not(said: str) -> None:
    assert said not in HostNames("127.0.0.1")


def test_loopback_is_this_machine_alone() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.9.9.9", "::1", "0.0.0.0", "ward.example")] == [
        True,
        True,
        True,
        False,
        False,
    ]
