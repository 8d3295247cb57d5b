"""Generator and discriminator of convolutions (Radford et al. 2016, "Unsupervised Representation Learning
with Deep Convolutional Generative Adversarial Networks").

The discriminator has no batch normalisation, and dropout only if asked for: if the score of an image
depended on its batch, penalties on its gradient would have no meaning. A dense layer before its score sees
the whole image: a weighted sum over 7 x 7 places, each of which sees a few strokes, lets strokes pass that
are no digit.
"""

from __future__ import annotations

import math
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

_MOST = 8  # factor of the widest layers


class DcganSettings(GanSettings):
    """Settings of a GAN of convolutions."""

    kind: Literal["dcgan"] = Field("dcgan", description="strided convolutions with batch normalisation")
    latent: int = Field(
        100, ge=1, le=4096, description="numbers of a code, drawn from the standard normal distribution"
    )
    filters: int = Field(
        32,
        ge=1,
        le=512,
        description="channels beside the image; each halving of the sides doubles them, at most 8-fold (32: "
        "for CPUs, 64: Radford et al. 2016)",
    )
    blocks: int = Field(
        2,
        ge=0,
        le=16,
        description="residual 3x3 convolutions of the generator after each transposed one but the last (0: "
        "none, as Radford et al. 2016)",
    )
    judging: int = Field(
        1,
        ge=0,
        le=16,
        description="3x3 convolutions of the discriminator after each strided one but the first (0: none, as "
        "Radford et al. 2016)",
    )
    hidden: int = Field(
        256, ge=1, le=16384, description="width of the discriminator's dense layer, its features"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the discriminator's features that dropout zeroes"
    )


class DcganGenerator(ImageGenerator):
    """A dense layer, then transposed 4x4 convolutions of stride 2, between them residual 3x3 convolutions,
    all with batch normalisation and LeakyReLU, tanh at the end; see `ImageGenerator`. A row and a column are
    cut off where the next side is odd.

    Parameters for gray images of 28 x 28, code of 100, 32 filters: 833,665 =
      100 * 128*49 + 16 * (128*64 + 64) + 2 * 9 * 64*64 + 1, and norms 2 * (128 + 3*64).
    """

    def __init__(self, shape: Shape, classes: int = 0, *, settings: DcganSettings | None = None) -> None:
        settings = settings or DcganSettings()
        super().__init__(shape, classes, settings)
        self.sides = halvings(shape)[::-1]
        widths = [settings.filters * min(_MOST, 2**level) for level in range(len(self.sides))][::-1]
        self.base = nn.Linear(self.numbers, widths[0] * math.prod(self.sides[0]), bias=False)
        self.first = nn.Sequential(nn.BatchNorm2d(widths[0]), nn.LeakyReLU(SLOPE))
        self.up = nn.ModuleList()
        for before, width in pairwise(widths[:-1]):
            self.up.append(
                nn.Sequential(
                    _normalised(nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False)),
                    *(Refinement(width) for _ in range(settings.blocks)),
                )
            )
        self.up.append(nn.Sequential(nn.ConvTranspose2d(widths[-2], shape[0], 4, 2, 1), nn.Tanh()))
        _draw_small_weights(self)

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.first(self.base(numbers).unflatten(1, (-1, *self.sides[0])))
        for up, (height, width) in zip(self.up, self.sides[1:], strict=True):
            x = up(x)[..., :height, :width]
        return x


class Refinement(nn.Module):
    """A 3x3 convolution with batch normalisation and LeakyReLU, added to its input.

    Shapes: (N, channels, H, W) -> (N, channels, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = _normalised(nn.Conv2d(channels, channels, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.layers(x)
        return result


class DcganDiscriminator(ImageDiscriminator):
    """4x4 convolutions of stride 2, after all but the first of them 3x3 ones, then a dense layer, each with
    LeakyReLU and dropout; see `ImageDiscriminator`.

    Parameters for gray images of 28 x 28, 32 filters: 873,633 =
      16 * (32 + 32*64) + 32 + 64, 9 * 64*64 + 64, the dense layer 64*49*256 + 256, and the score 256 + 1.
    """

    def __init__(self, shape: Shape, classes: int = 0, *, settings: DcganSettings | None = None) -> None:
        settings = settings or DcganSettings()
        sides = halvings(shape)
        widths = [settings.filters * min(_MOST, 2**level) for level in range(len(sides) - 1)]
        super().__init__(shape, classes, settings.hidden)
        convolutions: list[nn.Conv2d] = []
        for before, width in pairwise((shape[0], *widths)):
            judging = settings.judging if convolutions else 0
            convolutions.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
            convolutions += [nn.Conv2d(width, width, 3, padding=1) for _ in range(judging)]
        self.convolutions = nn.ModuleList(convolutions)
        self.dense = nn.Linear(widths[-1] * math.prod(sides[-1]), settings.hidden)
        self.dropout = nn.Dropout(settings.dropout)
        draw_weights(self.score, 1.0)
        draw_weights(self.dense, GAIN)
        for number, convolution in enumerate(convolutions):
            draw_weights(convolution, GAIN if number else 1.0)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = images
        for convolution in self.convolutions:
            # Strided ones halve the sides, rounded up.
            x = self.dropout(F.leaky_relu(convolution(even(x) if convolution.stride == (2, 2) else x), SLOPE))
        result: torch.Tensor = self.dropout(F.leaky_relu(self.dense(x.flatten(1)), SLOPE))
        return result


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Return `convolution` with what follows it in the generator."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(SLOPE))


def _draw_small_weights(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02), norm scales from N(1, 0.02), and set biases to zero, in place (Radford et
    al. 2016, section 4)."""
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
