from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genray.images.pixels import grid, save_png
from genray.images.tensors import to_network, to_pixels


def test_pixels_survive_the_way_to_the_network_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    tensor = to_network(images)
    assert tensor.shape == (1, 1, 16, 16)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    assert np.array_equal(to_pixels(tensor), images)


def test_values_out_of_range_are_clamped() -> None:
    assert to_pixels(torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_a_grid_shows_gray_and_colour_side_by_side(tmp_path: Path) -> None:
    gray, red = np.full((8, 8, 1), 7, np.uint8), np.full((8, 8, 3), (255, 0, 0), np.uint8)
    picture = grid([[gray, red], [red, gray]], gap=2)
    assert picture.shape == (22, 22, 3)
    assert picture[2, 2].tolist() == [7, 7, 7]
    assert picture[2, 12].tolist() == [255, 0, 0]
    assert picture[0, 0].tolist() == [255, 255, 255]
    titled = grid([[gray, red]], ["one", "two"], gap=2)
    assert titled.shape == (28, 22, 3)
    assert (titled[:16] < 128).any(), "the titles are drawn"
    save_png(tmp_path / "grid.png", titled)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), titled)
