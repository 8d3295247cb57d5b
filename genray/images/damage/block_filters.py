"""Filters of overlapping blocks: what a JPEG file rounded away, and noise that a denoiser overlooked.

An image is cut into blocks of 8x8 pixels at every second row and column. The cosine transform (DCT-II) of
each is changed and transformed back, and the results are averaged where blocks overlap. Blocks with few large
coefficients count more, as in Guleryuz 2007, "Weighted averaging for denoising with overcomplete
dictionaries" (IEEE Trans. Image Processing 16).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

_SIDE = 8  # pixels of a block's height and width
_STEP = 2  # pixels between neighbouring blocks
_BAND = 512  # rows that are filtered at a time, which bounds the memory
_KEPT = 0.4  # least size of a coefficient that is kept, in steps of the file: smaller ones may be rounding
_MOST_SAMPLED = 2**22  # pixels up to which blocks at every fourth row and column measure the noise
_FLAT = 0.3  # share of the blocks, those with the least detail, in which the noise is measured
_NOISE = 0.8  # of the measured power of the noise, which holds some of the image's
_LEAST_NOISE = 0.05  # standard deviation in levels of 255, which rounding to 8 bits exceeds

# Of JFIF (ITU-R BT.601, full range): the rows compute Y, Cb and Cr from R, G and B.
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))

P = TypeVar("P", bound=np.unsignedinteger[Any])

Rule = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]
"""Rule of a filter: takes the coefficients of each plane, (64, H, W) for blocks at (H, W) places; returns
those of the result and the weight of each block, (H, W)."""


def undo_rounding(
    pixels: NDArray[np.uint8], tables: Sequence[NDArray[np.uint8]], subsampling: str | None
) -> NDArray[np.uint8]:
    """Take away the blocks and the ringing that the rounding of a JPEG file made.

    A JPEG rounds the coefficients of its blocks to multiples of a step. Seen in blocks at other places, the
    errors of rounding are small coefficients, mostly below 0.4 steps, and so is noise that the file hardly
    holds: they are set to zero. After Nosratinia 2001, "Enhancement of JPEG-compressed images by
    re-application of JPEG" (J. VLSI Signal Processing 27), with a threshold in place of rounding.

    Args:
        pixels: the decoded file, (H, W, 1 or 3).
        tables: the file's steps for luma and, in colour, chroma, (8, 8) each, from low to high frequencies.
        subsampling: subsampling of its chroma, such as "4:2:0" (None: unknown; the colours are left as they
            are).

    Returns:
        The result, of the same shape.
    """
    planes = _planes(pixels)
    results = [_without_small(planes[0], tables[0])]
    factors = _FACTORS.get(subsampling or "")
    for plane in planes[1:]:
        results.append(plane if factors is None else _chroma_without_small(plane, tables[1], factors))
    return _pixels(results, pixels)


def refine(before: NDArray[P], after: NDArray[P]) -> NDArray[P]:
    """Filter a noisy image once more, guided by a denoiser's result (empirical Wiener filter).

    Each coefficient of the noisy image is kept by the share of the image in its power, g / (g + n): g is the
    power in the denoiser's result, n that of the noise, measured for each of the 64 frequencies from what the
    denoiser took away at flat places. Details that the denoiser smoothed come back where they stand above the
    noise, and noise that it left goes. After Dabov et al. 2007, "Image denoising by sparse 3-D
    transform-domain collaborative filtering" (IEEE Trans. Image Processing 16), second step, without groups.

    Args:
        before: the noisy image, (H, W, C) uint8 or uint16.
        after: the denoiser's result.
    """
    # Within a training in bf16, whose autocast would round levels to some gray levels.
    with torch.autocast("cpu", enabled=False):
        return _pixels([_wiener(*pair) for pair in zip(_planes(before), _planes(after), strict=True)], before)


_FACTORS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2), "4:4:0": (2, 1), "4:1:1": (1, 4)}


def _without_small(plane: torch.Tensor, table: NDArray[np.uint8]) -> torch.Tensor:
    least = torch.from_numpy(table.reshape(64, 1, 1).astype(np.float32)) * _KEPT

    def rule(coefficients: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        (own,) = coefficients
        kept = own.abs() >= least
        kept[0] = True  # the mean of a block
        return own * kept, 1.0 / kept.sum(dim=0).float()

    # Two grids, one between the other: the errors of a file's blocks lie on a grid of even places themselves.
    return _filtered([plane], rule, grids=((0, 0), (1, 1)))


def _chroma_without_small(
    plane: torch.Tensor, table: NDArray[np.uint8], factors: tuple[int, int]
) -> torch.Tensor:
    """Return a plane of chroma, filtered at the resolution that the file has it in."""
    if factors == (1, 1):
        return _without_small(plane, table)
    down, across = factors
    height, width = plane.shape
    whole = F.pad(plane[None, None], (0, -width % across, 0, -height % down), mode="replicate")
    small = F.avg_pool2d(whole, factors)[0, 0]
    change = (_without_small(small, table) - small)[None, None]
    size = whole.shape[2:]
    return (
        plane + F.interpolate(change, size=size, mode="bilinear", align_corners=False)[0, 0][:height, :width]
    )


def _wiener(noisy: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    noise = _NOISE * _noise_power(noisy - guide, guide) + _LEAST_NOISE**2

    def rule(coefficients: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        own, guiding = coefficients
        power = guiding.square_()
        share = power.div_(power + noise)
        share[0] = 1.0  # the mean of a block
        weight = 1.0 / share.square().sum(dim=0)
        return own.mul_(share), weight

    return _filtered([noisy, guide], rule, grids=((0, 0),))


def _noise_power(removed: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """Return the mean square of the coefficients of `removed` where `guide` is flattest, (64, 1, 1)."""
    apart = 4 * math.ceil(math.sqrt(guide.numel() / _MOST_SAMPLED))
    noise, image = (
        F.conv2d(_bordered(plane), _basis(), stride=apart)[0].flatten(1) for plane in (removed, guide)
    )
    detail = image[1:].square_().sum(dim=0)
    flat = detail <= detail.kthvalue(max(1, int(_FLAT * len(detail)))).values
    return noise[:, flat].square_().mean(dim=1)[:, None, None]


def _filtered(planes: Sequence[torch.Tensor], rule: Rule, grids: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the average of the blocks that `rule` makes of `planes`, (H, W) each.

    Args:
        planes: planes of one size.
        rule: see `Rule`.
        grids: first row and column of each grid of blocks, below `_STEP`.
    """
    height, width = planes[0].shape
    bordered = [_bordered(plane) for plane in planes]
    result = torch.empty(height, width)
    basis, ones = _basis(), torch.ones(1, 1, _SIDE, _SIDE)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        bands = [plane[:, :, top : top + rows + 2 * _SIDE] for plane in bordered]
        total = torch.zeros(bands[0].shape)
        weights = torch.zeros_like(total)
        for down, across in grids:
            blocks = [F.conv2d(band[:, :, down:, across:], basis, stride=_STEP)[0] for band in bands]
            made, weight = rule(blocks)
            for sums, values, kernel in (
                (total, made.mul_(weight)[None], basis),
                (weights, weight[None, None], ones),
            ):
                placed = F.conv_transpose2d(values, kernel, stride=_STEP)
                sums[:, :, down : down + placed.shape[2], across : across + placed.shape[3]] += placed
        inside = (slice(_SIDE, _SIDE + rows), slice(_SIDE, _SIDE + width))
        result[top : top + rows] = (total[0, 0] / weights[0, 0].clamp_(min=1e-9))[inside]
    return result


def _bordered(plane: torch.Tensor) -> torch.Tensor:
    """Return a plane as (1, 1, H, W), with its outermost pixels repeated for the blocks at its border."""
    return F.pad(plane[None, None], (_SIDE,) * 4, mode="replicate")


def _basis() -> torch.Tensor:
    """Return the 64 patterns of the orthonormal DCT-II of a block, (64, 1, 8, 8), low frequencies first."""
    step = torch.arange(_SIDE, dtype=torch.float64)
    rows = torch.cos(math.pi / _SIDE * step[:, None] * (step + 0.5)) * math.sqrt(2 / _SIDE)
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float().reshape(64, 1, _SIDE, _SIDE)


def _planes(pixels: NDArray[Any]) -> list[torch.Tensor]:
    """Return the planes of an image in levels of 255: Y, Cb and Cr of three channels, else each channel."""
    levels = torch.from_numpy(pixels.astype(np.float32) * np.float32(255 / np.iinfo(pixels.dtype).max))
    if pixels.shape[2] == 3:
        levels = levels @ torch.tensor(_TO_YCBCR).T
    return [plane.contiguous() for plane in levels.unbind(dim=2)]


def _pixels(planes: Sequence[torch.Tensor], like: NDArray[P]) -> NDArray[P]:
    """Return planes of `_planes` as pixels of the type of `like`."""
    levels = torch.stack(list(planes), dim=2)
    if like.shape[2] == 3:
        levels = levels @ torch.linalg.inv(torch.tensor(_TO_YCBCR, dtype=torch.float64)).float().T
    white = np.iinfo(like.dtype).max
    return np.clip(np.rint(levels.numpy() * np.float32(white / 255)), 0, white).astype(like.dtype)
