"""Generator of noise as recordings of an ECG have it: baseline wander, electrode motion, muscles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

NoiseKind = Literal["wander", "motion", "muscle"]
Floats = NDArray[np.float64]

KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)

_MOST_WINDOWS = 300  # of one second, whose deviation is that of the noise
_TRIMMED = 0.05  # share of the largest and of the smallest values that nst leaves out of a mean


def generate_noise(
    kind: NoiseKind, samples: int, rate: float, channels: int, seed: int
) -> NDArray[np.float32]:
    """Generate noise of the kind, (channels, samples), with an RMS of about 1 in windows of one second
    (`noise_rms`). Its end continues with its beginning.

    - wander: baseline wander below 0.5 Hz, with breathing at 0.15 to 0.35 Hz;
    - motion: electrode motion: shifts of the baseline that recover within seconds, and deflections of 50 ms
      to 1 s, as fast and as high as the waves of the ECG;
    - muscle: noise of 20 to 150 Hz, whose strength varies over seconds.

    Args:
        rate: sampling rate, Hz.
    """
    makers: Mapping[NoiseKind, Callable[[np.random.Generator, int, float], Floats]] = {
        "wander": _wander,
        "motion": _motion,
        "muscle": _muscle,
    }
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    made = np.stack([makers[kind](rng, samples, rate) for _ in range(channels)])
    rms = np.array([noise_rms(channel, rate) for channel in made])
    return np.asarray(made / rms[:, None], np.float32)


def _wander(rng: np.random.Generator, samples: int, rate: float) -> Floats:
    breath = rng.uniform(0.15, 0.35)

    def shape(hertz: Floats) -> Floats:
        slow = 1 / (1 + (hertz / 0.08) ** 2) / (1 + (hertz / 0.5) ** 12)
        return slow + 0.7 * np.exp(-(((hertz - breath) / 0.03) ** 2))

    return _shaped(rng, samples, rate, shape)


def _muscle(rng: np.random.Generator, samples: int, rate: float) -> Floats:
    high = min(150.0, 0.4 * rate)

    def band(hertz: Floats) -> Floats:
        inside = 1 / np.sqrt(1 + (20 / np.maximum(hertz, 1e-3)) ** 8) / np.sqrt(1 + (hertz / high) ** 8)
        return np.asarray(inside, np.float64)

    strength = _shaped(rng, samples, rate, lambda hertz: 1 / (1 + (hertz / 0.3) ** 4))
    return _shaped(rng, samples, rate, band) * np.exp(0.5 * strength)


def _motion(rng: np.random.Generator, samples: int, rate: float) -> Floats:
    length = samples / rate
    made = np.zeros(samples)
    for start in rng.uniform(0, length, rng.poisson(0.15 * length)):
        recovery = rng.uniform(0.3, 2.0)
        times = np.arange(0, 6 * recovery, 1 / rate)
        shift = (1 - np.exp(-times / 0.03)) * np.exp(-times / recovery)
        _add(made, round(start * rate), rng.normal(0, 1.0) * shift)
    for start in rng.uniform(0, length, rng.poisson(1.2 * length)):
        width = math.exp(rng.uniform(math.log(0.05), math.log(1.0)))
        times = np.arange(0, width, 1 / rate)
        bump = np.sin(math.pi * times / width) ** 2 * np.cos(math.pi * times / width * rng.integers(1, 3))
        _add(made, round(start * rate), rng.normal(0, 1.0) * bump)
    wander = _shaped(rng, samples, rate, lambda hertz: 1 / (1 + (hertz / 0.5) ** 4))
    return made + 0.2 * wander


def _add(made: Floats, first: int, values: Floats) -> None:
    """Add `values` from sample `first` on, in place; what is beyond the end goes to the beginning."""
    at = (first + np.arange(min(len(values), len(made)))) % len(made)
    made[at] += values[: len(at)]


def _shaped(rng: np.random.Generator, samples: int, rate: float, shape: Callable[[Floats], Floats]) -> Floats:
    """Return Gaussian noise of variance 1 whose amplitude over frequency (Hz) is `shape`; periodic."""
    hertz: Floats = np.asarray(np.fft.rfftfreq(samples, 1 / rate), np.float64)
    weights = shape(hertz)
    weights[0] = 0.0
    spectrum = weights * (rng.standard_normal(len(hertz)) + 1j * rng.standard_normal(len(hertz)))
    made = np.fft.irfft(spectrum, samples)
    return np.asarray(made / max(float(made.std()), 1e-12), np.float64)


def noise_rms(samples: NDArray[np.floating], rate: float) -> float:
    """Return the root mean square of noise (samples,) as nst measures it: the mean over the first 300
    windows of one second, each about its own mean, without the largest and smallest 5 %. Of a slow wander it
    is less than that of the whole."""
    size = max(2, round(rate))
    count = min(len(samples) // size, _MOST_WINDOWS)
    windows = np.asarray(samples[: count * size], np.float64).reshape(count, size)
    return trimmed_mean(np.asarray(windows.std(axis=1), np.float64))


def trimmed_mean(values: Floats) -> float:
    """Return the mean of values (N,) without the largest and smallest 5 %, as nst takes it; 0 of none."""
    if not len(values):
        return 0.0
    ordered = np.sort(values)
    cut = int(_TRIMMED * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())
