from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.datasets.finding.finder import Pair
from genray.datasets.pairs.fitting import fit_pairs
from genray.datasets.pairs.pair_set import find_pairs
from genray.datasets.pairs.samples import load_pair
from genray.datasets.pairs.settings import PairedSettings
from genray.datasets.values import check_numbers, note_labels, note_values, note_window, window_of
from genray.errors import DataError
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
    (note,) = fit_pairs(pairs, store, settings(tmp_path)).pairs.notes
    assert note.startswith("warning: the inputs have 5 levels")
    chosen = settings(tmp_path, input_window=[0, 4], input_channels=1)
    assert fit_pairs(pairs, store, chosen).pairs.notes == ()
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
    with pytest.raises(ValueError, match="the first level must be below the second"):
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
    assert fit_pairs(pairs, open_store(tmp_path), chosen).pairs.notes == (
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


def test_percentiles_are_measured_and_noted() -> None:
    values = np.linspace(0, 1000, 10_001, dtype=np.float32).reshape(1, -1, 1)
    window = window_of("percentiles", [values], "data.window")
    assert window is not None
    assert window == pytest.approx((1, 999), abs=8)
    assert note_window("percentiles", window, "data.window").startswith("data.window: levels ")
    assert window_of((1, 2), [values], "data.window") == (1, 2)
    assert window_of(None, [], "data.window") is None
    with pytest.raises(DataError, match="the images have one level, 7"):
        window_of("percentiles", [np.full((4, 4, 1), 7, np.uint8)], "data.window")


def test_numbers_without_a_known_black_and_white_are_refused_with_their_window() -> None:
    check_numbers([drawn(0, 255, np.uint8), np.ones((4, 4, 1), np.float32)], "the images", "data.window")
    with pytest.raises(DataError, match="the images are numbers from -2 to 1; which of them are") as caught:
        check_numbers(
            [np.ones((2, 2, 1), np.float32), np.full((2, 2, 1), -2, np.float32)], "the images", "data.window"
        )
    assert caught.value.hint.startswith("set data.window=[-2, 1], or data.window=percentiles")


def write_labels(root: Path, label: np.ndarray, count: int = 4) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number in range(count):
        Image.fromarray(drawn(0, 255, np.uint8, 3)).save(root / "images" / f"{number}.png")
        Image.fromarray(label).save(root / "labels" / f"{number}.png")


def test_classes_of_label_maps_are_counted_and_their_indices_are_the_input(tmp_path: Path) -> None:
    label = np.array([0, 3, 9], np.uint8)[drawn(0, 2, np.uint8)[..., 0]]
    write_labels(tmp_path, label)
    chosen = settings(tmp_path, labels="one-hot")
    store = open_store(tmp_path)
    fitted = fit_pairs(find_pairs(find_place(tmp_path), chosen, 0), store, chosen)
    assert fitted.classes == ((0,), (3,), (9,))
    assert "classes: 3 in 3 label maps (0, 3, 9)" in fitted.pairs.notes
    source, _ = load_pair(store, fitted.pairs.train[0], fitted.settings, fitted.classes)
    assert np.array_equal(np.array([0, 3, 9])[source[..., 0]], label)


def test_photos_as_label_maps_are_refused_with_a_reason(tmp_path: Path) -> None:
    write_labels(tmp_path, drawn(0, 255, np.uint8, 3))
    chosen = settings(tmp_path, labels="one-hot")
    with pytest.raises(DataError, match="3 inputs are no label maps: they have more than 256 different"):
        fit_pairs(find_pairs(find_place(tmp_path), chosen, 0), open_store(tmp_path), chosen)
