"""Limit of what a denoiser may take away: no more than the noise that it found in flat places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_CELL = 4  # pixels of a side of the cells that changes and details are averaged in
_FLAT = 0.3  # share of the cells, those with the least detail, in which the noise is taken from the change
_LEVELS = 8  # bins of brightness, as noise depends on it
_FEWEST = 16  # flat cells that a bin needs
_ALWAYS = 0.5  # change that is allowed everywhere, in levels of 255
_STRONG = 8.0  # largest noise, in levels of 255, above which flat places are those of the input

P = TypeVar("P", bound=np.unsignedinteger[Any])


@dataclass(frozen=True)
class LimitedChange:
    """Result of a denoiser that was held within the limit.

    Attributes:
        pixels: the result, of the shape and type of the input.
        refused: share of the change's energy that was above the limit and was not made, 0 to 1.
    """

    pixels: NDArray[Any]
    refused: float


def limit_change(
    before: NDArray[P], after: NDArray[P], *, factor: float, most_noise: float | None = None
) -> LimitedChange:
    """Hold the change of each place within `factor` times the change of flat places of the same brightness.

    What is taken away must look like noise. Noise is as strong beside an edge as on a plain wall of the same
    brightness, so a change that is much stronger at letters, lines and textures than on flat places takes
    away the image: the result there is moved back towards the input, the more the further the change is above
    the limit. The noise of flat places is what the denoiser changed there, at most `most_noise` on average.

    Flat places are those of the result. Where the noise is said to be strong they are those of the input:
    strong noise is in its flattest places, too, and grass is not. (Of weak noise JPEG leaves nothing there.)

    Args:
        before: the input, (H, W, C) uint8 or uint16.
        after: the denoiser's result.
        factor: largest change of a place, in multiples of the noise; above 0.
        most_noise: largest noise that the input may have, in levels of 255 (None: not known).
    """
    white = np.iinfo(before.dtype).max
    to_levels = np.float32(255 / white)
    change = after.astype(np.float32) - before
    energy = _nearby(_cells(np.square(change * to_levels).mean(axis=-1)))
    bright = after.mean(axis=-1, dtype=np.float32) * to_levels
    if most_noise is not None and most_noise > _STRONG:
        busy = _nearby(_cells(_detail(before.mean(axis=-1, dtype=np.float32) * to_levels)))
    else:
        # The largest nearby: the change at an edge reaches into the plain beside it.
        busy = ndimage.maximum_filter(_cells(_detail(bright)), 3)
    allowed = factor**2 * (_noise_energy(bright, busy, energy, most_noise) + _ALWAYS**2)
    share = np.minimum(1.0, allowed / np.maximum(energy, 1e-6))
    if share.min() == 1.0:
        return LimitedChange(after, 0.0)
    # Above the limit the change is noise and image, and best made by the share of the noise in its energy
    # (Wiener's filter); the square comes close to that, and has no step at the limit.
    weight = np.square(share)
    refused = 1.0 - float((energy * np.square(weight)).sum()) / float(energy.sum())
    weight = weight.repeat(_CELL, axis=0).repeat(_CELL, axis=1)
    limited = before + weight[: before.shape[0], : before.shape[1], None] * change
    return LimitedChange(np.clip(np.rint(limited), 0, white).astype(before.dtype), refused)


def _detail(bright: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared steps of brightness to the pixels above and before."""
    detail = np.zeros_like(bright)
    detail[1:] += np.square(np.diff(bright, axis=0))
    detail[:, 1:] += np.square(np.diff(bright, axis=1))
    return detail


def _noise_energy(
    bright: NDArray[np.float32],
    busy: NDArray[np.float32],
    energy: NDArray[np.float32],
    most_noise: float | None,
) -> NDArray[np.float32]:
    """Return the mean square of the noise in each cell, from the change of flat cells.

    Args:
        bright: brightness of the result, (H, W) in levels of 255.
        busy: detail in each cell; those with the least are flat.
        energy: mean square of the change in each cell.
        most_noise: largest noise in levels of 255 (None: not known).
    """
    flat = busy <= np.quantile(busy, _FLAT)
    levels = _cells(bright)
    bins = np.minimum((levels * (_LEVELS / 256)).astype(np.intp), _LEVELS - 1)
    counts = np.bincount(bins[flat], minlength=_LEVELS)
    sums = np.bincount(bins[flat], weights=energy[flat], minlength=_LEVELS)
    known = np.flatnonzero(counts >= min(_FEWEST, counts.max()))
    middles = (known + 0.5) * (256 / _LEVELS)
    found = np.interp(levels, middles, sums[known] / counts[known]).astype(np.float32)
    mean = float(found.mean())
    if most_noise is None or mean <= most_noise**2:
        return found
    return found * np.float32(most_noise**2 / mean)


def _cells(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average (H, W) over cells, the last of which are filled up with the pixels at the edge."""
    height, width = values.shape
    missing = (-height % _CELL, -width % _CELL)
    if any(missing):
        values = np.pad(values, ((0, missing[0]), (0, missing[1])), mode="edge")
    rows = values.reshape(-1, _CELL, values.shape[1]).mean(axis=1)
    cells: NDArray[np.float32] = rows.reshape(len(rows), -1, _CELL).mean(axis=2)
    return cells


def _nearby(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    near: NDArray[np.float32] = ndimage.uniform_filter(cells, 3, mode="nearest")
    return near
