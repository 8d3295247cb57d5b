"""Layers and initialisation that several networks share."""

from __future__ import annotations

import math
from typing import Generic, Literal, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

Norm = Literal["batch", "image-batch", "instance"]


class ImageBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that normalises each image by its own statistics in evaluation.

    In training it is `nn.BatchNorm2d`. In evaluation the statistics are taken over each image's own
    height and width, as pix2pix does at test time (Isola et al. 2017, section 3.4: "batch normalization
    using the statistics of the test batch", with a batch of one). A network trained with one image per
    batch knows no other statistics, and an image's output does not depend on its batch.

    Shapes: (N, C, H, W) -> (N, C, H, W), H * W > 1.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(input)
        return F.instance_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


N = TypeVar("N", bound=nn.Module)


class Residual(nn.Module, Generic[N]):
    """The sum of a linear map and of layers that learn its residual."""

    def __init__(self, linear: N, layers: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of both for `x`."""
        result: torch.Tensor = self.linear(x) + self.layers(x)
        return result


class Gain(nn.Module):
    """Multiplies each of the features by a learned factor that begins at zero, so that a new path changes
    nothing (Bachlechner et al. 2020, "ReZero").

    Unlike a layer of n weights at zero, which one step of Adam changes by up to n times the learning rate, it
    departs from zero slowly.

    Shapes: (N, features) -> (N, features).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale `x`."""
        return x * self.factors


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Return a normalisation layer: batch (affine), image-batch (the same, by image in evaluation), or
    instance (no parameters, as in pix2pix)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "image-batch":
        return ImageBatchNorm(channels)
    return nn.InstanceNorm2d(channels)


def init_normal(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw weights from N(0, std), norm scales from N(1, std), and set biases to zero, in place.

    Source: Isola et al. 2017, appendix 6.2. Uses torch's global generator: seed it first.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
"""Layers whose outputs are weighted sums."""


def fan_in(layer: Weighted) -> float:
    """Return the number of inputs that one output of `layer` sums."""
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
    return layer.weight[0].numel()


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(p.numel() for p in network.parameters())
