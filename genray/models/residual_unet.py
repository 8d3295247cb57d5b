"""The residual U-Net: the family of DRUNet (Zhang et al. 2021, "Plug-and-Play Image Restoration with Deep
Denoiser Prior", section 3), and the U shape that other restoration networks share with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from genray.models.autoencoder import Widths, he
from genray.models.restorer import Restorer
from genray.settings import Settings


class UShapeSettings(Settings):
    """Settings of every U shape."""

    kind: str = Field(description="the blocks that it is made of")
    widths: Widths = Field(
        (32, 64, 128),
        min_length=1,
        max_length=6,
        description="channels of the levels, each half as high and wide as the one before",
    )
    blocks: int = Field(2, ge=1, le=32, description="blocks of each level but the innermost, each way")
    middle: int = Field(2, ge=1, le=32, description="blocks of the innermost level")
    shuffle: int = Field(
        2,
        ge=1,
        le=4,
        description="the first level works on squares of so many pixels; 1: at full resolution, for about "
        "4 times the cost of 2",
    )


class ResidualUNetSettings(UShapeSettings):
    """Settings of the residual U-Net."""

    kind: Literal["unet"] = Field("unet", description="U-Net of residual blocks without biases")


class UShape(Restorer):
    """Levels of blocks, down by 2x2 convolutions and up by transposed ones, with skips that are added.

    Shapes: (N, C, H, W) -> (N, C, H, W), not clamped. Any size: what `multiple` = shuffle *
    2**(len(widths) - 1) does not divide is padded and cropped.

    It says what is to be taken away from the image, which is less to learn than the image (Zhang et al.
    2017, "Beyond a Gaussian Denoiser", DnCNN): a new network takes nothing. Squares of pixels go in as
    channels, for speed (Zhang et al. 2018, FFDNet). Between levels kernels are as large as their strides,
    which leaves no chequerboard. Convolutions outside of blocks have no bias.

    Args:
        channels: of the images.
        settings: widths and numbers of blocks.
        block: makes a block of so many channels, (N, channels, H, W) -> the same.
    """

    def __init__(self, channels: int, settings: UShapeSettings, block: Callable[[int], nn.Module]) -> None:
        widths, shuffle = settings.widths, settings.shuffle
        super().__init__(channels, shuffle * 2 ** (len(widths) - 1))
        self.shuffle = shuffle

        def level(width: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(block(width) for _ in range(blocks)))

        steps = list(pairwise(widths))
        self.head = conv3x3(channels * shuffle**2, widths[0])
        self.inward = nn.ModuleList(level(width, settings.blocks) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in steps)
        self.middle = level(widths[-1], settings.middle)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in reversed(steps))
        self.outward = nn.ModuleList(level(width, settings.blocks) for width in widths[-2::-1])
        self.tail = conv3x3(widths[0], channels * shuffle**2)
        nn.init.zeros_(self.tail.weight)

    def restored(self, images: torch.Tensor) -> torch.Tensor:
        return images - self.noise(images)

    def noise(self, images: torch.Tensor) -> torch.Tensor:
        """What is to be taken away from `images`, (N, C, H, W), H and W multiples of `multiple`."""
        x = self.head(F.pixel_unshuffle(images, self.shuffle))
        skips = []
        for blocks, down in zip(self.inward, self.down, strict=True):
            skips.append(blocks(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, blocks in zip(self.up, self.outward, strict=True):
            x = blocks(up(x) + skips.pop())
        return F.pixel_shuffle(self.tail(x), self.shuffle)


class ConvBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3 (Lim et al. 2017, EDSR).

    The second convolution begins at a fifth of its size, so that sums over many blocks stay small.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = he(conv3x3(channels, channels))
        with torch.no_grad():
            last.weight.mul_(0.2)
        self.layers = nn.Sequential(he(conv3x3(channels, channels)), nn.ReLU(inplace=True), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refine `x`."""
        result: torch.Tensor = x + self.layers(x)
        return result


class ResidualUNet(UShape):
    """A U shape of residual blocks; see `UShape`.

    There is no bias anywhere, so that twice the image gives twice the result: what it learned of one noise
    level it knows of others (Mohan et al. 2020, "Robust and Interpretable Blind Image Denoising via
    Bias-Free Convolutional Neural Networks"). A pixel of the result depends on its neighbourhood alone.

    Parameters for gray with the defaults: 1,042,688 =
      blocks 18 * (4 * 32^2 + 4 * 64^2 + 2 * 128^2)       = 958,464
      down and up 2 * 4 * (32*64 + 64*128)                =  81,920
      first and last 2 * 9 * 4*32                         =   2,304
    48,704 multiply-accumulates a pixel, 49,856 for colour.

    Args:
        channels: of the images.
        settings: widths and numbers of blocks.
    """

    def __init__(self, channels: int, settings: ResidualUNetSettings) -> None:
        super().__init__(channels, settings, ConvBlock)


def conv3x3(before: int, after: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width, without bias."""
    return nn.Conv2d(before, after, 3, padding=1, bias=False)
