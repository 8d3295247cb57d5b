import io
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from genray.datasets.drawn.graphics import draw_graphic
from genray.datasets.drawn.pages import draw_page
from genray.datasets.drawn.scenes import draw_scene
from genray.images.damage.corruptions import NoiseSettings, corrupt
from genray.images.damage.noise_level import estimate_noise

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


def level(pixels: Pixels) -> float:
    return estimate_noise(pixels).level


def ratios(sigma: float, channels: int = 3, **more: float) -> NDArray[np.float64]:
    """Estimates over the truth, on drawn scenes with noise of a kind."""
    found = []
    for key in range(8):
        clean = draw_scene(192, 192, (11, key))[..., :channels]
        settings = NoiseSettings.model_validate({"sigma": sigma, "clip": True, **more})
        images = torch.tensor(clean).permute(2, 0, 1)[None].float() / 255
        noisy = corrupt(images, settings, torch.Generator().manual_seed(key))[0].permute(1, 2, 0)
        pixels = noisy.clamp(0, 1).mul(255).round().byte().numpy()
        if (pixels != clean).any():  # a few stay clean
            found.append(level(pixels) / np.sqrt(np.mean(np.square(pixels.astype(float) - clean))))
    return np.array(found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [2, 5, 15, 25])
def test_noise_is_measured_beside_texture_and_borders(sigma: float, channels: int) -> None:
    assert level(with_noise(scene(channels=channels), sigma)) == pytest.approx(sigma, rel=0.3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [3, 12, 40])
def test_white_noise_is_measured_on_scenes(sigma: float, channels: int) -> None:
    found = ratios(sigma, channels)
    assert np.median(found) == pytest.approx(1, abs=0.2)
    assert found.min() > 0.4


@pytest.mark.parametrize(("sigma", "width"), [(5, 0.7), (12, 1.2)])
def test_noise_that_was_blurred_is_measured(sigma: float, width: float) -> None:
    found = ratios(sigma, correlation=width)
    assert 0.6 < np.median(found) < 1.3


def test_the_noise_of_cameras_is_found() -> None:
    found = ratios(6, kind="camera") * 6  # type: ignore[arg-type]
    assert np.median(found) > 3
    assert (found > 1).mean() > 0.8


@pytest.mark.parametrize("quality", [88, 95])
def test_the_noise_of_cameras_survives_jpeg(quality: int) -> None:
    rng = np.random.default_rng(3)
    blotches = gaussian_filter(rng.normal(size=(256, 256, 3)), (0.8, 0.8, 0))
    ramp = np.broadcast_to(np.linspace(60, 190, 256)[None, :, None], blotches.shape)
    noisy = np.clip(np.rint(ramp + 6 * blotches / blotches.std()), 0, 255).astype(np.uint8)
    assert level(as_jpeg(noisy, quality)) > 2


@pytest.mark.parametrize("sigma", [50, 75])
def test_strong_noise_is_measured_although_pixels_are_clipped(sigma: float) -> None:
    assert level(with_noise(np.full((256, 256, 3), 120.0), sigma)) == pytest.approx(sigma, rel=0.35)


def test_a_smooth_image_has_none() -> None:
    smooth = scene()[:, :160]
    assert level(with_noise(smooth, 0)) < 1
    assert level(as_jpeg(with_noise(smooth, 0))) < 1


@pytest.mark.parametrize(("ground", "ink"), [("white", "black"), ("#cccccc", "#222255"), ("black", "yellow")])
def test_graphics_have_none(ground: str, ink: str) -> None:
    estimate = estimate_noise(page(ground, ink))
    assert (estimate.level, estimate.kind, estimate.graphic) == (0, "none", 1)


def test_of_clean_images_nearly_all_have_none() -> None:
    drawn = [
        *(draw_page(192, 192, (12, key)) for key in range(10)),
        *(draw_graphic(192, 192, (12, key)) for key in range(10)),
        *(draw_scene(192, 192, (12, key)) for key in range(20)),
    ]
    levels = np.array([level(pixels) for pixels in drawn])
    assert (levels < 1).mean() > 0.7
    assert np.quantile(levels, 0.9) < 4


def test_halftones_have_none() -> None:
    rows, columns = np.mgrid[:192, :192]
    dots = np.sin(rows * 1.3) + np.sin(columns * 1.3) > 1.5 * np.sin(columns / 40)
    assert level(np.repeat(np.uint8(255 * dots)[..., None], 3, axis=2)) < 1


@pytest.mark.parametrize("slope", [0.7, 1.0, 1.5])
def test_a_texture_that_fills_the_image_has_none(slope: float) -> None:
    texture = with_noise(120 + 25 * field(np.random.default_rng(1), (384, 256), slope), 0)
    assert (level(texture), level(as_jpeg(texture))) == (0, 0)


@pytest.mark.parametrize("width", [0.0, 0.7, 1.5])
def test_noise_that_fills_the_image_is_no_texture(width: float) -> None:
    rng = np.random.default_rng(2)
    grain = gaussian_filter(rng.normal(size=(256, 256)), width) if width else rng.normal(size=(256, 256))
    assert level(with_noise(120 + 12 * (grain / grain.std())[..., None].repeat(3, 2), 0)) > 2


def field(rng: np.random.Generator, shape: tuple[int, int], slope: float) -> NDArray[np.float64]:
    """(H, W, 3): gray levels with an amplitude of 1/frequency**slope and a variance of 1."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    spectrum = np.fft.rfft2(rng.normal(size=shape)) * (frequency + 1 / max(shape)) ** -slope
    values = np.fft.irfft2(spectrum, shape)
    return np.repeat((values / values.std())[..., None], 3, axis=2)


def test_a_page_saved_as_jpeg_has_none() -> None:
    assert level(as_jpeg(page("white", "black"))) < 1


def test_pages_are_told_from_scenes() -> None:
    pages = [estimate_noise(draw_page(256, 256, (13, key))).graphic for key in range(10)]
    scenes = [estimate_noise(draw_scene(256, 256, (13, key))).graphic for key in range(10)]
    assert np.median(pages) > 0.9
    assert np.median(scenes) < 0.2


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_has_none(value: int) -> None:
    assert level(np.full((40, 40, 3), value, np.uint8)) == 0


@pytest.mark.parametrize("height", [96, 100, 106, 110])
def test_noise_is_measured_beside_flat_areas_of_any_colour(height: int) -> None:
    pixels = with_noise(np.full((256, 256, 3), 128.0), 10)
    pixels[:height], pixels[:, :60] = 33, 255
    assert level(pixels) == pytest.approx(10, rel=0.35)


def test_kinds_are_told_apart() -> None:
    flat = np.full((256, 256, 3), 128.0)
    assert estimate_noise(with_noise(flat, 10)).kind == "white"
    rng = np.random.default_rng(4)
    gray = gaussian_filter(rng.normal(size=(256, 256, 1)), (1.2, 1.2, 0))
    assert estimate_noise(np.uint8(np.clip(flat + 8 * gray / gray.std(), 0, 255))).kind == "coarse"
    colours = gaussian_filter(rng.normal(size=(256, 256, 3)), (1, 1, 0))
    colours -= colours.mean(axis=2, keepdims=True)
    assert estimate_noise(np.uint8(np.clip(flat + 8 * colours / colours.std(), 0, 255))).kind == "chroma"
    rough = [estimate_noise(as_jpeg(draw_scene(256, 256, (14, key)), 15)) for key in range(8)]
    assert "blocks" in [estimate.kind for estimate in rough]


def test_sixteen_bits_have_the_same_level_as_eight() -> None:
    noise = np.random.default_rng(1).normal(0, 4, (128, 128, 1))
    eight = np.rint(100 + noise).astype(np.uint8)
    assert level(eight.astype(np.uint16) * 257) == pytest.approx(level(eight), rel=1e-3)


def test_a_large_image_is_sampled_and_gives_the_same() -> None:
    tile = with_noise(np.full((256, 256, 1), 100.0), 6)
    assert level(np.tile(tile, (8, 9, 1))) == pytest.approx(6, rel=0.3)
    assert level(np.tile(tile[:20], (1, 200, 1))) == pytest.approx(6, rel=0.3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 500, 3), (500, 7, 1)])
def test_of_tiny_images_nothing_can_be_measured(shape: tuple[int, int, int]) -> None:
    assert math.isnan(level(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 15, 3), (17, 33, 4), (31, 8, 1), (16, 16, 2)])
def test_small_and_odd_sizes_are_measured(shape: tuple[int, int, int]) -> None:
    assert 1.5 < level(with_noise(np.full(shape, 128.0), 10)) < 20


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 1), np.float32)])
def test_another_shape_or_type_is_refused(wrong: Pixels) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        estimate_noise(wrong)
