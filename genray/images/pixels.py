"""Images in arrays: their type, resizing, cropping, grids for people, and saving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from genray.io.files import atomic_write

Pixels = NDArray[np.uint8]
"""(H, W, C) uint8; C is 1 (gray), 3 (RGB) or 4 (RGBA)."""

Window = tuple[float, float]
"""Levels of files that are black and white in a network; levels beyond are clipped."""

_TITLE_HEIGHT = 16
_SQUARE = 8  # pixels of a square of the checkerboard behind transparent pixels


def apply_window(levels: NDArray[np.uint8 | np.uint16 | np.float32], window: Window) -> Pixels:
    """Scale levels so that the window's lower end becomes 0 and its upper end 255; levels beyond it are
    clipped."""
    low, high = window
    scaled = (levels.astype(np.float32) - low) * (255.0 / (high - low))
    windowed: Pixels = np.rint(scaled.clip(0.0, 255.0)).astype(np.uint8)
    return windowed


def resize(image: Pixels, size: int) -> Pixels:
    """Resize (H, W, C) uint8 to (size, size, C) uint8: bicubic, with antialiasing where it shrinks."""
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    if image.shape[-1] not in (1, 3, 4):
        return np.concatenate([resize(image[..., i : i + 1], size) for i in range(image.shape[-1])], axis=-1)
    planes = image.squeeze(-1) if image.shape[-1] == 1 else image
    resized = Image.fromarray(np.ascontiguousarray(planes)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized).reshape(size, size, image.shape[-1])


def crop_middle(image: Pixels, size: int) -> Pixels:
    """Cut out the middle of an (H, W, C) image: at most `size` pixels high and wide."""
    top, left = (max(0, side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def fit_square(image: Pixels, size: int, fit: Literal["crop", "stretch"]) -> Pixels:
    """Resize (H, W, C) uint8 to (size, size, C) uint8, bicubic with antialiasing.

    Args:
        image: what to resize.
        size: pixels of a side of the result.
        fit: "crop" takes the largest square in the middle, "stretch" the whole image.
    """
    height, width = image.shape[:2]
    if fit == "crop" and height != width:
        image = crop_middle(image, min(height, width))
    return resize(image, size)


def shown(image: Pixels) -> Pixels:
    """Return an image of any number of channels as RGB, (H, W, 3), for people.

    Gray is repeated, RGBA laid over a checkerboard; of other channels the first three are shown, of two the
    first.
    """
    channels = image.shape[-1]
    if channels == 3:
        return image
    if channels == 4:
        squares = np.add.outer(*(np.arange(side) // _SQUARE for side in image.shape[:2])) % 2
        board = np.where(squares, 204, 255)[..., None]
        alpha = image[..., 3:].astype(np.float32) / 255
        over: Pixels = np.rint(image[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)
        return over
    return image[..., :3] if channels > 4 else np.repeat(image[..., :1], 3, axis=-1)


def grid(rows: Sequence[Sequence[Pixels]], titles: Sequence[str] = (), gap: int = 4) -> Pixels:
    """Lay out images of equal size in rows, on white.

    Args:
        rows: the images of each row, (H, W, C) uint8, drawn as `shown`.
        titles: texts above the columns ((): none); a column is as wide as its text at least.
        gap: pixels between the images.

    Returns:
        (height, width, 3) uint8.
    """
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    header = _TITLE_HEIGHT if titles else 0
    font = ImageFont.load_default(11)
    widths = [width] * columns
    for c, title in enumerate(titles[:columns]):
        widths[c] = max(width, math.ceil(font.getlength(title)))
    lefts = [gap + sum(widths[:c]) + c * gap for c in range(columns)]
    shape = (header + len(rows) * (height + gap) + gap, lefts[-1] + widths[-1] + gap, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top = header + gap + r * (height + gap)
            canvas[top : top + height, lefts[c] : lefts[c] + width] = shown(image)
    if not titles:
        return canvas
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for left, title in zip(lefts, titles, strict=False):
        draw.text((left, 3), title, fill="black", font=font)
    return np.array(picture)


def save_png(path: Path, image: Pixels) -> None:
    """Write (H, W, 3) uint8 to `path` atomically, at PNG level 1: in a third of the time of the default."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1)
