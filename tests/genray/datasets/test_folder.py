from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.datasets.layouts import FolderImages, classes_of
from genray.io.bad_input import BadImage
from genray.io.store import open_store
from tests.conftest import write_images


def listed(**parts: list[str]) -> dict[str, list[str] | None]:
    """The classes of `parts`; the part that is none of train, val and test is called whole."""
    found = classes_of({part.replace("whole", ""): paths for part, paths in parts.items()})
    return {part or "whole": None if known is None else known.tolist() for part, known in found.items()}


def test_a_folder_for_each_class_says_it() -> None:
    assert listed(whole=["cat/1.png", "dog/1.png", "dog/young/2.png"]) == {"whole": ["cat", "dog", "dog"]}


def test_folders_that_all_images_share_say_nothing() -> None:
    paths = ["lfw/lfw_funneled/Ada/1.jpg", "lfw/lfw_funneled/Bo/1.jpg", "lfw/lfw_funneled/Bo/2.jpg"]
    assert listed(whole=paths) == {"whole": ["Ada", "Bo", "Bo"]}


def test_the_order_of_the_files_does_not_matter() -> None:
    paths = ["all/1.png", "all/cat/1.png"]
    assert listed(whole=paths) == {"whole": ["all", "all"]}
    assert listed(whole=paths[::-1]) == {"whole": ["all", "all"]}


def test_classes_lie_below_train_val_and_test_and_may_differ() -> None:
    found = listed(train=["train/good/1.png"], test=["test/good/2.png", "test/scratch/1.png"])
    assert found == {"train": ["good"], "test": ["good", "scratch"]}


def test_one_class_with_folders_of_its_own_is_told_by_the_other_parts() -> None:
    found = listed(
        train=["train/good/camera/1.png"], test=["test/good/camera/2.png", "test/bad/camera/1.png"]
    )
    assert found == {"train": ["good"], "test": ["good", "bad"]}


def test_a_part_with_an_image_in_no_folder_has_no_classes() -> None:
    found = listed(train=["train/1.png", "train/cat/1.png"], test=["test/cat/1.png", "test/dog/1.png"])
    assert found == {"train": None, "test": ["cat", "dog"]}
    assert listed(whole=["1.png", "2.png"]) == {"whole": None}


def test_a_single_class_is_one() -> None:
    assert listed(whole=["good/1.png", "good/2.png"]) == {"whole": ["good", "good"]}


def test_images_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2, size=(9, 12), gray=False)
    images = FolderImages(open_store(tmp_path), ["a/000.png", "a/001.png"])
    assert len(images) == 2
    assert images.name(1) == "a/001.png"
    assert images.header(1) == (12, 9, False)
    assert images.pixels(1, 3, 1000).shape == (9, 12, 3)
    assert images.pixels(1, 1, 1000).shape == (9, 12, 1)
    with pytest.raises(BadImage, match="the limit is 100"):
        images.pixels(1, 3, 100)


def test_sixteen_bits_are_gray_and_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 80).astype(np.uint16).reshape(8, 10)
    Image.fromarray(values).save(tmp_path / "1.png")
    images = FolderImages(open_store(tmp_path), ["1.png"])
    assert images.header(0) == (10, 8, True)
    assert np.array_equal(images.pixels(0, 1, 1000)[..., 0], values >> 8)


def test_links_are_followed_and_what_they_miss_is_unreadable(tmp_path: Path) -> None:
    write_images(tmp_path / "there", 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.png").symlink_to(tmp_path / "there" / "000.png")
    (tmp_path / "set" / "2.png").symlink_to("gone.png")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "there")
    store = open_store(tmp_path / "set")
    images = FolderImages(store, [entry.path for entry in store.list((".png",))])
    assert [images.name(i) for i in range(3)] == ["1.png", "2.png", "more/000.png"]
    assert np.array_equal(images.pixels(0, 1, 10_000), images.pixels(2, 1, 10_000))
    with pytest.raises(BadImage) as caught:
        images.pixels(1, 1, 10_000)
    assert caught.value.reason == "unreadable"
    with pytest.raises(OSError, match="No such file"):
        images.header(1)
