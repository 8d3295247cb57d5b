import math
import random

import pytest

from monitors.patient.rhythm.heart_rate import RrIntervals, prematurity


def intervals_of(*lengths: float) -> RrIntervals:
    intervals = RrIntervals()
    for seconds in lengths:
        intervals.add(seconds)
    return intervals


def test_the_rate_is_the_median_of_the_last_seconds() -> None:
    assert intervals_of(*[1.0] * 20).heart_rate(0) == 60
    assert intervals_of(*[1.0] * 20, *[0.4] * 10).heart_rate(0) == pytest.approx(150)
    assert intervals_of(*[0.8] * 10, 0.5, 1.1).heart_rate(0) == pytest.approx(75)


def test_of_fewer_than_three_intervals_no_rate_is_told() -> None:
    assert intervals_of(1.0, 1.0).heart_rate(0) is None
    intervals = intervals_of(*[1.0] * 9)
    intervals.interrupt()
    assert intervals.heart_rate(0) is None
    for _ in range(3):
        intervals.add(0.5)
    assert intervals.heart_rate(0) == 120


def test_a_slow_heart_shows_after_two_intervals() -> None:
    assert intervals_of(*[0.8] * 10, 1.9, 1.9).heart_rate(0) == pytest.approx(60 / 1.9)


def test_a_silence_counts_once_it_is_longer_than_an_interval() -> None:
    intervals = intervals_of(*[1.0] * 3, 2.0)
    assert intervals.heart_rate(1.4) == intervals.heart_rate(0)
    assert (intervals.heart_rate(3.9) or 0) < (intervals.heart_rate(0) or 0)


def test_an_early_beat_is_early_in_a_regular_rhythm_alone() -> None:
    steady = intervals_of(*[0.8] * 20)
    assert prematurity(*steady.add(0.5)[:2]) == pytest.approx(math.log(0.8 / 0.5))
    drawn = random.Random(0)
    wild = intervals_of(*[drawn.uniform(0.4, 1.2) for _ in range(20)])
    assert prematurity(*wild.add(0.5)[:2]) < 0.2


def test_what_is_usual_outlasts_an_interruption() -> None:
    intervals = intervals_of(*[0.8] * 20)
    intervals.interrupt()
    assert intervals.add(0.4).ratio == pytest.approx(0.5)


def test_late_beats_are_not_early() -> None:
    assert prematurity(1.8, 0.0) == 0.0
