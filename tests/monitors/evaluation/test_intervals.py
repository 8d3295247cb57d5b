from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monitors.evaluation.evaluate import LabelledScores
from monitors.evaluation.intervals import DRAWS, auc_interval, draw_counts, ratio_interval


def labelled(rng: np.random.Generator, beats: int, apart: float) -> LabelledScores:
    abnormal = rng.random(beats) < 0.3
    return LabelledScores(abnormal, np.round(rng.normal(size=beats) + apart * abnormal, 1))


def test_intervals_of_the_area_are_those_of_drawing_whole_records() -> None:
    rng = np.random.default_rng(1)
    records = [labelled(rng, 60, apart) for apart in (0.2, 1.0, 2.0, 3.0)]
    counts = draw_counts(4)
    assert counts.shape == (DRAWS, 4)
    assert (counts.sum(axis=1) == 4).all()
    few = counts[:50]
    drawn = []
    for draw in few:
        parts = LabelledScores.pooled(
            record for record, n in zip(records, draw, strict=True) for _ in range(n)
        )
        drawn.append(roc_auc_score(parts.abnormal, parts.scores))
    expected = np.quantile(drawn, [0.025, 0.975])
    assert auc_interval(records, few) == pytest.approx(tuple(expected), abs=1e-9)


def test_alike_records_have_a_narrow_interval_and_different_ones_a_wide_one() -> None:
    counts = draw_counts(10)
    alike = ratio_interval([9] * 10, [10] * 10, counts)
    different = ratio_interval([0, 10] * 5, [10] * 10, counts)
    assert alike == pytest.approx((0.9, 0.9))
    assert different is not None
    assert different.low < 0.3
    assert different.high > 0.7


def test_what_has_no_value_has_no_interval() -> None:
    assert ratio_interval([0, 0], [0, 0], draw_counts(2)) is None
    assert ratio_interval([3], [4], draw_counts(1)) is None
    normal = LabelledScores(np.zeros(5, np.bool_), np.arange(5.0))
    assert auc_interval([normal, normal], draw_counts(2)) is None
    assert auc_interval([], draw_counts(0)) is None
