"""What all generators and discriminators share: codes, classes, sides of the features, and spectral norm."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from genray.images.tensors import to_unit
from genray.settings.base import Settings

Shape = tuple[int, int, int]
"""Channels, height and width."""

LEAST_SIDE = 16
"""Shortest side in pixels of the images that these networks draw."""
LARGEST_SIDE = 256
"""Longest side in pixels."""
_LARGEST_BASE = 7  # longest side of the smallest features: 28 -> 14 -> 7, 64 -> ... -> 4
_CLASS_NUMBERS = 64  # numbers that a class becomes before they join the code

SLOPE = 0.2
"""Slope of LeakyReLU below zero."""
GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""Gain of weights after LeakyReLU: keeps the variance of the features (He et al. 2015)."""


class GanSettings(Settings):
    """Settings of generators and discriminators of every kind."""

    latent: int = Field(
        64, ge=1, le=4096, description="numbers of a code, drawn from the standard normal distribution"
    )
    conditional: bool = Field(
        False, description="draw images of a class that is asked for; needs data with classes"
    )
    spectral_norm: bool = Field(
        False,
        description="divide each weight of the discriminator by its largest singular value (Miyato et al. "
        "2018), which limits how steep it gets; for the losses bce, least-squares and hinge",
    )


def halvings(shape: Shape) -> list[tuple[int, int]]:
    """Return heights and widths of the features for images of `shape`, from the image's down to at most 7
    pixels, each half of the one before, rounded up."""
    sides = [(shape[1], shape[2])]
    while max(sides[-1]) > _LARGEST_BASE:
        height, width = sides[-1]
        sides.append((-(-height // 2), -(-width // 2)))
    return sides


class ImageGenerator(nn.Module, ABC):
    """Draws images from codes, and from classes if there are any.

    Shapes: codes (N, latent), classes (N,) int64 -> (N, C, H, W), black -1 and white 1.

    Args:
        shape: channels, height and width of the images.
        classes: number of classes; 0: unconditional.
        settings: settings of the networks.
    """

    def __init__(self, shape: Shape, classes: int, settings: GanSettings) -> None:
        super().__init__()
        self.shape = shape
        self.classes = classes
        self.latent = settings.latent
        self.numbers = settings.latent + (_CLASS_NUMBERS if classes else 0)
        self.embedding = nn.Embedding(classes, _CLASS_NUMBERS) if classes else None

    @abstractmethod
    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return images of codes that their classes joined, (N, `self.numbers`)."""

    def forward(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the images of `codes`; `classes` are needed where the network has them."""
        if self.embedding is None:
            return self.images(codes)
        if classes is None:
            raise ValueError(f"this generator draws one of {self.classes} classes: none was given")
        return self.images(torch.cat([codes, self.embedding(classes).to(codes.dtype)], dim=1))

    def draw(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the images of `codes` with values from 0 to 1, (N, C, H, W) float32."""
        return to_unit(self(codes, classes))


class ImageDiscriminator(nn.Module, ABC):
    """Scores images: the higher, the more real they look. It has no memory of other images, so that the
    score of an image does not depend on its batch.

    With classes the score is that of a projection discriminator (Miyato & Koyama 2018, "cGANs with Projection
    Discriminator"): the product of the features with a vector of the class is added to it.

    Shapes: images (N, C, H, W), black -1 and white 1, classes (N,) int64 -> (N,).

    Args:
        shape: channels, height and width of the images.
        classes: number of classes; 0: unconditional.
        features: number of features of an image.
    """

    def __init__(self, shape: Shape, classes: int, features: int) -> None:
        super().__init__()
        self.shape = shape
        self.classes = classes
        self.width = features
        self.score = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=features**-0.5)

    @abstractmethod
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of `images`, (N, `self.width`)."""

    def forward(self, images: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of `images`."""
        features = self.features(images)
        scores: torch.Tensor = self.score(features).squeeze(1)
        if self.embedding is None:
            return scores
        if classes is None:
            raise ValueError(f"this discriminator judges images of {self.classes} classes: none was given")
        products: torch.Tensor = self.embedding(classes).to(features.dtype) * features
        return scores + products.sum(dim=1)


def even(images: torch.Tensor) -> torch.Tensor:
    """Return (N, C, H, W) with a further row and column of zeros where a side is odd, so that half of it is
    rounded up."""
    height, width = images.shape[2:]
    if height % 2 == width % 2 == 0:
        return images
    return F.pad(images, (0, width % 2, 0, height % 2))


def draw_weights(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Draw weights of variance gain^2 / inputs, and set the biases to zero, in place."""
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def limit_steepness(network: nn.Module) -> None:
    """Put spectral normalisation on every layer of `network` that has weights, in place, and draw the weights
    again: their scale no longer matters, and weights that begin at zero cannot be normalised."""
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.xavier_uniform_(module.weight)
            spectral_norm(module)
