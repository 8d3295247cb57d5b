import math

import numpy as np
import pytest

from monitors.patient.scoring import combined, score, score_alone

NONE = np.empty(0, np.float32)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_beat_like_the_reference_is_normal_and_another_shape_is_not() -> None:
    assert score(array(-0.5, 0.0), array(0.0, 0.0), 1.0, 0.0) < 1
    assert score(array(2.0, 1.5), NONE, 1.0, 0.0) > 1


def test_an_artefact_in_one_lead_counts_less_than_a_change_in_all() -> None:
    assert combined(array(-0.3, 1.8)) < 0.5 < combined(array(1.8, 1.8))
    assert combined(array(1.8, -0.3)) == combined(array(-0.3, 1.8))
    assert combined(array(0.7)) == pytest.approx(0.7)


def test_surprise_and_an_early_beat_add_to_the_score() -> None:
    usual = score(array(0.2), array(0.0), 1.0, 0.0)
    assert score(array(0.2), array(3.0), 1.0, 0.0) > usual
    assert score(array(0.2), array(0.0), 0.6, 0.0) > 1 > usual
    assert score(array(0.2), array(0.0), 0.6, 0.5) == score(array(0.2), array(0.0), math.nan, 0.5) == usual


def test_of_a_patient_who_is_not_known_surprise_and_rhythm_decide() -> None:
    assert score_alone(NONE, math.nan) == 1.0
    assert score_alone(array(1.0), 1.0) > 1 > score_alone(array(-1.0), 1.0)
    assert score_alone(array(-1.0), 0.6) > score_alone(array(-1.0), 1.0)


def test_no_score_is_infinite() -> None:
    assert math.isfinite(score(array(1e9), array(1e9), 1e-9, 0.0))
    assert score(array(-1e9), NONE, 1.0, 0.0) > 0
