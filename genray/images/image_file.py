"""An image file of which no pixel is decoded yet, and what is done alike with the pixels of every format."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from genray.io.bad_input import BadImage

FilePixels = NDArray[np.uint8 | np.uint16]

T = TypeVar("T")

_TURNED_COLUMNS = 128


@dataclass(frozen=True)
class ImageFile:
    """What a file says of itself.

    Args:
        format: a name of `genray/io/kinds.py`.
        size: (width, height) as stored.
        samples: colours of a pixel: 1, 3, or 4 (CMYK).
        depth: bits of a value, as it is decoded: 8 or 16.
        alpha: whether it may be transparent.
        orientation: of EXIF, 1 to 8.
        icc: its colour profile.
        exif: its EXIF block, see `Photo`.
        quality, subsampling, lossless: see `Photo`.
        notes: what was odd in it, or is left out, for a person.
    """

    format: str
    size: tuple[int, int]
    samples: int
    depth: int = 8
    alpha: bool = False
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    quality: int | None = None
    subsampling: str | None = None
    lossless: bool = False
    notes: tuple[str, ...] = ()

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after it was turned by its orientation."""
        width, height = self.size
        return (width, height) if self.orientation < 5 else (height, width)


def guarded(work: Callable[[], T]) -> T:
    """What `work` gives. Each decoder has errors of its own for broken data, and none may end a run.

    Raises:
        BadImage: whatever else `work` raised.
    """
    try:
        return work()
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("too-large", "there was not enough memory to decode it") from error
    except Exception as error:
        detail = str(error).split("\n")[0] or type(error).__name__
        reason = "unsupported" if "Unsupported" in detail else "truncated"
        raise BadImage(reason, detail) from error


def upright(pixels: FilePixels, orientation: int) -> FilePixels:
    """(H, W, C) pixels turned by an orientation of EXIF, in one piece."""
    if orientation == 1:
        return np.ascontiguousarray(pixels)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    turned = np.empty(pixels.shape, pixels.dtype)
    # In pieces that caches hold: up to seven times as fast as in one.
    for left in range(0, pixels.shape[1], _TURNED_COLUMNS):
        piece = np.s_[:, left : left + _TURNED_COLUMNS]
        for channel in range(pixels.shape[2]):
            turned[*piece, channel] = pixels[*piece, channel]
    return turned


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to sRGB through the image's ICC profile; by Pillow's plain rule without a usable one."""
    if icc is not None:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            return cast(Image.Image, converted)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB")
