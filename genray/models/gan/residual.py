"""Generator and discriminator of residual blocks without normalisation, after R3GAN (Huang et al. 2024, "The
GAN is dead; long live the GAN!", arXiv:2501.05441, section 3): grouped convolutions between 1x1 convolutions,
LeakyReLU, linear resampling, and branches that begin at zero (Zhang et al. 2019, "Fixup Initialization")."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from genray.models.gan.base import (
    GAIN,
    SLOPE,
    GanSettings,
    ImageDiscriminator,
    ImageGenerator,
    Shape,
    draw_weights,
    even,
    halvings,
)


class ResidualSettings(GanSettings):
    """Settings of a GAN of residual blocks."""

    kind: Literal["residual"] = Field("residual", description="residual blocks without normalisation (R3GAN)")
    filters: int = Field(
        48,
        ge=16,
        le=1024,
        multiple_of=16,
        description="channels at half of the image's sides; each further halving doubles them, up to widest",
    )
    widest: int = Field(96, ge=16, le=2048, multiple_of=16, description="largest number of channels")
    blocks: int = Field(1, ge=1, le=16, description="residual blocks for each size of the features")
    group: int = Field(
        16, ge=1, le=2048, description="channels of a group of the 3x3 convolutions; divides the channels"
    )

    def widths(self, levels: int) -> list[int]:
        """Return the channels of the features, from half of the image's sides down."""
        return [min(self.widest, self.filters * 2**level) for level in range(levels)]


class Block(nn.Module):
    """Residual block: 1x1, grouped 3x3 and 1x1 convolutions with LeakyReLU between, added to its input.

    The last convolution begins at zero, so that the block begins as the identity, and the others are scaled
    by the number of blocks to the power of -1/4, which Fixup gives for three layers.

    Shapes: (N, channels, H, W) -> (N, channels, H, W).
    """

    def __init__(self, channels: int, group: int, blocks: int) -> None:
        super().__init__()
        inner = 2 * channels
        last = nn.Conv2d(inner, channels, 1, bias=False)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group, bias=False),
            nn.LeakyReLU(SLOPE),
            last,
        )
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                draw_weights(module, GAIN * blocks**-0.25)
        nn.init.zeros_(last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.layers(x)
        return result


class ResidualGenerator(ImageGenerator):
    """A learned basis of the smallest features, weighted by the code; blocks and bilinear enlargement up to
    half of the image's sides; a transposed 4x4 convolution to the image. See `ImageGenerator`; values may
    leave the range from -1 to 1, and `draw` cuts them off."""

    def __init__(self, shape: Shape, classes: int = 0, *, settings: ResidualSettings | None = None) -> None:
        settings = settings or ResidualSettings()
        super().__init__(shape, classes, settings)
        self.sides = halvings(shape)[::-1]
        widths = settings.widths(len(self.sides) - 1)[::-1]
        total = settings.blocks * len(widths)
        self.basis = nn.Parameter(torch.randn(widths[0], *self.sides[0]))
        self.weights = nn.Linear(self.numbers, widths[0])
        draw_weights(self.weights, 1.0)
        self.levels = nn.ModuleList(_blocks(width, settings, total) for width in widths)
        self.wider = nn.ModuleList(_between(before, width) for before, width in pairwise(widths))
        self.out = nn.ConvTranspose2d(widths[-1], shape[0], 4, stride=2, padding=1)
        nn.init.normal_(self.out.weight, std=(4 * widths[-1]) ** -0.5)  # each pixel sums 2x2 positions
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        x = self.levels[0](self.basis * self.weights(numbers)[:, :, None, None])
        for sides, wider, blocks in zip(self.sides[1:-1], self.wider, self.levels[1:], strict=True):
            x = blocks(F.interpolate(wider(x), size=sides, mode="bilinear"))
        height, width = self.sides[-1]
        result: torch.Tensor = self.out(x)[..., :height, :width]
        return result


class ResidualDiscriminator(ImageDiscriminator):
    """A 4x4 convolution of stride 2, then blocks and averages of 2x2 down to at most 7 x 7, of which each
    channel is one weighted sum: the features. See `ImageDiscriminator`."""

    def __init__(self, shape: Shape, classes: int = 0, *, settings: ResidualSettings | None = None) -> None:
        settings = settings or ResidualSettings()
        sides = halvings(shape)
        widths = settings.widths(len(sides) - 1)
        super().__init__(shape, classes, widths[-1])
        total = settings.blocks * len(widths)
        self.first = nn.Conv2d(shape[0], widths[0], 4, stride=2, padding=1)
        draw_weights(self.first, 1.0)
        self.levels = nn.ModuleList(_blocks(width, settings, total) for width in widths)
        self.wider = nn.ModuleList(_between(before, width) for before, width in pairwise(widths))
        self.sums = nn.Conv2d(widths[-1], widths[-1], sides[-1], groups=widths[-1], bias=False)
        draw_weights(self.sums, 1.0)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.levels[0](self.first(even(images)))
        for wider, blocks in zip(self.wider, self.levels[1:], strict=True):
            x = blocks(wider(F.avg_pool2d(x, 2, ceil_mode=True)))
        result: torch.Tensor = self.sums(x).flatten(1)
        return result


def _blocks(channels: int, settings: ResidualSettings, total: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, settings.group, total) for _ in range(settings.blocks)))


def _between(before: int, width: int) -> nn.Module:
    """Return what brings features to another number of channels: nothing where it stays."""
    if before == width:
        return nn.Identity()
    layer = nn.Conv2d(before, width, 1, bias=False)
    draw_weights(layer, 1.0)
    return layer
