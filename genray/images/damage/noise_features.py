"""Measurements of an image from which its noise is estimated: details of three sizes in its flattest
places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16  # pixels of a side; JPEG's blocks of 8 lie inside
_LEAST = 4 * _BLOCK  # pixels of a side to which smaller images are mirrored
_MOST_PIXELS = 2**17  # that are measured
_RUN = 4 * _BLOCK  # pixels of a side of the crops that stand for a large image
_SCALES = 3  # sizes of details: 2, 4 and 8 pixels
_SHARES = (0.02, 0.05, 0.2, 1.0)  # of the blocks, flattest first, in which details are measured
_FLAT = 0.05  # share of the blocks that stand for the flattest places
_FEWEST = 4  # blocks of a measurement
_CLIPPED = 0.02  # share of black or white pixels above which a block is not used
_PARTLY_STILL = 0.25  # share of constant squares above which a block lies partly in a frame or a caption
_EVEN = 1.35  # ratio of energies up to which the details of two scales are those of white noise
_FLOOR = 0.05  # level below which details count as none, of 255

BLOCKINESS = slice(66, 68)
"""The features that measure the blocks of JPEG, across and down."""

Planes = NDArray[np.float32]
"""(C, H, W) in levels of 255."""


@dataclass(frozen=True)
class NoiseFeatures:
    """Measurements of an image.

    Attributes:
        values: (N,) float32, see `measure`.
        constant: share of squares of 2x2 pixels of one colour in the blocks that are not of one colour as a
            whole, 0 to 1; 1 for an image of such blocks alone.
        white: mean squares of brightness and of the two colour differences where the flattest places show
            white noise and nothing else, (3,) float64; None where they do not.
    """

    values: NDArray[np.float32]
    constant: float
    white: NDArray[np.float64] | None


def measure(pixels: NDArray[Any]) -> NoiseFeatures:
    """Measure the details, clipping, flatness and blockiness of an image.

    Details are the coefficients of the Haar wavelet of three scales, in brightness and in two differences of
    colours (an orthonormal basis in which white noise has one level everywhere). At each scale the blocks of
    16x16 pixels are ordered by their horizontal and vertical details at this scale and above, and the
    diagonal details of the flattest are averaged: in noise with a symmetric spectrum the three details are
    independent, so that this order does not bias the level downward (after Liu, Tanaka and Okutomi 2013).

    Args:
        pixels: (H, W, C) uint8 or uint16, at least 8 pixels high and wide, one or three channels. Of more
            than 2**17 pixels a grid of crops is measured; smaller sides than 64 are mirrored.

    Returns:
        Logarithms of levels, then logarithms and shares between 0 and 1, of one length for all images. A gray
        image has the values of the colour image with three equal channels.
    """
    planes = sampled_planes(pixels)
    height, width = (side - side % _BLOCK for side in planes.shape[1:])
    planes = planes[:, :height, :width]
    clipped = block_means(((planes == 0) | (planes == 255)).any(axis=0), _BLOCK)
    changes, bands = _bands(opponents(planes))
    still = block_means(changes == 0, _BLOCK // 2)
    varied = still < 1
    constant = float(still[varied].mean()) if varied.any() else 1.0
    usable = np.flatnonzero(varied & (clipped <= _clipping_limit(clipped[varied])))
    values = _details(bands, usable) if len(usable) else _nothing(bands)
    values += _heaviness(bands, usable)
    values += _blockiness(planes.mean(axis=0))
    values += [constant, 1.0 - float(varied.mean()), float(clipped.mean()), len(usable) / len(still)]
    values += _histogram(planes.mean(axis=0))
    plain = np.flatnonzero((still <= _PARTLY_STILL) & (clipped <= _clipping_limit(clipped[varied])))
    return NoiseFeatures(np.asarray(values, np.float32), constant, _white(bands, plain))


def _clipping_limit(clipped: NDArray[np.float64]) -> float:
    """Return the share of clipped pixels above which blocks are not used: strong noise clips some in every
    block, then the tenth with the fewest is used."""
    return max(_CLIPPED, float(np.quantile(clipped, 0.1))) if len(clipped) else _CLIPPED


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


def _enlarge(planes: NDArray[Any]) -> NDArray[Any]:
    """Mirror small images, so that there are some blocks."""
    height, width = planes.shape[1:]
    # An even size: a square of 2x2 pixels never lies across the mirror.
    even = planes[:, : height - height % 2, : width - width % 2]
    missing = [max(0, _LEAST - side) for side in even.shape[1:]]
    if not any(missing):
        return planes
    return np.pad(even, ((0, 0), (0, missing[0]), (0, missing[1])), mode="symmetric")


def sampled_planes(pixels: NDArray[Any]) -> Planes:
    """Return the pixels that are measured, in levels of 255: all of a small image, mirrored to 64 pixels; of
    one of more than 2**17 pixels a grid of crops of 64x64.

    Args:
        pixels: (H, W, C) uint8 or uint16.
    """
    planes = _enlarge(_sample(pixels))
    scaled = planes.astype(np.float32)
    return scaled / np.float32(257) if planes.dtype == np.uint16 else scaled


def opponents(planes: Planes) -> list[NDArray[np.float32]]:
    """Return brightness and two differences of colours, orthonormal; brightness alone for a gray image."""
    if len(planes) != 3:
        return [planes[0] * np.float32(math.sqrt(3))]
    red, green, blue = planes
    return [
        (red + green + blue) / np.float32(math.sqrt(3)),
        (red - blue) / np.float32(math.sqrt(2)),
        (red - 2 * green + blue) / np.float32(math.sqrt(6)),
    ]


@dataclass(frozen=True)
class _Band:
    """Details of one scale of one plane, as averages over the N blocks.

    Attributes:
        diagonal: mean square of the diagonal details, (N,).
        others: mean square of the horizontal and vertical details, (N,).
        fourth: mean fourth power of the diagonal details, (N,).
    """

    diagonal: NDArray[np.float64]
    others: NDArray[np.float64]
    fourth: NDArray[np.float64]


def _bands(views: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], list[list[_Band]]]:
    """Return the sum of absolute finest details, (H/2, W/2), and the bands by scale and plane."""
    changes = np.zeros([side // 2 for side in views[0].shape], np.float32)
    bands: list[list[_Band]] = []
    for scale in range(_SCALES):
        bands.append([])
        inside = _BLOCK >> (scale + 1)
        for index, plane in enumerate(views):
            total = plane[0::2] + plane[1::2]
            change = plane[0::2] - plane[1::2]
            diagonal = np.square((change[:, 0::2] - change[:, 1::2]) / 2)
            others = np.square(change[:, 0::2] + change[:, 1::2])
            others += np.square(total[:, 0::2] - total[:, 1::2])
            if scale == 0:
                changes += diagonal + others
            fourth = np.square(diagonal)
            bands[-1].append(
                _Band(
                    block_means(diagonal, inside),
                    block_means(others, inside) / 8,
                    block_means(fourth, inside),
                )
            )
            # White noise keeps its level from scale to scale, as a mean of four would halve it.
            views[index] = (total[:, 0::2] + total[:, 1::2]) * np.float32(0.5)
    return changes, bands


def _details(bands: list[list[_Band]], usable: NDArray[np.intp]) -> list[float]:
    """Return the logarithms of the levels of details, by scale and plane."""
    values: list[float] = []
    for scale, planes in enumerate(bands):
        texture = sum(band.others for coarser in bands[scale:] for band in coarser)
        order = usable[np.argsort(np.asarray(texture)[usable], kind="stable")]
        flat = order[: _count(_FLAT, order)]
        for band in _three(planes):
            if band is None:
                values += [math.log(_FLOOR)] * (len(_SHARES) + 3)
                continue
            values += [_level(band.diagonal[order[: _count(share, order)]].mean()) for share in _SHARES]
            values.append(_level(band.others[flat].mean()))
            values += [_level(value) for value in np.quantile(band.diagonal[usable], (0.02, 0.3))]
    return values


def _white(bands: list[list[_Band]], usable: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Return the energies of the planes in the flattest places, if they are those of white noise: at twice
    the scale the details are as strong, in all directions (those of images are several times as strong)."""
    if len(usable) < _FEWEST:
        return None
    finest, coarser = bands[:2]
    texture = np.sum([band.others for band in finest], axis=0)[usable]
    flat = usable[np.argsort(texture, kind="stable")][: _count(_FLAT, usable)]
    energies = np.array([float(band.diagonal[flat].mean()) for band in finest])
    total = energies.sum()
    if total <= _FLOOR:
        return None
    for name in ("diagonal", "others"):
        ratio = sum(float(getattr(band, name)[flat].mean()) for band in coarser) / total
        if not 1 / _EVEN < ratio < _EVEN:
            return None
    return energies if len(energies) == 3 else np.array([energies[0], 0.0, 0.0])


def _nothing(bands: list[list[_Band]]) -> list[float]:
    """Return the values of `_details` of an image without a usable block."""
    return [math.log(_FLOOR)] * (len(bands) * 3 * (len(_SHARES) + 3))


def _three(planes: list[_Band]) -> list[_Band | None]:
    return [*planes, None, None] if len(planes) == 1 else list(planes)


def _count(share: float, blocks: NDArray[np.intp]) -> int:
    return min(len(blocks), max(_FEWEST, math.ceil(share * len(blocks))))


def _level(square: float) -> float:
    return math.log(math.sqrt(square) + _FLOOR)


def _heaviness(bands: list[list[_Band]], usable: NDArray[np.intp]) -> list[float]:
    """Return the logarithm of the kurtosis of the brightness' diagonal details at each scale: 1.1 for normal
    noise, more for edges and texture."""
    values = []
    for planes in bands:
        square = float(planes[0].diagonal[usable].mean()) if len(usable) else 0.0
        fourth = float(planes[0].fourth[usable].mean()) if len(usable) else 0.0
        values.append(math.log(max(1.0, fourth / square**2)) if square > _FLOOR**2 else 0.0)
    return values


def _blockiness(plane: NDArray[np.float32]) -> list[float]:
    """Return the logarithm of the steps at the borders of JPEG's blocks of 8 over the steps elsewhere, across
    and down; 0 without blocks."""
    values = []
    for turned in (plane, plane.T):
        # The third difference: smooth shading has none, and a step has it where it lies.
        steps = np.abs(turned[3:] - turned[:-3] - 3 * (turned[2:-1] - turned[1:-2]))
        rows = np.minimum(steps, 8.0).mean(axis=1)[: len(steps) // 8 * 8]
        # The median: every eighth border of a sampled image is a seam of two crops.
        by_place = np.median(rows.reshape(-1, 8), axis=0) + _FLOOR
        # Steps between rows 7 and 8 are at place 6: `steps[i]` lies between rows i + 1 and i + 2.
        values.append(math.log(by_place[6] / np.median(by_place)))
    return values


def _histogram(brightness: NDArray[np.float32]) -> list[float]:
    """Return the entropy of the brightness in bits / 5, and the share of the two commonest of 32 levels."""
    counts = np.histogram(brightness, bins=32, range=(0.0, 256.0))[0] / brightness.size
    present = counts[counts > 0]
    entropy = float(-(present * np.log2(present)).sum())
    return [entropy / 5, float(np.sort(counts)[-2:].sum())]


def block_means(values: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Return the means of (H, W) values over blocks of `side` x `side`, (N,), row by row."""
    height, width = values.shape
    # In two steps, because NumPy is slow at sums of few values.
    rows = values.reshape(-1, side, width).sum(1, dtype=np.float32)
    sums = rows.reshape(height // side, -1, side).sum(2, dtype=np.float64)
    means: NDArray[np.float64] = sums.ravel() / (side * side)
    return means
