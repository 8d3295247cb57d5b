import numpy as np

from genray.ecg.preprocessing import BeatPreprocessing


def test_by_mean_and_deviation_a_beat_keeps_its_shape_alone() -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=16, normalisation="zscore")
    beats = np.random.default_rng(0).normal(3, 5, (4, 1, 16))
    made = takes.normalised(beats)
    np.testing.assert_allclose(made.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(takes.normalised(7 * beats - 2), made, atol=1e-5)


def test_by_the_range_all_beats_are_moved_alike() -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=16, normalisation="minmax", span=(-1.0, 3.0))
    np.testing.assert_allclose(takes.normalised(np.array([-1.0, 1.0, 3.0, 5.0])), [0, 0.5, 1, 1.5])


def test_it_says_what_a_beat_is() -> None:
    takes = BeatPreprocessing(before=0.2, after=0.4, samples=64, normalisation="zscore", leads=("II",))
    assert (takes.beat.before, takes.beat.after, takes.beat.samples) == (0.2, 0.4, 64)
