from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from genray.datasets.demo_fronts import PALETTE, building_front, write_fronts
from genray.errors import DataError, UsageError

Pairs = tuple[NDArray[np.float64], NDArray[np.uint8]]


def fronts(indices: range, size: int = 64) -> Pairs:
    photos, labels = zip(*(building_front(0, index, size) for index in indices), strict=True)
    return np.stack(photos).astype(np.float64), np.stack(labels)


@pytest.fixture(scope="module")
def seen() -> Pairs:
    return fronts(range(60))


@pytest.fixture(scope="module")
def unseen() -> Pairs:
    return fronts(range(60, 80))


def test_the_same_seed_gives_the_same_pair() -> None:
    for once, again in zip(building_front(3, 5, 64), building_front(3, 5, 64), strict=True):
        np.testing.assert_array_equal(once, again)


def test_every_index_gives_another_layout(seen: Pairs) -> None:
    _, labels = seen
    assert len({label.tobytes() for label in labels}) == len(labels)


def test_another_seed_gives_another_front() -> None:
    assert not np.array_equal(building_front(0, 0, 64)[1], building_front(1, 0, 64)[1])


@pytest.mark.parametrize("size", [32, 33, 64, 100, 256, 300])
def test_a_front_has_the_size_that_was_asked_for(size: int) -> None:
    for picture in building_front(0, 1, size):
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8


@pytest.mark.parametrize("size", [64, 100, 512])
def test_a_label_map_has_only_colours_of_the_palette(size: int) -> None:
    for index in range(2):
        _, label = building_front(0, index, size)
        assert {tuple(colour) for colour in np.unique(label.reshape(-1, 3), axis=0)} <= set(PALETTE.values())


def test_every_part_is_on_some_front(seen: Pairs) -> None:
    _, labels = seen
    assert set(PALETTE.values()) == {tuple(colour) for colour in np.unique(labels.reshape(-1, 3), axis=0)}


def test_every_front_has_a_wall_windows_a_door_and_a_street(seen: Pairs) -> None:
    _, labels = seen
    for name in ("wall", "window", "door", "ground"):
        there = (labels == PALETTE[name]).all(axis=-1).any(axis=(1, 2))
        assert there.all(), f"no {name} on fronts {np.flatnonzero(~there)}"


def test_a_photo_is_textured_within_the_parts_that_the_label_map_shows_flat() -> None:
    photo, label = building_front(0, 3, 128)
    for name in ("wall", "window", "door", "sky"):
        part = photo[(label == PALETTE[name]).all(axis=-1)]
        assert part.std(axis=0).mean() > 4, name


def test_the_photo_and_the_label_map_show_the_same_edges() -> None:
    photo, label = building_front(0, 3, 128)
    sky = (label == PALETTE["sky"]).all(axis=-1)
    steps = np.abs(np.diff(photo.astype(np.float64).mean(axis=2), axis=0))
    border = np.diff(sky.astype(int), axis=0) != 0
    assert steps[border].mean() > 3 * np.median(steps)


def test_the_size_does_not_change_the_building() -> None:
    for index in range(6):
        (small_photo, small), (large_photo, large) = (building_front(2, index, size) for size in (64, 256))
        assert (small == large[2::4, 2::4]).all(axis=-1).mean() > 0.85
        shrunk = np.asarray(Image.fromarray(large_photo).reduce(4), np.float64)
        assert np.abs(shrunk - small_photo).mean() < 14


def test_the_mean_photo_is_beaten_by_one_colour_for_each_part(seen: Pairs, unseen: Pairs) -> None:
    (photos, labels), (new_photos, new_labels) = seen, unseen
    read = np.zeros_like(new_photos)
    for colour in PALETTE.values():
        read[(new_labels == colour).all(axis=-1)] = photos[(labels == colour).all(axis=-1)].mean(axis=0)
    by_label = np.abs(new_photos - read).mean()
    by_mean = np.abs(new_photos - photos.mean(axis=0)).mean()
    assert by_label < 0.8 * by_mean


def test_what_a_label_map_leaves_open_varies_little(seen: Pairs) -> None:
    photos, labels = seen
    hues = []
    for photo, label in zip(photos, labels, strict=True):
        shutters = (label == PALETTE["shutter"]).all(axis=-1)
        if shutters.any():
            hues.append(photo[shutters].mean(axis=0))
    assert len(hues) > 5
    assert np.std(hues, axis=0).max() < 12


def test_files_hold_the_photo_at_the_left_and_the_label_map_at_the_right(tmp_path: Path) -> None:
    root = write_fronts(tmp_path / "new" / "fronts", count=10, size=32, seed=7, val_share=0.2)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert names == [*(f"train/{k:05}.png" for k in range(8)), "val/00000.png", "val/00001.png"]
    for index, name in enumerate(names):
        with Image.open(root / name) as image:
            np.testing.assert_array_equal(np.asarray(image), np.hstack(building_front(7, index, 32)))


def test_writing_again_gives_the_same_bytes_and_no_more_files(tmp_path: Path) -> None:
    def bytes_of(root: Path) -> dict[Path, bytes]:
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}

    first = bytes_of(write_fronts(tmp_path / "a", count=4, size=32))
    (tmp_path / "a" / "train" / "00001.png").write_bytes(b"half of a file")
    assert bytes_of(write_fronts(tmp_path / "a", count=4, size=32)) == first
    assert bytes_of(write_fronts(tmp_path / "b", count=4, size=32)) == first


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_both_parts_get_a_front_however_uneven_the_share(tmp_path: Path, share: float) -> None:
    root = write_fronts(tmp_path, count=3, size=32, val_share=share)
    assert sorted(len(list((root / part).iterdir())) for part in ("train", "val")) == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"count": 1}, "1 fronts"),
        ({"size": 31}, "size 31"),
        ({"size": 1025}, "size 1025"),
        ({"seed": -1}, "seed -1"),
        ({"val_share": 0.0}, "0.0"),
        ({"val_share": 1.0}, "1.0"),
        ({"val_share": float("nan")}, "nan"),
    ],
)
def test_an_argument_that_cannot_work_is_named_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, float], named: str
) -> None:
    arguments: dict[str, float] = {"count": 4, "size": 32} | wrong
    with pytest.raises(UsageError, match=named) as caught:
        write_fronts(tmp_path / "fronts", **arguments)  # type: ignore[arg-type]
    assert caught.value.hint
    assert not (tmp_path / "fronts").exists()


def test_a_front_number_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="front -1 of seed 0"):
        building_front(0, -1, 64)


@pytest.mark.parametrize("blocked", ["fronts", "fronts/val", "."])
def test_a_file_in_the_way_is_named(tmp_path: Path, blocked: str) -> None:
    root = tmp_path / "store" / "fronts"
    file = tmp_path / "store" / blocked
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("not a folder")
    with pytest.raises(DataError, match="the output folder is a file") as caught:
        write_fronts(root, count=2, size=32)
    assert caught.value.where == str(file)
    assert caught.value.hint


def test_files_of_another_data_set_are_not_mixed_in(tmp_path: Path) -> None:
    write_fronts(tmp_path, count=6, size=32)
    with pytest.raises(DataError, match=r"3 files are not .* 3 fronts, such as 00002\.png") as caught:
        write_fronts(tmp_path, count=3, size=32)
    # A count of 3 leaves 2 for train, where there were 5.
    assert caught.value.where == str(tmp_path / "train")
