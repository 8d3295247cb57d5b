import numpy as np
import pytest

from jobs.recipes.beats import BeatEvalSettings, nearest_neighbour, plain_methods, principal_components
from jobs.recipes.threshold import ThresholdSettings
from tests.beat_files import drawn_beats

# In float64: a distance is the root of a difference of squares, so half the digits of a small one are lost.
NORMAL, OTHERS, STRANGE = (
    beats.astype(np.float64)
    for beats in (drawn_beats(60), drawn_beats(20, seed=9), drawn_beats(20, abnormal=True))
)
ROUNDING = 1e-12  # of a squared distance: sums of 140 squares, 150 in all


def test_principal_components_reconstruct_what_lies_in_their_space() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 30))
    known = (rng.normal(size=(50, 2)) @ plane).astype(np.float32)
    judged = np.concatenate([(rng.normal(size=(1, 2)) @ plane), rng.normal(size=(1, 30))]).astype(np.float32)
    inside, outside = principal_components(2)(known, judged)
    assert inside < 1e-6 < 0.1 < outside


def test_the_nearest_neighbour_of_a_known_beat_is_itself() -> None:
    errors = nearest_neighbour(1000, 0)(NORMAL, np.concatenate([NORMAL[:1], NORMAL[:1] + 1]))
    assert errors[0] <= ROUNDING**0.5
    plain = np.sqrt(np.square(NORMAL - NORMAL[0] - 1).sum(axis=1)).min()
    assert errors[1] == pytest.approx(plain, rel=ROUNDING)


def test_references_are_limited_by_a_draw_of_the_seed() -> None:
    all_, some, same, other = (
        nearest_neighbour(n, s)(NORMAL, OTHERS) for n, s in ((60, 0), (5, 0), (5, 0), (5, 1))
    )
    assert (some**2 >= all_**2 - ROUNDING).all()
    np.testing.assert_array_equal(some, same)
    assert not np.array_equal(some, other)


def test_each_detector_gets_a_threshold_from_beats_that_it_does_not_know() -> None:
    folds = [np.arange(0, 30), np.arange(30, 60)]
    judged = np.concatenate([OTHERS, STRANGE])
    methods = plain_methods(
        BeatEvalSettings(),
        ThresholdSettings(),
        latent=4,
        seed=0,
        normal=NORMAL,
        folds=folds,
        judged=judged,
    )
    assert [method.name for method in methods] == ["pca-4", "pca-8", "1-nn"]
    for method in methods:
        above = method.errors > method.threshold
        assert above[20:].all(), method.name
        assert above[:20].mean() <= 0.35, method.name


def test_a_single_known_beat_has_no_components_and_yet_an_error() -> None:
    assert np.isfinite(principal_components(8)(NORMAL[:1], OTHERS)).all()
