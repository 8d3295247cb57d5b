"""What can draw images: generators of any kind, and the networks that runners take."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

LARGEST_INDEX = 2**32 - 1
"""Largest number of an image, and largest seed."""
_COSINES = (-0.99, 1 - 1e-9)  # beyond these there is no arc: codes are opposite, or equal


@runtime_checkable
class ImageDrawer(Protocol):
    """A network that draws images from codes of the standard normal distribution.

    Attributes:
        latent: length of a code.
        classes: number of classes (0: the network is unconditional).
        shape: channels, height and width of the images.
    """

    latent: int
    classes: int
    shape: tuple[int, int, int]

    def draw(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the images (N, C, H, W) in [0, 1] of codes (N, latent) and, if the network is conditional,
        classes (N,) int64."""


class Drawing(nn.Module):
    """The drawing of a network as a network from vectors to images.

    Shapes: (N, `inputs`), the code and behind it the class if there are any -> (N, C, H, W) in [0, 1].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        assert isinstance(network, ImageDrawer)
        self.network = network
        self.latent = network.latent
        self.classes = network.classes
        self.shape = network.shape
        self.inputs = network.latent + bool(network.classes)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Draw the images of `vectors`."""
        if not self.classes:
            images: torch.Tensor = self.network.draw(vectors, None)
            return images
        classes = vectors[:, -1].round().long().clamp(0, self.classes - 1)
        images = self.network.draw(vectors[:, : self.latent], classes)
        return images


def code_of(
    latent: int, seed: int, index: int, stop: int = 0, truncation: float | None = None
) -> NDArray[np.float32]:
    """Return a code (latent,) of the standard normal distribution, a function of the arguments only.

    Args:
        latent: length of the code.
        seed: seed of all codes.
        index: number of the image.
        stop: number of the code in a film of the image; 0 is that of the image itself.
        truncation: largest magnitude of a value (Brock et al. 2019, "the truncation trick"); None: no limit.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, stop]))
    if truncation is None:
        return rng.standard_normal(latent, np.float32)
    from scipy.special import ndtr, ndtri

    # Inverse of the cumulative distribution: unlike drawing again, it takes as long for any limit.
    low = float(ndtr(-truncation))
    values = ndtri(rng.uniform(low, 1 - low, latent))
    return np.asarray(values.clip(-truncation, truncation), np.float32)


def between(first: NDArray[np.float32], second: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Interpolate between two codes of one shape along the arc (White 2016, "Sampling Generative Networks"):
    the values on a straight line would be smaller than those that generators learn from.

    Args:
        first, second: (..., latent).
        share: way from the first to the second, 0 to 1.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosine = (first * second).sum(axis=-1) / np.maximum(norms, 1e-12)
    angle = np.arccos(cosine.clip(*_COSINES))[..., None]
    arc = np.sin((1 - share) * angle) * first + np.sin(share * angle) * second
    return np.asarray(arc / np.sin(angle), np.float32)
