import numpy as np
import pytest
from pydantic import ValidationError

from genray.errors import DataError
from jobs.recipes.threshold import (
    Interval,
    ThresholdSettings,
    calibration_of,
    deviations_interval,
    few_samples_warning,
    quantile_interval,
    threshold_of,
)

ERRORS = np.random.default_rng(0).exponential(2.0, 20_000)


def test_a_quantile_leaves_that_share_of_normal_errors_below() -> None:
    threshold = threshold_of(ERRORS, ThresholdSettings(quantile=0.9))
    assert np.mean(threshold >= ERRORS) == pytest.approx(0.9, abs=1e-4)


def test_deviations_are_counted_from_the_mean() -> None:
    threshold = threshold_of(ERRORS, ThresholdSettings(kind="deviations", deviations=1.5))
    assert threshold == pytest.approx(ERRORS.mean() + 1.5 * ERRORS.std())


def test_peaks_reach_quantiles_beyond_the_data() -> None:
    few = ERRORS[:500]
    settings = ThresholdSettings(kind="peaks", quantile=0.9999)
    expected = 2.0 * np.log(10_000)  # of the exponential distribution
    assert threshold_of(few, settings) == pytest.approx(expected, rel=0.35)
    assert few.max() < expected, "no quantile of these errors could say it"


def test_too_few_peaks_give_the_plain_quantile() -> None:
    few = ERRORS[:20]
    peaks = threshold_of(few, ThresholdSettings(kind="peaks", quantile=0.95))
    assert peaks == threshold_of(few, ThresholdSettings(quantile=0.95))


def test_the_tail_has_to_begin_below_the_quantile() -> None:
    with pytest.raises(ValidationError, match="tail must be below quantile"):
        ThresholdSettings(kind="peaks", quantile=0.7)


def test_the_calibration_turns_errors_into_percentiles() -> None:
    calibration = calibration_of(ERRORS, ThresholdSettings(), 5)
    table = calibration["errors"]
    assert len(table) == 101
    assert (table[0], table[-1]) == (ERRORS.min(), ERRORS.max())
    assert np.interp(np.median(ERRORS), table, np.arange(101)) == pytest.approx(50, abs=0.1)
    assert (calibration["folds"], calibration["beats"], calibration["kind"]) == (5, 20_000, "quantile")


@pytest.mark.parametrize("quantile", [0.9, 0.95, 0.999])
def test_many_errors_that_are_the_same_give_a_number(quantile: float) -> None:
    ties = np.concatenate([ERRORS[:780] / 1e6, np.full(200, 0.2), 0.2 + ERRORS[:20] / 10])
    settings = ThresholdSettings(kind="peaks", quantile=quantile)
    assert 0.2 <= threshold_of(ties, settings) < 10
    assert threshold_of(np.repeat([0.0, 1.0], [900, 100]), settings) in (0.0, 1.0)


def test_no_threshold_is_refused() -> None:
    with pytest.raises(DataError, match="the threshold is 0"):
        calibration_of(np.zeros(50), ThresholdSettings(), 5)
    with pytest.raises(DataError, match="the threshold is -"):
        calibration_of(ERRORS, ThresholdSettings(kind="deviations", deviations=-9), 5)


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_the_interval_of_a_quantile_contains_it_in_95_of_100_samples(quantile: float) -> None:
    rng = np.random.default_rng(1)
    true = -2.0 * np.log(1 - quantile)  # of the exponential distribution
    intervals = [quantile_interval(rng.exponential(2.0, 200), quantile) for _ in range(400)]
    hits = [(i.low or 0.0) <= true <= (np.inf if i.high is None else i.high) for i in intervals]
    assert 0.92 <= np.mean(hits) <= 0.99


def test_the_interval_of_deviations_contains_the_threshold_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(2)
    intervals = [deviations_interval(rng.normal(5.0, 1.0, 200), 3.0) for _ in range(400)]
    hits = [i.low <= 8.0 <= i.high for i in intervals if i.low is not None and i.high is not None]
    assert len(hits) == 400
    assert 0.91 <= np.mean(hits) <= 0.99


def test_few_errors_leave_the_threshold_unbounded_and_are_warned_of() -> None:
    interval = quantile_interval(np.array([0.1, 0.2]), 0.95)
    assert interval.high is None
    (warning,) = few_samples_warning(2, "images", interval)
    assert warning.startswith("the threshold is from 2 normal images, too few to trust")
    assert "unbounded" in warning
    assert few_samples_warning(20, "images", Interval(0.1, 0.2)) == []
    assert deviations_interval(np.array([0.1]), 3.0) == Interval(None, None)
