import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from genray.images.decode import ImageHeader, decode, decode_header
from genray.io.bad_input import REASONS, BadImage
from tests.broken_files import encode

LIMIT = 10_000


def ramp(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    values = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[1], size[0])
    return Image.fromarray(values).convert(mode)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_format_gives_each_number_of_channels(kind: str, channels: int) -> None:
    image = decode(encode(ramp(), kind), channels=channels, max_pixels=LIMIT)
    assert image.shape == (16, 24, channels)
    assert image.dtype == np.uint8
    assert np.abs(image[..., 0].astype(int) - pixels(ramp("L"))).max() <= 12


def test_the_fast_jpeg_decoder_gives_pillows_pixels() -> None:
    data = encode(ramp(size=(64, 64)), "JPEG", quality=90)
    ours = decode(data, channels=3, max_pixels=LIMIT)
    assert np.array_equal(ours, pixels(Image.open(io.BytesIO(data))))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    data = encode(ramp(), "JPEG", exif=exif)
    assert decode_header(data) == ImageHeader(16, 24, is_gray=False)
    assert decode(data, channels=3, max_pixels=LIMIT).shape == (24, 16, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    image = decode(encode(Image.fromarray(values)), channels=1, max_pixels=LIMIT)
    assert np.array_equal(image[..., 0], (values >> 8).astype(np.uint8))


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(encode(clear), channels=3, max_pixels=LIMIT) == 255).all()
    assert (decode(encode(clear), channels=4, max_pixels=LIMIT)[..., 3] == 0).all()


@pytest.mark.parametrize("mode", ["P", "LA", "CMYK", "1"])
def test_odd_modes_are_converted(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(encode(ramp().convert(mode), kind), channels=3, max_pixels=LIMIT).shape == (16, 24, 3)


def bomb() -> bytes:
    return encode(Image.new("1", (4000, 4000)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"GIF89a not really", "unknown-format"),
        (b"plain text", "unknown-format"),
        (encode(ramp(size=(100, 90)))[:-60], "truncated"),
        (encode(ramp(size=(100, 90)), "JPEG")[:-300], "truncated"),
        (encode(ramp(size=(100, 90)), "WEBP")[:-60], "truncated"),
        (bomb(), "too-large"),
    ],
    ids=["empty", "wrong magic", "text", "png", "jpeg", "webp", "bomb"],
)
def test_what_cannot_be_used_has_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        decode(data, channels=3, max_pixels=LIMIT)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert caught.value.detail


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_any_cut_or_flipped_byte_is_a_bad_image_or_an_image(kind: str) -> None:
    data = encode(ramp(), kind)
    rng = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data[: rng.integers(1, len(data) + 1)])
        broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        try:
            assert decode(bytes(broken), channels=3, max_pixels=LIMIT).shape[2] == 3
        except BadImage as bad:
            assert bad.reason in REASONS
