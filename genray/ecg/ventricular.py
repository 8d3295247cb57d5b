"""Features of single beats, from which a small network tells ventricular beats from others.

A ventricular beat is wide, its slopes are flat for its height, its T wave points the other way, and it
differs from the beat that the patient had before (de Chazal et al. 2004; Llamedo & Martinez 2011). The beat
before is a moving average of the last similar ones, which needs no time to be learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genray.ecg.beats import BeatSettings

Floats = NDArray[np.float64]

BEAT = BeatSettings(before=0.3, after=0.4, samples=88)
"""Window of a beat around its R peak, at about 125 Hz."""
BEAT_FEATURES = 22
"""Number of features of a beat of any number of leads."""
_RATE = (BEAT.samples - 1) / (BEAT.before + BEAT.after)
_TIMES = np.linspace(-BEAT.before, BEAT.after, BEAT.samples)
_CORE = (_TIMES >= -0.16) & (_TIMES <= 0.2)  # the complex
_T_WAVE = _TIMES > 0.22
_SHIFTS = (-4, -2, 0, 2, 4)  # samples by which a beat may lie beside the usual one
_MOST_SHIFT = 8
_HIGHEST = [0, 3, 10, 12]  # features of which the largest of all leads counts, beside the mean
_LOWEST = [4]  # features of which the smallest counts
_LIKENESS = 10
_ALIKE = 0.8  # correlation from which a beat is like the usual one
_FOLLOW = 1 / 8  # weight of a new beat in the usual one
_OTHERS = 12  # beats unlike the usual one, more than those like it, after which it is replaced
_SHORTEST, _LONGEST = 0.2, 3.0  # s, range of RR intervals
_NO_INTERVAL = 0.8  # s, taken where the interval is unknown


class UsualBeats:
    """Moving average of the last similar beats of each lead: what a beat is compared with.

    Args:
        leads: number of leads.
    """

    def __init__(self, leads: int) -> None:
        self._shapes = np.full((leads, BEAT.samples), np.nan)
        self._others = np.zeros(leads)

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads."""
        more = leads - len(self._shapes)
        self._shapes = np.pad(self._shapes, ((0, more), (0, 0)), constant_values=np.nan)
        self._others = np.pad(self._others, (0, more))

    def forget(self, rows: NDArray[np.intp]) -> None:
        """Delete the usual beats of the leads `rows`."""
        self._shapes[rows] = np.nan
        self._others[rows] = 0

    def compare(self, rows: NDArray[np.intp], beats: NDArray[np.floating], *, follow: bool = True) -> Floats:
        """Return the features of beats, and let the usual beats follow.

        Args:
            rows: (beats,) lead of each beat.
            beats: (beats, `BEAT.samples`) in mV, without NaN.
            follow: whether the usual beats follow.

        Returns:
            (beats, features of one lead), for `combine_leads`.
        """
        samples = np.asarray(beats, np.float64)
        usual = self._shapes[rows]
        known = np.isfinite(usual[:, 0])
        features = _lead_features(samples, np.where(known[:, None], usual, samples), known)
        if not follow:
            return features
        alike = is_like_usual(features)
        others = np.where(alike, np.maximum(self._others[rows] - 1, 0), self._others[rows] + 1)
        replaced = ~known | (others >= _OTHERS)
        followed = np.where(alike[:, None], usual + _FOLLOW * (samples - usual), usual)
        self._shapes[rows] = np.where(replaced[:, None], samples, followed)
        self._others[rows] = np.where(replaced, 0, others)
        return features


def is_like_usual(features: Floats) -> NDArray[np.bool_]:
    """Return whether beats are like the usual ones, (N,), by their features (N, features), of one lead or
    combined."""
    like: NDArray[np.bool_] = features[:, _LIKENESS] < np.log(1.02 - _ALIKE)
    return like


def _lead_features(beats: Floats, usual: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return width, shape and slopes of beats in one lead, and their differences from the usual one, 0 where
    none is `known`."""
    x, slopes = _smoothed(beats)
    core, steep = x[:, _CORE], slopes[:, _CORE]
    steepest = steep.max(axis=1) + 1e-3
    height = np.ptp(core, axis=1) + 1e-3
    width = (steep > 0.2 * steepest[:, None]).mean(axis=1)
    sharpness = np.log(steepest / height)
    t_wave = x[:, _T_WAVE]
    power = np.abs(np.fft.rfft(x - x.mean(axis=1, keepdims=True), axis=1)) ** 2
    hertz = np.fft.rfftfreq(x.shape[1], 1 / _RATE)
    total = power[:, hertz < 40].sum(axis=1) + 1e-9
    y, usual_slopes = _smoothed(usual)
    usual_steep = usual_slopes[:, _CORE]
    usual_steepest = usual_steep.max(axis=1) + 1e-3
    usual_height = np.ptp(y[:, _CORE], axis=1) + 1e-3
    usual_width = (usual_steep > 0.2 * usual_steepest[:, None]).mean(axis=1)
    likeness = np.where(known, _correlation(x, y), 1.0)
    return np.stack(
        [
            width,
            (steep > 0.5 * steepest[:, None]).mean(axis=1),
            (slopes > 0.3 * steepest[:, None]).mean(axis=1),
            np.abs(core).mean(axis=1) / height,
            sharpness,
            -np.sign(core.sum(axis=1)) * t_wave.mean(axis=1) / height,
            np.ptp(t_wave, axis=1) / height,
            power[:, hertz < 5].sum(axis=1) / total,
            np.log(power[:, (hertz >= 12) & (hertz < 40)].sum(axis=1) / total + 1e-3),
            np.log(height),
            np.log(1.02 - np.clip(likeness, -1, 1)),
            np.log(height / usual_height),
            width - usual_width,
            sharpness - np.log(usual_steepest / usual_height),
            known.astype(np.float64),
        ],
        axis=1,
    )


def _smoothed(beats: Floats) -> tuple[Floats, Floats]:
    """Return beats without noise and baseline, and their absolute slopes (1/s)."""
    x = _moving_mean(beats, 3)
    x = x - np.median(x, axis=1, keepdims=True)
    return x, _moving_mean(np.abs(np.gradient(x, axis=1)) * _RATE, 5)


def _moving_mean(values: Floats, width: int) -> Floats:
    padded = np.pad(values, ((0, 0), (width // 2, width // 2)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    mean: Floats = (sums[:, width:] - sums[:, :-width]) / width
    return mean


def _correlation(x: Floats, y: Floats) -> Floats:
    """Return the largest correlation of the rows of `x` with those of `y`, shifted by a few samples."""
    inner = x[:, _MOST_SHIFT:-_MOST_SHIFT]
    inner = inner - inner.mean(axis=1, keepdims=True)
    size = (inner * inner).sum(axis=1)
    best = np.full(len(x), -1.0)
    for shift in _SHIFTS:
        other = y[:, _MOST_SHIFT + shift : y.shape[1] - _MOST_SHIFT + shift]
        other = other - other.mean(axis=1, keepdims=True)
        product = (inner * other).sum(axis=1)
        best = np.maximum(best, product / np.sqrt(size * (other * other).sum(axis=1) + 1e-9))
    return best


def combine_leads(
    features: Floats, usable: NDArray[np.bool_], starts: NDArray[np.intp], intervals: Floats
) -> Floats:
    """Return the features of beats of several leads: means, some extremes, and the rhythm.

    Args:
        features: (rows, features of one lead), the leads of a beat in consecutive rows.
        usable: (rows,) whether a lead counts; the result for a beat without any means nothing.
        starts: (beats,) first row of each beat.
        intervals: (beats, 2) RR interval before each beat in seconds, and its ratio to the usual one; NaN:
            unknown.

    Returns:
        (beats, `BEAT_FEATURES`).
    """
    number = np.add.reduceat(usable.astype(np.float64), starts)
    means = np.add.reduceat(np.where(usable[:, None], features, 0.0), starts) / np.maximum(number, 1)[:, None]
    highest = np.maximum.reduceat(np.where(usable[:, None], features[:, _HIGHEST], -np.inf), starts)
    lowest = np.minimum.reduceat(np.where(usable[:, None], features[:, _LOWEST], np.inf), starts)
    seconds = np.where(np.isfinite(intervals[:, 0]), intervals[:, 0], _NO_INTERVAL)
    ratio = np.where(np.isfinite(intervals[:, 1]), intervals[:, 1], 1.0)
    rhythm = np.log(np.stack([np.clip(ratio, 0.2, 5), np.clip(seconds, _SHORTEST, _LONGEST)], axis=1))
    return np.concatenate([means, highest, lowest, rhythm], axis=1)
