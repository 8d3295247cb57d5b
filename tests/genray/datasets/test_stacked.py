from pathlib import Path

import numpy as np
import pytest

from genray.datasets.image_set import ImageSetSettings, open_image_set
from genray.datasets.stacked import stack_images
from genray.errors import DataError
from genray.images.limits import ReadLimits
from tests.conftest import write_images


def test_three_images_become_the_channels_of_one_and_their_classes_its_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "train" / name, 8, size=(16, 16))
        write_images(tmp_path / "test" / name, 3, size=(16, 16))
    plain = open_image_set(ImageSetSettings(path=str(tmp_path)), seed=0)
    stacked = stack_images(plain, 3, seed=0)
    assert stacked.classes == tuple(f"{a}-{b}-{c}" for a in "ab" for b in "ab" for c in "ab")
    assert stacked.test is not None
    assert [len(part) for part in (stacked.train, stacked.val, stacked.test)] == [
        len(part) for part in (plain.train, plain.val, plain.test or ())
    ]
    again = stack_images(plain, 3, seed=0)
    for part, alike in ((stacked.train, again.train), (stacked.test, again.test)):
        assert alike is not None
        for index in range(len(part)):
            place = int(part.indices[index])
            image = part.stored.pixels(place, 3, ReadLimits())
            assert np.array_equal(image, alike.stored.pixels(place, 3, ReadLimits()))
            names = part.name(index).split(" + ")
            channels = [part.stored.stored.pixels(m, 1, ReadLimits()) for m in part.stored.members[place]]  # type: ignore[attr-defined]
            assert np.array_equal(image, np.concatenate(channels, axis=2))
            assert part.labels is not None
            folders = "-".join(Path(name).parent.name for name in names)
            assert stacked.classes[part.labels[index]] == folders
    used = {name for index in range(len(stacked.train)) for name in stacked.train.name(index).split(" + ")}
    assert used == {plain.train.name(index) for index in range(len(plain.train))}, "none is left out"


def test_more_classes_than_can_be_counted_are_refused(tmp_path: Path) -> None:
    for name in range(60):
        write_images(tmp_path / str(name), 2, size=(8, 8))
    plain = open_image_set(ImageSetSettings(path=str(tmp_path)), seed=0)
    with pytest.raises(DataError, match="216,000 classes") as caught:
        stack_images(plain, 3, seed=0)
    assert caught.value.where == "data.stack"
