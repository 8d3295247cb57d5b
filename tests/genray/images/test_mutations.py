import sys
import warnings
from collections import Counter

import numpy as np
import pytest

from genray.images.decode import decode
from genray.images.photo import read_photo
from tests.genray.images import mutations


def test_the_files_that_are_mutated_are_of_every_kind_and_can_be_read() -> None:
    for number, (name, data) in enumerate(mutations.seeds().items()):
        assert mutations.try_reading(data, number) == mutations.READ, name


def test_whatever_is_in_a_file_it_gives_pixels_or_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.getrefcount(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcomes = Counter(outcome for _, _, outcome in mutations.run(800, seed=1))
    assert outcomes[mutations.READ] > 100
    assert outcomes["truncated"] > 100
    assert capfd.readouterr().err == "", "decoders write nothing to the terminal"
    if sys.version_info < (3, 12):  # later, None is immortal: nothing is counted
        assert sys.getrefcount(None) - before > -100


@pytest.mark.parametrize("name", [name for name in mutations.seeds() if name != "tiff pages"])
def test_training_and_bulk_are_given_the_same_pixels(name: str) -> None:
    data = mutations.seeds()[name]
    photo = read_photo(data, mutations.FIRST)
    if photo.alpha is None and photo.depth == 8:
        channels = photo.pixels.shape[2]
        assert np.array_equal(decode(data, channels=channels, limits=mutations.FIRST), photo.pixels)
