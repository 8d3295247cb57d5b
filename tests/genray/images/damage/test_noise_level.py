import io
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from genray.images.damage.noise_level import noise_level

Pixels = NDArray[np.uint8]


def with_noise(clean: NDArray[np.float64], sigma: float) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def scene(height: int = 256, width: int = 320, channels: int = 3) -> NDArray[np.float64]:
    """A ramp, with waves too fine to be told from noise on its right half and a black bar at its foot."""
    rows, columns = np.mgrid[:height, :width]
    scene = 90.0 + 60 * columns / width + 20 * np.sin(rows / 40)
    scene += np.where(columns > width / 2, 30 * np.sin(2.1 * columns + 1.7 * rows), 0)
    scene[-height // 8 :] = 0
    return np.repeat(scene[..., None], channels, axis=2)


def as_jpeg(pixels: Pixels, quality: int = 90) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def page(ground: str, ink: str) -> Pixels:
    image = Image.new("RGB", (400, 300), ground)
    draw = ImageDraw.Draw(image)
    for top in range(0, 300, 30):
        draw.text((5, top), "The quick brown fox jumps over it", fill=ink, font=ImageFont.load_default(20))
    return np.asarray(image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0.5, 1, 2, 5, 15, 25])
def test_noise_is_measured_beside_texture_and_borders(sigma: float, channels: int) -> None:
    assert noise_level(with_noise(scene(channels=channels), sigma)) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [50, 75])
def test_strong_noise_is_measured_although_pixels_are_clipped(sigma: float) -> None:
    assert noise_level(with_noise(np.full((256, 256, 3), 120.0), sigma)) == pytest.approx(sigma, rel=0.15)


def test_a_smooth_image_has_none() -> None:
    smooth = scene()[:, :160]
    assert noise_level(with_noise(smooth, 0)) < 0.3
    assert noise_level(as_jpeg(with_noise(smooth, 0))) < 0.3


@pytest.mark.parametrize(("ground", "ink"), [("white", "black"), ("#cccccc", "#222255"), ("black", "yellow")])
def test_graphics_have_none(ground: str, ink: str) -> None:
    assert noise_level(page(ground, ink)) == 0


def test_a_page_saved_as_jpeg_has_none() -> None:
    assert noise_level(as_jpeg(page("white", "black"))) == 0


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_has_none(value: int) -> None:
    assert noise_level(np.full((40, 40, 3), value, np.uint8)) == 0


@pytest.mark.parametrize("height", [96, 100, 106, 110])
def test_noise_is_measured_beside_flat_areas_of_any_colour(height: int) -> None:
    pixels = with_noise(np.full((256, 256, 3), 128.0), 10)
    pixels[:height], pixels[:, :60] = 33, 255
    assert noise_level(pixels) == pytest.approx(10, rel=0.1)


def test_what_jpeg_leaves_of_the_noise_is_measured() -> None:
    clean = scene()[:, :160]
    left = as_jpeg(with_noise(clean, 15))
    remains = np.std(left[:200].astype(float) - clean[:200])
    assert noise_level(left) == pytest.approx(remains, rel=0.15)


def test_sixteen_bits_have_the_same_level_as_eight() -> None:
    noise = np.random.default_rng(1).normal(0, 4, (128, 128, 1))
    assert noise_level(((100 + noise) * 257).astype(np.uint16)) == pytest.approx(4, rel=0.1)


def test_a_large_image_is_sampled_and_gives_the_same() -> None:
    tile = with_noise(np.full((256, 256, 1), 100.0), 6)
    assert noise_level(np.tile(tile, (8, 9, 1))) == pytest.approx(6, rel=0.1)
    assert noise_level(np.tile(tile[:20], (1, 200, 1))) == pytest.approx(6, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 500, 3), (500, 7, 1)])
def test_of_tiny_images_nothing_can_be_measured(shape: tuple[int, int, int]) -> None:
    assert math.isnan(noise_level(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 15, 3), (17, 33, 4), (31, 8, 1)])
def test_small_and_odd_sizes_are_measured(shape: tuple[int, int, int]) -> None:
    assert noise_level(with_noise(np.full(shape, 128.0), 10)) == pytest.approx(10, rel=0.35)


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 1), np.float32)])
def test_another_shape_or_type_is_refused(wrong: Pixels) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        noise_level(wrong)
