from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from genray.images.photo import Photo
from pipelines.engine.reporting.crops import CROP, draw_crops, encode_picture, find_places, hottest_place


def photo_of(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Photo:
    return Photo(pixels, alpha, "png")


def noise(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 190, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("factor", [1, 257])
@pytest.mark.parametrize("size", [(400, 900), (2600, 1500)])
def test_the_flattest_and_the_busiest_place_are_found(seed: int, factor: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    pixels = noise(seed, *size, channels=1 + 2 * (seed % 2))
    top, left = (int(rng.integers(0, side // 2 - 250 + 1)) if side > 500 else 0 for side in size)
    pixels[top : top + 250, left : left + 250] = 120
    lower, right = size[0] - 250, size[1] // 2
    pixels[lower : lower + 220, right : right + 220] = rng.choice([0, 255], (220, 220, 1))
    pixels[:40] = 255  # clipped: flatter, but with nothing to see
    photo = photo_of(pixels.astype(np.uint16) * factor if factor > 1 else pixels)
    flat, busy = find_places(photo)
    assert (flat.name, busy.name) == ("flattest", "busiest")
    assert max(top, 40) <= flat.row * size[0] <= top + 250
    assert left <= flat.column * size[1] <= left + 250
    assert lower <= busy.row * size[0] <= lower + 220
    assert right <= busy.column * size[1] <= right + 220
    drawn = draw_crops([photo], [flat, busy])
    assert drawn.shape == (2 * CROP + 6, CROP, 3)
    assert drawn.dtype == np.uint8


def test_an_image_without_any_texture_has_places_too() -> None:
    for level in (0, 130, 255):
        places = find_places(photo_of(np.full((300, 500, 1), level, np.uint8)))
        assert [each.name for each in places] == ["flattest", "busiest"]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (129, 10), (128, 128), (37, 3000)])
def test_odd_sizes_have_places(size: tuple[int, int]) -> None:
    photo = photo_of(noise(0, *size))
    drawn = draw_crops([photo, photo], find_places(photo))
    assert max(drawn.shape[:2]) <= 2 * CROP + 6


def test_images_of_different_sizes_and_kinds_are_shown_at_the_same_place() -> None:
    before = noise(1, 400, 600)
    after = photo_of(noise(2, 800, 1200, 1).astype(np.uint16) << 8)
    places = find_places(photo_of(before))
    drawn = draw_crops([photo_of(before), after], places)
    assert drawn.shape == (2 * CROP + 6, 2 * CROP + 6, 3)
    small = photo_of(noise(3, 20, 30))
    assert draw_crops([photo_of(before), small], places).shape == (2 * CROP + 6, CROP + 6 + 120, 3)


def test_transparency_is_shown_as_squares() -> None:
    alpha = np.zeros((CROP, CROP), np.uint8)
    alpha[:64] = 255
    drawn = draw_crops(
        [photo_of(np.full((CROP, CROP, 3), 9, np.uint8), alpha)], find_places(photo_of(noise(0, 9, 9)))
    )
    assert (drawn[:64] == 9).all()
    assert (drawn[64:72, :8] != drawn[64:72, 8:16]).all()
    assert set(np.unique(drawn[64:])) == {204, 255}


def test_the_hottest_place_of_a_heat_map_is_found() -> None:
    heat = np.zeros((300, 500, 3), np.uint8)
    heat[200, 100, 0] = 255
    place = hottest_place(photo_of(heat))
    assert (round(place.row * 300), round(place.column * 500)) == (200, 100)


def test_pictures_are_lossless_if_they_are_small_and_never_large() -> None:
    calm = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_picture(calm)))), calm)
    wild = np.random.default_rng(0).integers(0, 256, (262, 262, 3), dtype=np.uint8)
    data = encode_picture(wild)
    assert len(data) <= 85_000
    assert np.asarray(Image.open(io.BytesIO(data))).std() == pytest.approx(wild.std(), rel=0.1)
