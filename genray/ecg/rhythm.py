"""Features of windows of one lead, from which a small network tells ventricular fibrillation, flutter and
tachycardia from other rhythms.

They are those of the literature: the leakage of the VF filter (Kuo & Dillman 1978), threshold crossings
(Arafat et al. 2011), the moments and bands of the spectrum (Barro et al. 1989), counts of band-passed samples
(Jekova & Krasteva 2004), phase-space density (Amann et al. 2007), and the regularity and the contrast of the
slopes. Small classifiers on such features reach a sensitivity and specificity of about 95 % for VF (Li,
Rajagopalan & Clifford 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from genray.ecg.ventricular import BEAT_FEATURES

Floats = NDArray[np.float64]

WINDOW = 5.0
"""Seconds of a window."""
WINDOW_FEATURES = 25
"""Number of features of a window."""
_RATE = 125.0  # Hz, approximate rate of the samples that features are computed from
_BAND = (0.7, 30.0)  # Hz, of those samples
_BOXES = 20  # boxes of the phase space, each way
_LAG = 0.5  # s between the two axes of the phase space


class RhythmPreprocessing(BaseModel):
    """Features that a rhythm network takes: their numbers, and the version of their definition."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    window_features: int = Field(WINDOW_FEATURES, ge=1, le=4096, description="features of a window")
    beat_features: int = Field(BEAT_FEATURES, ge=1, le=4096, description="features of a beat")
    version: int = Field(1, ge=1, description="version of the definition of the features")

    @field_validator("version")
    @classmethod
    def _check_version(cls, version: int) -> int:
        if version != 1:
            raise ValueError("this genray computes features of version 1; train the bundle again")
        return version


def rhythm_features(samples: NDArray[np.floating], rate: float) -> Floats:
    """Return the features of windows.

    Args:
        samples: (windows, samples) in mV, `WINDOW` seconds, without NaN.
        rate: sampling rate, Hz.

    Returns:
        (windows, features).
    """
    step = max(1, round(rate / _RATE))
    count = samples.shape[1] // step
    thin = np.asarray(samples[:, : count * step], np.float64).reshape(len(samples), count, step).mean(axis=2)
    fs = rate / step
    spectrum = np.fft.rfft(thin - thin.mean(axis=1, keepdims=True), axis=1)
    hertz = np.asarray(np.fft.rfftfreq(count, 1 / fs), np.float64)
    spectrum[:, (hertz < _BAND[0]) | (hertz > _BAND[1])] = 0.0
    x = np.fft.irfft(spectrum, count, axis=1)
    size = np.abs(x)
    mean_size = size.mean(axis=1) + 1e-6
    slope = np.abs(np.diff(x, axis=1)) * fs
    highest = np.median(_blocks(size, 5).max(axis=2), axis=1) + 1e-6
    frequency = slope.mean(axis=1) / mean_size
    columns = [
        np.log(highest),
        np.log(np.maximum(frequency, 0.1)),
        np.log(((x**4).mean(axis=1) + 1e-12) / ((x**2).mean(axis=1) ** 2 + 1e-12)),
        (size > 0.2 * highest[:, None]).mean(axis=1),
        (size > 0.5 * highest[:, None]).mean(axis=1),
        (size > mean_size[:, None]).mean(axis=1),
        _leakage(x, frequency, fs),
        *_spectral(spectrum, hertz),
        *_regularity(spectrum, count, fs),
        *_slope_contrast(slope, fs),
        *_counts(spectrum, hertz, count),
        _phase_space_density(x, highest, round(_LAG * fs)),
    ]
    return np.stack(columns, axis=1)


def _blocks(values: Floats, blocks: int) -> Floats:
    width = values.shape[1] // blocks
    return values[:, : blocks * width].reshape(len(values), blocks, width)


def _leakage(x: Floats, frequency: Floats, fs: float) -> Floats:
    """Return the share of a signal that remains when it is added to itself half a period later: little of
    flutter and fibrillation."""
    # Of a sine, the mean slope is 2 pi times its frequency times its mean size.
    half = np.clip(np.rint(np.pi / np.maximum(frequency, 1e-3) * fs), 1, fs).astype(np.intp)
    leakage = np.empty(len(x))
    for shift in np.unique(half).tolist():
        rows = half == shift
        first, second = x[rows, shift:], x[rows, :-shift]
        whole = (np.abs(first) + np.abs(second)).sum(axis=1)
        leakage[rows] = np.abs(first + second).sum(axis=1) / (whole + 1e-6)
    return leakage


def _spectral(spectrum: NDArray[np.complex128], hertz: Floats) -> list[Floats]:
    """Return the dominant frequency, the normalised first moment, the shares of bands around multiples of
    the dominant frequency, the concentration and the entropy of the spectrum."""
    power = np.abs(spectrum) ** 2
    power /= power.sum(axis=1, keepdims=True) + 1e-12
    size = np.sqrt(power)
    dominant = hertz[power.argmax(axis=1)]
    relative = hertz[None] / np.maximum(dominant, 0.5)[:, None]
    low = relative < 20
    moment = (size * relative * low).sum(axis=1) / ((size * low).sum(axis=1) + 1e-12)
    middle = ((relative > 0.7) & (relative < 1.4)) * power
    harmonics = sum(np.abs(relative - number) < 0.15 for number in range(2, 9)) * power
    near = (np.abs(hertz[None] - dominant[:, None]) < 0.5) * power
    entropy = -(power * np.log(power + 1e-9)).sum(axis=1) / np.log(len(hertz))
    shares = [power[:, (hertz >= a) & (hertz < b)].sum(axis=1) for a, b in ((0, 2.5), (2.5, 7.5), (12, 40))]
    return [
        np.log(np.maximum(dominant, 0.5)),
        moment,
        middle.sum(axis=1),
        np.asarray(harmonics.sum(axis=1)),
        near.sum(axis=1),
        entropy,
        *shares,
    ]


def _regularity(spectrum: NDArray[np.complex128], count: int, fs: float) -> list[Floats]:
    """Return the height and the rate (logarithm of beats per minute) of the highest peak of the
    autocorrelation between 0.15 and 1.3 s."""
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, count, axis=1)
    correlation /= correlation[:, :1] + 1e-12
    first, last = round(0.15 * fs), round(1.3 * fs)
    part = correlation[:, first:last]
    rises = (part[:, 1:-1] >= part[:, :-2]) & (part[:, 1:-1] >= part[:, 2:])
    peaks = np.where(rises, part[:, 1:-1], -1.0)
    place = peaks.argmax(axis=1)
    height = peaks[np.arange(len(peaks)), place]
    return [height, np.log(60 * fs / (place + first + 1))]


def _slope_contrast(slope: Floats, fs: float) -> list[Floats]:
    """Return how much the slopes of complexes exceed those between them, and the share of time with steep
    slopes: a narrow complex is a short part of a beat, a ventricular one a long part."""
    width = max(1, round(0.1 * fs))
    sums = np.cumsum(np.pad(slope, ((0, 0), (1, 0))), axis=1)
    smooth = (sums[:, width:] - sums[:, :-width]) / width
    low, middle, high = np.quantile(smooth, (0.1, 0.5, 0.95), axis=1) + 1e-3
    return [np.log(high / low), np.log(high / middle), (smooth > 0.4 * high[:, None]).mean(axis=1)]


def _counts(spectrum: NDArray[np.complex128], hertz: Floats, count: int) -> list[Floats]:
    """Return the shares of samples between 13 and 17 Hz that exceed half the maximum and the mean, and the
    part of that band in the whole."""
    band = np.where((hertz >= 10) & (hertz <= 20), spectrum, 0.0)
    size = np.abs(np.fft.irfft(band, count, axis=1))
    whole = np.abs(np.fft.irfft(spectrum, count, axis=1)).mean(axis=1) + 1e-6
    mean = size.mean(axis=1, keepdims=True)
    return [
        (size > 0.5 * size.max(axis=1, keepdims=True)).mean(axis=1),
        (size > mean).mean(axis=1),
        np.log(mean[:, 0] / whole + 1e-3),
    ]


def _phase_space_density(x: Floats, highest: Floats, lag: int) -> Floats:
    """Return the share of the boxes of the phase space (signal, signal half a second later) that a signal
    visits: many in fibrillation, few in a regular rhythm."""
    scaled = np.clip(x / (2.2 * highest[:, None]) + 0.5, 0, 0.999)
    box = (scaled * _BOXES).astype(np.intp)
    visited = np.zeros((len(x), _BOXES * _BOXES), np.bool_)
    visited[np.arange(len(x))[:, None], box[:, lag:] * _BOXES + box[:, :-lag]] = True
    density: Floats = visited.mean(axis=1)
    return density
