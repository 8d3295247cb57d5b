"""Label maps: images whose levels or colours are classes, and their form with a channel for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.images.image_file import Levels
from genray.images.pixels import Pixels, Window, apply_window
from genray.io.bad_input import BadImage

Classes = tuple[tuple[int, ...], ...]
"""Level, or colour, of each class."""

MOST_CLASSES = 256
_BITS = 16  # of a channel in a code


def count_classes(maps: Iterable[Levels]) -> Classes | None:
    """Return the levels or colours in label maps (H, W, C), sorted; None if they are more than 256, or the
    maps have several numbers of channels, or floats."""
    found = np.array([], np.int64)
    channels = set[int]()
    for levels in maps:
        channels.add(levels.shape[-1])
        if len(channels) > 1 or levels.shape[-1] > 3 or levels.dtype == np.float32:
            return None
        found = np.union1d(found, _codes(levels))
        if len(found) > MOST_CLASSES:
            return None
    return tuple(_colour(code, *channels) for code in found.tolist())


def class_map(levels: Levels, classes: Classes) -> Pixels:
    """Return the index of the class of each pixel, (H, W, 1) uint8.

    Raises:
        BadImage: `unknown-class`: a level or colour that is no class.
    """
    channels = len(classes[0])
    if levels.shape[-1] != channels or levels.dtype == np.float32:
        raise BadImage(
            "unknown-class",
            f"{levels.shape[-1]} channels of {levels.dtype}; the label maps of the training have {channels}",
        )
    codes = _codes(levels, unique=False)
    known = np.array([_code(colour) for colour in classes])
    order = np.argsort(known)
    places = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    indices = order[places]
    if (odd := known[indices] != codes).any():
        colour = _colour(int(codes[odd][0]), channels)
        text = str(colour[0]) if channels == 1 else str(colour)
        raise BadImage(
            "unknown-class",
            f"{text} in {odd.mean():.2%} of the pixels is none of the {len(classes)} classes of the training",
        )
    found: Pixels = indices.astype(np.uint8).reshape(*levels.shape[:2], 1)
    return found


def one_hot(indices: Pixels, count: int) -> Pixels:
    """Return (H, W, count) uint8: 255 in the channel of the pixel's class, 0 in the others."""
    channels: Pixels = (indices == np.arange(count)).astype(np.uint8) * np.uint8(255)
    return channels


def colours_of(indices: Pixels, classes: Classes) -> Pixels:
    """Return a map of class indices as a picture (H, W, 3): gray levels are spread over black to white."""
    palette: NDArray[Any] = np.array(classes)
    if palette.shape[1] == 1:
        spread: Window = (float(palette.min()), float(max(palette.max(), palette.min() + 1)))
        palette = np.repeat(apply_window(palette.astype(np.uint16), spread), 3, axis=1)
    picture: Pixels = palette.astype(np.uint8)[indices[..., 0]]
    return picture


def resize_indices(indices: Pixels, height: int, width: int) -> Pixels:
    """Resize a map of class indices (H, W, 1): each pixel is that at the nearest place."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64).clip(max=old - 1)
        for new, old in ((height, indices.shape[0]), (width, indices.shape[1]))
    )
    resized: Pixels = indices[rows[:, None], columns]
    return resized


def _codes(levels: Levels, *, unique: bool = True) -> NDArray[np.int64]:
    """Return a number for the level or colour of each pixel, (H * W,), or the different ones."""
    codes = np.zeros(levels.shape[0] * levels.shape[1], np.int64)
    for channel in range(levels.shape[-1]):
        codes = (codes << _BITS) | levels[..., channel].ravel().astype(np.int64)
    return np.unique(codes) if unique else codes


def _code(colour: Sequence[int]) -> int:
    code = 0
    for level in colour:
        code = (code << _BITS) | level
    return code


def _colour(code: int, channels: int) -> tuple[int, ...]:
    return tuple(code >> _BITS * (channels - 1 - i) & (2**_BITS - 1) for i in range(channels))
