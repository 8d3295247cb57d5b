from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.datasets.pairs import Pair, PairedSettings, find_pairs, load_pair
from genray.datasets.values import note_labels, note_values
from genray.io.listing import find_place
from genray.io.store import open_store


def drawn(low: int, high: int, dtype: type, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(low, high, (64, 64, channels), endpoint=True).astype(dtype)


def test_class_numbers_are_said_with_the_window_that_spreads_them() -> None:
    note = note_values([drawn(0, 4, np.uint8)], "the inputs", "data.input_window")
    assert note.startswith("warning: the inputs have 5 levels, 0 to 4 of 255: class numbers, it seems")
    assert "data.input_window=[0, 4]" in note
    with_void = drawn(0, 33, np.uint8)
    with_void[:5] = 255
    note = note_values([with_void], "the targets", "data.target_window")
    assert "34 levels, 0 to 33 of 255, and 255:" in note
    assert "data.target_window=[0, 33]" in note


def test_low_values_in_16_bits_are_said_with_their_window() -> None:
    images = [drawn(198, 600, np.uint16), drawn(250, 682, np.uint16, channels=3)]
    note = note_values(images, "the inputs", "data.input_window")
    assert "levels 198 to 682 of 65535, 0.7% of the range; data.input_window=[198, 682]" in note


@pytest.mark.parametrize(
    "image",
    [
        drawn(0, 255, np.uint8),
        drawn(0, 255, np.uint8, channels=3),
        drawn(0, 1, np.uint8) * 255,
        drawn(0, 60000, np.uint16),
        np.zeros((8, 8, 1), np.uint8),
    ],
)
def test_usual_values_are_not_warned_of(image: np.ndarray) -> None:
    assert note_values([image], "the inputs", "data.input_window") == ""


def settings(root: Path, **more: object) -> PairedSettings:
    return PairedSettings.model_validate({"path": str(root), "size": 64, "resize": 0, **more})


def test_pairs_are_warned_of_until_a_window_is_set_which_their_loading_applies(tmp_path: Path) -> None:
    labels = drawn(0, 4, np.uint8)[..., 0]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        Image.fromarray(drawn(0, 255, np.uint8, 3)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{number}.png")
    store = open_store(tmp_path)
    pairs = find_pairs(find_place(tmp_path), settings(tmp_path), 0)
    (note,) = pairs.with_image_notes(store, settings(tmp_path)).notes
    assert note.startswith("warning: the inputs have 5 levels")
    chosen = settings(tmp_path, input_window=[0, 4], input_channels=1)
    assert pairs.with_image_notes(store, chosen).notes == ()
    source, target = load_pair(store, pairs.train[0], chosen)
    assert np.array_equal(source[..., 0], np.rint(labels * 63.75).astype(np.uint8))
    assert np.array_equal(target, drawn(0, 255, np.uint8, 3))


@pytest.mark.parametrize("direction", ["BtoA", "AtoB"])
def test_each_half_of_a_file_has_its_window(tmp_path: Path, direction: str) -> None:
    left, right = drawn(0, 255, np.uint8)[..., 0], drawn(0, 4, np.uint8)[..., 0]
    Image.fromarray(np.concatenate([left, right], axis=1)).save(tmp_path / "0.png")
    window = "input_window" if direction == "BtoA" else "target_window"
    chosen = settings(tmp_path, direction=direction, input_channels=1, target_channels=1, **{window: [0, 4]})
    halves = load_pair(open_store(tmp_path), Pair("0.png"), chosen)
    first, second = halves if direction == "AtoB" else halves[::-1]
    assert np.array_equal(first[..., 0], left)
    assert np.array_equal(second[..., 0], np.rint(right * 63.75).astype(np.uint8))


def test_a_window_without_levels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="input_window: the first level must be below the second"):
        settings(tmp_path, input_window=[4, 4])


def test_unequal_sizes_and_enlarged_images_are_warned_of(tmp_path: Path) -> None:
    for folder, size in (("lq", 20), ("gt", 80)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.fromarray(
                drawn(0, 255, np.uint8, 3)[:size, :size].repeat(2, axis=0).repeat(2, axis=1)
            ).save(tmp_path / folder / f"{number}.png")
    chosen = settings(tmp_path, resize=None, size=96)
    pairs = find_pairs(find_place(tmp_path), chosen, 0)
    assert pairs.with_image_notes(open_store(tmp_path), chosen).notes == (
        "warning: 3 of 3 pairs have images of unequal sizes, such as 40x40 and 128x128: both are resized to "
        "107 pixels",
        "warning: images of 40 pixels are enlarged to 107; data.size=64 is nearer to their own size",
    )


def test_label_maps_as_targets_are_noted() -> None:
    photo, labels = drawn(0, 255, np.uint8, 3), drawn(0, 1, np.uint8, 3) * 200
    assert note_labels([photo], [labels]).startswith("note: the targets look like label maps")
    assert note_labels([labels], [photo]) == ""
    assert note_labels([labels], [labels]) == ""
    assert note_labels([photo], [np.zeros((8, 8, 3), np.uint8)]) == ""
