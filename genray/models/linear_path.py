"""Linear path of an autoencoder: principal components of shrunk images, beside layers that learn the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from math import prod

import torch
from torch import nn
from torch.nn import functional as F

_SHIFTED_BELOW = 10  # training images for each number of a code
_SHIFT = 1 / 24  # of the longer side of the shrunk image
_MOST_VALUES = 2**26  # of the images that the components are computed from: 268 MB
_OVERSAMPLED = 16  # random directions beyond the components


def shrink_factor(shape: tuple[int, int, int], side: int, most: int) -> int:
    """Return the power of two by which images of `shape` are shrunk so that their longer side has at most
    `side` pixels, or `most`, a power of two, if that is less."""
    return min(most, 1 << max(0, math.ceil(math.log2(max(shape[1:]) / side))))


class LinearEncoder(nn.Module):
    """Shrinks images, and projects them on fixed directions: (N, C, H, W) -> (N, latent).

    Args:
        shape: channels, height and width of the images.
        latent: length of a code.
        factor: factor by which images are shrunk; it divides height and width.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, factor: int) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(factor)
        self.flat = nn.Flatten()
        self.project = nn.Linear(prod(_shrunk(shape, factor)), latent).requires_grad_(False)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode `images`."""
        codes: torch.Tensor = self.project(self.flat(self.shrink(images)))
        return codes


class LinearDecoder(nn.Module):
    """Adds fixed directions, weighted by a code, to a mean image, and enlarges the sum: (N, latent) ->
    (N, C, H, W).

    Args:
        shape: channels, height and width of the images.
        latent: length of a code.
        factor: factor by which the sum is enlarged.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, factor: int) -> None:
        super().__init__()
        shrunk = _shrunk(shape, factor)
        self.add = nn.Linear(latent, prod(shrunk)).requires_grad_(False)
        self.image = nn.Unflatten(1, shrunk)
        self.enlarge = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
        nn.init.zeros_(self.add.weight)
        nn.init.constant_(self.add.bias, 0.5)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode `codes`."""
        images: torch.Tensor = self.enlarge(self.image(self.add(codes)))
        return images


@torch.no_grad()
def fit_components(encoder: LinearEncoder, decoder: LinearDecoder, batches: Iterable[torch.Tensor]) -> None:
    """Set the directions of both to the principal components of images, scaled so that the mean square of a
    number of a code is 1.

    Few images have few directions, and the components follow their chance: below ten images for each number
    of a code, copies that are shifted by a 24th of the side are added. On held-out images the error of 256
    components of 320 photographs falls from 0.0233 to 0.018, that of 64 of 400 digits (MNIST) from 0.0111 to
    0.0098; with 4,000 digits it would rise.

    Directions beyond the rank of the images stay as they were initialised, zero. Uses torch's global
    generator (Halko et al. 2011): seed it first.

    Args:
        encoder: maps images to codes.
        decoder: maps codes to images.
        batches: images (N, C, H, W) in [0, 1], in random order; of many, the first are used.
    """
    images = torch.cat([encoder.shrink(batch) for batch in batches])
    most = max(1, _MOST_VALUES // images[0].numel())
    rows = _with_shifted(images[:most], encoder.project.out_features, most)
    mean = rows.mean(dim=0)
    rows -= mean
    count = min(encoder.project.out_features, *rows.shape)
    size = min(count + _OVERSAMPLED, *rows.shape)
    _, values, directions = torch.svd_lowrank(rows, q=size, niter=3)
    scale = values[:count].square().mean().div(len(rows)).sqrt()
    if not scale > 0:
        scale = torch.ones_like(scale)  # the images are all alike
    components = directions[:, :count].T
    encoder.project.weight[:count] = components / scale
    encoder.project.bias[:count] = -(components @ mean) / scale
    decoder.add.weight[:, :count] = components.T * scale
    decoder.add.bias[:] = mean


def _with_shifted(images: torch.Tensor, latent: int, most: int) -> torch.Tensor:
    """Return `images` as rows, if they are few with shifted copies, at most `most` rows."""
    if len(images) >= _SHIFTED_BELOW * latent:
        return images.flatten(1)
    height, width = images.shape[2:]
    by = max(1, round(_SHIFT * max(height, width)))
    shifts = sorted(product((-by, 0, by), repeat=2), key=lambda shift: abs(shift[0]) + abs(shift[1]))
    padded = F.pad(images, (by, by, by, by), mode="replicate")
    copies = [
        padded[:, :, by + down : by + down + height, by + right : by + right + width].flatten(1)
        for down, right in shifts[: max(1, most // len(images))]
    ]
    return torch.cat(copies)


def _shrunk(shape: tuple[int, int, int], factor: int) -> tuple[int, int, int]:
    return shape[0], shape[1] // factor, shape[2] // factor
