"""Pulses are found in waves of any size, and those of a bad wave are not alike."""

from __future__ import annotations

import numpy as np
import pytest

from genray.ecg.pulse import PULSE_WINDOW, PulseWave, find_pulses
from tests.genray.ecg.pulse_waves import Floats, pulse_wave, regular


def found(wave: Floats, rate: float = 125.0) -> PulseWave:
    return find_pulses(wave[None], rate)[0]


@pytest.mark.parametrize("rate", [62.5, 125.0, 250.0, 500.0])
@pytest.mark.parametrize("per_minute", [35.0, 70.0, 150.0])
def test_each_pulse_is_found_once_and_on_time(rate: float, per_minute: float) -> None:
    wave = pulse_wave(regular(per_minute, PULSE_WINDOW, 0.3), PULSE_WINDOW, rate, height=40.0, notch=0.3)
    pulses = found(80.0 + wave, rate)
    intervals = -np.diff(pulses.times)
    assert intervals == pytest.approx(60 / per_minute, abs=0.04)
    assert len(pulses.times) >= PULSE_WINDOW * per_minute / 60 - 2
    assert pulses.alike[2:].all(), "the first ones do not lie on the fall of others"


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_the_unit_does_not_matter(size: float) -> None:
    wave = pulse_wave(regular(80, PULSE_WINDOW), PULSE_WINDOW, 125.0)
    assert found(size * wave).times == pytest.approx(found(wave).times)


def test_flat_clipped_and_missing_waves_have_no_pulses() -> None:
    wave = pulse_wave(regular(70, PULSE_WINDOW), PULSE_WINDOW, 125.0)
    holes = wave.copy()
    holes[300:400] = np.nan
    for bad in (
        np.full_like(wave, 3.0),
        np.minimum(wave, 0.5 * wave.max()),
        holes,
        np.full_like(wave, np.nan),
    ):
        assert not len(found(bad).times)


def test_noise_is_not_alike() -> None:
    rng = np.random.default_rng(1)
    shares = [found(np.cumsum(rng.normal(size=1250))).alike.mean() for _ in range(20)]
    shares += [found(rng.normal(size=1250)).alike.mean() for _ in range(20)]
    assert np.mean(np.array(shares) >= 0.8) <= 0.05


def test_a_pulse_that_is_hardly_one_leaves_a_pause() -> None:
    times = regular(75, PULSE_WINDOW, 0.4)
    wave = pulse_wave(times, PULSE_WINDOW, 125.0) - 0.65 * pulse_wave(times[6:7], PULSE_WINDOW, 125.0)
    assert (-np.diff(found(wave).times)).max() == pytest.approx(1.6, abs=0.05)
