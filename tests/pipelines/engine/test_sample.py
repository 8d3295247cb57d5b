from __future__ import annotations

from pathlib import Path

import pytest

from genray.io.sources import Item, open_source
from pipelines.engine.sample import ItemSample, PhotoSample
from pipelines.settings import ReadSettings
from tests.pipelines.conftest import write_photos


def items(count: int) -> list[Item]:
    return [Item(f"{index}.png", 1, 1) for index in range(count)]


def test_few_items_are_all_in_the_sample() -> None:
    sample = ItemSample(0)
    for item in items(64):
        sample.add(item)
    assert sample.items == items(64)


def test_of_many_items_some_are_drawn_each_once() -> None:
    sample = ItemSample(0)
    for item in items(1000):
        sample.add(item)
    assert len(set(sample.items)) == 64
    assert set(sample.items) <= set(items(1000))


@pytest.fixture
def photos(tmp_path: Path) -> PhotoSample:
    """Five photos, and a file that is broken."""
    write_photos(tmp_path, 5)
    (tmp_path / "broken.png").write_bytes(b"no image")
    source = open_source(str(tmp_path), ReadSettings())
    return PhotoSample(source, list(source.items(print)), ReadSettings())


def test_photos_that_cannot_be_read_are_not_in_the_sample(photos: PhotoSample) -> None:
    assert len(photos) == 5
    assert all(photo.pixels.shape == (48, 64, 3) for photo in photos)


def test_a_sample_has_the_same_length_whatever_was_read_of_it_before(photos: PhotoSample) -> None:
    assert photos[3] is photos[3]
    assert len(photos) == 5
    assert photos[-1] is photos[4]
    assert len(photos[1:]) == 4
    with pytest.raises(IndexError):
        photos[5]
