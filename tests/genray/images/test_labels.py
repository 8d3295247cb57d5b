import numpy as np
import pytest

from genray.images.labels import class_map, colours_of, count_classes, one_hot, resize_indices
from genray.io.bad_input import BadImage

COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 64]], np.uint8)


def indices() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (6, 8, 1)).astype(np.uint8)


def test_classes_are_the_levels_or_colours_of_the_maps() -> None:
    assert count_classes([indices() * 7, indices() * 7 + 1]) == ((0,), (1,), (7,), (8,), (14,), (15,))
    classes = count_classes([COLOURS[indices()[..., 0]]])
    assert classes == ((0, 0, 0), (0, 128, 64), (128, 0, 0))
    map_of_colours = class_map(COLOURS[indices()[..., 0]], classes)
    assert np.array_equal(colours_of(map_of_colours, classes), COLOURS[indices()[..., 0]])
    assert np.array_equal(one_hot(map_of_colours, 3).argmax(axis=-1), map_of_colours[..., 0])


def test_photos_are_no_label_maps() -> None:
    rng = np.random.default_rng(0)
    assert count_classes([rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)]) is None
    assert count_classes([indices(), COLOURS[indices()[..., 0]]]) is None


@pytest.mark.parametrize("classes", [((0,), (1,)), ((0, 0, 0), (1, 1, 1))])
def test_an_unknown_class_is_named(classes: tuple[tuple[int, ...], ...]) -> None:
    levels = np.zeros((10, 10, len(classes[0])), np.uint8)
    levels[0] = 9
    with pytest.raises(BadImage, match=r"9\)? in 10.00% of the pixels is none of the 2 classes") as caught:
        class_map(levels, classes)
    assert caught.value.reason == "unknown-class"


def test_label_maps_are_resized_without_new_classes() -> None:
    map_of = np.array([[0, 2]], np.uint8)[..., None]
    assert resize_indices(map_of, 2, 4)[..., 0].tolist() == [[0, 0, 2, 2], [0, 0, 2, 2]]
    assert resize_indices(resize_indices(map_of, 5, 7), 1, 2).tolist() == map_of.tolist()
