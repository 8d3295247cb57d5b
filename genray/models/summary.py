"""Summary of a network: its layers with shapes and parameters, and the features that a step keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class Layer:
    """Layer of a network.

    Attributes:
        name: place in the network, such as encoder.0.
        kind: class and what sets it apart, such as "Conv2d 3 to 32, 3x3, stride 2".
        output: shape of its output for one sample; (): unknown.
        parameters: number of its trained values.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int

    @property
    def output_text(self) -> str:
        """The shape for a person, channels last: 64 x 64 x 32."""
        if not self.output:
            return "-"
        channels, *sides = self.output
        return " x ".join(f"{side:,}" for side in (*sides, channels))


@dataclass(frozen=True)
class NetworkSummary:
    """Layers of a network in the order in which they are used.

    Attributes:
        layers: the layers.
        parameters: number of trained values, also of those outside of the layers.
        saved_bytes: bytes of features that the backward pass of one call needs; 0: unknown.
    """

    layers: Sequence[Layer]
    parameters: int
    saved_bytes: int = 0

    @classmethod
    def of(cls, network: nn.Module, inputs: Sequence[torch.Tensor] = ()) -> NetworkSummary:
        """Return the summary of `network`, in its mode, which is called with `inputs`: on the meta device
        without memory or time.

        Args:
            network: network whose structure is summed up.
            inputs: arguments of its call, batches of samples; none: the shapes stay unknown.
        """
        parameters = sum(p.numel() for p in network.parameters())
        modules = {
            name: module
            for name, module in network.named_modules()
            if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))
        }
        if not inputs:
            rows = [_layer(name, module, ()) for name, module in modules.items()]
            return cls([row for row in rows if row.parameters], parameters)
        layers: dict[str, Layer] = {}
        saved: dict[int, int] = {}
        own = {_storage(p) for p in network.parameters()}
        handles = [
            module.register_forward_hook(partial(_record, layers, name)) for name, module in modules.items()
        ]
        try:
            with torch.enable_grad(), saved_tensors_hooks(partial(_count, saved, own), lambda tensor: tensor):
                result = network(*inputs)
        finally:
            for handle in handles:
                handle.remove()
        del result
        return cls(list(layers.values()), parameters, sum(saved.values()))


def _record(layers: dict[str, Layer], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, torch.Tensor) and name not in layers:
        layers[name] = _layer(name, module, tuple(output.shape[1:]))


def _count(saved: dict[int, int], own: set[int], tensor: torch.Tensor) -> torch.Tensor:
    """Count the storage of a tensor that is kept for the backward pass, once."""
    storage = _storage(tensor)
    if storage not in own:
        saved[storage] = tensor.untyped_storage().nbytes()
    return tensor


def _storage(tensor: torch.Tensor) -> int:
    storage: int = tensor.untyped_storage()._cdata
    return storage


def _layer(name: str, module: nn.Module, output: tuple[int, ...]) -> Layer:
    count = sum(p.numel() for p in module.parameters(recurse=False))
    return Layer(name or "(network)", f"{type(module).__name__}{_details(module)}", output, count)


def _details(module: nn.Module) -> str:
    """Return what sets a layer apart from others of its class."""
    if isinstance(module, nn.Linear):
        return f" {module.in_features:,} to {module.out_features:,}"
    if isinstance(module, nn.modules.conv._ConvNd):
        kernel = "x".join(map(str, module.kernel_size))
        stride = f", stride {module.stride[0]}" if module.stride[0] != 1 else ""
        groups = f", {module.groups} groups" if module.groups != 1 else ""
        return f" {module.in_channels} to {module.out_channels}, {kernel}{stride}{groups}"
    if isinstance(module, nn.Dropout):
        return f" {module.p:g}"
    return ""
