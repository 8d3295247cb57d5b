"""A photo: the pixels of an image file, and what else the file carried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from genray.images.decode import BadImage
from genray.images.formats import Pixels, decode_file, inspect
from genray.settings.base import Settings


class ReadLimits(Settings):
    """What is refused before a pixel of it is decoded."""

    max_pixels: int = Field(100_000_000, ge=1, description="refuse larger images (decompression bombs)")
    max_bytes: int = Field(256 * 2**20, ge=1, description="refuse larger files")


@dataclass(frozen=True)
class PhotoHeader:
    """What an image file says of itself: `width` and `height` upright, `channels` 1 or 3, `depth` 8 or 16."""

    format: str
    width: int
    height: int
    channels: int
    depth: int
    has_alpha: bool


@dataclass(frozen=True)
class Photo:
    """An image file's pixels, and what else the file carried.

    Args:
        pixels: (H, W, C) uint8 or uint16; C is 1 (gray) or 3 (RGB); upright. Of `read_photo`: writable, in
            one piece.
        alpha: (H, W) of the same type; None if the image is opaque.
        format: of the file: "jpeg", "png", "webp", "tiff"; "" of an image that was in no file.
        icc: its colour profile, as it was.
        exif: its EXIF block, from "II" or "MM" on: orientation 1, the thumbnail unlinked, the rest as it was.
        quality: of a JPEG, from 1 to 100: libjpeg's whose table comes nearest.
        subsampling: of a colour JPEG: "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1"; None if it is another.
        lossless: whether the file is a lossless WebP.
    """

    pixels: Pixels
    alpha: Pixels | None
    format: str
    icc: bytes | None = None
    exif: bytes | None = None
    quality: int | None = None
    subsampling: str | None = None
    lossless: bool = False

    @property
    def depth(self) -> int:
        """Bits of a value: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


def photo_header(data: bytes) -> PhotoHeader:
    """The header of an image file, without decoding it.

    Raises:
        BadImage: see `read_photo`; what shows in the pixels alone is not noticed.
    """
    file = inspect(data)
    width, height = file.size if file.orientation < 5 else file.size[::-1]
    channels = 1 if file.samples == 1 else 3
    return PhotoHeader(file.format, width, height, channels, file.depth, file.alpha)


def read_photo(data: bytes, limits: ReadLimits) -> Photo:
    """Decode a JPEG, PNG, WebP or TIFF file, known by its content, not by its name.

    Gray stays gray and 16 bits stay 16. Palettes become RGB; 1, 2 and 4 bits become 8; CMYK and YCCK become
    sRGB, through their ICC profile if they have one (which is dropped then). Of a JPEG with further pictures
    behind the first, and of a TIFF's pages, the first is read. An ICC profile or EXIF block that is damaged
    is dropped and never costs the image. XMP, IPTC, comments and text are not read.

    Args:
        data: the whole file.
        limits: sizes to refuse, before anything is allocated.

    Raises:
        BadImage: `empty`; `unknown-format`; `too-large`; `truncated`: it ends early or is damaged, even if
            most could be shown; `unsupported`: animations, floats, signed or 32-bit numbers, JPEGs of 12
            bits, L*a*b*, TIFFs with channels beyond one alpha, BigTIFF.
    """
    if len(data) > limits.max_bytes:
        raise BadImage("too-large", f"{len(data)} bytes, the limit is {limits.max_bytes}")
    file = inspect(data)
    width, height = file.size
    if width * height > limits.max_pixels:
        raise BadImage("too-large", f"{width}x{height} pixels, the limit is {limits.max_pixels}")
    pixels = decode_file(data, file)
    if pixels.shape[:2] != (height, width):
        raise BadImage(
            "truncated", f"{pixels.shape[1]}x{pixels.shape[0]} pixels, its header says {width}x{height}"
        )
    pixels = _upright(pixels.reshape(height, width, -1), file.orientation)
    alpha = None
    if pixels.shape[2] in (2, 4):
        alpha = np.ascontiguousarray(pixels[..., -1])
        pixels = np.ascontiguousarray(pixels[..., :-1])
        if alpha.min() == np.iinfo(alpha.dtype).max:
            alpha = None
    icc = file.icc if file.samples < 4 else None
    return Photo(pixels, alpha, file.format, icc, file.exif, file.quality, file.subsampling, file.lossless)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
