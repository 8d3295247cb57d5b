"""Generator and discriminator as one network, which a bundle holds."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from genray.models.gan.base import ImageDiscriminator, ImageGenerator, Shape, limit_steepness
from genray.models.gan.dcgan import DcganDiscriminator, DcganGenerator, DcganSettings
from genray.models.gan.mlp import MlpDiscriminator, MlpGenerator, MlpSettings
from genray.models.gan.residual import ResidualDiscriminator, ResidualGenerator, ResidualSettings

GanModel = Annotated[ResidualSettings | DcganSettings | MlpSettings, Field(discriminator="kind")]
"""Settings of the networks of any kind."""


class Gan(nn.Module):
    """Generator and the discriminator that it was trained against.

    Shapes: codes (N, latent), classes (N,) int64 -> scores (N,) of the images drawn from them.

    Args:
        generator: draws images from codes.
        discriminator: scores images; `features` are its last features.
    """

    def __init__(self, generator: ImageGenerator, discriminator: ImageDiscriminator) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.shape = generator.shape
        self.classes = generator.classes
        self.latent = generator.latent

    @classmethod
    def build(cls, shape: Shape, classes: int, *, settings: GanModel) -> Gan:
        """Return new networks for images of `shape` and that many classes (0: unconditional)."""
        shape = (shape[0], shape[1], shape[2])
        generator: ImageGenerator
        discriminator: ImageDiscriminator
        match settings:
            case MlpSettings():
                generator = MlpGenerator(shape, classes, settings=settings)
                discriminator = MlpDiscriminator(shape, classes, settings=settings)
            case DcganSettings():
                generator = DcganGenerator(shape, classes, settings=settings)
                discriminator = DcganDiscriminator(shape, classes, settings=settings)
            case ResidualSettings():
                generator = ResidualGenerator(shape, classes, settings=settings)
                discriminator = ResidualDiscriminator(shape, classes, settings=settings)
        if settings.spectral_norm:
            limit_steepness(discriminator)
        return cls(generator, discriminator)

    def example(self, samples: int) -> list[torch.Tensor]:
        """Return arguments of a call for that many samples, of any values, on torch's default device."""
        classes = [torch.zeros(samples, dtype=torch.int64)] if self.classes else []
        return [torch.empty(samples, self.latent), *classes]

    def draw(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the images of `codes` with values from 0 to 1, (N, C, H, W) float32."""
        return self.generator.draw(codes, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the discriminator's features of `images`, (N, width); black is -1, white 1."""
        return self.discriminator.features(images)

    def forward(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of the images of `codes`."""
        scores: torch.Tensor = self.discriminator(self.generator(codes, classes), classes)
        return scores
