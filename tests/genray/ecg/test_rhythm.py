from __future__ import annotations

import numpy as np
import pytest

from genray.ecg.rhythm import WINDOW, WINDOW_FEATURES, rhythm_features
from genray.ecg.ventricular import BEAT, BEAT_FEATURES, UsualBeats, combine_leads
from tests.genray.ecg.rhythms import fibrillation, flutter

RATE = 250.0
ROWS = np.zeros(1, np.intp)


def complex_of(width: float, height: float = 1.0) -> np.ndarray:
    """A complex of a Gaussian of `width` seconds, (1, samples)."""
    times = np.linspace(-BEAT.before, BEAT.after, BEAT.samples)
    return height * np.exp(-((times / width) ** 2) / 2)[None]


def test_features_of_a_window_hardly_depend_on_the_sampling_rate() -> None:
    of_rates = [rhythm_features(flutter(WINDOW, rate, 270)[None], rate) for rate in (125.0, 250.0, 500.0)]
    assert np.abs(of_rates[0] - of_rates[1]).max() < 0.35
    assert np.abs(of_rates[2] - of_rates[1]).max() < 0.35


@pytest.mark.parametrize("windows", [np.zeros((2, 1250)), fibrillation(5, RATE, 0.3)[None]])
def test_features_are_finite(windows: np.ndarray) -> None:
    features = rhythm_features(windows, RATE)
    assert features.shape == (len(windows), WINDOW_FEATURES)
    assert np.isfinite(features).all()


def test_a_beat_is_compared_with_those_before_it() -> None:
    usual = UsualBeats(1)
    first = usual.compare(ROWS, complex_of(0.012))
    same = usual.compare(ROWS, complex_of(0.012))
    wide = usual.compare(ROWS, complex_of(0.06))
    assert first[0, -1] == 0, "nothing to compare with yet"
    assert same[0, -1] == wide[0, -1] == 1
    assert same[0, 10] < wide[0, 10]
    assert wide[0, 12] > 0.1, "wider than usual"


def test_the_usual_beat_is_replaced_when_all_beats_differ_and_forgotten_with_the_patient() -> None:
    usual = UsualBeats(1)
    for _ in range(5):
        usual.compare(ROWS, complex_of(0.012))
    for _ in range(13):
        last = usual.compare(ROWS, complex_of(0.06))
    assert last[0, 12] == pytest.approx(0), "wide beats are usual by now"
    usual.forget(ROWS)
    assert usual.compare(ROWS, complex_of(0.06))[0, -1] == 0


def test_leads_that_cannot_be_judged_do_not_count() -> None:
    usual = UsualBeats(2)
    both = usual.compare(np.arange(2), np.concatenate([complex_of(0.012), complex_of(0.06)]))
    starts, intervals = np.zeros(1, np.intp), np.array([[np.nan, np.nan]])
    one = combine_leads(both, np.array([True, False]), starts, intervals)
    assert one.shape == (1, BEAT_FEATURES)
    assert one[0, 0] == both[0, 0]
    assert np.isfinite(combine_leads(both, np.array([False, False]), starts, intervals)[:, -2:]).all()
