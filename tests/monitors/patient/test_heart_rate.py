import math
import random

import pytest

from monitors.patient.heart_rate import HeartRate, earliness


def beaten(*intervals: float) -> HeartRate:
    rhythm = HeartRate()
    for interval in intervals:
        rhythm.beat(interval)
    return rhythm


def test_the_rate_is_the_median_of_the_last_seconds() -> None:
    assert beaten(*[1.0] * 20).rate(0) == 60
    assert beaten(*[1.0] * 20, *[0.4] * 10).rate(0) == pytest.approx(150)
    assert beaten(*[0.8] * 10, 0.5, 1.1).rate(0) == pytest.approx(75)


def test_of_fewer_than_three_intervals_no_rate_is_told() -> None:
    assert beaten(1.0, 1.0).rate(0) is None
    rhythm = beaten(*[1.0] * 9)
    rhythm.interrupt()
    assert rhythm.rate(0) is None
    for _ in range(3):
        rhythm.beat(0.5)
    assert rhythm.rate(0) == 120


def test_a_slow_heart_shows_after_two_intervals() -> None:
    assert beaten(*[0.8] * 10, 1.9, 1.9).rate(0) == pytest.approx(60 / 1.9)


def test_a_silence_counts_once_it_is_longer_than_an_interval() -> None:
    rhythm = beaten(*[1.0] * 3, 2.0)
    assert rhythm.rate(1.4) == rhythm.rate(0)
    assert (rhythm.rate(3.9) or 0) < (rhythm.rate(0) or 0)


def test_an_early_beat_is_early_in_a_regular_rhythm_alone() -> None:
    steady = beaten(*[0.8] * 20)
    assert earliness(*steady.beat(0.5)) == pytest.approx(math.log(0.8 / 0.5))
    drawn = random.Random(0)
    wild = beaten(*[drawn.uniform(0.4, 1.2) for _ in range(20)])
    assert earliness(*wild.beat(0.5)) < 0.2


def test_what_is_usual_outlasts_an_interruption() -> None:
    rhythm = beaten(*[0.8] * 20)
    rhythm.interrupt()
    assert rhythm.beat(0.4)[0] == pytest.approx(0.5)


def test_late_beats_are_not_early() -> None:
    assert earliness(1.8, 0.0) == 0.0
