from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from genray.datasets.drawn.drawing import DrawnKind, DrawnShare, draw_image
from genray.datasets.drawn.textures import COUNT, SIDE, textures
from genray.datasets.image_set import Images, ImageSet, ImageSetSettings, open_image_set
from genray.images.limits import ReadLimits
from tests.conftest import write_images

KINDS: tuple[DrawnKind, ...] = ("scenes", "pages")


def opened(**more: object) -> ImageSet:
    return open_image_set(ImageSetSettings.model_validate({"drawn": 1.0, **more}), 0)


def pixels(images: Images, place: int) -> NDArray[np.uint8]:
    return images.stored.pixels(int(images.indices[place]), 3, ReadLimits())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 64, 3), (33, 95, 1), (8, 8, 3)])
def test_images_of_any_shape_are_the_same_for_the_same_key_only(
    kind: DrawnKind, shape: tuple[int, int, int]
) -> None:
    image = draw_image(kind, shape, (1, 2))
    assert image.shape == shape
    assert image.dtype == np.uint8
    assert np.array_equal(image, draw_image(kind, shape, (1, 2)))
    others = [draw_image(kind, shape, (1, key)) for key in range(3, 13)]
    assert any(not np.array_equal(image, other) for other in others)


def test_scenes_differ_in_brightness_contrast_and_colour() -> None:
    scenes = np.stack([draw_image("scenes", (64, 64, 3), (7, key)) for key in range(60)]).astype(float)
    brightness = scenes.mean(axis=(1, 2, 3))
    contrast = scenes.std(axis=(1, 2, 3))
    colour = np.abs(scenes[..., 0] - scenes[..., 2]).mean(axis=(1, 2))
    assert brightness.min() < 60 < 150 < brightness.max()
    assert contrast.min() < 20 < 60 < contrast.max()
    assert (colour == 0).sum() in range(2, 25)  # gray scenes
    assert np.median(colour[colour > 0]) > 10


def test_the_spectrum_of_scenes_falls_as_that_of_photographs() -> None:
    """The amplitude falls with the frequency f as 1/f**a, with a between 0.8 and 1.6."""
    scenes = [draw_image("scenes", (128, 128, 1), (8, key))[..., 0].astype(float) for key in range(40)]
    power = np.mean([np.abs(np.fft.fft2(scene - scene.mean())) ** 2 for scene in scenes], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    bands = [
        power[(frequency >= low) & (frequency < high)].mean()
        for low, high in pairwise((0.02, 0.04, 0.08, 0.16, 0.32))
    ]
    slopes = [np.log2(before / after) / 2 for before, after in pairwise(bands)]
    assert all(0.8 < slope < 1.8 for slope in slopes), slopes


def test_pages_are_mostly_paper_with_ink_on_it() -> None:
    pages = np.stack([draw_image("pages", (96, 96, 1), (9, key)) for key in range(40)])
    middle = np.median(pages, axis=(1, 2, 3))
    assert (middle > 180).mean() > 0.7
    assert (pages.min(axis=(1, 2, 3)) < middle - 60).mean() > 0.8


def test_textures_tile_and_are_normalised() -> None:
    bank = textures()
    assert bank.shape == (COUNT, SIDE, SIDE)
    assert np.abs(bank.mean(axis=(1, 2))).max() < 0.2
    assert bank.std(axis=(1, 2)).min() > 0.8
    inside = np.abs(np.diff(bank, axis=1)).mean(axis=(1, 2))
    around = np.abs(bank[:, 0] - bank[:, -1]).mean(axis=1)
    assert (around < 3 * inside).all()


def test_a_share_of_the_variants_is_drawn() -> None:
    drawn = DrawnShare(0.3, "pages", (8, 8, 3))
    count = sum(drawn.draw((0, 0, index)) is not None for index in range(300))
    assert 60 < count < 120
    assert DrawnShare(1.0, "pages", (8, 8, 3)).draw((0, 0, 0)) is not None


def test_a_set_without_folder_is_split_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    found = opened(path=str(tmp_path / "missing"), drawn_images=20, drawn_size=32, val_share=0.25)
    assert (len(found.train), len(found.val), found.test) == (15, 5, None)
    assert pixels(found.val, 0).shape == (32, 32, 3)
    again = opened(drawn_images=20, drawn_size=32, val_share=0.25)
    assert np.array_equal(pixels(found.val, 0), pixels(again.val, 0))
    assert "drawn" in found.split
    assert found.without_shared(allowed=False) == (found, [])


def test_drawn_sets_are_judged_on_real_images_if_there_are_some(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    found = opened(test=str(tmp_path), drawn_images=10)
    assert found.test is not None
    assert len(found.test) == 3


def test_a_download_beside_drawn_images_is_refused() -> None:
    with pytest.raises(ValidationError, match="download has no use with drawn=1"):
        ImageSetSettings(drawn=1.0, download="mnist")
