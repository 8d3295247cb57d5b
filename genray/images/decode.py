"""Images for training: PNG, JPEG and WebP files in, uint8 arrays of as many channels as are asked for out.

What cannot be used is a `BadImage` with a short reason.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage
from genray.io.store import Store

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_FORMATS = ("PNG", "JPEG", "WEBP")
_MAX_FILE_BYTES = 256 * 2**20
_HEADER_BYTES = 2**20  # that a header lies in
_ORIENTATION = 0x0112
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image says of it: its size, after EXIF turns (but for PNG), and whether it has no
    colour."""

    width: int
    height: int
    is_gray: bool


def read_image(store: Store, path: str, *, channels: int, max_pixels: int) -> Pixels:
    """Read and decode an image file, see `decode`.

    Raises:
        BadImage: it cannot be read or decoded, or is larger than 256 MiB.
    """
    try:
        data = store.read(path, _MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error
    if len(data) > _MAX_FILE_BYTES:
        raise BadImage("too-large", f"more than {_MAX_FILE_BYTES} bytes")
    return decode(data, channels=channels, max_pixels=max_pixels)


def read_header(store: Store, path: str) -> ImageHeader:
    """Read the header of an image file.

    Raises:
        BadImage: empty or unknown.
        OSError: it cannot be read.
    """
    # A WebP shows its size only whole.
    limit = _MAX_FILE_BYTES if path.lower().endswith(".webp") else _HEADER_BYTES
    return decode_header(store.read(path, limit))


def decode_header(data: bytes) -> ImageHeader:
    """The header of an image, before any pixel is decoded.

    Raises:
        BadImage: empty or unknown.
    """
    with _open(data) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        return ImageHeader(width, height, gray)


def decode(data: bytes, *, channels: int, max_pixels: int) -> Pixels:
    """Decode PNG, JPEG or WebP bytes to (H, W, channels) uint8.

    Upright by its EXIF orientation; 16-bit values are scaled, not clipped; palettes, CMYK and gray are
    converted; transparency is laid over white unless 4 channels are asked for.

    Args:
        data: the whole file.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA).
        max_pixels: refuse larger images before decoding them (decompression bombs).

    Raises:
        BadImage: with its reason.
    """
    with _open(data) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage("too-large", f"{width}x{height} pixels, the limit is {max_pixels}")
        try:
            plain = image.format == "JPEG" and image.mode in ("L", "RGB") and _orientation(image) == 1
            if plain and channels < 4:
                # 1.4 times as fast as Pillow, same pixels.
                space = "GRAY" if channels == 1 else "RGB"
                return simplejpeg.decode_jpeg(data, colorspace=space, strict=True)  # type: ignore[no-any-return]
            upright = np.asarray(_to_mode(ImageOps.exif_transpose(image), _MODES[channels]))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            # Pillow and libjpeg say 'truncated', 'broken data stream', 'bad header checksum'...
            raise BadImage("truncated", str(error).split("\n")[0]) from error
    return upright.reshape(*upright.shape[:2], channels)


def to_channels(image: Pixels, channels: int) -> Pixels:
    """(H, W, C) -> (H, W, channels), by Pillow's rules of conversion."""
    image = np.ascontiguousarray(image)
    if image.shape[-1] == channels:
        return image
    converted = np.asarray(Image.fromarray(image).convert(_MODES[channels]))
    return converted.reshape(*image.shape[:2], channels)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("empty", "0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs and odd EXIF; both are handled here
            return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("too-large", str(error)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        if data.startswith((b"\x89PNG", b"\xff\xd8")) or data[8:12] == b"WEBP":
            raise BadImage("truncated", f"{len(data)} bytes; the header is damaged") from error
        raise BadImage("unknown-format", f"begins with {data[:8]!r}") from error


def _orientation(image: Image.Image) -> int:
    # Pillow would decode a whole PNG to look for EXIF behind its pixels.
    if image.format == "PNG":
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd EXIF
        orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) else 1


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel; Pillow's own convert would clip it to white
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if mode != "RGBA" and (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
