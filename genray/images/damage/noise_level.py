"""Estimation of the noise level of an image, without a clean reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16  # pixels of a side; JPEG's blocks of 8 lie inside
_SMALLEST = 8  # pixels of a side; smaller images cannot be measured
_MOST_PIXELS = 2**18  # that are measured
_RUN = 4 * _BLOCK  # pixels of a side of the crops that stand for a large image
_FLATTEST = 0.05  # share of the blocks in which the noise is measured
_CLIPPED = 0.02  # share of black or white pixels above which a block is not used
# Share of constant squares of 2x2 pixels in the blocks that vary, above which the image is a graphic.
_GRAPHIC = 0.25


def noise_level(pixels: NDArray[Any]) -> float:
    """Estimate the standard deviation of the noise in `pixels`, in gray levels of 8 bits (25 is 25/255).

    Method: the noise is the diagonal detail of the finest Haar wavelet (Donoho and Johnstone 1994), measured
    only in the blocks with the least texture (after Liu, Tanaka and Okutomi 2013). The horizontal and the
    vertical detail choose these blocks. In white noise the three details are independent, so that choosing
    the flattest blocks does not bias the estimate downward.

    The estimate is of the noise that is in the pixels now: JPEG and clipping remove a part of what was
    there. Blocks of one colour (captions, borders) and clipped blocks are not used; a graphic that has only
    these and edges gives 0.

    Limits: the estimate is too high on texture that fills the image, on JPEG's ringing around coloured
    letters, and on pages whose noise is clipped at white. It is too low on correlated noise, as upscaling
    leaves it (of noise blurred by 0.7 pixels less than half is found).

    Args:
        pixels: (H, W, C) uint8 or uint16 of any size, without alpha. Above 2**18 pixels a grid of crops is
            measured.

    Returns:
        At least 0: the root mean square over the channels. NaN if a side has fewer than 8 pixels.

    Raises:
        ValueError: `pixels` has another shape or type.
    """
    if pixels.ndim != 3 or not pixels.shape[2] or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be (H, W, C) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if min(pixels.shape[:2]) < _SMALLEST:
        return math.nan
    blocks = _measure(_sample(pixels))
    varied = blocks.constant < 1
    # In a graphic only edges vary, and most squares of their blocks stay constant. Noise leaves few constant.
    if not varied.any() or blocks.constant[varied].mean() > _GRAPHIC:
        return 0.0
    varied = blocks.constant <= _GRAPHIC  # without the blocks that lie partly in a border
    # Strong noise clips pixels in every block: then the tenth of the blocks with the fewest is used.
    limit = max(_CLIPPED, float(np.quantile(blocks.clipped[varied], 0.1)))
    usable = np.flatnonzero(varied & (blocks.clipped <= limit))
    count = math.ceil(_FLATTEST * len(usable))
    texture = (blocks.texture / (1.0001 - blocks.constant))[usable]
    flattest = usable[np.argpartition(texture, count - 1)[:count]]
    variance = float(blocks.noise[flattest].mean())
    if pixels.dtype == np.uint16:
        return math.sqrt(variance) / 257
    return math.sqrt(max(0.0, variance - 1 / 12))  # rounding to whole levels adds a variance of 1/12


def _sample(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels to measure, (C, h, w): all of a small image; of a large one the crossings of evenly
    spaced runs of rows and columns."""
    height, width = pixels.shape[:2]
    side = math.isqrt(_MOST_PIXELS)
    # A long, narrow image has few pixels along its short side, so more are taken along the long one.
    down = _runs(height, max(side, _MOST_PIXELS // width))
    along = _runs(width, max(side, _MOST_PIXELS // height))
    crops = [[pixels[rows, columns].transpose(2, 0, 1) for columns in along] for rows in down]
    return np.ascontiguousarray(np.block(crops))


def _runs(size: int, wanted: int) -> list[slice]:
    """Choose about `wanted` of `size` positions, in runs that begin at the borders of JPEG blocks."""
    if size <= wanted:
        return [slice(0, size)]
    starts = np.linspace(0, size - _RUN, wanted // _RUN).astype(int) // _BLOCK * _BLOCK
    return [slice(start, start + _RUN) for start in starts.tolist()]


@dataclass(frozen=True)
class _Blocks:
    """Measurements of the N blocks of an image, each (N,).

    Attributes:
        noise: mean square of the diagonal details, over all channels.
        texture: mean square of the horizontal and vertical details, summed over the channels.
        clipped: share of clipped pixels (0 to 1) in the channel that has most of them.
        constant: share of squares of 2x2 pixels that have one colour (0 to 1).
    """

    noise: NDArray[np.float64]
    texture: NDArray[np.float64]
    clipped: NDArray[np.float64]
    constant: NDArray[np.float64]


def _measure(planes: NDArray[Any]) -> _Blocks:
    """Measure the blocks of (C, H, W); rows and columns beyond the last whole block are left out."""
    height, width = (side - side % _block(side) for side in planes.shape[1:])
    block = (_block(height), _block(width))
    inside = (block[0] // 2, block[1] // 2)  # in details, of which there are half as many each way
    changes = np.zeros((height // 2, width // 2), np.float32)
    noise = []
    texture = []
    clipped = []
    for plane in planes[:, :height, :width]:  # one at a time: all together do not fit the cache
        wide = plane.astype(np.int16 if plane.dtype == np.uint8 else np.int32)
        total = wide[0::2] + wide[1::2]
        change = wide[0::2] - wide[1::2]
        diagonal = _squares(change[:, 0::2] - change[:, 1::2])
        others = _squares(change[:, 0::2] + change[:, 1::2]) + _squares(total[:, 0::2] - total[:, 1::2])
        changes += diagonal + others
        noise.append(_means(diagonal, inside) / 4)
        texture.append(_means(others, inside))
        clipped.append(_means((plane == 0) | (plane == np.iinfo(plane.dtype).max), block))
    constant = _means(changes == 0, inside)
    return _Blocks(np.mean(noise, axis=0), np.sum(texture, axis=0), np.max(clipped, axis=0), constant)


def _block(side: int) -> int:
    return min(_BLOCK, side - side % 2)


def _squares(details: NDArray[Any]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.square(details, dtype=np.float32)
    return squares


def _means(values: NDArray[Any], block: tuple[int, int]) -> NDArray[np.float64]:
    """Average (H, W) over each block: (N,)."""
    height, width = values.shape
    # In two steps, because NumPy is slow at sums of few values.
    rows = values.reshape(-1, block[0], width).sum(1, dtype=np.float32)
    sums = rows.reshape(height // block[0], -1, block[1]).sum(2, dtype=np.float64)
    means: NDArray[np.float64] = sums.ravel() / (block[0] * block[1])
    return means
