"""Input sizes of networks, and mirroring of images at their edges to such a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from genray.bundle import ImageSpec
from genray.models.autoencoder import Autoencoder, up_to_multiple
from genray.models.generator import Drawing
from genray.models.pix2pix import UNet
from genray.models.restorer import Restorer

Array = NDArray[Any]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class InputSizes:
    """Input sizes of a network: only `fixed` (height and width, or the length of a vector), or any multiples
    of `multiple`; with `mirrored` any size, which is then mirrored to a multiple."""

    multiple: int = 1
    fixed: tuple[int, ...] | None = None
    mirrored: bool = False

    @property
    def example(self) -> tuple[int, ...]:
        """Return an accepted size of several multiples, as features of a single pixel can be special."""
        return self.fixed or (2 * self.multiple, 3 * self.multiple)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether images, or vectors, of `shape` are accepted."""
        if self.fixed is not None:
            return shape == self.fixed
        return min(shape) > 0 and (self.mirrored or not any(side % self.multiple for side in shape))

    def __str__(self) -> str:
        return f"only {self.fixed}" if self.fixed else f"multiples of {self.multiple}"


def input_sizes(
    network: nn.Module, takes: ImageSpec | None, size: tuple[int, int] | None = None
) -> InputSizes | None:
    """Return the input sizes of `network`, or of the autoencoder that it is a part of; None if unknown.

    Args:
        takes: format of the input images; None: vectors.
        size: height and width, for a network that does not declare them.
    """
    if isinstance(network, Restorer):
        return InputSizes(network.multiple, mirrored=True)
    if isinstance(network, Drawing):
        return InputSizes(fixed=(network.inputs,))
    if isinstance(network, UNet):
        return InputSizes(network.multiple)
    for part in network.modules():
        if isinstance(part, Autoencoder):
            return InputSizes(fixed=part.shape[1:] if takes else (part.latent,))
    return InputSizes(fixed=size) if size else None


def mirror(batch: Array, multiple: int) -> Array:
    """Mirror (N, H, W, C) at its edges until `multiple` divides height and width, to the same pixels as
    `genray.models.restorer.mirror_to_multiple`."""
    height, width = batch.shape[1:3]
    if not height % multiple and not width % multiple:
        return batch
    rows, columns = mirror_indices(height, width, multiple)
    return np.ascontiguousarray(batch[:, rows[:, None], columns])


def mirror_indices(height: int, width: int, multiple: int) -> tuple[Indices, Indices]:
    """Return the image's row, and column, for each one of the mirrored image. Images that are too small to
    mirror have their edges repeated."""
    below = up_to_multiple(height, multiple) - height
    right = up_to_multiple(width, multiple) - width
    fits = below - below // 2 < height and right - right // 2 < width
    return _indices(height, below, mirrored=fits), _indices(width, right, mirrored=fits)


def _indices(side: int, added: int, *, mirrored: bool) -> Indices:
    places = np.arange(side + added) - added // 2
    last = side - 1
    return last - np.abs(last - np.abs(places)) if mirrored else places.clip(0, last)
