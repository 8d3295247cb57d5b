from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.datasets.image_set import ImageSet, ImageSetSettings, open_image_set
from genray.datasets.pairs.pair_set import Pairs, find_pairs
from genray.datasets.pairs.settings import PairedSettings
from genray.errors import DataError
from genray.io.listing import find_place
from genray.io.store import open_store


def noise(seed: int, *, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8)


def save(root: Path, name: str, image: np.ndarray) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def images(root: Path) -> ImageSet:
    return open_image_set(ImageSetSettings(path=str(root)), seed=0)


def pairs(root: Path) -> Pairs:
    settings = PairedSettings(path=str(root), size=64)
    return find_pairs(find_place(root), settings, 0)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train/a.png", "train/b.png", "val/c.png", "test/d.png")):
        save(tmp_path, name, noise(seed))
    return tmp_path


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_image_on_both_sides_of_a_split_is_refused_unless_it_is_allowed(parts: Path, part: str) -> None:
    assert images(parts).without_shared(allowed=False)[1] == []
    save(parts, f"{part}/copy.png", noise(1))
    message = (
        rf"1 of 2 images of the part {part} are also trained on, such as {part}/copy.png, which is train/b"
    )
    with pytest.raises(DataError, match=message) as refused:
        images(parts).without_shared(allowed=False)
    assert "data.allow_shared=true" in refused.value.hint
    assert images(parts).without_shared(allowed=True)[1] == []


def test_images_of_equal_names_that_look_alike_are_warned_of(parts: Path) -> None:
    save(parts, "train/same.png", noise(9))
    save(parts, "val/same.png", np.clip(noise(9).astype(int) + 1, 0, 255).astype(np.uint8))
    save(parts, "val/a.png", noise(8))
    _, notes = images(parts).without_shared(allowed=False)
    assert notes == [
        "warning: 1 of the part val look like training images of the same name, such as "
        "val/same.png and train/same.png: the figures may look better than they are"
    ]


def test_flat_images_do_not_look_alike(parts: Path) -> None:
    for name in ("train/flat.png", "val/flat.png"):
        save(parts, name, np.full((64, 64 + len(name), 3), 200, np.uint8))
    assert images(parts).without_shared(allowed=False)[1] == []


def test_copies_that_the_seed_would_hold_out_are_left_out(tmp_path: Path) -> None:
    for seed in range(20):
        save(tmp_path, f"{seed:02}.png", noise(seed % 18))
    for seed in range(40):
        image_set = open_image_set(ImageSetSettings(path=str(tmp_path), val_share=0.2), seed)
        kept, notes = image_set.without_shared(allowed=False)
        if notes:
            break
    assert notes == ["not used: 1 of the held-out images, which are also trained on"]
    assert len(kept.val) == len(image_set.val) - 1
    trained = {kept.train.read(index) for index in range(len(kept.train))}
    assert not any(kept.val.read(index) in trained for index in range(len(kept.val)))


def test_a_pair_on_both_sides_is_refused_but_not_an_equal_mask(tmp_path: Path) -> None:
    blank = np.zeros((64, 64, 3), np.uint8)
    for seed, name in enumerate(("train/{}/1.png", "train/{}/2.png", "val/{}/3.png")):
        save(tmp_path, name.format("images"), noise(seed))
        save(tmp_path, name.format("masks"), blank)
    store = open_store(tmp_path)
    assert pairs(tmp_path).without_shared(store, allowed=False) == pairs(tmp_path)
    save(tmp_path, "val/images/4.png", noise(0))
    save(tmp_path, "val/masks/4.png", blank)
    with pytest.raises(
        DataError, match=r"1 of 2 images of the part val .* val/masks/4.png, which is train/masks/1"
    ):
        pairs(tmp_path).without_shared(store, allowed=False)
    assert len(pairs(tmp_path).without_shared(store, allowed=True).val) == 2
