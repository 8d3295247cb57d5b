import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter

from genray.datasets.drawn.pages import draw_page
from genray.datasets.drawn.scenes import draw_scene
from genray.images.damage.change_limit import limit_change

Pixels = NDArray[np.uint8]


def with_noise(clean: Pixels, sigma: float, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def blurred(pixels: Pixels, width: float) -> Pixels:
    """What a poor denoiser makes: noise and details are gone."""
    return np.rint(gaussian_filter(pixels.astype(float), (width, width, 0))).astype(np.uint8)


def error(first: Pixels, second: Pixels) -> float:
    return float(np.sqrt(np.mean(np.square(first.astype(float) - second))))


@pytest.mark.parametrize("key", range(4))
def test_a_clean_page_that_a_denoiser_blurs_is_kept(key: int) -> None:
    page = draw_page(160, 200, (1, key))
    result = limit_change(page, blurred(page, 1.0), factor=1.5, most_noise=0.0)
    assert error(result.pixels, page) < 1.3, "at least 45 dB"
    assert result.refused > 0.5 or error(blurred(page, 1.0), page) < 1.5


@pytest.mark.parametrize("key", range(4))
def test_letters_are_kept_where_the_noise_between_them_is_taken_away(key: int) -> None:
    page = draw_page(160, 200, (2, key))
    noisy = with_noise(page, 6)
    smooth = blurred(noisy, 1.5)
    result = limit_change(noisy, smooth, factor=1.5, most_noise=8.0)
    made = noisy if result.refused > 0.5 else result.pixels  # as `denoise` does
    assert error(made, page) <= error(noisy, page), "not worse than leaving the page alone"
    assert error(result.pixels, page) < error(smooth, page)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [4, 20])
def test_noise_is_taken_away_whole(sigma: int, channels: int) -> None:
    clean = draw_scene(128, 160, (3, sigma))[..., :channels]
    noisy = with_noise(clean, sigma)
    perfect = limit_change(noisy, clean, factor=1.5, most_noise=1.3 * sigma)
    assert (perfect.pixels == clean).mean() > 0.99
    assert perfect.refused < 0.01


def test_a_texture_that_was_taken_for_strong_noise_is_kept() -> None:
    rng = np.random.default_rng(6)
    height, width = 192, 256
    blades = np.zeros((height, width, 3))
    blades[:, 90:] = rng.normal(0, 22, (height, width - 90, 1))  # a meadow, without colour
    stones = gaussian_filter(rng.normal(size=(height, width)), 5)
    path = 30 * stones / stones.std() * (np.arange(width) < 90)  # soft beside it, and no plain wall
    meadow = np.clip(120 + path[..., None] + blades + rng.normal(0, 1, (height, width, 3)), 0, 255)
    before = meadow.astype(np.uint8)
    after = blurred(before, 3)
    limited = limit_change(before, after, factor=1.5, most_noise=44)
    assert limited.refused > 0.5
    assert error(limited.pixels, before) < 0.3 * error(after, before)


def test_single_wrong_pixels_are_taken_away() -> None:
    clean = draw_scene(128, 128, (4,))
    rng = np.random.default_rng(0)
    wrong = rng.random(clean.shape[:2]) < 0.05
    noisy = clean.copy()
    noisy[wrong] = rng.integers(0, 2, (int(wrong.sum()), 1)) * 255
    result = limit_change(noisy, clean, factor=1.5)
    assert error(result.pixels, clean) < 0.3 * error(noisy, clean)


def test_noise_of_dark_places_only_is_taken_away_there() -> None:
    ramp = np.broadcast_to(np.linspace(20, 220, 256)[None, :, None], (128, 256, 1))
    noisy = np.clip(
        np.rint(ramp + np.random.default_rng(1).normal(0, 1, ramp.shape) * (255 - ramp) / 20), 0, 255
    )
    before, after = noisy.astype(np.uint8), np.rint(ramp).astype(np.uint8)
    result = limit_change(before, after, factor=1.5)
    assert error(result.pixels, after) < 0.5


def test_sixteen_bits_are_limited_as_eight_are() -> None:
    page = draw_page(96, 96, (5,))
    smooth = blurred(page, 1.0)
    eight = limit_change(page, smooth, factor=1.5, most_noise=0.0)
    sixteen = limit_change(
        page.astype(np.uint16) * 257, smooth.astype(np.uint16) * 257, factor=1.5, most_noise=0.0
    )
    assert sixteen.pixels.dtype == np.uint16
    assert sixteen.refused == pytest.approx(eight.refused, abs=1e-3)
    assert error(np.rint(sixteen.pixels / 257).astype(np.uint8), eight.pixels) < 0.3


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 50, 3), (50, 3, 1), (9, 9, 3)])
def test_every_size_can_be_limited(shape: tuple[int, int, int]) -> None:
    before = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    after = median_filter(before, (3, 3, 1))
    assert limit_change(before, after, factor=1.5).pixels.shape == shape


def test_an_unchanged_image_stays_as_it_is() -> None:
    scene = draw_scene(64, 64, (6,))
    result = limit_change(scene, scene.copy(), factor=1.5, most_noise=0.0)
    assert (result.pixels == scene).all()
    assert result.refused == 0
