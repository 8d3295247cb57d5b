import io
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from tests.broken_files import encode
from tests.genray.images.photo_samples import ICC, exif, read, smooth, tags_of, values


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
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


def test_planes_stored_apart_are_put_together() -> None:
    import imagecodecs

    planes = np.ascontiguousarray(np.moveaxis(values(bits=16), -1, 0))
    data = imagecodecs.tiff_encode(planes, planarconfig=2, photometric=2)
    assert np.array_equal(read(data).pixels, values(bits=16))


def test_the_first_page_and_the_first_of_several_pictures_are_read() -> None:
    pages = encode(smooth(), "TIFF", save_all=True, append_images=[smooth().rotate(180)])
    assert np.array_equal(read(pages).pixels, np.asarray(smooth()))
    jpeg = encode(smooth(), "JPEG")
    assert np.array_equal(read(jpeg + encode(smooth("L"), "JPEG")).pixels, read(jpeg).pixels)


def test_a_lossless_webp_is_known() -> None:
    assert read(encode(smooth(), "WEBP", lossless=True)).lossless
    assert not read(encode(smooth(), "WEBP")).lossless
