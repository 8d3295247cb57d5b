"""Formats that are read but not written, and unusual TIFFs: what is read of them, and what is refused."""

import io
import sys
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from genray.images.decode import decode, decode_header
from genray.images.limits import ReadLimits
from genray.images.photo import Photo, read_photo
from genray.images.photo_writer import WriteSettings, output_path, write_photo
from genray.io.bad_input import BadImage
from genray.io.kinds import KINDS, kind_of_bytes
from tests.broken_files import encode
from tests.genray.images.photo_samples import ICC, LIMITS, exif, read, reason, smooth, tags_of, values

pillow_heif = pytest.importorskip("pillow_heif")


def transparent(mode: str = "RGBA") -> Image.Image:
    image = smooth(mode)
    image.putalpha(smooth("L"))
    return image


def heif(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=100, **options)
    return stream.getvalue()


def deep_heif(levels: np.ndarray) -> bytes:
    file = pillow_heif.from_bytes("RGB;16", (32, 24), levels.tobytes())
    stream = io.BytesIO()
    file.save(stream, quality=-1)
    return stream.getvalue()


PLAIN = {
    "avif": encode(smooth(), "AVIF", quality=100),
    "gif": encode(smooth().quantize(200), "GIF"),
    "heif": heif(smooth()),
    "jp2": encode(smooth(), "JPEG2000"),
    "jxl": imagecodecs.jpegxl_encode(np.asarray(smooth()), lossless=True, usecontainer=True),
}
CLEAR = {
    "avif": encode(transparent(), "AVIF", quality=100),
    "heif": heif(transparent()),
    "jp2": encode(transparent(), "JPEG2000"),
    "jxl": imagecodecs.jpegxl_encode(np.asarray(transparent()), lossless=True),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_they_are_read_by_bulk_and_training_and_written_as_png(kind: str) -> None:
    data = PLAIN[kind]
    photo = read(data)
    assert photo.format == kind
    assert np.abs(photo.pixels.astype(int) - np.asarray(smooth())).max() < 5
    assert np.array_equal(decode(data, channels=3, limits=LIMITS), photo.pixels)
    written = read(write_photo(photo, WriteSettings(), f"a{KINDS[kind].suffixes[0]}").data)
    assert written.format == "png"
    assert np.array_equal(written.pixels, photo.pixels)
    assert output_path(f"b/a{KINDS[kind].suffixes[0]}", WriteSettings()) == "b/a.png"


@pytest.mark.parametrize("kind", CLEAR)
def test_transparency_is_read(kind: str) -> None:
    photo = read(CLEAR[kind])
    assert photo.alpha is not None
    assert np.abs(photo.alpha.astype(int) - np.asarray(smooth("L"))).max() < 5


def test_a_transparent_colour_of_a_gif_becomes_alpha() -> None:
    image = smooth().quantize(16)
    photo = read(encode(image, "GIF", transparency=image.getpixel((3, 3))))
    assert photo.alpha is not None
    assert photo.alpha[3, 3] == 0


@pytest.mark.parametrize("kind", ["avif", "heif"])
def test_profile_exif_and_xmp_are_kept(kind: str) -> None:
    options = {"icc_profile": ICC, "exif": exif(1), "xmp": b"<x:xmpmeta/>"}
    data = encode(smooth(), "AVIF", **options) if kind == "avif" else heif(smooth(), **options)
    photo = read(data)
    assert (photo.icc, photo.carried.xmp) == (ICC, b"<x:xmpmeta/>")
    assert tags_of(photo.exif)[0x010F] == "a maker of cameras"
    written = read(write_photo(photo, WriteSettings()).data)
    assert (written.icc, written.carried.xmp) == (ICC, b"<x:xmpmeta/>")


def test_an_avif_is_turned() -> None:
    data = encode(smooth(), "AVIF", quality=100, exif=exif(6))
    assert np.abs(read(data).pixels.astype(int) - np.rot90(np.asarray(smooth()), -1)).max() < 5
    assert tags_of(read(data).exif)[0x0112] == 1


def test_exif_that_pillow_cannot_read_costs_an_avif_neither_pixels_nor_turning() -> None:
    data = encode(smooth(), "AVIF", quality=100, exif=exif(6))
    at = data.index(b"II*\0\x08\0\0\0") + 8
    damaged = data[:at] + b"\xff\xff" + data[at + 2 :]
    photo = read(damaged)
    assert photo.pixels.shape == (32, 24, 3)
    assert "EXIF" in photo.carried.left_out or photo.exif is not None


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_becomes_16_bits(bits: int) -> None:
    levels = (values(bits=16) >> (16 - bits)).astype(np.uint16)
    photo = read(imagecodecs.avif_encode(levels, level=100, bitspersample=bits))
    assert photo.depth == 16
    top = 2**bits - 1
    assert np.abs(photo.pixels / 65535 - levels / top).mean() < 0.01


def test_deep_heif_becomes_16_bits() -> None:
    white = np.full((24, 32, 3), 65535, np.uint16)
    for levels in (np.asarray(smooth()).astype(np.uint16) * 257, white):
        photo = read(deep_heif(levels))
        assert photo.depth == 16
        assert np.abs(photo.pixels / 65535 - levels / 65535).mean() < 0.01
    assert photo.pixels.min() == 65535


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000_is_read_at_its_depth(bits: int, channels: int) -> None:
    levels = (values(bits=16, channels=channels) >> (16 - bits)).astype(np.uint8 if bits == 8 else np.uint16)
    photo = read(imagecodecs.jpeg2k_encode(levels.squeeze(), level=0, bitspersample=bits))
    assert photo.depth == (8 if bits == 8 else 16)
    top = 255 if bits == 8 else 65535
    expected = np.rint(levels[..., : photo.pixels.shape[2]] * (top / (2**bits - 1)))
    assert np.array_equal(photo.pixels, expected)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (301, 77), (64, 128), (90, 120), (600, 1030)])
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_the_header_of_a_jpeg_xl_is_that_of_its_pixels(
    size: tuple[int, int], mode: str, *, lossless: bool
) -> None:
    image = (transparent(mode) if mode.endswith("A") else smooth(mode)).resize(size)
    photo = read(imagecodecs.jpegxl_encode(np.asarray(image), lossless=lossless))
    assert photo.pixels.shape == (*size[::-1], 1 if mode.startswith("L") else 3)
    assert (photo.alpha is not None) == mode.endswith("A")


@pytest.mark.parametrize(
    "levels",
    [values() / np.float32(255), values(bits=16), np.stack([values(), values()])],
    ids=["floats", "linear colours", "an animation"],
)
def test_other_kinds_of_jpeg_xl_are_refused(levels: np.ndarray) -> None:
    assert reason(imagecodecs.jpegxl_encode(levels, lossless=True)) == "unsupported"


def test_exif_and_xmp_of_a_jpeg_xl_are_kept() -> None:
    block = exif(6)[6:]
    boxes = b"".join(
        (len(body) + 8).to_bytes(4, "big") + kind + body
        for kind, body in ((b"Exif", bytes(4) + block), (b"xml ", b"<x:xmpmeta/>"))
    )
    photo = read(PLAIN["jxl"] + boxes)
    assert photo.pixels.shape == (24, 32, 3), "its own orientation counts"
    assert photo.carried.xmp == b"<x:xmpmeta/>"
    assert tags_of(photo.exif)[0x010F] == "a maker of cameras"
    assert tags_of(photo.exif)[0x0112] == 1


@pytest.mark.parametrize("kind", PLAIN)
def test_no_cut_file_is_read(kind: str) -> None:
    data = {"gif": encode(Image.fromarray(values()).quantize(200), "GIF")}.get(kind, PLAIN[kind])
    end = 2 if kind == "gif" else 1  # a GIF may lack its end
    for length in [*range(40, len(data) - end, 23), len(data) - end - 1]:
        assert reason(data[:length]) in ("truncated", "unsupported")


@pytest.mark.parametrize("kind", PLAIN)
def test_limits_hold_before_they_are_decoded(kind: str) -> None:
    assert reason(PLAIN[kind], ReadLimits(max_pixels=24 * 32 - 1)) == "too-large"
    with pytest.raises(BadImage, match="max_pixels"):
        decode_header(PLAIN[kind], ReadLimits(max_pixels=24 * 32 - 1))


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
def test_animations_are_refused_or_give_their_first_frame(kind: str) -> None:
    frames = [smooth().rotate(90 * turn) for turn in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match="pages=first") as caught:
        read_photo(data, LIMITS)
    assert caught.value.reason == "unsupported"
    photo = read_photo(data, ReadLimits(pages="first"))
    assert np.abs(photo.pixels.astype(int) - np.asarray(smooth())).mean() < 5
    assert "frames after the first: 2" in photo.carried.left_out


def test_further_pictures_of_a_heif_are_named() -> None:
    file = pillow_heif.from_pillow(smooth())
    file.add_from_pillow(smooth().rotate(180))
    stream = io.BytesIO()
    file.save(stream, quality=100)
    assert read(stream.getvalue()).carried.left_out == ("further pictures: 1",)


def test_without_its_library_a_heif_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImage, match=r"genray\[heif\]") as caught:
        read_photo(PLAIN["heif"], LIMITS)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("first", [b"mif1", b"avif", b"heic"])
def test_heif_and_avif_are_told_apart_by_all_their_brands(first: bytes) -> None:
    head = b"\0\0\0\x20ftyp" + first + bytes(4)
    kinds = [kind_of_bytes(head + more) for more in (b"mif1avifmiaf", b"mif1heicmiaf")]
    names = [kind.name if kind else "" for kind in kinds]
    assert names == {b"mif1": ["avif", "heif"], b"avif": ["avif", "heif"], b"heic": ["heif", "heif"]}[first]


def tiff(levels: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.tiff_encode(levels.copy(), **options))


def test_floats_from_0_to_1_become_16_bits_and_others_are_refused() -> None:
    levels = values(bits=16) / np.float32(65535)
    photo = read(tiff(levels.astype(np.float32), photometric="rgb"))
    assert np.array_equal(photo.pixels, values(bits=16))
    assert photo.notes == ("numbers from 0.0 to 1.0 are read as 16 bits",)
    for bad in (levels * 255, levels - 0.5, np.where(levels > 0.9, np.nan, levels)):
        assert reason(tiff(bad.astype(np.float32), photometric="rgb")) == "unsupported"


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint32])
def test_numbers_whose_black_or_white_is_not_known_are_refused(kind: type) -> None:
    assert reason(tiff(values(bits=8).astype(kind), photometric="rgb")) == "unsupported"


def test_12_bits_of_a_tiff_become_16() -> None:
    levels = values(bits=16, channels=1)[..., 0] >> 4
    packed = np.packbits(np.unpackbits(levels.astype(">u2").view(np.uint8)).reshape(24, 32, 16)[..., 4:])
    data = bytearray(encode(Image.fromarray(np.zeros((24, 32), np.uint16)), "TIFF"))
    with Image.open(io.BytesIO(bytes(data))) as image:
        (start,) = image.tag_v2[273]
    at = data.index(b"\x02\x01\x03\0\x01\0\0\0\x10\0")
    data[at + 8] = 12
    data[start : start + len(packed)] = packed.tobytes()
    photo = read(bytes(data))
    assert np.array_equal(photo.pixels[..., 0], np.rint(levels * (65535 / 4095)))
    assert "12 bits are read as 16" in photo.notes


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_palettes_of_few_bits_are_read(colours: int) -> None:
    image = smooth().quantize(colours)
    photo = read(encode(image, "TIFF", bits={2: 1, 4: 2, 16: 4, 256: 8}[colours]))
    assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))


def test_lab_becomes_srgb() -> None:
    lab = Image.frombytes("LAB", (4, 4), bytes([200, 0, 0] * 16))
    photo = read(encode(lab, "TIFF"))
    assert photo.carried.left_out == ("L*a*b*",)
    assert np.ptp(photo.pixels) < 4, "it is gray"
    assert 180 < photo.pixels.mean() < 210


def test_cmyk_compressed_as_jpeg_is_read() -> None:
    plain = read(encode(smooth("CMYK"), "TIFF"))
    photo = read(encode(smooth("CMYK"), "TIFF", compression="jpeg", quality=100))
    assert np.abs(photo.pixels.astype(int) - plain.pixels).mean() < 4


def test_wrong_lengths_of_strips_cost_nothing() -> None:
    data = encode(smooth(), "TIFF", compression="raw")
    whole: Photo = read(data)
    at = data.index((24 * 32 * 3).to_bytes(4, "little"))
    photo = read(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    assert np.array_equal(photo.pixels, whole.pixels)
    assert photo.salvaged == ("wrong lengths of strips or tiles",)
