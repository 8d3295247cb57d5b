import os
import socket

import pytest

from jobs.training.process_group import interface_of, listen_on_node_interface


def test_workers_listen_where_ray_knows_their_node(
    embedded_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedded Ray is on loopback, whatever the host's name resolves to."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    listen_on_node_interface()
    chosen = os.environ["GLOO_SOCKET_IFNAME"]
    assert chosen == interface_of("127.0.0.1")
    assert chosen in [name for _, name in socket.if_nameindex()]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    listen_on_node_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_an_address_of_another_machine_has_no_interface_here() -> None:
    assert interface_of("203.0.113.77") is None
