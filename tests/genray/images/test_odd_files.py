"""Files whose pixels are all there, whatever is wrong beside them; and errors that leave nothing behind."""

import contextlib
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from genray.images.decode import decode, decode_header
from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.io.bad_input import BadImage
from tests.broken_files import ADAM7, chunk, encode
from tests.genray.images.photo_samples import ICC, LIMITS, exif, read, reason, smooth, tags_of

SHORT, ASCII, RATIONAL, SIGNED_RATIONAL = 3, 2, 5, 10


def exif_of(*tags: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of one directory, of (tag, type, count, value)."""
    head = struct.pack("<2sHLH", b"II", 42, 8, len(tags))
    values_at = len(head) + 12 * len(tags) + 4
    values = b""
    for tag, kind, count, value in tags:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<L", values_at + len(values))
        head += struct.pack("<HHL", tag, kind, count) + place
        values += value if len(value) > 4 else b""
    return head + bytes(4) + values


TURNED = (0x0112, SHORT, 1, b"\x06\0")
ODD_EXIF = {
    "a negative number where none may be": exif_of(TURNED, (0x011A, RATIONAL, 1, struct.pack("<ll", -1, 1))),
    "a denominator of 0": exif_of(TURNED, (0x011A, SIGNED_RATIONAL, 1, bytes(8))),
    "text for a number": exif_of(TURNED, (0x011A, ASCII, 8, b"\xe9t\xe9 300\0\0")),
    "a number for text": exif_of((0x010F, RATIONAL, 1, bytes(8)), TURNED),
    "a value beyond the end": exif_of(TURNED, (0x010F, ASCII, 900, struct.pack("<L", 60_000))),
    "a tag twice": exif_of(TURNED, (0x0112, SHORT, 1, b"\x06\0")),
    "an unknown type": exif_of(TURNED, (0x010E, 77, 3, b"abc\0")),
    "a directory that names itself": exif_of(TURNED, (0x8769, 4, 1, struct.pack("<L", 8))),
}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("odd", ODD_EXIF)
def test_odd_tags_beside_the_orientation_cost_neither_it_nor_the_image(kind: str, odd: str) -> None:
    data = encode(smooth(), kind, exif=b"Exif\0\0" + ODD_EXIF[odd])
    assert read(data).pixels.shape == (32, 24, 3)
    assert decode(data, channels=3, limits=LIMITS).shape == (32, 24, 3)
    assert decode_header(data).height == 32


@pytest.mark.parametrize("cut", [4, 5, 12, 16])
def test_the_orientation_in_a_directory_that_is_cut_is_kept(cut: int) -> None:
    whole = exif_of(TURNED, (0x010F, ASCII, 2, b"m\0"), (0x0110, ASCII, 2, b"n\0"))
    photo = read(encode(smooth(), "JPEG", exif=b"Exif\0\0" + whole[:-cut]))
    assert photo.pixels.shape == (32, 24, 3)
    kept = tags_of(photo.exif)
    assert kept[0x0112] == 1
    assert kept[0x010F] == "m"
    assert len(photo.notes) == (cut > 4)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("block", [b"", b"II", b"MM\0\0\xff\xff\0\x08", b"II*\0\xff\xff\xff\x7f", bytes(40)])
def test_exif_that_is_none_is_left_out_and_noted(kind: str, block: bytes) -> None:
    data = encode(smooth(), kind, exif=b"Exif\0\0" + block)
    photo = read(data)
    assert photo.exif is None
    assert photo.pixels.shape == decode(data, channels=3, limits=LIMITS).shape == (24, 32, 3)
    assert photo.notes == (() if photo.notes == () and not block else ("its EXIF is damaged: left out",))


def test_a_segment_of_a_profile_without_content_costs_nothing() -> None:
    jpeg = encode(smooth(), "JPEG", icc_profile=ICC)
    empty = struct.pack(">HH", 0xFFE2, 14) + b"ICC_PROFILE\0"
    assert read(jpeg[:2] + empty + jpeg[2:]).icc == ICC


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("junk", [bytes(40), b"\x12\x34", b"no marker at all"])
def test_bytes_before_the_end_of_a_jpeg_cost_no_pixel(mode: str, junk: bytes, *, progressive: bool) -> None:
    jpeg = encode(smooth(mode), "JPEG", progressive=progressive)
    photo = read(jpeg[:-2] + junk + jpeg[-2:])
    assert np.array_equal(photo.pixels, read(jpeg).pixels)
    if len(junk) > 8:  # a few bytes more or less are read ahead
        assert photo.salvaged == ("meaningless bytes before the end marker",)


@pytest.mark.parametrize("end", [b"", b"\xff"])
def test_a_jpeg_that_lacks_only_its_end_is_read(end: bytes) -> None:
    jpeg = encode(smooth(), "JPEG")
    photo = read(jpeg[:-2] + end)
    assert np.array_equal(photo.pixels, read(jpeg).pixels)
    assert photo.salvaged == ("the end marker is missing",)


def test_a_progressive_jpeg_that_lacks_scans_is_not_read() -> None:
    jpeg = encode(smooth(), "JPEG", progressive=True)
    last_scan = jpeg.rindex(b"\xff\xda")
    assert reason(jpeg[:last_scan]) == "truncated"
    assert np.array_equal(read(jpeg[:-2]).pixels, read(jpeg).pixels)


def test_a_png_that_ends_behind_its_pixels_is_read() -> None:
    png = encode(smooth(), "PNG")
    behind = png[:-12] + chunk(b"tEXt", b"Comment\0" + bytes(100))
    for data in (png[:-12], png[:-1], png[:-9], behind, behind[:-50]):
        photo = read(data)
        assert np.array_equal(photo.pixels, np.asarray(smooth()))
        assert photo.salvaged == ("the end chunk is missing",)
    assert reason(png[:-13]) == "truncated"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("cut", [1, 30])
def test_a_webp_that_ends_behind_its_pixels_is_read(mode: str, cut: int) -> None:
    image = smooth(mode)
    if mode == "RGBA":
        image.putalpha(smooth("L"))
    webp = encode(image, "WEBP", exif=exif(1))
    photo = read(webp[:-cut])
    assert np.array_equal(photo.pixels, read(webp).pixels)
    assert (photo.alpha is None) == (read(webp).alpha is None)
    assert photo.salvaged == ("it ends early, behind its pixels",)


def png_of(rows: bytes, *, bits: int, colour: int, size: int = 4, more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", size, size, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "colour", "samples"), [(8, 2, 3), (8, 4, 2), (16, 0, 1), (16, 2, 3)])
def test_more_pixel_data_than_there_are_pixels_is_not_minded(
    bits: int, colour: int, samples: int, capfd: pytest.CaptureFixture[str]
) -> None:
    row_bytes = 1 + 4 * samples * bits // 8
    rows = bytes(4 * row_bytes)
    for packed in (zlib.compress(rows + b"more"), zlib.compress(rows) + b"more"):
        assert read(png_of(packed, bits=bits, colour=colour)).pixels.max() == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (9, 20)])
@pytest.mark.parametrize(
    ("bits", "colour", "samples", "more"),
    [
        (8, 4, 2, b""),
        (16, 0, 1, b""),
        (16, 2, 3, b""),
        (16, 6, 4, b""),
        (8, 0, 1, chunk(b"tRNS", b"\0\1")),
        (8, 2, 3, chunk(b"tRNS", bytes(6))),
    ],
)
def test_interlaced_images_of_every_kind_are_read_without_a_word(
    bits: int,
    colour: int,
    samples: int,
    more: bytes,
    size: tuple[int, int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    width, height = size
    levels = np.random.default_rng(0).integers(0, 2**bits, (height, width, samples)).astype(f">u{bits // 8}")

    def png(rows: bytes, interlacing: int) -> bytes:
        header = struct.pack(">LLBBBBB", width, height, bits, colour, 0, 0, interlacing)
        parts = (chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    plain = read(png(b"".join(b"\0" + row.tobytes() for row in levels), 0))
    rows = [row for top, left, down, across in ADAM7 for row in levels[top::down, left::across] if row.size]
    photo = read(png(b"".join(b"\0" + row.tobytes() for row in rows), 1))
    assert np.array_equal(photo.pixels, plain.pixels)
    assert (photo.alpha is None) == (plain.alpha is None)
    assert photo.alpha is None or np.array_equal(photo.alpha, plain.alpha)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", ["checksums", "short", "filter", "no zlib"])
@pytest.mark.parametrize(
    ("bits", "colour", "samples", "more"),
    [
        (8, 2, 3, b""),
        (8, 6, 4, b""),
        (8, 4, 2, b""),
        (16, 0, 1, b""),
        (16, 2, 3, b""),
        (16, 4, 2, b""),
        (8, 0, 1, chunk(b"tRNS", b"\0\1")),
        (8, 2, 3, chunk(b"tRNS", bytes(6))),
        (4, 3, 1, chunk(b"PLTE", bytes(48)) + chunk(b"tRNS", b"\0")),
        (8, 3, 1, chunk(b"PLTE", bytes(9))),
    ],
)
def test_a_png_that_fails_costs_no_reference_and_no_memory(
    bits: int, colour: int, samples: int, more: bytes, damage: str
) -> None:
    """A decoder that loses a reference to None at each error ends Python 3.11 after some ten thousand."""
    row_bytes = 1 + (4 * samples * bits + 7) // 8
    rows = bytes(4 * row_bytes)
    packed = {
        "checksums": zlib.compress(rows)[:-1] + b"\xff",
        "short": zlib.compress(rows[:-row_bytes]),
        "filter": zlib.compress(b"\x07" + rows[1:]),
        "no zlib": b"x" * 40,
    }[damage]
    data = png_of(packed, bits=bits, colour=colour, more=more)
    if damage == "checksums":
        data = data[:-13] + bytes([data[-13] ^ 1]) + data[-12:]
    before = sys.getrefcount(None)
    for _ in range(500):
        with pytest.raises(BadImage, match="truncated"):
            read_photo(data, LIMITS)
    if sys.version_info < (3, 12):  # later, None is immortal: nothing is counted
        assert sys.getrefcount(None) - before > -100


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "BMP"])
def test_other_files_that_fail_cost_no_reference(kind: str) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = encode(smooth(), kind, **options)
    damaged = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    for broken in (data[:-20], data[:30], damaged if kind != "BMP" else data[:-1]):
        before = sys.getrefcount(None)
        for _ in range(500):
            with contextlib.suppress(BadImage):
                read_photo(broken, LIMITS)
        if sys.version_info < (3, 12):
            assert sys.getrefcount(None) - before > -100


def test_a_small_tiff_cannot_make_much_of_its_tags() -> None:
    tags = [(tag, 1, 60_000, bytes(4)) for tag in range(40_000, 50_000)]
    inner = exif_of(*tags)
    block = exif_of(TURNED, (0x8769, 4, 1, struct.pack("<L", 200))).ljust(200, b"\0")
    block += struct.pack("<H", len(tags)) + inner[10:]
    data = encode(smooth(), "PNG")
    photo = read_photo(data[:33] + chunk(b"eXIf", block[:-40]) + data[33:], ReadLimits(max_text_bytes=2**20))
    assert photo.exif is None or len(photo.exif) < 2**20


@pytest.mark.parametrize("size", [(9, 5), (1, 1), (3, 8)])
def test_bmp_files_are_read_in_all_their_kinds(size: tuple[int, int]) -> None:
    image = smooth().resize(size)
    for mode in ("1", "L", "P", "RGB"):
        data = encode(image.convert(mode), "BMP")
        photo = read_photo(data, LIMITS)
        expected = image.convert(mode).convert({"1": "L", "P": "RGB"}.get(mode, mode))
        assert photo.format == "bmp"
        assert np.array_equal(photo.pixels, np.asarray(expected).reshape(photo.pixels.shape))
    flipped = bytearray(encode(image, "BMP"))
    flipped[22:26] = struct.pack("<l", -size[1])  # from the top down
    assert np.array_equal(read_photo(bytes(flipped), LIMITS).pixels, np.asarray(image)[::-1])


def test_run_lengths_of_a_bmp_are_read() -> None:
    palette = b"".join(bytes([0, 0, level, 0]) for level in range(256))
    body = b"\x04\x07\x00\x00\x04\x09\x00\x01"
    header = struct.pack("<LllHHLLllLL", 40, 4, 2, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    data = struct.pack("<2sLLL", b"BM", start + len(body), 0, start) + header + palette + body
    assert read_photo(data, LIMITS).pixels[..., 0].tolist() == [[9] * 4, [7] * 4]
    assert Image.MAX_IMAGE_PIXELS  # Pillow's own limit stays as it is
