from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from genray.datasets.finding.finder import Pair
from genray.datasets.pairs.pair_set import find_pairs
from genray.datasets.pairs.samples import jitter, load_pair
from genray.datasets.pairs.settings import PairedSettings
from genray.errors import DataError
from genray.io.bad_input import BadImage
from genray.io.listing import Place, find_place
from genray.io.store import open_store

RED, BLUE = (200, 10, 10), (10, 10, 200)


def save(file: Path, *colours: tuple[int, int, int], size: tuple[int, int] = (80, 80)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tiles = [np.full((size[1], size[0], 3), colour, np.uint8) for colour in colours]
    Image.fromarray(np.concatenate(tiles, axis=1)).save(file)


def settings(path: Path, **more: object) -> PairedSettings:
    return PairedSettings.model_validate({"path": str(path), "size": 64, **more})


def found(path: Path, **more: object) -> tuple[list[str], list[str]]:
    pairs = find_pairs(find_place(path), settings(path, **more), seed=0)
    return [p.input for p in pairs.train], [p.input for p in pairs.val]


def test_folders_named_train_and_val_are_the_split(tmp_path: Path) -> None:
    for name in ("train/1", "train/2", "val/3"):
        save(tmp_path / f"{name}.png", RED, BLUE)
    assert found(tmp_path) == (["train/1.png", "train/2.png"], ["val/3.png"])


def test_without_them_the_seed_draws_the_split(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / f"{i:02}.png", RED, BLUE)
    store, chosen = open_store(tmp_path), settings(tmp_path, val_share=0.2)
    one, again, other = (find_pairs(Place(store), chosen, seed) for seed in (0, 0, 1))
    assert len(one.val) == 4
    assert one == again
    assert one.val != other.val
    assert {*one.train, *one.val} == {Pair(f"{i:02}.png") for i in range(20)}


@pytest.mark.parametrize(("direction", "colour"), [("AtoB", RED), ("BtoA", BLUE)])
def test_the_direction_says_which_half_is_the_input(
    tmp_path: Path, direction: str, colour: tuple[int, int, int]
) -> None:
    save(tmp_path / "1.png", RED, BLUE)
    first, second = load_pair(open_store(tmp_path), Pair("1.png"), settings(tmp_path, direction=direction))
    assert first.shape == second.shape == (72, 72, 3)  # 64 * 286 / 256, rounded
    assert tuple(first[0, 0]) == colour
    assert tuple(second[0, 0]) == (RED if colour == BLUE else BLUE)


@pytest.mark.parametrize(
    ("a", "b"),
    [("A/train", "B/train"), ("train/A", "train/B"), ("trainA", "trainB"), ("train/target", "train/input")],
)
def test_two_folders_are_matched_by_stem(tmp_path: Path, a: str, b: str) -> None:
    for split in ("train", "val"):
        for name in ("1", "2"):
            save(tmp_path / a.replace("train", split) / f"{name}.png", RED)
            save(tmp_path / b.replace("train", split) / f"{name}.jpg", BLUE)
    save(tmp_path / a / "alone.png", RED)
    pairs = find_pairs(find_place(tmp_path), settings(tmp_path), seed=0)
    assert pairs.train == (Pair(f"{b}/1.jpg", f"{a}/1.png"), Pair(f"{b}/2.jpg", f"{a}/2.png"))
    assert len(pairs.val) == 2
    assert [(bad.path, bad.reason) for bad in pairs.bad] == [(f"{a}/alone.png", "unpaired")]
    first, second = load_pair(open_store(tmp_path), pairs.train[0], settings(tmp_path))
    assert first[0, 0, 2] > 190 > second[0, 0, 2]


def test_a_second_file_of_a_stem_and_files_elsewhere_are_said(tmp_path: Path) -> None:
    for name in ("A/1.png", "B/1.png", "A/1.jpg", "A/2.png", "B/2.png", "C/3.png"):
        save(tmp_path / name, RED)
    pairs = find_pairs(find_place(tmp_path), settings(tmp_path), seed=0)
    assert len(pairs.train) + len(pairs.val) == 2
    assert {(bad.path, bad.reason) for bad in pairs.bad} == {("A/1.png", "unpaired"), ("C/3.png", "unused")}


def test_channels_are_those_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "1.png", RED, BLUE)
    chosen = settings(tmp_path, input_channels=1, target_channels=4)
    first, second = load_pair(open_store(tmp_path), Pair("1.png"), chosen)
    assert (first.shape[-1], second.shape[-1]) == (1, 4)


def test_both_images_of_a_pair_get_the_same_jitter() -> None:
    image = np.arange(100 * 100 * 3, dtype=np.uint32).reshape(100, 100, 3).astype(np.uint8)
    seen = set()
    for index in range(30):
        first, second = jitter((image, image[..., :1]), 64, (0, 1, index), flip=True)
        assert first.shape == (64, 64, 3)
        assert np.array_equal(first[..., :1], second)
        seen.add(first.tobytes())
    assert len(seen) > 25
    again, _ = jitter((image, image), 64, (0, 1, 7), flip=True)
    assert again.tobytes() in seen


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.write_bytes(b""), "empty"),
        (lambda file: save(file, RED, size=(81, 80)), "odd-shape"),
        (lambda file: file.symlink_to("gone"), "unreadable"),
    ],
)
def test_a_pair_that_cannot_be_used_has_its_reason(tmp_path: Path, make: object, reason: str) -> None:
    make(tmp_path / "1.png")  # type: ignore[operator]
    with pytest.raises(BadImage) as caught:
        load_pair(open_store(tmp_path), Pair("1.png"), settings(tmp_path))
    assert caught.value.reason == reason


def test_nothing_to_train_on_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image files"):
        found(tmp_path)
    save(tmp_path / "train" / "1.png", RED, size=(81, 80))
    save(tmp_path / "val" / "1.png", RED, BLUE)
    with pytest.raises(DataError, match="81 pixels wide, which is odd"):
        found(tmp_path)


def test_an_image_smaller_than_the_crop_is_found_before_training(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1.png", RED, BLUE)
    save(tmp_path / "val" / "1.png", RED, BLUE)
    with pytest.raises(DataError, match="80x80, smaller than the crop of 128 pixels") as caught:
        found(tmp_path, size=128, resize=0)
    assert "data.size=64" in str(caught.value)


def test_a_resize_below_the_crop_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="smaller than the crop"):
        settings(tmp_path, resize=60)
