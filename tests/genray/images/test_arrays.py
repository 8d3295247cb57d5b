"""NumPy arrays, floats and any number of channels."""

import io

import imagecodecs
import numpy as np
import pytest

from genray.images.decode import decode, decode_header, decode_levels
from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.io.bad_input import BadImage

LIMITS = ReadLimits(max_pixels=10_000)


def npy(values: np.ndarray, **how: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **how)
    return stream.getvalue()


def levels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((20, 30), (20, 30, 1)),
        ((20, 30, 3), (20, 30, 3)),
        ((5, 20, 30), (20, 30, 5)),
        ((64, 64, 64), (64, 64, 64)),
    ],
)
def test_channels_are_the_last_axis_if_it_is_short_else_the_first(
    shape: tuple[int, ...], seen: tuple[int, int, int]
) -> None:
    values = levels(*shape)
    header = decode_header(npy(values), LIMITS)
    assert (header.height, header.width, header.channels) == seen
    read = decode_levels(npy(values), LIMITS)
    assert np.array_equal(read, np.moveaxis(values, 0, -1) if shape == (5, 20, 30) else values.reshape(seen))
    assert np.array_equal(decode(npy(np.asfortranarray(values)), channels=seen[2], limits=LIMITS), read)


@pytest.mark.parametrize("make", [npy, imagecodecs.tiff_encode], ids=["npy", "tiff"])
def test_floats_need_a_window_unless_they_are_within_0_and_1(make: object) -> None:
    values = np.linspace(-3, 5, 600, dtype=np.float32).reshape(20, 30)
    data = make(values)  # type: ignore[operator]
    with pytest.raises(BadImage, match=r"numbers from -3 to 5, .* with a window"):
        decode(data, channels=1, limits=LIMITS)
    seen = decode(data, channels=1, limits=LIMITS, window=(-1, 3))[..., 0]
    assert np.array_equal(seen, np.rint((values.clip(-1, 3) + 1) * (255 / 4)))
    assert read_photo(data, LIMITS, levels=True).pixels.dtype == np.float32
    with pytest.raises(BadImage, match="numbers from -3"):
        read_photo(data, LIMITS)
    within = make((values + 3) / 8)  # type: ignore[operator]
    assert read_photo(within, LIMITS).pixels.dtype == np.uint16
    assert decode(within, channels=1, limits=LIMITS)[-1, -1] == 255


def test_signed_and_wide_numbers_are_levels_of_a_window() -> None:
    values = levels(20, 30, dtype=np.int16) - 100
    for data in (npy(values), imagecodecs.tiff_encode(values), npy(values.astype(np.int64))):
        seen = decode(data, channels=1, limits=LIMITS, window=(-100, 99))[..., 0]
        assert np.array_equal(seen, np.rint((values + 100.0) * (255 / 199)))


def test_bands_are_taken_as_they_are_or_refused_with_the_setting() -> None:
    values = levels(20, 30, 5)
    for data in (
        npy(values),
        imagecodecs.tiff_encode(values, photometric="rgb"),
    ):
        assert decode_header(data).channels == 5
        assert np.array_equal(decode(data, channels=5, limits=LIMITS), values)
        with pytest.raises(BadImage, match=r"5 channels, 3 are wanted: set data.channels"):
            decode(data, channels=3, limits=LIMITS)
        with pytest.raises(BadImage, match="5 channels, which are no colours"):
            read_photo(data, LIMITS)
        assert read_photo(data, LIMITS, levels=True).pixels.shape == (20, 30, 5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy(np.zeros(7)), "unsupported"),
        (npy(np.zeros((80, 90, 70))), "unsupported"),
        (npy(np.array([["a", "b"]])), "unsupported"),
        (npy(np.full((9, 9), np.nan)), "unsupported"),
        (npy(levels(20, 30))[:-5], "truncated"),
        (npy(levels(200, 300)), "too-large"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "truncated"),
    ],
)
def test_arrays_that_are_no_images_have_their_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        decode(data, channels=1, limits=LIMITS)
    assert caught.value.reason == reason


def test_pickled_objects_are_never_loaded() -> None:
    data = npy(np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(BadImage, match="not of numbers"):
        decode(data, channels=1, limits=LIMITS)
