from __future__ import annotations

import numpy as np
import pytest

from genray.ecg.noise_generator import KINDS, NoiseKind, generate_noise, noise_rms

RATE = 360.0
SAMPLES = 43_200  # two minutes


def share_between(samples: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(power[(hertz >= low) & (hertz <= high)].sum() / power.sum())


@pytest.mark.parametrize(
    ("kind", "low", "high", "least"),
    [("wander", 0, 0.8, 0.99), ("motion", 0, 20, 0.95), ("muscle", 18, 160, 0.95)],
)
def test_noise_has_the_frequencies_of_its_kind(
    kind: NoiseKind, low: float, high: float, least: float
) -> None:
    for channel in generate_noise(kind, SAMPLES, RATE, 2, seed=3):
        assert share_between(channel, low, high) > least
        assert noise_rms(channel, RATE) == pytest.approx(1, abs=1e-3)


def test_motion_reaches_into_the_band_of_the_qrs_complex() -> None:
    assert share_between(generate_noise("motion", SAMPLES, RATE, 1, seed=1)[0], 3, 20) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_noise_and_its_end_continues_with_its_beginning(kind: NoiseKind) -> None:
    one = generate_noise(kind, SAMPLES, RATE, 2, seed=5)
    assert np.array_equal(one, generate_noise(kind, SAMPLES, RATE, 2, seed=5))
    assert not np.array_equal(one, generate_noise(kind, SAMPLES, RATE, 2, seed=6))
    steps = np.abs(np.diff(one, axis=1))
    assert (np.abs(one[:, 0] - one[:, -1]) <= steps.max(axis=1)).all()
