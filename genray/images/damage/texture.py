"""Recognition of a texture that fills an image, which otherwise looks like noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.images.damage.noise_features import block_means, opponents, sampled_planes

_BLOCK = 32  # pixels of a side
_SCALES = 5  # sizes of details: 2, 4, 8, 16 and 32 pixels
_FEWEST = 16  # blocks of a measurement
# Logarithms to base 2 of the median over the 10 % quantile of the energy of blocks, for details of 4, 8 and
# 16 pixels. Chance alone gives normal fields 0.2, 0.4 and 0.8; photographs have 3.
_EVEN = (0.45, 0.7, 1.3)
# Logarithms to base 2 of the level of details over that of details of half their size.
_LEAST_GROWTH = 0.3  # white noise has 0
_LEAST_GROWTH_AT_LAST = 0.2  # noise that was blurred has 0 here
_MOST_DIFFERENCE = 0.35  # between scales; noise that was blurred has 1


def is_texture(pixels: NDArray[Any]) -> bool:
    """Return whether the image is one texture, as grass, cloth or stone are where they fill it.

    Such a texture has no flat place, so that all of it looks like noise. But the amplitude of many textures
    is near 1/f (Field 1987): at twice the size details are stronger by one ratio, at all sizes. Noise is flat
    below the frequency at which it was blurred. Photographs have details like 1/f too, but not everywhere.

    Args:
        pixels: (H, W, C) uint8 or uint16, at least 8 pixels high and wide, one or three channels.
    """
    plane = opponents(sampled_planes(pixels))[0]
    height, width = (side - side % _BLOCK for side in plane.shape)
    energies = _energies(plane[:height, :width])
    if energies.shape[1] < _FEWEST:
        return False
    low, middle = np.quantile(energies, (0.1, 0.5), axis=1)
    if not low.all() or (np.log2(middle / low)[1:-1] > _EVEN).any():
        return False
    *growth, last = np.diff(np.log2(middle)) / 2
    return bool(
        min(growth) > _LEAST_GROWTH
        and last > _LEAST_GROWTH_AT_LAST
        and max(growth) - min(growth) < _MOST_DIFFERENCE
    )


def _energies(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean squares of Haar details of each scale in each block, (scales, blocks)."""
    energies = []
    for scale in range(_SCALES):
        total, change = plane[0::2] + plane[1::2], plane[0::2] - plane[1::2]
        details = np.square(change[:, 0::2]) + np.square(change[:, 1::2])
        details += np.square(total[:, 0::2] - total[:, 1::2]) / 2
        energies.append(block_means(details, _BLOCK >> (scale + 1)))
        plane = (total[:, 0::2] + total[:, 1::2]) * np.float32(0.5)
    return np.array(energies)
