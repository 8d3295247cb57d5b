"""Images brought to a size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from genray.images.pixels import Pixels


def resize(image: Pixels, size: int) -> Pixels:
    """(H, W, C) uint8 -> (size, size, C) uint8, bicubic, with antialiasing when it shrinks."""
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    plain = Image.fromarray(np.ascontiguousarray(image.squeeze(-1) if image.shape[-1] == 1 else image))
    array = np.asarray(plain.resize((size, size), Image.Resampling.BICUBIC))
    return array.reshape(size, size, image.shape[-1])


def middle(image: Pixels, size: int) -> Pixels:
    """The middle of an (H, W, C) image, at most `size` pixels high and wide."""
    top, left = (max(0, side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def fitted(image: Pixels, size: int, fit: Literal["crop", "stretch"]) -> Pixels:
    """(H, W, C) -> (size, size, C) uint8, bicubic with antialiasing: the largest square in the middle, or
    the whole, stretched."""
    height, width = image.shape[:2]
    if fit == "crop" and height != width:
        image = middle(image, min(height, width))
    return resize(image, size)
