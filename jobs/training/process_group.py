"""Process group of a training's workers: the network interface on which they find each other."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_INTERFACE = "GLOO_SOCKET_IFNAME"


class NodeTorchConfig(TorchConfig):
    """Ray's process group, whose workers listen at the address that Ray knows their nodes by.

    Gloo would listen at the address of the host's name: a name that does not resolve, or resolves to loopback
    as in Debian's /etc/hosts, would let workers of several nodes look for each other on their own node.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _NodeTorchBackend


class _NodeTorchBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(listen_on_node_interface)
        super().on_start(worker_group, backend_config)


def listen_on_node_interface() -> None:
    """Let Gloo use the interface of this node's address, unless the user has chosen one."""
    util: Any = import_module("ray.util")
    interface = interface_of(util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault(_INTERFACE, interface)


def interface_of(address: str) -> str | None:
    """Return the name of the network interface that has the IP address; None if none has it, as in a
    container that Ray knows by its host's."""
    psutil: Any = import_module("psutil")  # Ray brings it
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return str(name)
    return None
