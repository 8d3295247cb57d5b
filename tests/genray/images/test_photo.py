import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from genray.images.carried.webp import with_alpha_flag
from genray.images.photo import read_photo
from genray.images.photo_writer import WriteSettings, write_photo
from genray.io.bad_input import BadImage
from tests.broken_files import chunk, encode, png_bomb, write_broken_files
from tests.genray.images.photo_samples import ICC, LIMITS, exif, read, reason, smooth, tags_of, values


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_files_give_pillows_pixels(kind: str, mode: str) -> None:
    data = encode(smooth(mode), kind)
    photo = read(data)
    theirs = np.asarray(Image.open(io.BytesIO(data)))
    assert photo.format == kind.lower()
    assert photo.alpha is None
    assert np.array_equal(photo.pixels, theirs.reshape(24, 32, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright_and_their_exif_says_so(kind: str, orientation: int) -> None:
    data = encode(smooth(), kind, exif=exif(orientation))
    photo = read(data)
    # Of TIFF, Pillow turns while it loads.
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(photo.pixels, np.asarray(upright))
    kept = tags_of(photo.exif)
    assert kept.get(0x0112, 1) == 1
    assert kept[0x010F] == "a maker of cameras"
    assert kept[0x9003] == "2026:01:02 03:04:05"


def test_exif_of_big_endian_is_read_and_its_thumbnail_unlinked() -> None:
    block = exif(6, "MM")[6:]
    (first,) = struct.unpack_from(">L", block, 4)
    next_at = first + 2 + 12 * struct.unpack_from(">H", block, first)[0]
    with_thumbnail = block[:next_at] + struct.pack(">L", len(block)) + block[next_at + 4 :] + bytes(6)
    photo = read(encode(smooth(), "JPEG", exif=b"Exif\0\0" + with_thumbnail))
    assert photo.pixels.shape == (32, 24, 3)
    assert photo.exif is not None
    assert photo.exif[next_at : next_at + 4] == bytes(4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_colour_profile_is_kept_byte_for_byte(kind: str) -> None:
    assert read(encode(smooth(), kind, icc_profile=ICC)).icc == ICC


def test_a_profile_in_several_segments_is_joined() -> None:
    large = struct.pack(">L", 150_000) + ICC[4:] + bytes(150_000 - len(ICC))
    data = encode(smooth(), "JPEG", icc_profile=large)
    assert read(data).icc == large
    lost = data.replace(b"ICC_PROFILE\0\x02", b"ICC_PROFILE\0\x09")
    assert read(lost).icc is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_broken_exif_and_profiles_never_cost_the_image(kind: str) -> None:
    broken = b"Exif\0\0II*\0\xff\xff\xff\x00 and no more"
    options = {} if kind == "TIFF" else {"exif": broken}
    photo = read(encode(smooth(), kind, icc_profile=b"no profile at all", **options))
    assert photo.icc is None
    assert kind == "TIFF" or photo.exif is None


def test_damaged_chunks_beside_the_pixels_never_cost_a_png() -> None:
    data = encode(smooth(), "PNG", icc_profile=ICC, exif=exif(6))
    at, turn = data.index(b"iCCP"), data.index(b"eXIf")
    damaged = bytearray(data)
    damaged[at + 40] ^= 1
    damaged[turn + 10] ^= 1
    photo = read(bytes(damaged))
    assert (photo.icc, photo.exif) == (None, None)
    assert np.array_equal(photo.pixels, np.asarray(smooth()))


@pytest.mark.parametrize("quality", [1, 10, 50, 74, 75, 90, 95, 98, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_quality_of_a_jpeg_is_found(quality: int, mode: str) -> None:
    assert read(encode(smooth(mode), "JPEG", quality=quality)).quality == quality


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1"])
def test_the_subsampling_of_a_jpeg_is_found(subsampling: str) -> None:
    data = simplejpeg.encode_jpeg(values(), colorsubsampling=subsampling.replace(":", ""))
    assert read(data).subsampling == subsampling


def test_gray_jpegs_have_no_subsampling() -> None:
    assert read(encode(smooth("L"), "JPEG")).subsampling is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bits_are_kept(channels: int, alpha: bool) -> None:
    import imagecodecs

    pixels = values(bits=16, channels=channels + alpha)
    files = {"png": imagecodecs.png_encode(pixels)}
    if pixels.shape[2] != 2:
        swapped = pixels.squeeze().copy()  # tiff_encode swaps its input in place
        files["tiff"] = imagecodecs.tiff_encode(pixels.squeeze(), compression="deflate", predictor=True)
        files["tiff big-endian"] = imagecodecs.tiff_encode(swapped, byteorder=">", compression="lzw")
    for data in files.values():
        photo = read(data)
        assert photo.depth == 16
        assert np.array_equal(photo.pixels, pixels[..., :channels])
        assert (photo.alpha is not None) == alpha
        if photo.alpha is not None:
            assert np.array_equal(photo.alpha, pixels[..., -1])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_bigtiff_is_read_and_becomes_a_tiff(mode: str) -> None:
    data = encode(smooth(mode), "TIFF", big_tiff=True, icc_profile=ICC)
    assert data[:4] == b"II+\0"
    given = read(data)
    usual = read(encode(smooth(mode), "TIFF", icc_profile=ICC))
    assert np.array_equal(given.pixels, usual.pixels)
    assert (given.format, given.icc) == ("tiff", usual.icc)
    assert write_photo(given, WriteSettings()).data[:4] == b"II*\0"


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_bigtiff_is_turned_and_its_exif_kept(orientation: int) -> None:
    photo = read(encode(smooth(), "TIFF", big_tiff=True, exif=exif(orientation)))
    assert photo.pixels.shape == ((24, 32, 3) if orientation == 1 else (32, 24, 3))
    assert tags_of(photo.exif)[0x010F] == "a maker of cameras"
    assert tags_of(photo.exif)[0x9003] == "2026:01:02 03:04:05"


def test_planes_stored_apart_are_put_together() -> None:
    import imagecodecs

    planes = np.ascontiguousarray(np.moveaxis(values(bits=16), -1, 0))
    data = imagecodecs.tiff_encode(planes, planarconfig=2, photometric=2)
    assert np.array_equal(read(data).pixels, values(bits=16))


def test_of_several_pictures_the_first_is_read_and_the_others_are_noted() -> None:
    jpeg = encode(smooth(), "JPEG")
    assert np.array_equal(read(jpeg + encode(smooth("L"), "JPEG")).pixels, read(jpeg).pixels)
    several = encode(smooth(), "MPO", save_all=True, append_images=[smooth().rotate(180)] * 2)
    assert np.array_equal(read(several).pixels, read(jpeg).pixels)
    assert read(several).notes == ("pictures after the first are left out: 2",)
    assert read(jpeg).notes == ()


def test_a_lossless_webp_is_known() -> None:
    assert read(encode(smooth(), "WEBP", lossless=True)).lossless
    assert not read(encode(smooth(), "WEBP")).lossless


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_kept_apart(kind: str) -> None:
    image = smooth("RGBA")
    image.putalpha(smooth("L"))
    photo = read(encode(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert np.array_equal(photo.pixels, np.asarray(smooth()))
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, np.asarray(smooth("L")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("lossless", [False, True])
def test_an_alpha_that_hides_nothing_stays_in_the_file(kind: str, lossless: bool) -> None:
    data = encode(smooth("RGBA"), kind, **({"lossless": lossless} if kind == "WEBP" else {}))
    if kind == "WEBP":
        data = with_alpha_flag(data)
    given = read(data)
    assert given.alpha is not None
    assert given.alpha.min() == 255
    made = write_photo(given, WriteSettings()).data
    with Image.open(io.BytesIO(made)) as theirs:
        assert theirs.mode == "RGBA"
        assert np.asarray(theirs)[..., 3].min() == 255
    jpeg = write_photo(given, WriteSettings(format="jpeg"))
    assert jpeg.not_kept == ()


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_no_cut_file_is_read(kind: str) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = encode(Image.fromarray(values()), kind, **options)
    ends_after_pixels = {"PNG": 12, "JPEG": 2, "WEBP": 0, "TIFF": 0}[kind]
    for length in [*range(12, len(data) - ends_after_pixels, 37), len(data) - ends_after_pixels - 1]:
        assert reason(data[:length]) == "truncated"


@pytest.mark.parametrize("bomb", ["png", "jpeg", "tiff", "webp"])
def test_bombs_are_refused_without_allocating(bomb: str) -> None:
    header = bytes([16, 0, 0, 0]) + (16_000).to_bytes(3, "little") * 2
    jpeg = encode(smooth(), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    data = {
        "png": png_bomb(),
        "jpeg": jpeg[:frame] + b"\xea\x60\xea\x60" + jpeg[frame + 4 :],
        "tiff": encode(Image.new("1", (9000, 9000)), "TIFF", compression="group4"),
        "webp": b"RIFF" + struct.pack("<L", 22) + b"WEBPVP8X" + struct.pack("<L", 10) + header,
    }[bomb]
    tracemalloc.start()
    assert reason(data) == "too-large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_small_png_cannot_promise_many_pixels() -> None:
    assert reason(png_bomb(3000, 3000)) == "truncated"


def test_a_png_of_no_width_is_damaged() -> None:
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", 0, 4, 8, 2, 0, 0, 0))
    assert reason(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b"")) == "truncated"


def test_every_broken_file_has_the_reason_it_should_have(tmp_path: Path) -> None:
    reasons = write_broken_files(tmp_path, 200)
    found = {}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            try:
                read_photo(path.read_bytes(), LIMITS)
                found[path.relative_to(tmp_path).as_posix()] = ""
            except BadImage as bad:
                found[path.relative_to(tmp_path).as_posix()] = bad.reason
    assert len(reasons) == 200
    assert found == reasons
    assert set(found.values()) >= {"", "empty", "truncated", "too-large", "unknown-format", "unsupported"}
