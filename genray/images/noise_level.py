"""How noisy an image is, estimated from the image alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16  # pixels of a side; JPEG's blocks of 8 lie inside
_SMALLEST = 8  # pixels of a side, below which nothing can be measured
_MOST_PIXELS = 2**18  # that are looked at
_RUN = 4 * _BLOCK  # pixels of a side of the crops that a large image is sampled by
_FLATTEST = 0.05  # share of the blocks that the noise is measured in
_CLIPPED = 0.02  # share of black or white pixels that a block may have
_GRAPHIC = 0.25  # share of squares of one colour in the other blocks, above which there is no noise


def noise_level(pixels: NDArray[Any]) -> float:
    """The standard deviation of the noise in `pixels`, in grey levels of 8 bits (25 is 25/255).

    The finest Haar wavelet (Donoho and Johnstone 1994) in weakly textured blocks alone (after Liu, Tanaka and
    Okutomi 2013): of each square of four pixels a diagonal detail is measured, and a horizontal and a
    vertical one choose the flattest blocks to measure it in. In white noise the three are independent, so
    the choice does not make the noise look weaker than it is.

    It is the noise that the pixels have: JPEG and clipping leave less of it than there was. Blocks of one
    colour (captions, borders) and clipped ones do not count; a graphic with none but those and edges has 0.
    What looks noisy and is not: texture everywhere, JPEG's ringing around coloured letters, pages whose
    noise is clipped at white. What is hardly seen: noise in patches, as after upscaling (of one blurred
    by 0.7 pixels less than half).

    Args:
        pixels: (H, W, C) of any size, without alpha. Of more than 2**18 pixels a grid of crops is looked at.

    Returns:
        At least 0: the root mean square over the channels. NaN if a side has less than 8 pixels.

    Raises:
        ValueError: another shape or type.
    """
    if pixels.ndim != 3 or not pixels.shape[2] or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be (H, W, C) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if min(pixels.shape[:2]) < _SMALLEST:
        return math.nan
    blocks = _measure(_sample(pixels))
    varied = blocks.constant < 1
    # What varies in a graphic are its edges: they leave much of their blocks constant, which noise does not.
    if not varied.any() or blocks.constant[varied].mean() > _GRAPHIC:
        return 0.0
    varied = blocks.constant <= _GRAPHIC  # leaves out what lies half in a border
    # Where noise is so strong that every block has clipped pixels, those with the least of them have to do.
    limit = max(_CLIPPED, float(np.quantile(blocks.clipped[varied], 0.1)))
    usable = np.flatnonzero(varied & (blocks.clipped <= limit))
    count = math.ceil(_FLATTEST * len(usable))
    texture = (blocks.texture / (1.0001 - blocks.constant))[usable]
    flattest = usable[np.argpartition(texture, count - 1)[:count]]
    variance = float(blocks.noise[flattest].mean())
    if pixels.dtype == np.uint16:
        return math.sqrt(variance) / 257
    return math.sqrt(max(0.0, variance - 1 / 12))  # rounding to whole levels is noise of that variance


def _sample(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C) -> (C, h, w): all of a small image; of a large one the crossings of evenly spaced runs of
    rows and of columns."""
    height, width = pixels.shape[:2]
    side = math.isqrt(_MOST_PIXELS)
    # A long and narrow one has few pixels to give along its short side.
    down = _runs(height, max(side, _MOST_PIXELS // width))
    along = _runs(width, max(side, _MOST_PIXELS // height))
    crops = [[pixels[rows, columns].transpose(2, 0, 1) for columns in along] for rows in down]
    return np.ascontiguousarray(np.block(crops))


def _runs(size: int, wanted: int) -> list[slice]:
    """About `wanted` of `size` places, in runs that begin where a JPEG's blocks do."""
    if size <= wanted:
        return [slice(0, size)]
    starts = np.linspace(0, size - _RUN, wanted // _RUN).astype(int) // _BLOCK * _BLOCK
    return [slice(start, start + _RUN) for start in starts.tolist()]


@dataclass(frozen=True)
class _Blocks:
    """What is measured in each block of an image; each (N,).

    Attributes:
        noise: mean square of the diagonal details, over all channels.
        texture: that of the other details.
        clipped: the share of clipped pixels in the worst channel.
        constant: the share of squares of one colour.
    """

    noise: NDArray[np.float64]
    texture: NDArray[np.float64]
    clipped: NDArray[np.float64]
    constant: NDArray[np.float64]


def _measure(planes: NDArray[Any]) -> _Blocks:
    """The blocks of (C, H, W)."""
    height, width = (side - side % _block(side) for side in planes.shape[1:])
    block = (_block(height), _block(width))
    inside = (block[0] // 2, block[1] // 2)  # of the details, which are half as many each way
    changes = np.zeros((height // 2, width // 2), np.float32)
    noise = []
    texture = []
    clipped = []
    for plane in planes[:, :height, :width]:  # one at a time, because all together leave the cache
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
    """(H, W) -> (N,), one for each block."""
    height, width = values.shape
    # In two steps, because NumPy sums short runs slowly.
    rows = values.reshape(-1, block[0], width).sum(1, dtype=np.float32)
    sums = rows.reshape(height // block[0], -1, block[1]).sum(2, dtype=np.float64)
    means: NDArray[np.float64] = sums.ravel() / (block[0] * block[1])
    return means
