"""Files of several pages or frames: read whole, or refused with the way to read the first."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genray.images.decode import decode, decode_header
from genray.images.limits import ReadLimits
from genray.images.photo import Photo, photo_header, read_photo
from genray.images.photo_writer import WriteSettings, write_photo
from genray.io.bad_input import BadImage
from tests.broken_files import encode
from tests.genray.images.photo_samples import ICC, LIMITS, exif, read, reason, smooth, tags_of, values

FIRST = ReadLimits(pages="first")


def tiff_of(*pages: Image.Image, **options: Any) -> bytes:
    return encode(pages[0], "TIFF", save_all=True, append_images=list(pages[1:]), **options)


def mixed_pages() -> list[Image.Image]:
    """Pages of different sizes and modes."""
    clear = smooth("RGBA").resize((20, 30))
    clear.putalpha(100)
    deep = Image.fromarray(values(bits=16, channels=1)[..., 0])
    return [smooth(), smooth("L").resize((50, 10)), clear, smooth("1"), deep, smooth().quantize(16)]


def all_pages(photo: Photo) -> list[Photo]:
    return [photo, *photo.pages]


def again(photo: Photo) -> Photo:
    return read(write_photo(photo, WriteSettings()).data)


def test_every_page_of_a_tiff_is_read() -> None:
    pages = mixed_pages()
    photo = read(tiff_of(*pages))
    assert len(all_pages(photo)) == len(pages)
    for found, page in zip(all_pages(photo), pages, strict=True):
        alone = read(encode(page, "TIFF"))
        assert np.array_equal(found.pixels, alone.pixels)
        assert (found.depth, found.alpha is None) == (alone.depth, alone.alpha is None)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"])
@pytest.mark.parametrize("big", [False, True])
def test_pages_are_read_in_every_compression(compression: str, *, big: bool) -> None:
    turned = smooth().rotate(180)
    photo = read(tiff_of(smooth(), turned, compression=compression, big_tiff=big))
    (further,) = photo.pages
    assert np.array_equal(further.pixels, read(encode(turned, "TIFF", compression=compression)).pixels)


def test_the_header_counts_all_pages() -> None:
    header = photo_header(tiff_of(smooth(), smooth("L").resize((64, 64))), LIMITS)
    assert [page.width for page in (header, *header.pages)] == [32, 64]
    assert header.decoded_bytes == 4 * (32 * 24 + 64 * 64)


def test_pages_are_written_again_with_all_that_each_carries() -> None:
    pages = mixed_pages()
    photo = read(tiff_of(*pages, icc_profile=ICC, exif=exif(6), dpi=(300, 300)))
    written = again(photo)
    for before, after in zip(all_pages(photo), all_pages(written), strict=True):
        assert np.array_equal(before.pixels, after.pixels)
        assert (before.alpha is None) == (after.alpha is None)
        assert before.alpha is None or np.array_equal(before.alpha, after.alpha)
        assert before.icc == after.icc
        assert before.carried.density == after.carried.density
        assert before.carried.bits == after.carried.bits
    assert tags_of(written.exif)[0x9003] == "2026:01:02 03:04:05"
    assert written.pixels.shape == (32, 24, 3)


def test_what_is_written_opens_elsewhere() -> None:
    pages = mixed_pages()
    data = write_photo(read(tiff_of(*pages)), WriteSettings()).data
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == len(pages)
        for number, page in enumerate(pages):
            image.seek(number)
            assert image.size == page.size
            assert np.array_equal(np.asarray(image.convert("RGBA")), np.asarray(page.convert("RGBA")))


def with_copies(*sizes: tuple[int, int]) -> bytes:
    copies = []
    for size in sizes:
        copy = smooth().resize(size)
        copy.encoderinfo = {"tiffinfo": {254: 1}}
        copies.append(copy)
    return tiff_of(smooth(), *copies)


def test_reduced_copies_are_no_pages_and_are_made_again() -> None:
    photo = read(with_copies((16, 12), (8, 6)))
    assert (photo.pages, photo.copies) == ((), ((16, 12), (8, 6)))
    black = Photo(np.zeros_like(photo.pixels), None, "tiff", copies=photo.copies)
    written = write_photo(black, WriteSettings())
    assert written.not_kept == ()
    assert again(photo).copies == photo.copies
    with Image.open(io.BytesIO(written.data)) as image:
        assert image.n_frames == 3
        image.seek(2)
        assert image.size == (8, 6)
        assert image.tag_v2[254] == 1
        assert np.asarray(image).max() == 0, "copies show what is written, not what was read"
    assert write_photo(photo, WriteSettings(format="png")).not_kept == ("reduced copies",)


def test_the_first_page_is_read_if_that_is_set_and_the_others_are_counted() -> None:
    data = tiff_of(smooth(), smooth(), smooth())
    photo = read_photo(data, FIRST)
    assert (photo.pages, photo.carried.left_out) == ((), ("further pages: 2",))
    assert photo.notes == ("only the first page is read; left out: further pages: 2",)
    assert "further pages: 2" in write_photo(photo, WriteSettings()).not_kept
    assert read_photo(with_copies((8, 6)), FIRST).carried.left_out == ("reduced copies or masks: 1",)


def test_training_takes_one_image_from_a_file() -> None:
    data = tiff_of(smooth(), smooth().rotate(180))
    for work in (lambda: decode(data, channels=3, limits=LIMITS), lambda: decode_header(data, LIMITS)):
        with pytest.raises(BadImage, match="pages=first") as caught:
            work()
        assert caught.value.reason == "unsupported"
    assert np.array_equal(decode(data, channels=3, limits=FIRST), np.asarray(smooth()))


def test_formats_of_one_page_refuse_several() -> None:
    with pytest.raises(BadImage, match=r"read\.pages=first") as caught:
        write_photo(read(tiff_of(smooth(), smooth())), WriteSettings(format="png"))
    assert caught.value.reason == "unsupported"


def test_a_missing_page_is_never_passed_over() -> None:
    data = tiff_of(smooth(), smooth("L"), smooth())
    for length in range(len(data) // 2, len(data) - 1, 31):
        assert reason(data[:length]) == "truncated"
    assert read_photo(data[:-40], FIRST).pixels.shape == (24, 32, 3)


def test_pages_that_name_each_other_in_a_circle_are_read_once() -> None:
    data = bytearray(tiff_of(smooth(), smooth()))
    (first,) = struct.unpack_from("<L", data, 4)
    (second,) = struct.unpack_from("<L", data, first + 2 + 12 * struct.unpack_from("<H", data, first)[0])
    struct.pack_into("<L", data, second + 2 + 12 * struct.unpack_from("<H", data, second)[0], first)
    assert len(all_pages(read(bytes(data)))) == 2


def test_the_pixels_of_all_pages_are_limited_together() -> None:
    data = tiff_of(*[smooth()] * 5)
    assert reason(data, ReadLimits(max_pixels=5 * 32 * 24 - 1)) == "too-large"
    assert len(read_photo(data, ReadLimits(max_pixels=5 * 32 * 24)).pages) == 4
    assert read_photo(data, ReadLimits(max_pixels=32 * 24, pages="first")).pages == ()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused_or_give_their_first_frame(kind: str) -> None:
    frames = [smooth().rotate(90 * turn) for turn in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(BadImage, match="pages=first") as caught:
        read_photo(data, LIMITS)
    assert caught.value.reason == "unsupported"
    photo = read_photo(data, FIRST)
    assert np.array_equal(photo.pixels, np.asarray(smooth()))
    assert "frames after the first: 2" in photo.notes
    assert "frames after the first: 2" in photo.carried.left_out
    assert decode(data, channels=3, limits=FIRST).shape == (24, 32, 3)
