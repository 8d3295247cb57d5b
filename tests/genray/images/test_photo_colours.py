import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.broken_files import encode
from tests.genray.images.photo_samples import ICC, read, smooth


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_kept_apart(kind: str) -> None:
    image = smooth("RGBA")
    image.putalpha(smooth("L"))
    photo = read(encode(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert np.array_equal(photo.pixels, np.asarray(smooth()))
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, np.asarray(smooth("L")))


def test_an_alpha_that_hides_nothing_is_none() -> None:
    assert read(encode(smooth("RGBA"), "PNG")).alpha is None


def test_gray_with_alpha_stays_gray() -> None:
    image = smooth("LA")
    image.putalpha(smooth("L"))
    for kind in ("PNG", "TIFF"):
        photo = read(encode(image, kind))
        assert photo.pixels.shape == (24, 32, 1)
        assert photo.alpha is not None


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_palettes_become_rgb_and_one_bit_gray(kind: str) -> None:
    palette, bits = smooth().convert("P"), smooth().convert("1")
    assert np.array_equal(read(encode(palette, kind)).pixels, np.asarray(palette.convert("RGB")))
    assert np.array_equal(read(encode(bits, kind)).pixels[..., 0], np.asarray(bits) * np.uint8(255))


def test_a_transparent_colour_of_a_palette_becomes_alpha() -> None:
    palette = smooth().convert("P")
    photo = read(encode(palette, "PNG", transparency=palette.getpixel((3, 3))))
    assert photo.alpha is not None
    assert photo.alpha[3, 3] == 0
    assert photo.pixels.shape[2] == 3


def test_white_is_zero_is_turned_over() -> None:
    data = encode(smooth("L"), "TIFF")
    at = data.index(struct.pack("<HHLH", 262, 3, 1, 1)) + 8
    turned = read(data[:at] + b"\0" + data[at + 1 :])
    assert np.array_equal(turned.pixels[..., 0], 255 - np.asarray(smooth("L")))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb(kind: str) -> None:
    data = encode(smooth("CMYK"), kind)
    photo = read(data)
    assert np.array_equal(photo.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(photo.pixels.astype(int) - np.asarray(smooth())).max() < 16


def test_ycck_is_understood() -> None:
    data = encode(smooth("CMYK"), "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    ycck = data[:at] + b"\x02" + data[at + 1 :]
    assert np.array_equal(read(ycck).pixels, np.asarray(Image.open(io.BytesIO(ycck)).convert("RGB")))


def cmyk_profile() -> bytes:
    """An ICC profile (ISO 15076-1, lut8Type) in which any ink at all is red, and paper white."""
    same = bytes(range(256))
    grid = b"".join(b"\xff\x80\x80" if corner == 0 else b"\x88\xd0\xc3" for corner in range(16))
    matrix = struct.pack(">9l", *(65536 * (place % 4 == 0) for place in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + same * 4 + grid + same * 3
    head = b"lcms" + bytes.fromhex("02100000") + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3L", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    tags = struct.pack(">L4sLL", 1, b"A2B0", 144, len(table))
    return struct.pack(">L", 144 + len(table)) + head + tags + table


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(kind: str) -> None:
    ink = Image.new("CMYK", (16, 16), (255, 255, 0, 0))
    photo = read(encode(ink, kind, icc_profile=cmyk_profile()))
    assert photo.icc is None
    red, green, blue = photo.pixels[8, 8].tolist()
    assert red > 100
    assert max(green, blue) < 60


def test_a_profile_of_other_colours_is_dropped() -> None:
    cmyk = ICC[:16] + b"CMYK" + ICC[20:]
    assert read(encode(smooth(), "JPEG", icc_profile=cmyk)).icc is None
    assert read(encode(smooth("CMYK"), "JPEG", icc_profile=cmyk)).icc is None  # no table in it: plain rule
