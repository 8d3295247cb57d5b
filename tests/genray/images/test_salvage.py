"""Damage that costs no pixel: the image is read and the damage noted, or refused if the settings say so."""

import struct
import time

import numpy as np
import pytest
from PIL import Image

from genray.images.decode import decode
from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from tests.broken_files import chunk, encode
from tests.genray.images.photo_samples import ICC, LIMITS, exif, read, reason, smooth, tags_of

STRICT = ReadLimits(damaged="refuse")


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2 if length is None else length) + body


def noisy(mode: str = "RGB") -> Image.Image:
    levels = np.random.default_rng(3).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


def with_thumbnail() -> bytes:
    """EXIF with an orientation, and a JPEG of its own behind it."""
    return exif(6) + encode(smooth().resize((16, 12)), "JPEG")


BETWEEN = "meaningless bytes between segments"
LENGTH = "a segment with a wrong length"
NO_END = "the end marker is missing"


def after_jfif(jpeg: bytes, more: bytes) -> bytes:
    return jpeg[:20] + more + jpeg[20:]


def before_each_table(jpeg: bytes) -> bytes:
    return jpeg.replace(b"\xff\xdb\0C", b"xyz\xff\xdb\0C").replace(b"\xff\xc0", b"\0\0\xff\xc0")


DAMAGED_JPEGS = {
    "bytes between segments": (lambda jpeg: after_jfif(jpeg, b"hello"), BETWEEN),
    "zeros between segments": (lambda jpeg: after_jfif(jpeg, bytes(900)), BETWEEN),
    "bytes before each table": (before_each_table, BETWEEN),
    "a marker that is none": (lambda jpeg: after_jfif(jpeg, b"\xff\x00\x00\x02"), BETWEEN),
    "a length that is too short": (lambda jpeg: after_jfif(jpeg, segment(0xFE, b"x" * 300, 20)), BETWEEN),
    "a length that is too long": (lambda jpeg: after_jfif(jpeg, segment(0xFE, b"x" * 300, 420)), LENGTH),
    "a length beyond the end": (lambda jpeg: after_jfif(jpeg, segment(0xED, b"x" * 300, 65535)), LENGTH),
    "a length of 0": (lambda jpeg: after_jfif(jpeg, segment(0xED, b"x" * 300, 0)), BETWEEN),
    "bytes before the end": (
        lambda jpeg: jpeg[:-2] + b"no marker" * 9 + jpeg[-2:],
        "meaningless bytes before the end marker",
    ),
    "no end": (lambda jpeg: jpeg[:-2], NO_END),
    "no end, but other bytes": (lambda jpeg: jpeg[:-2] + b"no marker" * 9, NO_END),
    "an unknown version of JFIF": (
        lambda jpeg: jpeg[:11] + b"\x07\x07" + jpeg[13:],
        "an unknown version of JFIF",
    ),
}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("damage", DAMAGED_JPEGS)
def test_a_jpeg_whose_pixels_are_all_there_is_read(damage: str, mode: str, *, progressive: bool) -> None:
    whole = encode(noisy(mode), "JPEG", progressive=progressive)
    make, note = DAMAGED_JPEGS[damage]
    data = make(whole)
    photo = read(data)
    assert np.array_equal(photo.pixels, read(whole).pixels)
    assert note in photo.salvaged
    channels = photo.pixels.shape[2]
    assert np.array_equal(decode(data, channels=channels, limits=LIMITS), photo.pixels)
    assert reason(data, STRICT) == "truncated"
    assert read_photo(whole, STRICT).salvaged == ()


@pytest.mark.parametrize("length", [2, 30, 400, 20_000, 65_535])
def test_exif_of_a_wrong_length_still_turns_the_image(length: int) -> None:
    whole = encode(noisy(), "JPEG")
    data = whole[:20] + segment(0xE1, b"Exif\0\0" + with_thumbnail()[6:], length) + whole[20:]
    photo = read(data)
    assert np.array_equal(photo.pixels, np.rot90(read(whole).pixels, -1))
    assert len(photo.salvaged) == 1
    assert tags_of(photo.exif)[0x010F] == "a maker of cameras"


def test_no_thumbnail_is_taken_for_the_image() -> None:
    whole = encode(noisy(), "JPEG")
    small = encode(smooth().resize((16, 12)), "JPEG")
    for data in (
        whole[:20] + b"junk" + small + whole[20:],
        whole[:20] + segment(0xE5, small, 8) + whole[20:],
    ):
        assert np.array_equal(read(data).pixels, read(whole).pixels)


def test_what_could_be_read_in_two_ways_is_refused() -> None:
    one, other = encode(noisy(), "JPEG"), encode(smooth(), "JPEG")
    assert reason(after_jfif(one, b"junk" + other[2:])) == "truncated"


@pytest.mark.parametrize("progressive", [False, True])
def test_missing_pixels_are_never_salvaged(*, progressive: bool) -> None:
    whole = encode(noisy(), "JPEG", progressive=progressive)
    for length in range(len(whole) // 2, len(whole) - 3, 29):
        assert reason(whole[:length]) == "truncated"
        if not progressive:  # else whole scans may be missing, of which a decoder knows nothing
            assert reason(whole[:length] + b"\xff\xd9") == "truncated"


def test_bytes_between_the_scans_of_a_jpeg_cost_no_pixel() -> None:
    whole = encode(noisy(), "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xc4"]
    for at in scans[-3:]:
        data = whole[:at] + b"bytes of no meaning" + whole[at:]
        photo = read(data)
        assert np.array_equal(photo.pixels, read(whole).pixels)
        assert photo.salvaged == ("meaningless bytes before a scan",)


def test_orientation_and_profile_among_damage_are_found() -> None:
    whole = encode(noisy(), "JPEG")
    more = segment(0xE1, exif(6)) + b"junk" + segment(0xE2, b"ICC_PROFILE\0\1\1" + ICC) + b"junk"
    photo = read(after_jfif(whole, b"junk" + more))
    assert np.array_equal(photo.pixels, np.rot90(read(whole).pixels, -1))
    assert photo.icc == ICC


def test_a_header_damaged_at_many_places_takes_no_time() -> None:
    whole = encode(noisy(), "JPEG")
    began = time.perf_counter()
    assert read(after_jfif(whole, (b"xxx" + segment(0xE5, b"")) * 50_000)).salvaged == (BETWEEN,)
    assert time.perf_counter() - began < 20, "looking at all of the file for each place takes hours"


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_with_wrong_checksum(data: bytes, of: bytes) -> bytes:
    at = data.index(of) + 4
    length = int.from_bytes(data[at - 8 : at - 4])
    return data[: at + length] + b"\0\0\0\0" + data[at + length + 4 :]


@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs", b"gAMA", b"tIME"])
def test_wrong_checksums_beside_the_pixels_of_a_png_are_noted(kind: bytes) -> None:
    png = encode(smooth(), "PNG")
    data = png_with_wrong_checksum(png[:33] + chunk(kind, b"12345678\0x") + png[33:], kind)
    photo = read(data)
    assert np.array_equal(photo.pixels, np.asarray(smooth()))
    assert photo.salvaged == ("wrong checksums of chunks beside the pixels: 1",)
    assert reason(data, STRICT) == "truncated"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("wrong", ["of the chunk", "of the rows"])
def test_one_right_checksum_of_a_pngs_pixels_is_enough(mode: str, wrong: str) -> None:
    png = encode(smooth(mode), "PNG")
    if wrong == "of the chunk":
        data = png_with_wrong_checksum(png, b"IDAT")
    else:
        parts = [
            chunk(kind, body[:-4] + b"\0\0\0\0" if kind == b"IDAT" else body)
            for kind, body in png_chunks(png)
        ]
        data = png[:8] + b"".join(parts)
    photo = read(data)
    assert np.array_equal(photo.pixels, read(png).pixels)
    assert photo.salvaged == ("one of the two checksums of the pixels is wrong",)
    assert reason(data, STRICT) == "truncated"


def test_pixels_of_a_png_with_no_right_checksum_are_refused() -> None:
    png = encode(smooth(), "PNG")
    at = png.index(b"IDAT") + 20
    assert reason(png[:at] + bytes([png[at] ^ 4]) + png[at + 1 :]) == "truncated"
    both = png_with_wrong_checksum(png, b"IDAT")
    end = png.index(b"IEND") - 8
    assert reason(both[: end - 2] + b"\0\0" + both[end:]) == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_bytes_behind_the_end_are_not_minded(kind: str) -> None:
    data = encode(smooth(), kind)
    for more in (bytes(500), b"\r\n", data):
        photo = read(data + more)
        assert np.array_equal(photo.pixels, read(data).pixels)
        assert photo.salvaged == ()


def test_what_is_wrong_beside_the_pixels_of_a_whole_file_is_no_damage() -> None:
    assert read_photo(encode(smooth(), "JPEG", icc_profile=ICC, exif=exif(6)), STRICT).icc == ICC
