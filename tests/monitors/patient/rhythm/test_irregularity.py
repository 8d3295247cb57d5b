"""The irregularity of RR intervals tells atrial fibrillation from sinus rhythm, ectopy and slow changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from monitors.alarms.events import Irregularity, JudgedBeat
from monitors.patient.rhythm.irregularity import IrregularityMeter


def measured(intervals: NDArray[np.float64], ventricular: NDArray[np.bool_] | None = None) -> Irregularity:
    meter = IrregularityMeter()
    chances = np.zeros(len(intervals)) if ventricular is None else 0.99 * ventricular
    for time, chance in zip(np.cumsum(intervals).tolist(), chances.tolist(), strict=True):
        meter.add(JudgedBeat(time, chance))
    assert meter.now is not None
    return meter.now


def test_random_intervals_have_no_order() -> None:
    found = measured(np.random.default_rng(1).normal(0.7, 0.15, 200).clip(0.35, 1.4))
    assert found.variation > 0.2
    assert found.entropy > 0.75
    assert 0.54 < found.turning < 0.77


def test_breathing_and_slow_changes_are_order() -> None:
    n = np.arange(200)
    noise = np.random.default_rng(2).normal(0, 0.01, 200)
    assert measured(0.8 + 0.05 * np.sin(n / 2) + noise).variation < 0.1
    assert measured(np.linspace(0.6, 1.0, 200) + noise).variation < 0.1
    assert measured(0.8 + 0.2 * np.sin(2 * math.pi * n / 12) + noise).turning < 0.54


def test_intervals_beside_ventricular_beats_do_not_count() -> None:
    intervals = np.full(300, 0.8)
    ventricular = np.arange(300) % 12 == 11
    intervals[ventricular] = 0.45
    intervals[np.flatnonzero(ventricular)[:-1] + 1] = 1.15
    found = measured(intervals, ventricular)
    assert found.variation == pytest.approx(0, abs=1e-6)
    assert found.ectopic == pytest.approx(1 / 12, abs=0.01)


def test_too_few_intervals_in_the_last_minutes_say_nothing() -> None:
    meter = IrregularityMeter()
    for n in range(120):
        meter.add(JudgedBeat(0.8 * n, 0.0))
        meter.add(JudgedBeat(0.8 * n - 1, 0.0))  # late, of search-back
    assert meter.now is None
    for n in range(120):
        meter.add(JudgedBeat(200 + 10.0 * (n // 2) + 0.8 * (n % 2), 0.0))
    assert meter.now is None
