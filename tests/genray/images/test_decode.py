import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from genray.images.decode import ImageHeader, decode, decode_header
from genray.images.limits import ReadLimits
from genray.io.bad_input import REASONS, BadImage
from tests.broken_files import encode

LIMITS = ReadLimits(max_pixels=10_000)


def ramp(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    values = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[1], size[0])
    return Image.fromarray(values).convert(mode)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_format_gives_each_number_of_channels(kind: str, channels: int) -> None:
    image = decode(encode(ramp(), kind), channels=channels, limits=LIMITS)
    assert image.shape == (16, 24, channels)
    assert image.dtype == np.uint8
    assert np.abs(image[..., 0].astype(int) - pixels(ramp("L"))).max() <= 12


def noisy(mode: str) -> Image.Image:
    """An image of 49x64 pixels, no two of them alike; of "LA" and "RGBA" no two are alike in alpha either."""
    drawn = np.random.default_rng(0).normal(0, 12, (64, 49, 4)) + np.arange(49)[:, None] * 3 + 50
    rgba = Image.fromarray(drawn.clip(0, 255).astype(np.uint8))
    return rgba.convert(mode) if mode.endswith("A") else rgba.convert("RGB").convert(mode)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_pillow(data: bytes, channels: int) -> NDArray[np.uint8]:
    """What training was given before it read through the one reader."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG" and channels == 1 and image.getexif().get(0x0112, 1) == 1:
            image.draft("L", image.size)  # the brightness that is stored
        upright = ImageOps.exif_transpose(image)
    if channels < 4 and (upright.mode in ("LA", "RGBA") or "transparency" in upright.info):
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return pixels(upright.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])).reshape(
        *upright.size[::-1], channels
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "P", {"transparency": bytes(range(256))}),
        ("PNG", "RGB", {"exif": turned(8)}),
        *(("JPEG", "RGB", {"subsampling": sampling, "quality": 90}) for sampling in (0, 1, 2)),
        *(("JPEG", mode, {"progressive": True}) for mode in ("L", "RGB")),
        *(("JPEG", "RGB", {"exif": turned(orientation)}) for orientation in range(1, 9)),
        *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (False, True)),
        ("WEBP", "RGB", {"exif": turned(6)}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ],
)
def test_what_is_trained_on_is_pillows_pixels(
    kind: str, mode: str, options: dict[str, Any], channels: int
) -> None:
    data = encode(noisy(mode), kind, **options)
    assert np.array_equal(decode(data, channels=channels, limits=LIMITS), with_pillow(data, channels))


def test_exif_orientation_is_applied() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encode(ramp(), kind, exif=turned(6))  # by 90 degrees
        assert decode_header(data) == ImageHeader(16, 24, channels=3)
        assert decode(data, channels=3, limits=LIMITS).shape == (24, 16, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    image = decode(encode(Image.fromarray(values)), channels=1, limits=LIMITS)
    assert np.array_equal(image[..., 0], (values >> 8).astype(np.uint8))


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(encode(clear), channels=3, limits=LIMITS) == 255).all()
    assert (decode(encode(clear), channels=4, limits=LIMITS)[..., 3] == 0).all()


@pytest.mark.parametrize("mode", ["P", "LA", "CMYK", "1"])
def test_odd_modes_are_converted(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(encode(ramp().convert(mode), kind), channels=3, limits=LIMITS).shape == (16, 24, 3)


def bomb() -> bytes:
    return encode(Image.new("1", (4000, 4000)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"8BPS not really", "unsupported"),
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
        decode(data, channels=3, limits=LIMITS)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert caught.value.detail
