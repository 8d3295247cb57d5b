"""Operations on pixels that several steps share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.images.carried.items import Carried
from genray.images.photo import Photo, to_eight_bits
from genray.images.photo_writer import item_names
from genray.images.pixels import Window, apply_window
from genray.io.bad_input import BadImage

PixelArray = NDArray[Any]
"""Pixels as uint8 or uint16."""


def with_pixels(photo: Photo, pixels: PixelArray) -> Photo:
    """Return `photo` with other pixels; transparency is preserved if the size is."""
    if photo.alpha is None or pixels.shape[:2] == photo.pixels.shape[:2]:
        return replace(photo, pixels=pixels)
    carried = replace(photo.carried, left_out=(*photo.carried.left_out, "transparency"))
    return replace(photo, pixels=pixels, alpha=None, carried=carried)


def without_metadata(photo: Photo, pixels: PixelArray) -> Photo:
    """Return a photo with other pixels in the format of `photo`, without what else `photo` carries."""
    carried = Carried(left_out=item_names(photo))
    return replace(photo, pixels=pixels, alpha=None, icc=None, exif=None, carried=carried)


def in_window(pixels: PixelArray, window: Window | None) -> NDArray[np.uint8]:
    """Return pixels as 8 bits; the levels of `window` become black and white (None: the whole range).

    Raises:
        BadImage: `unsupported`: floats beyond 0 and 1 without a window.
    """
    return to_eight_bits(pixels) if window is None else apply_window(pixels, window)


def as_channels(pixels: PixelArray, channels: int) -> PixelArray:
    """Convert (..., 1 or 3) to (..., channels): gray is repeated; colour becomes its luma (ITU-R BT.601).

    Raises:
        BadImage: `odd-shape`: other channels.
    """
    have = pixels.shape[-1]
    if have == channels:
        return pixels
    if have not in (1, 3) or channels not in (1, 3, 4):
        raise BadImage("odd-shape", f"{have} channels, but the model takes {channels}")
    if channels == 4:
        opaque = np.full((*pixels.shape[:-1], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
        return np.concatenate([as_channels(pixels, 3), opaque], axis=-1)
    if have == 1:
        return np.repeat(pixels, channels, axis=-1)
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma.round().astype(pixels.dtype)[..., None]


def absolute_difference(first: PixelArray, second: PixelArray) -> PixelArray:
    """Return |first - second|, in their type."""
    # The larger minus the smaller cannot overflow, and needs no wider type.
    return np.maximum(first, second) - np.minimum(first, second)


def levels_per_255(pixels: PixelArray) -> float:
    """Return the levels of `pixels` in one level of 255: 257 for uint16."""
    return 257.0 if pixels.dtype == np.uint16 else 1.0


def mean_change(before: PixelArray, after: PixelArray) -> float:
    """Return the mean absolute difference of two images of one shape and type, in levels of 255."""
    return float(absolute_difference(before, after).mean()) / levels_per_255(before)


def mean_squared_error(first: PixelArray, second: PixelArray) -> float:
    """Return the mean squared error of two uint8 images, with values in [0, 1]."""
    difference = first.astype(np.float32) - second
    return float(np.mean(np.square(difference)) / 255**2)
