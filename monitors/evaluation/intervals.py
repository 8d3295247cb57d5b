"""Confidence intervals of pooled figures, by bootstrap over records: beats of one record are alike, so that
records are drawn again, not beats (percentile method; Efron & Tibshirani, An Introduction to the Bootstrap,
1993)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitors.evaluation.evaluate import LabelledScores, RecordResult
from monitors.evaluation.matching import RHYTHM

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Level of the intervals."""
DRAWS = 2000
"""Number of times that records are drawn."""

_SEED = 0
_LEAST_RECORDS = 2


class Interval(NamedTuple):
    """Lower and upper bound."""

    low: float
    high: float


class Intervals(NamedTuple):
    """Intervals of the pooled figures; None where there are too few records, or a figure has no value."""

    auc_without: Interval | None
    auc_with: Interval | None
    sensitivity: Interval | None
    positive_predictivity: Interval | None
    share: Interval | None
    false_per_hour: Interval | None
    rhythm_false_per_hour: Interval | None

    @classmethod
    def of(cls, results: Sequence[RecordResult]) -> Intervals:
        """Return the intervals of the figures of `results`."""
        counts = draw_counts(len(results))
        qrs = [result.qrs.whole for result in results]
        matched = [each.matched for each in qrs]
        hours = [result.hours for result in results]
        watched = [result.watched_hours for result in results]
        rhythm_false = [sum(result.rhythm[kind].false for kind in RHYTHM) for result in results]
        return cls(
            auc_without=auc_interval([result.without_reference for result in results], counts),
            auc_with=auc_interval([result.with_reference for result in results], counts),
            sensitivity=ratio_interval(matched, [each.annotated for each in qrs], counts),
            positive_predictivity=ratio_interval(matched, [each.detected for each in qrs], counts),
            share=ratio_interval(
                [len(result.delays) for result in results], [result.episodes for result in results], counts
            ),
            false_per_hour=ratio_interval([result.anomaly.false for result in results], watched, counts),
            rhythm_false_per_hour=ratio_interval(rhythm_false, hours, counts),
        )


def draw_counts(records: int) -> NDArray[np.int64]:
    """Return how often each record is drawn, (draws, records); no draws of fewer than two records."""
    if records < _LEAST_RECORDS:
        return np.zeros((0, records), np.int64)
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(records, np.full(records, 1 / records), size=DRAWS)


def ratio_interval(
    parts: Sequence[float], wholes: Sequence[float], counts: NDArray[np.int64]
) -> Interval | None:
    """Return the interval of the sum of `parts` (records,) divided by that of `wholes`."""
    whole = counts @ np.asarray(wholes, np.float64)
    part = counts @ np.asarray(parts, np.float64)
    return _percentiles(part[whole > 0] / whole[whole > 0])


def auc_interval(records: Sequence[LabelledScores], counts: NDArray[np.int64]) -> Interval | None:
    """Return the interval of the area under the ROC curve of all beats together.

    Every draw needs only how often the abnormal beats of one record score higher than the normal ones of
    another, so that beats are sorted once.
    """
    normal = [np.sort(each.scores[~each.abnormal]) for each in records]
    abnormal = [each.scores[each.abnormal] for each in records]
    count = len(records)
    won = np.array([_pairs_won(high, low) for high in abnormal for low in normal]).reshape(count, count)
    pairs = np.outer([len(each) for each in abnormal], [len(each) for each in normal])
    of_draws = np.einsum("di,ij,dj->d", counts, won, counts)
    in_all = np.einsum("di,ij,dj->d", counts, pairs.astype(np.float64), counts)
    return _percentiles(of_draws[in_all > 0] / in_all[in_all > 0])


def _pairs_won(high: Floats, low: Floats) -> float:
    """Return the number of pairs in which a value of `high` is above one of `low`, which is sorted; a tie
    counts as half of one."""
    below = np.searchsorted(low, high, "left").sum() + np.searchsorted(low, high, "right").sum()
    return float(below) / 2


def _percentiles(values: Floats) -> Interval | None:
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
