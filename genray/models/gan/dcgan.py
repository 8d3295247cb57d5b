"""Generator and discriminator of convolutions (Radford et al. 2016, "Unsupervised Representation Learning
with Deep Convolutional Generative Adversarial Networks").

The discriminator has dropout in place of the paper's batch normalisation: if the score of an image depended
on its batch, penalties on its gradient would have no meaning.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.gan.base import GanSettings, ImageDiscriminator, ImageGenerator, Shape, halvings

_MOST = 8  # factor of the widest layers


class DcganSettings(GanSettings):
    """Settings of a GAN of convolutions."""

    kind: Literal["dcgan"] = Field("dcgan", description="strided convolutions with batch normalisation")
    latent: int = Field(
        100, ge=1, le=4096, description="numbers of a code, drawn from the standard normal distribution"
    )
    filters: int = Field(
        64,
        ge=1,
        le=512,
        description="channels beside the image; each halving of the sides doubles them, at most 8-fold",
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="share of the discriminator's features that dropout zeroes"
    )


class DcganGenerator(ImageGenerator):
    """A dense layer, then transposed 4x4 convolutions of stride 2 with batch normalisation and LeakyReLU,
    tanh at the end; see `ImageGenerator`. A row and a column are cut off where the next side is odd.

    Parameters for gray images of 28 x 28, code of 100, 64 filters: 1,781,505 =
      100 * 256*49 + 16 * (256*128 + 128) + 1, and norms 2 * (256 + 128).
    """

    def __init__(self, shape: Shape, classes: int = 0, *, settings: DcganSettings | None = None) -> None:
        settings = settings or DcganSettings()
        super().__init__(shape, classes, settings)
        self.sides = halvings(shape)[::-1]
        widths = [settings.filters * min(_MOST, 2**level) for level in range(len(self.sides))][::-1]
        self.base = nn.Linear(self.numbers, widths[0] * math.prod(self.sides[0]), bias=False)
        self.first = nn.Sequential(nn.BatchNorm2d(widths[0]), nn.LeakyReLU(0.2))
        self.up = nn.ModuleList()
        for before, width in pairwise(widths[:-1]):
            self.up.append(
                nn.Sequential(
                    nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.LeakyReLU(0.2),
                )
            )
        self.up.append(nn.Sequential(nn.ConvTranspose2d(widths[-2], shape[0], 4, 2, 1), nn.Tanh()))
        _draw_weights(self)

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.first(self.base(numbers).unflatten(1, (-1, *self.sides[0])))
        for up, (height, width) in zip(self.up, self.sides[1:], strict=True):
            x = up(x)[..., :height, :width]
        return x


class DcganDiscriminator(ImageDiscriminator):
    """4x4 convolutions of stride 2 with LeakyReLU and dropout; see `ImageDiscriminator`.

    Parameters for gray images of 28 x 28, 64 filters: 138,561 =
      16 * (64 + 64*128) + 64 + 128, and the score 128*49 + 1.
    """

    def __init__(self, shape: Shape, classes: int = 0, *, settings: DcganSettings | None = None) -> None:
        settings = settings or DcganSettings()
        sides = halvings(shape)
        widths = [settings.filters * min(_MOST, 2**level) for level in range(len(sides) - 1)]
        super().__init__(shape, classes, widths[-1] * math.prod(sides[-1]))
        layers: list[nn.Module] = []
        for before, width in pairwise((shape[0], *widths)):
            # An odd side gets one more pixel, so that the next is half of it, rounded up.
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            if settings.dropout:
                layers.append(nn.Dropout(settings.dropout))
        self.layers = nn.ModuleList(layers)
        _draw_weights(self)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = images
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                x = nn.functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
            x = layer(x)
        return x.flatten(1)


def _draw_weights(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02), norm scales from N(1, 0.02), and set biases to zero, in place (Radford et
    al. 2016, section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
