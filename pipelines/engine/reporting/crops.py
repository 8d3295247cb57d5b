"""Crops of an image, pixel for pixel: its flattest and its busiest place, before and after."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from genray.images.photo import Photo
from genray.images.pixels import Pixels

CROP = 128
"""Longest side of a crop in pixels: two fit side by side on a phone."""
_CELLS = 4  # cells of a crop along each side; places are found on their grid
_ANALYSED = 2048  # longest side of what places are found in; larger images are thinned
_DARK, _BRIGHT = 4, 251  # mean levels beyond which a place is black or white, with nothing to see
_GAP = 6  # pixels between crops
_SQUARE = 8  # pixels of a square of the pattern behind transparency
_SQUARE_LEVELS = (255, 204)
_MOST_BYTES = 85_000  # of a picture's file
_QUALITIES = (95, 92, 90, 87, 85, 80, 75, 70, 60, 50, 40, 30)  # of JPEG, tried until the file is small enough


@dataclass(frozen=True)
class CropPlace:
    """A place of an image: what it is, and the relative position of its centre, from 0 to 1."""

    name: str
    row: float
    column: float


def find_places(photo: Photo, *, flattest: bool = True) -> list[CropPlace]:
    """Return the places of an image to look at: the flattest (unless it is not wanted) and the busiest, by
    the variance of the brightness within a crop. An image that is no larger than a crop is one place.

    Places that are black or white are the flattest only if there are no others.
    """
    height, width = photo.pixels.shape[:2]
    if max(height, width) <= CROP:
        return [CropPlace("whole", 0.5, 0.5)]
    step = -(-max(height, width) // _ANALYSED)
    gray = _brightness(photo, step)
    cell = min(max(1, CROP // _CELLS // step), *gray.shape)
    cells = _cell_means(gray, cell)
    window = (min(_CELLS, cells.shape[0]), min(_CELLS, cells.shape[1]))
    means = _window_means(cells, window)
    variances = _window_means(_cell_means(np.square(gray), cell), window) - np.square(means)
    visible = (means >= _DARK) & (means <= _BRIGHT)
    flat = np.where(visible, variances, np.inf) if visible.any() else variances
    found = {"flattest": int(flat.argmin())} if flattest else {}
    found["busiest"] = int(variances.argmax())
    places = []
    for name, index in found.items():
        top, left = np.unravel_index(index, variances.shape)
        row = (float(top) + window[0] / 2) * cell / gray.shape[0]
        column = (float(left) + window[1] / 2) * cell / gray.shape[1]
        places.append(CropPlace(name, row, column))
    return places


def hottest_place(photo: Photo) -> CropPlace:
    """Return the place of a heat map with the highest level."""
    levels = _to_eight_bit(photo.pixels).max(axis=-1)
    row, column = np.unravel_index(int(levels.argmax()), levels.shape)
    return CropPlace("hottest", float(row) / levels.shape[0], float(column) / levels.shape[1])


def draw_crops(photos: Sequence[Photo], places: Sequence[CropPlace]) -> Pixels:
    """Draw the photos side by side at each place, pixel for pixel, the places one above the other.

    Photos may differ in size: a place is relative. Small images grow by a whole factor.

    Returns:
        (H, W, 3) uint8 on white.
    """
    rows = [_beside([_crop(photo, place) for photo in photos]) for place in places]
    width = max(row.shape[1] for row in rows)
    parts = [_padded(row, len(row) + _GAP * (row is not rows[-1]), width) for row in rows]
    return np.concatenate(parts)


def encode_picture(picture: Pixels) -> bytes:
    """Encode (H, W, 3) uint8 as lossless WebP, or where that is large as JPEG with the best quality that is
    not, and with whole colours: noise keeps its strength."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", lossless=True, method=1)
    data = stream.getvalue()
    for quality in _QUALITIES:
        if len(data) <= _MOST_BYTES:
            break
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "444")
    return data


def _brightness(photo: Photo, step: int) -> NDArray[np.float32]:
    """Return every `step`th pixel's level, (h, w) from 0 to 255; what is transparent is white."""
    gray = _to_eight_bit(photo.pixels[::step, ::step]).mean(axis=-1, dtype=np.float32)
    if photo.alpha is not None:
        opacity = _to_eight_bit(photo.alpha[::step, ::step]) / np.float32(255)
        gray = 255 - (255 - gray) * opacity
    return np.asarray(gray, np.float32)


def _crop(photo: Photo, place: CropPlace) -> Pixels:
    height, width = photo.pixels.shape[:2]
    rows = _span(place.row, height)
    columns = _span(place.column, width)
    pixels = _to_eight_bit(photo.pixels[rows, columns])
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if photo.alpha is not None:
        pixels = _over_squares(pixels, _to_eight_bit(photo.alpha[rows, columns]))
    factor = max(1, CROP // max(height, width))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _span(centre: float, length: int) -> slice:
    start = min(max(0, round(centre * length) - CROP // 2), max(0, length - CROP))
    return slice(start, start + CROP)


def _over_squares(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Lay (h, w, 3) over squares of two grays, as transparency is usually shown."""
    rows, columns = np.indices(alpha.shape) // _SQUARE
    ground = np.where((rows + columns) % 2, *_SQUARE_LEVELS)[..., None]
    opacity = alpha[..., None] / 255
    return np.rint(ground + (pixels - ground) * opacity).astype(np.uint8)


def _beside(crops: Sequence[Pixels]) -> Pixels:
    height = max(map(len, crops))
    parts = [_padded(crop, height, crop.shape[1] + _GAP * (crop is not crops[-1])) for crop in crops]
    return np.concatenate(parts, axis=1)


def _padded(pixels: Pixels, height: int, width: int) -> Pixels:
    more = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, more, constant_values=255)


def _to_eight_bit(pixels: NDArray[Any]) -> Pixels:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _cell_means(values: NDArray[np.float32], cell: int) -> NDArray[np.float32]:
    """Return the means of the whole cells of (H, W)."""
    rows, columns = values.shape[0] // cell, values.shape[1] // cell
    cells = values[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
    return np.asarray(cells.mean(axis=(1, 3)), np.float32)


def _window_means(cells: NDArray[np.float32], window: tuple[int, int]) -> NDArray[np.float32]:
    """Return the means of all windows of `window` cells."""
    windows = np.lib.stride_tricks.sliding_window_view(cells, window)
    return np.asarray(windows.mean(axis=(-2, -1)), np.float32)
