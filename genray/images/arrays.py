"""Reader of NumPy arrays (.npy) as images, and floats as levels.

An array is (H, W), (H, W, C) or (C, H, W) of at most 64 channels: the last axis has the channels if it is the
shortest, else the first. Truth values become 0 and 255; whole numbers of 8 and 16 bits without a sign stay as
they are; all others become floats.
"""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from genray.images.image_file import FilePixels, ImageFile, Levels
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage

MOST_CHANNELS = 64
_MOST_HEADER = 10_000  # bytes


def inspect_npy(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header of an array, see `inspect_file`.

    Raises:
        BadImage: `unsupported`: an array that is no image.
        ValueError: the file is damaged.
    """
    shape, _, kind, start = _read_header(data)
    if kind.kind not in "buif" or kind.itemsize > 8:
        raise BadImage("unsupported", f"an array of {kind}, not of numbers")
    if len(shape) not in (2, 3) or not all(shape):
        raise BadImage("unsupported", f"an array of shape {shape}; images are (H, W), (H, W, C) or (C, H, W)")
    axis = _channel_axis(shape)
    channels = 1 if axis is None else shape[axis]
    if channels > MOST_CHANNELS:
        raise BadImage(
            "unsupported", f"an array of shape {shape}: more than {MOST_CHANNELS} channels, or no image"
        )
    height, width = shape if axis is None else (n for i, n in enumerate(shape) if i != axis)
    limits.check_pixels(width, height)
    if len(data) - start < int(np.prod(shape, dtype=np.int64)) * kind.itemsize:
        raise ValueError(f"its header says {shape} of {kind}")
    return ImageFile(
        "npy",
        (width, height),
        channels,
        depth=8 if kind.itemsize == 1 and kind.kind in "bu" else 16,
        bands=0 if channels in (1, 3) else channels,
    )


def decode_npy(data: bytes, file: ImageFile) -> Levels:
    """Decode an array to (H, W, C), see `decode_file`.

    Raises:
        BadImage: `unsupported`: values that are no numbers.
        ValueError: the file is damaged.
    """
    shape, by_columns, kind, start = _read_header(data)
    count = int(np.prod(shape, dtype=np.int64))
    values = np.frombuffer(data, kind, count, start).reshape(shape, order="F" if by_columns else "C")
    axis = _channel_axis(shape)
    image = values[..., None] if axis is None else np.moveaxis(values, axis, -1)
    if kind.kind == "b":
        return image.astype(np.uint8) * np.uint8(255)
    if kind.kind == "u" and kind.itemsize <= 2:
        return cast(FilePixels, image.astype(kind.newbyteorder("=")))
    return checked_floats(image)


def checked_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return numbers as float32.

    Raises:
        BadImage: `unsupported`: some are NaN or infinite.
    """
    floats = values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise BadImage("unsupported", "some values are no numbers (NaN) or infinite: replace them")
    return floats


def unit_levels(levels: Levels) -> FilePixels:
    """Return floats from 0 to 1 as 16 bits, and other levels as they are.

    Raises:
        BadImage: `unsupported`: numbers beyond 0 and 1.
    """
    if levels.dtype != np.float32:
        return cast(FilePixels, levels)
    lowest, highest = float(levels.min()), float(levels.max())
    if not (lowest >= 0 and highest <= 1):
        raise BadImage(
            "unsupported",
            f"numbers from {lowest:g} to {highest:g}, of which only 0 to 1 have a meaning; trainings take "
            "others with a window (data.window, or data.input_window and data.target_window)",
        )
    scaled: FilePixels = np.rint(levels.astype(np.float64) * 65535).astype(np.uint16)
    return scaled


def _read_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether columns come first, the type of the values, and where they begin."""
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, kind = read(file, max_header_size=_MOST_HEADER)
    return shape, by_columns, kind, file.tell()


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    if len(shape) == 2:
        return None
    return 2 if shape[2] <= shape[0] else 0
