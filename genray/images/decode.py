"""Images for training: decode files to uint8 arrays with a given number of channels.

A thin layer over the reader of all formats, `genray/images/formats.py`. A file that cannot be used raises
`BadImage` with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from genray.images.arrays import unit_levels
from genray.images.formats import decode_file, inspect_file
from genray.images.image_file import FilePixels, ImageFile, Levels, guarded, upright
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, apply_window
from genray.io.bad_input import BadImage
from genray.io.store import Store

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_DEFAULT_LIMITS = ReadLimits()


@dataclass(frozen=True)
class ImageHeader:
    """Header of an image: size in pixels after turning by EXIF, and number of channels without alpha."""

    width: int
    height: int
    channels: int


def read_image(
    store: Store,
    path: str,
    *,
    channels: int,
    limits: ReadLimits,
    window: tuple[float, float] | None = None,
) -> Pixels:
    """Read and decode an image file, see `decode`.

    Raises:
        BadImage: the file cannot be read or decoded, or exceeds `limits`.
    """
    return decode(_read(store, path, limits), channels=channels, limits=limits, window=window)


def read_levels(store: Store, path: str, limits: ReadLimits) -> Levels:
    """Read and decode an image file as (H, W, C) with its own levels, see `decode_levels`.

    Raises:
        BadImage: it cannot be read or decoded, or is beyond `limits`.
    """
    return decode_levels(_read(store, path, limits), limits)


def decode_levels(data: bytes, limits: ReadLimits) -> Levels:
    """Decode the bytes of an image file to (H, W, C) with its own levels: 8 or 16 bits, or float32; without
    alpha.

    Raises:
        BadImage: it cannot be decoded, or is beyond `limits`.
    """
    file = _inspect(data, limits)
    pixels = guarded(lambda: upright(decode_file(data, file, limits, levels=True), file.orientation))
    return pixels[..., :-1] if file.alpha and pixels.shape[-1] in (2, 4) else pixels


def read_header(store: Store, path: str, limits: ReadLimits = _DEFAULT_LIMITS) -> ImageHeader:
    """Read the header of an image file.

    Reads the whole file: some formats store their header at the end.

    Raises:
        BadImage: the file cannot be read, or exceeds `limits`.
    """
    return decode_header(_read(store, path, limits), limits)


def decode_header(data: bytes, limits: ReadLimits = _DEFAULT_LIMITS) -> ImageHeader:
    """Return the header of an image, without decoding pixels.

    Args:
        data: the whole file.
        limits: limits above which the file is refused.

    Raises:
        BadImage: the file cannot be read, or exceeds `limits`.
    """
    file = _inspect(data, limits)
    width, height = file.upright_size
    return ImageHeader(width, height, file.channels)


def decode(
    data: bytes, *, channels: int, limits: ReadLimits, window: tuple[float, float] | None = None
) -> Pixels:
    """Decode the bytes of an image file to (H, W, channels) uint8.

    The image is turned by its EXIF orientation. 16-bit values are scaled, not clipped. Palettes, CMYK and
    gray are converted. Transparent pixels are blended with white unless `channels` is 4.

    Args:
        data: the whole file.
        channels: 1 (gray), 3 (RGB), 4 (RGBA), or the number of the file's bands.
        limits: limits above which the file is refused, before it is decoded.
        window: levels that become black and white (None: the whole range, of floats 0 to 1). Images with
            alpha ignore it.

    Raises:
        BadImage: the file cannot be decoded, or exceeds `limits`.
    """
    file = _inspect(data, limits)
    # The stored luma of a JPEG is its gray image. A JPEG that is turned is converted from RGB instead, as in
    # the first version, so that the training data of existing runs stay the same.
    gray = channels == 1 and file.orientation == 1
    pixels = decode_file(data, file, limits, gray=gray, levels=True)

    def converted() -> Pixels:
        turned = upright(pixels, file.orientation)
        if window is not None and not file.alpha:
            image = apply_window(turned, window)
        else:
            image = _eight_bits(unit_levels(turned))
        if file.bands or channels not in _MODES:
            if image.shape[-1] != channels:
                raise BadImage(
                    "odd-shape",
                    f"{file.channels} channels, {channels} are wanted: set data.channels (in pairs "
                    "data.input_channels and data.target_channels)",
                )
            return image
        return _to_channels(image, channels)

    return guarded(converted)


def to_channels(image: Pixels, channels: int) -> Pixels:
    """Convert (H, W, C) to (H, W, channels) by Pillow's rules."""
    image = np.ascontiguousarray(image)
    if image.shape[-1] == channels:
        return image
    return _pixels_of(_picture(image).convert(_MODES[channels]))


def _read(store: Store, path: str, limits: ReadLimits) -> bytes:
    try:
        data = store.read(path, limits.max_bytes + 1)
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error
    if len(data) > limits.max_bytes:
        raise BadImage("too-large", f"more than {limits.max_bytes} bytes, the limit (max_bytes)")
    return data


def _inspect(data: bytes, limits: ReadLimits) -> ImageFile:
    file = inspect_file(data, limits)
    if file.pages:
        pages = len(file.pages) + 1
        raise BadImage(
            "unsupported", f"a file of {pages} pages is no single image; pages=first reads the first"
        )
    return file


def _eight_bits(pixels: FilePixels) -> Pixels:
    return (
        (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8, copy=False)
    )


def _to_channels(image: Pixels, channels: int) -> Pixels:
    """Convert like `to_channels`, but blend transparent pixels with white."""
    if channels == 4 or image.shape[-1] in (1, 3):
        return to_channels(image, channels)
    picture = _picture(image).convert("RGBA")
    over_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return _pixels_of(over_white.convert(_MODES[channels]))


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def _pixels_of(picture: Image.Image) -> Pixels:
    return np.asarray(picture).reshape(picture.height, picture.width, -1)
