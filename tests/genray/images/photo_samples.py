"""Small images with EXIF and profiles, and the reading of their files."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from genray.images.limits import ReadLimits
from genray.images.photo import Photo, photo_header, read_photo
from genray.io.bad_input import BadImage

LIMITS = ReadLimits(max_pixels=10_000_000)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def values(*, bits: int = 8, channels: int = 3) -> NDArray[Any]:
    made = np.random.default_rng(0).integers(0, 2**bits, (24, 32, channels))
    return made.astype(np.uint16 if bits == 16 else np.uint8)


def smooth(mode: str = "RGB") -> Image.Image:
    made = np.add.outer(np.arange(24) * 3, np.arange(32) * 2)[..., None] + np.array([0, 30, 60])
    return Image.fromarray(made.astype(np.uint8)).convert(mode)


def exif(orientation: int, order: str = "II") -> bytes:
    block = Image.Exif()
    block.endian = "<" if order == "II" else ">"
    block[0x0112] = orientation
    block[0x010F] = "a maker of cameras"
    block.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    return block.tobytes()


def tags_of(block: bytes | None) -> dict[int, Any]:
    read = Image.Exif()
    assert block is not None
    read.load(b"Exif\0\0" + block)
    return dict(read) | read.get_ifd(0x8769)


def read(data: bytes) -> Photo:
    photo, header = read_photo(data, LIMITS), photo_header(data, LIMITS)
    height, width, channels = photo.pixels.shape
    assert (header.height, header.width, header.channels) == (height, width, channels)
    assert (header.depth, header.format) == (photo.depth, photo.format)
    assert header.has_alpha or photo.alpha is None
    assert photo.pixels.flags.writeable
    assert photo.pixels.flags.c_contiguous
    return photo


def reason(data: bytes, limits: ReadLimits = LIMITS) -> str:
    with pytest.raises(BadImage) as caught:
        read_photo(data, limits)
    assert caught.value.detail
    return caught.value.reason
