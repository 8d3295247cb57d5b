import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from genray.datasets.drawn.scenes import draw_scene
from genray.images.damage.block_filters import refine, undo_rounding
from genray.images.encoders.jpeg import natural_order
from genray.images.limits import ReadLimits
from genray.images.photo import Photo, read_photo


def decibels(image: np.ndarray, clean: np.ndarray) -> float:
    white = np.iinfo(clean.dtype).max
    return float(10 * np.log10(white**2 / np.square(image.astype(float) - clean).mean()))


def as_jpeg(pixels: np.ndarray, **options: object) -> Photo:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", **options)
    return read_photo(file.getvalue(), ReadLimits())


def unrounded(photo: Photo) -> np.ndarray:
    tables = [np.array(natural_order(table), np.uint8).reshape(8, 8) for table in photo.carried.tables]
    return undo_rounding(photo.pixels, tables, photo.subsampling)


def seams(image: np.ndarray) -> float:
    """Steps between columns at the borders of a JPEG's blocks, over steps elsewhere."""
    steps = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=(0, 2))
    borders = np.arange(len(steps)) % 8 == 7
    return float(steps[borders].mean() / steps[~borders].mean())


@pytest.mark.parametrize(
    ("quality", "subsampling", "channels"),
    [(25, "4:2:0", 3), (45, "4:4:4", 3), (60, "4:2:2", 3), (35, "4:2:0", 1)],
)
def test_what_a_jpeg_rounded_away_comes_back_and_its_blocks_go(
    quality: int, subsampling: str, channels: int
) -> None:
    clean = draw_scene(203, 269, (quality,))[..., :channels]
    photo = as_jpeg(clean, quality=quality, subsampling=subsampling)
    made = unrounded(photo)
    assert made.shape == photo.pixels.shape
    assert decibels(made, clean) > decibels(photo.pixels, clean) + 0.4
    assert abs(seams(made) - seams(clean)) < abs(seams(photo.pixels) - seams(clean)) / 2


def test_a_file_that_is_turned_by_its_exif_is_filtered_as_the_one_that_is_not() -> None:
    clean = draw_scene(160, 96, (5,))
    sideways = Image.Exif()
    sideways[0x0112] = 6
    turned = as_jpeg(np.rot90(clean).copy(), quality=30, subsampling="4:2:2", exif=sideways)
    assert turned.pixels.shape == clean.shape
    assert turned.subsampling == "4:4:0"
    back = as_jpeg(np.rot90(clean).copy(), quality=30, subsampling="4:2:2")
    assert np.abs(unrounded(turned).astype(int) - np.rot90(unrounded(back), -1)).max() <= 1


def test_a_jpeg_of_red_green_and_blue_has_no_tables_of_luma_and_chroma() -> None:
    clean = draw_scene(64, 64, (6,))
    assert as_jpeg(clean, quality=30).carried.tables
    assert not as_jpeg(clean, quality=30, keep_rgb=True).carried.tables


@pytest.mark.parametrize("strength", [6, 20])
@pytest.mark.parametrize("kind", ["smooth", "gray", "deep"])
def test_a_denoiser_that_smooths_too_much_gets_its_details_back(strength: int, kind: str) -> None:
    rng = np.random.default_rng(strength)
    scale = 257 if kind == "deep" else 1
    clean = draw_scene(180, 220, (7,))[..., : 1 if kind == "gray" else 3].astype(np.uint16) * scale
    white = 255 * scale
    noisy = (clean + rng.normal(0, strength * scale, clean.shape)).clip(0, white).round()
    smoothed = gaussian_filter(noisy, (1.2, 1.2, 0)).round()
    kept = np.uint16 if kind == "deep" else np.uint8
    made = refine(noisy.astype(kept), smoothed.astype(kept))
    before, after = (decibels(image, clean.astype(kept)) for image in (smoothed, made))
    assert after > before + 1
    assert after > decibels(noisy, clean.astype(kept)) + 1


def test_tall_images_are_filtered_in_bands_without_a_seam() -> None:
    rng = np.random.default_rng(8)
    strip = (
        (rng.normal(120, 15, (700, 24, 1)) + np.linspace(0, 60, 24)[:, None]).clip(0, 255).astype(np.uint8)
    )
    smoothed = gaussian_filter(strip, (2, 2, 0))
    whole, part = refine(strip, smoothed), refine(strip[400:], smoothed[400:])
    # The noise is measured on all rows, so that the parts are close and not equal; a seam would be visible.
    inside = np.abs(whole[420:].astype(int) - part[20:])
    assert inside[80:110].mean() < 2 * inside.mean() + 0.5
    assert whole.shape == strip.shape


def test_a_training_in_bf16_refines_as_any_other() -> None:
    noisy = draw_scene(40, 40, (1,)).astype(np.float32) + np.random.default_rng(0).normal(0, 8, (40, 40, 3))
    before = noisy.clip(0, 255).astype(np.uint8)
    after = gaussian_filter(before, (1, 1, 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = refine(before, after)
    assert (made == refine(before, after)).all()


def test_tiny_and_flat_images_pass() -> None:
    for shape in ((1, 1, 3), (9, 2, 1), (8, 8, 3)):
        flat = np.full(shape, 77, np.uint8)
        assert (refine(flat, flat) == flat).all()
        tables = [np.full((8, 8), 40, np.uint8)] * 2
        assert (undo_rounding(flat, tables, "4:2:0") == flat).all()
