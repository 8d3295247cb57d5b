"""Images at half their size, at which coarse noise is fine."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

P = TypeVar("P", bound=np.unsignedinteger[Any])


def halve(pixels: NDArray[P]) -> NDArray[P]:
    """Return the means of squares of 2x2 pixels; an odd side is completed by its last row or column.

    Args:
        pixels: (H, W, C) unsigned integers.

    Returns:
        (H / 2, W / 2, C), sides rounded up, of the same type.
    """
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.float32)
    rows = even[0::2] + even[1::2]
    half: NDArray[P] = np.rint((rows[:, 0::2] + rows[:, 1::2]) / 4).astype(pixels.dtype)
    return half


def with_change_at_half(pixels: NDArray[P], before: NDArray[P], after: NDArray[P]) -> NDArray[P]:
    """Return an image with a change that was made at half its size, interpolated linearly: its details stay.

    Args:
        pixels: (H, W, C).
        before: `halve(pixels)`.
        after: the same, changed.
    """
    change = after.astype(np.float32) - before
    for axis in (0, 1):
        change = _doubled(change, axis)
    changed = pixels + change[: pixels.shape[0], : pixels.shape[1]]
    clipped: NDArray[P] = np.clip(np.rint(changed), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return clipped


def _doubled(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Interpolate linearly to twice the size along an axis: centres of halves lie a quarter to each side."""
    values = np.moveaxis(values, axis, 0)
    padded = np.concatenate([values[:1], values, values[-1:]])
    doubled = np.empty((2 * len(values), *values.shape[1:]), np.float32)
    doubled[0::2] = 0.75 * values + 0.25 * padded[:-2]
    doubled[1::2] = 0.75 * values + 0.25 * padded[2:]
    turned: NDArray[np.float32] = np.moveaxis(doubled, 0, axis)
    return turned
