import numpy as np
import pytest

from genray.ecg.beats import BeatPreprocessing
from genray.errors import BundleMismatch


def test_by_mean_and_deviation_a_beat_keeps_its_shape_alone() -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=16, normalisation="zscore")
    beats = np.random.default_rng(0).normal(3, 5, (4, 1, 16))
    made = takes.normalise(beats)
    np.testing.assert_allclose(made.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(takes.normalise(7 * beats - 2), made, atol=1e-5)


def test_by_the_range_all_beats_are_moved_alike() -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=16, normalisation="minmax", span=(-1.0, 3.0))
    np.testing.assert_allclose(takes.normalise(np.array([-1.0, 1.0, 3.0, 5.0])), [0, 0.5, 1, 1.5])


def test_it_says_what_a_beat_is() -> None:
    takes = BeatPreprocessing(before=0.2, after=0.4, samples=64, normalisation="zscore", leads=("II",))
    assert (takes.beat_settings.before, takes.beat_settings.after, takes.beat_settings.samples) == (
        0.2,
        0.4,
        64,
    )


def test_of_rows_of_a_table_nobody_knows_what_a_beat_is() -> None:
    takes = BeatPreprocessing(samples=64, normalisation="zscore")
    assert takes.window is None
    with pytest.raises(BundleMismatch, match="rows of a table"):
        _ = takes.beat_settings


def test_values_far_out_of_the_range_keep_their_squares_finite() -> None:
    takes = BeatPreprocessing(samples=16, normalisation="minmax", span=(0.0, 1e-6))
    made = takes.normalise(np.array([1e15, -1e15], np.float32))
    assert np.isfinite(np.square(made)).all()
