from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genray.datasets.image_set import Images, Patch, SingleImageSource
from genray.datasets.layouts import FolderImages
from genray.io.bad_input import BadImage
from genray.io.store import open_store
from tests.conftest import write_images


def numbered(height: int, width: int) -> NDArray[np.uint8]:
    """An image of which no two pixels are alike."""
    return np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)


@pytest.fixture
def source(tmp_path: Path) -> SingleImageSource:
    """Images of 24 x 24, and one of 16 x 20."""
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "b", 1, size=(16, 20))
    store = open_store(tmp_path)
    origin = FolderImages(store, [entry.path for entry in store.list((".png",))])
    return SingleImageSource(Images(origin, np.array([3, 0, 1])), 1, None, None, 1, 1000)


def test_a_sample_is_the_image_that_its_index_stands_for(source: SingleImageSource) -> None:
    assert len(source) == 3
    assert [source.name(i) for i in range(3)] == ["b/000.png", "a/000.png", "a/001.png"]
    assert [source.load(i)[0].shape for i in range(3)] == [(16, 20, 1), (24, 24, 1), (24, 24, 1)]


def test_an_image_of_another_size_is_fitted_or_set_aside(source: SingleImageSource) -> None:
    for fit in ("crop", "stretch"):
        made = replace(source, size=(24, 24), fit=fit).load(0)[0]
        assert made.shape == (24, 24, 1)
    strict = replace(source, size=(24, 24))
    assert strict.load(1)[0].shape == (24, 24, 1)
    with pytest.raises(BadImage, match=r"20x16, the others are 24x24: set data\.size") as caught:
        strict.load(0)
    assert caught.value.reason == "odd-shape"


def test_an_image_smaller_than_a_patch_is_set_aside(source: SingleImageSource) -> None:
    patches = replace(source, least=17)
    assert patches.load(1)[0].shape == (24, 24, 1)
    with pytest.raises(BadImage, match="20x16 is smaller than 17 pixels"):
        patches.load(0)


def test_an_image_of_too_many_pixels_is_set_aside(source: SingleImageSource) -> None:
    with pytest.raises(BadImage, match="24x24 pixels, the limit is 400"):
        replace(source, max_pixels=400).load(1)


def test_a_patch_is_set_by_its_key_and_lies_in_the_image() -> None:
    image, patch = numbered(12, 15), Patch(8, "none")
    made = [patch(image, (0, 1, index))[0] for index in range(60)]
    assert np.array_equal(made[7], patch(image, (0, 1, 7))[0])
    corners = {divmod(int(part[0, 0, 0]), 15) for part in made}
    assert {top for top, _ in corners} == set(range(5)), "the first and the last place occur"
    assert {left for _, left in corners} == set(range(8))
    for part in made:
        top, left = divmod(int(part[0, 0, 0]), 15)
        assert np.array_equal(part, image[top : top + 8, left : left + 8])


@pytest.mark.parametrize(("flips", "ways"), [("none", 1), ("mirror", 2), ("all", 8)])
def test_flips_turn_a_patch_as_they_are_called(flips: str, ways: int) -> None:
    image = numbered(8, 8)
    made = {Patch(8, flips)(image, (0, 0, i))[0].tobytes() for i in range(100)}  # type: ignore[arg-type]
    assert len(made) == ways
    assert image.tobytes() in made
    assert (image[:, ::-1].tobytes() in made) == (flips != "none")
    assert (image[::-1].tobytes() in made) == (flips == "all"), "upside down"
