import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genray.images.limits import ReadLimits
from genray.images.photo import Photo, read_photo
from genray.images.photo_writer import (
    WriteSettings,
    output_format,
    output_path,
    write_photo,
)
from genray.io.bad_input import BadImage
from tests.broken_files import encode
from tests.genray.images.photo_samples import ICC, exif, smooth, tags_of, values

FORMATS = ["jpeg", "png", "webp", "tiff"]


def settings(**values: Any) -> WriteSettings:
    return WriteSettings.model_validate(values)


def again(photo: Photo, **values: Any) -> Photo:
    return read_photo(write_photo(photo, settings(**values)).data, ReadLimits())


def photo(kind: str = "JPEG", mode: str = "RGB", **options: Any) -> Photo:
    return read_photo(encode(smooth(mode), kind, **options), ReadLimits())


def drawn(bits: int, channels: int, alpha: bool = False) -> Photo:
    planes: NDArray[Any] = values(bits=bits, channels=channels + alpha)
    return Photo(planes[..., :channels], planes[..., -1] if alpha else None, "png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_same_format_is_written_with_all_that_the_file_carried(kind: str) -> None:
    given = photo(kind, icc_profile=ICC, exif=exif(6))
    made = again(given)
    assert made.format == kind.lower()
    assert made.icc == ICC
    assert tags_of(made.exif) == tags_of(given.exif)
    assert kind == "TIFF" or made.exif == given.exif
    assert (made.quality, made.subsampling) == (given.quality, given.subsampling)
    assert np.abs(made.pixels.astype(int) - given.pixels).max() < 12


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_any_format_becomes_any_other_with_profile_and_exif(source: str, target: str, order: str) -> None:
    given = photo(source, icc_profile=ICC, exif=exif(3, order))
    data = write_photo(given, settings(format=target)).data
    made = read_photo(data, ReadLimits())
    assert made.icc == ICC
    assert tags_of(made.exif)[0x9003] == "2026:01:02 03:04:05"
    with Image.open(io.BytesIO(data)) as theirs:
        assert theirs.info["icc_profile"] == ICC
        assert theirs.getexif()[0x010F] == "a maker of cameras"
        assert theirs.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"


def test_profile_and_exif_can_be_left_out() -> None:
    given = photo(icc_profile=ICC, exif=exif(1))
    for form in FORMATS:
        made = again(given, format=form, keep_icc=False, keep_exif=False)
        assert (made.icc, made.exif) == (None, None)


@pytest.mark.parametrize("form", ["png", "tiff"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_png_and_tiff_lose_nothing(form: str, bits: int, channels: int, alpha: bool) -> None:
    given = drawn(bits, channels, alpha)
    before = given.pixels.copy()
    made = again(given, format=form)
    assert np.array_equal(made.pixels, given.pixels)
    assert np.array_equal(given.pixels, before)
    assert given.alpha is None or (made.alpha is not None and np.array_equal(made.alpha, given.alpha))


@pytest.mark.parametrize("order", ["II", "MM"])
def test_a_tiff_of_several_strips_is_one_that_pillow_reads(order: str) -> None:
    pixels = np.tile(values(), (20, 20, 1))
    given = Photo(pixels, None, "tiff", exif=exif(1, order)[6:])
    data = write_photo(given, settings()).data
    assert data.startswith(order.encode())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    deep = replace(given, pixels=np.tile(values(bits=16), (20, 20, 1)))
    assert np.array_equal(again(deep).pixels, deep.pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_bmp_keeps_its_pixels_and_alpha(channels: int, alpha: bool) -> None:
    given = replace(drawn(8, channels, alpha), format="bmp")
    data = write_photo(given, settings()).data
    made = read_photo(data, ReadLimits())
    with Image.open(io.BytesIO(data)) as theirs:
        assert theirs.format == "BMP"
        assert theirs.mode == ("RGBA" if alpha else {1: "L", 3: "RGB"}[channels])
    assert made.format == "bmp"
    assert np.array_equal(
        made.pixels, given.pixels if not alpha else np.broadcast_to(given.pixels, (24, 32, 3))
    )
    assert np.array_equal(made.alpha, given.alpha) if alpha else made.alpha is None


def test_a_bmp_has_eight_bits_a_profile_and_no_exif() -> None:
    given = replace(drawn(16, 3), icc=ICC, exif=exif(1)[6:])
    made = again(given, format="bmp")
    assert np.array_equal(made.pixels, (given.pixels.astype(np.uint32) + 128) // 257)
    assert (made.icc, made.exif) == (ICC, None)


@pytest.mark.parametrize("level", [0, 1, 6])
def test_every_level_of_png_is_exact(level: int) -> None:
    for given in (drawn(8, 3), photo("PNG"), Photo(np.zeros((90, 90, 3), np.uint8), None, "png")):
        assert np.array_equal(again(given, format="png", png_level=level).pixels, given.pixels)


def test_what_repeats_shrinks_in_a_png_of_the_fast_level() -> None:
    page = Image.new("RGB", (400, 400), "white")
    for row in range(25):
        ImageDraw.Draw(page).text((8, 16 * row), "the quick brown fox jumps over the lazy dog", fill="black")
    given = Photo(np.asarray(page), None, "png")
    assert len(write_photo(given, settings()).data) < 3 * len(write_photo(given, settings(png_level=9)).data)


@pytest.mark.parametrize(
    ("given", "chosen", "written"),
    [(60, None, 75), (85, None, 85), (100, None, 98), (85, 40, 40)],
)
def test_the_quality_of_a_jpeg_is_the_inputs_within_bounds(
    given: int, chosen: int | None, written: int
) -> None:
    assert again(photo(quality=given), quality=chosen).quality == written


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_subsampling_of_a_jpeg_is_kept(subsampling: str) -> None:
    assert again(photo(subsampling=subsampling)).subsampling == subsampling


def test_a_jpeg_made_of_a_png_has_half_the_colour() -> None:
    made = again(photo("PNG"), format="jpeg")
    assert (made.subsampling, made.quality) == ("4:2:0", 90)


def test_gray_stays_gray_but_in_webp() -> None:
    gray = photo("PNG", "L")
    for form in FORMATS:
        assert again(gray, format=form).pixels.shape[2] == (3 if form == "webp" else 1)


def test_a_gray_profile_is_applied_where_gray_cannot_be_stored() -> None:
    gray = ICC[:16] + b"GRAY" + ICC[20:]  # which has no gray curve: the plain rule is taken
    given = replace(photo("PNG", "L"), icc=gray)
    assert again(given, format="png").icc == gray
    made = again(given, format="webp", lossless=True)
    assert made.icc is None
    assert np.array_equal(made.pixels[..., 0], given.pixels[..., 0])


def test_a_profile_of_gray_is_not_written_with_colour() -> None:
    assert again(replace(photo(), icc=ICC[:16] + b"GRAY" + ICC[20:])).icc is None


def test_sixteen_bits_are_rounded_to_eight() -> None:
    steps = np.array([[0, 128, 129, 257, 65406, 65407, 65535]], np.uint16)[..., None]
    made = again(Photo(np.repeat(steps, 3, axis=2), None, "png"), format="webp", lossless=True)
    assert made.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 254, 255, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_jpeg_shows_what_is_transparent_over_white(bits: int) -> None:
    top = 2**bits - 1
    kind = np.uint16 if bits == 16 else np.uint8
    pixels = np.zeros((16, 48, 3), kind)
    alpha = np.repeat(np.array([0, top // 2, top], kind), 16)[None].repeat(16, axis=0)
    made = again(Photo(pixels, alpha, "png"), format="jpeg", quality=98)
    assert made.alpha is None
    for column, wanted in ((4, 255), (24, 128), (44, 0)):
        assert np.abs(made.pixels[:, column].astype(int) - wanted).max() <= 3


def test_alpha_is_kept_in_webp() -> None:
    made = again(drawn(16, 3, alpha=True), format="webp", lossless=True)
    assert made.alpha is not None
    assert np.array_equal(made.pixels, (drawn(16, 3, alpha=True).pixels + 128.0) // 257)


def test_a_lossless_webp_stays_one_unless_set_otherwise() -> None:
    given = photo("WEBP", lossless=True)
    assert np.array_equal(again(given).pixels, given.pixels)
    assert not again(given, lossless=False).lossless
    assert not again(photo("PNG"), format="webp").lossless


def test_a_large_profile_is_split_and_large_exif_is_left_out_of_a_jpeg() -> None:
    large = (150_000).to_bytes(4) + ICC[4:] + bytes(150_000 - len(ICC))
    block = exif(1)[6:]
    made = again(replace(photo(), icc=large, exif=block + bytes(70_000)))
    assert made.icc == large
    assert made.exif is None


def test_a_cmyk_jpeg_is_written_as_srgb_without_its_profile() -> None:
    made = again(photo("JPEG", "CMYK", icc_profile=ICC[:16] + b"CMYK" + ICC[20:]))
    assert made.icc is None
    assert made.pixels.shape[2] == 3


@pytest.mark.parametrize(("form", "side"), [("jpeg", 65501), ("webp", 16384), ("png", 1_000_001)])
def test_sides_beyond_the_formats_are_refused(form: str, side: int) -> None:
    long = Photo(np.zeros((1, side, 1), np.uint8), None, "tiff")
    with pytest.raises(BadImage, match=f"at most {side - 1} on a side") as caught:
        write_photo(long, settings(format=form))
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize(
    ("form", "side"), [("jpeg", 65500), ("webp", 16383), ("png", 70_000), ("tiff", 70_000)]
)
def test_sides_of_the_formats_limits_are_written_and_read(form: str, side: int) -> None:
    long = Photo(np.zeros((2, side, 1), np.uint8), None, form)
    assert again(long).pixels.shape[:2] == (2, side)


@pytest.mark.parametrize(
    ("path", "form", "written"),
    [
        ("a/b.png", "same", "a/b.png"),
        ("a/b.png", "jpeg", "a/b.jpg"),
        ("a/b.JPEG", "jpeg", "a/b.JPEG"),
        ("a.b/c", "webp", "a.b/c.webp"),
        ("photo.v2", "png", "photo.v2.png"),
        ("b.tiff", "tiff", "b.tiff"),
        ("two\nlines 📷.jpg", "tiff", "two\nlines 📷.tif"),
    ],
)
def test_outputs_keep_the_stem(path: str, form: str, written: str) -> None:
    assert output_path(path, settings(format=form)) == written


def test_the_same_format_is_that_of_the_content_not_of_the_name() -> None:
    assert output_format(photo("PNG"), settings(), "named.jpg") == "png"
    assert output_format(replace(photo(), format=""), settings(), "drawn.webp") == "webp"
    assert output_format(replace(photo(), format=""), settings()) == "png"
