"""Generator and discriminator of dense layers: the classic GAN (Goodfellow et al. 2014, "Generative
Adversarial Nets"), with batch normalisation in the generator as its public re-implementations have it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.gan.base import GanSettings, ImageDiscriminator, ImageGenerator, Shape

Width = Annotated[int, Field(ge=1, le=16384)]


class MlpSettings(GanSettings):
    """Settings of a GAN of dense layers."""

    kind: Literal["mlp"] = Field("mlp", description="dense layers: the classic GAN, prone to collapse")
    latent: int = Field(
        100, ge=1, le=4096, description="numbers of a code, drawn from the standard normal distribution"
    )
    hidden: tuple[Width, ...] = Field(
        (256, 512, 1024), min_length=1, max_length=16, description="widths of the generator's hidden layers"
    )
    judging: tuple[Width, ...] = Field(
        (512, 256), min_length=1, max_length=16, description="widths of the discriminator's hidden layers"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the discriminator's features that dropout zeroes"
    )


class MlpGenerator(ImageGenerator):
    """Dense layers with batch normalisation and LeakyReLU, and tanh at the end; see `ImageGenerator`.

    Parameters for gray images of 28 x 28, code of 100: 1,489,936 =
      100*256 + 256*512 + 512*1024 + 1024*784, biases 256 + 512 + 1024 + 784, norms 2 * (256 + 512 + 1024).
    """

    def __init__(self, shape: Shape, classes: int = 0, *, settings: MlpSettings | None = None) -> None:
        settings = settings or MlpSettings()
        super().__init__(shape, classes, settings)
        layers: list[nn.Module] = []
        for before, width in pairwise((self.numbers, *settings.hidden)):
            layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.LeakyReLU(0.2)]
        layers += [nn.Linear(settings.hidden[-1], math.prod(shape)), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(numbers).unflatten(1, self.shape)
        return result


class MlpDiscriminator(ImageDiscriminator):
    """Dense layers with LeakyReLU and dropout; see `ImageDiscriminator`.

    Parameters for gray images of 28 x 28: 533,505 = 784*512 + 512 + 512*256 + 256 + 256 + 1.
    """

    def __init__(self, shape: Shape, classes: int = 0, *, settings: MlpSettings | None = None) -> None:
        settings = settings or MlpSettings()
        super().__init__(shape, classes, settings.judging[-1])
        layers: list[nn.Module] = [nn.Flatten()]
        for before, width in pairwise((math.prod(shape), *settings.judging)):
            layers += [nn.Linear(before, width), nn.LeakyReLU(0.2)]
            if settings.dropout:
                layers.append(nn.Dropout(settings.dropout))
        self.layers = nn.Sequential(*layers)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(images)
        return result
