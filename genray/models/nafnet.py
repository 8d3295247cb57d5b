"""NAFNet: a U shape without activation functions (Chen et al. 2022, "Simple Baselines for Image
Restoration", arXiv:2204.04676)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.residual_unet import UShape, UShapeSettings


class NAFNetSettings(UShapeSettings):
    """Settings of NAFNet."""

    kind: Literal["nafnet"] = Field(
        "nafnet", description="U-Net of gated blocks; best quality for its number of operations"
    )
    middle: int = Field(4, ge=1, le=32, description="number of blocks of the innermost level")
    attention: bool = Field(
        True,
        description=(
            "weight channels by their means over the image (false: an output pixel depends only "
            "on its neighbourhood, so that tiles give the same result as the whole image)"
        ),
    )


class ChannelNorm(nn.Module):
    """Divides each pixel's features by their root mean square, times a learned scale for each channel.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization"; the layer norm of NAFNet's
    authors also subtracts the mean.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise `x`."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6) * self.scale


class SimpleGate(nn.Module):
    """Multiplies one half of the channels by the other: (N, 2C, H, W) -> (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply the halves of `x`."""
        first, second = x.chunk(2, dim=1)
        return first * second


class ChannelAttention(nn.Module):
    """Multiplies each channel by a linear map of all channels' means over the image (the paper's "simplified
    channel attention").

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weight the channels of `x`."""
        result: torch.Tensor = x * self.weigh(x.mean(dim=(2, 3), keepdim=True))
        return result


class NAFBlock(nn.Module):
    """x + a part that mixes neighbours, then + a part that mixes the channels of each pixel.

    Both are initialised to a tenth of their scale; in the paper to zero.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, attention: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.neighbours = nn.Sequential(
            ChannelNorm(channels),
            _conv1x1(channels, 2 * channels, bias=bias),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels),
            SimpleGate(),
            ChannelAttention(channels) if attention else nn.Identity(),
            _conv1x1(channels, channels, bias=bias),
        )
        self.channels = nn.Sequential(
            ChannelNorm(channels),
            _conv1x1(channels, 2 * channels, bias=bias),
            SimpleGate(),
            _conv1x1(channels, channels, bias=bias),
        )
        self.neighbours_share = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))
        self.channels_share = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refine `x`."""
        x = x + self.neighbours(x) * self.neighbours_share
        result: torch.Tensor = x + self.channels(x) * self.channels_share
        return result


class NAFNet(UShape):
    """A U shape of NAF blocks; see `UShape`.

    The means of the channel attention are over the whole padded image, so that every output pixel depends a
    little on the whole image, and tiles do not give exactly the same result, unless `attention` is false.

    Parameters for gray with the defaults: 708,736 =
      blocks 4 * (7 * (32^2 + 64^2 + 128^2) + 25 * (32 + 64 + 128))    = 624,512
      down and up 2 * 4 * (32*64 + 64*128)                             =  81,920
      first and last 2 * 9 * 4*32                                      =   2,304
    22,064 multiply-accumulates per pixel, 23,216 for colour.

    Args:
        channels: channels of the images.
        settings: widths, numbers of blocks and attention.
    """

    def __init__(self, channels: int, settings: NAFNetSettings) -> None:
        super().__init__(
            channels, settings, partial(NAFBlock, attention=settings.attention, bias=settings.bias)
        )


def _conv1x1(before: int, after: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(before, after, 1, bias=bias)
