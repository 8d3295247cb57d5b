from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from genray.images.pixels import crop_middle, fit_square, grid, resize, save_png, shown


def numbered(height: int, width: int) -> NDArray[np.uint8]:
    return np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)


def test_fitting_cuts_the_middle_or_stretches() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (fit_square(image, 10, "crop") == 200).all()
    stretched = fit_square(image, 10, "stretch")
    assert stretched.shape == (10, 10, 3)
    assert stretched[:, 0].max() < 20
    assert stretched[:, 5].min() > 180
    assert np.array_equal(fit_square(numbered(8, 8), 8, "crop"), numbered(8, 8))


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (1, 1)])
def test_even_a_line_is_fitted(shape: tuple[int, int]) -> None:
    for channels in (1, 3):
        assert fit_square(np.full((*shape, channels), 9, np.uint8), 16, "crop").shape == (16, 16, channels)


def test_the_middle_is_at_most_what_there_is() -> None:
    image = numbered(4, 7)
    assert crop_middle(image, 2)[:, :, 0].tolist() == [[9, 10], [16, 17]]
    assert crop_middle(image, 5).shape == (4, 5, 1)
    assert crop_middle(image, 99) is not None
    assert np.array_equal(crop_middle(image, 99), image)


def test_a_smaller_image_keeps_its_mean() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert resize(image, 8).mean() == pytest.approx(image.mean(), abs=2)


def test_a_grid_shows_gray_and_colour_side_by_side(tmp_path: Path) -> None:
    gray, red = np.full((8, 8, 1), 7, np.uint8), np.full((8, 8, 3), (255, 0, 0), np.uint8)
    picture = grid([[gray, red], [red, gray]], gap=2)
    assert picture.shape == (22, 22, 3)
    assert picture[2, 2].tolist() == [7, 7, 7]
    assert picture[2, 12].tolist() == [255, 0, 0]
    assert picture[0, 0].tolist() == [255, 255, 255]
    titled = grid([[gray, red]], ["one", "two"], gap=2)
    assert titled.shape[0] == 28
    assert (titled[:16] < 128).any(), "the titles are drawn"
    save_png(tmp_path / "grid.png", titled)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), titled)


@pytest.mark.parametrize("size", [16, 64, 128])
def test_headings_never_reach_the_next_column(size: int) -> None:
    tile = np.zeros((size, size, 3), np.uint8)
    drawn = grid([[tile, tile, tile]], ["the worst: input", "generated", "target"])
    ink = np.flatnonzero((drawn[:16] < 128).any(axis=(0, 2)))
    lefts = [
        c for c in range(drawn.shape[1]) if not drawn[24, c].any() and (c == 0 or drawn[24, c - 1].any())
    ]
    assert len(lefts) == 3
    for left in lefts[1:]:
        assert not ({left - 1, left - 2, left - 3} & set(ink)), "there is a gap before each heading"


def test_transparent_pixels_show_a_checkerboard() -> None:
    image = np.full((32, 32, 4), 50, np.uint8)
    image[..., 3] = 0
    image[:, 16:, 3] = 255
    seen = shown(image)
    assert seen.shape == (32, 32, 3)
    assert set(np.unique(seen[:, :16])) == {204, 255}
    assert (seen[:, 16:] == 50).all()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_can_be_shown(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, channels)).astype(np.uint8)
    assert np.array_equal(shown(image)[..., 0], image[..., 0])
    assert grid([[image]]).shape == (16, 16, 3)
