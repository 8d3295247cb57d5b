"""Pulse waves beside the ECG (plethysmogram, arterial pressure): their pulses, and how alike these are.

Pulses are found by the slope sum function (Zong et al. 2003). The quality of a wave is that of the
literature: each pulse has to look like the median of the last ones (Li & Clifford 2012; Orphanidou et al.
2015, correlation of at least 0.86), and the wave must be neither clipped nor flat.

A window of the last seconds is analysed as a whole each time, so nothing has to be learned or stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.ecg.qrs import find_energy_peaks

Floats = NDArray[np.float64]

PULSE_WINDOW = 10.0
"""Seconds of the last samples that are analysed."""
_RATE = 60.0  # Hz, approximate rate of the samples that are analysed
_SLOPE = 0.16  # s of rising flank that are summed up
_APART = 0.25  # s, least distance of two pulses
_HIGH = 0.45  # ratio to the usual slope sum from which a rise is a pulse; a dicrotic wave has less
_BLOCK = 2.0  # s, of which each has a pulse down to 30/min
_SHAPE = (0.15, 0.35)  # s before and after the steepest rise, in which pulses are compared
_ALIKE = 0.86  # least correlation of a pulse with the median of all (Orphanidou et al. 2015)
_HEIGHTS = (0.5, 1.7)  # ratios to the usual height between which a pulse is one like the others
_CLIPPED = 0.08  # share of samples at one extreme from which a wave is clipped
_LEAST = 4  # pulses of a wave that is judged
_PRESENT = 0.98  # share of samples that must be present


class PulseWave(NamedTuple):
    """Pulses of the last seconds of one lead.

    Attributes:
        times: seconds from each pulse to the end of the window, decreasing; empty: the wave is flat, clipped
            or missing.
        alike: whether each is about as high as the others and, if it is within the window as a whole, looks
            like them.
        height: range of the wave in its own unit.
    """

    times: Floats
    alike: NDArray[np.bool_]
    height: float


_NO_PULSES = PulseWave(np.empty(0), np.empty(0, np.bool_), 0.0)


def find_pulses(samples: NDArray[np.floating], rate: float) -> list[PulseWave]:
    """Return the pulses of waves.

    Args:
        samples: (leads, samples) the last `PULSE_WINDOW` seconds in any unit, NaN where missing.
        rate: sampling rate, Hz.
    """
    step = max(1, round(rate / _RATE))
    count = samples.shape[1] // step
    blocks = np.asarray(samples[:, samples.shape[1] - count * step :], np.float64)
    present = np.isfinite(blocks)
    whole = _held(blocks)
    thin = whole.reshape(len(whole), count, step).mean(axis=2)
    fs = rate / step
    low, high = np.quantile(thin, (0.02, 0.98), axis=1)
    height = high - low
    edge = 0.004 * np.ptp(thin, axis=1)[:, None]
    at_rail = np.maximum(
        (thin >= thin.max(axis=1, keepdims=True) - edge).mean(axis=1),
        (thin <= thin.min(axis=1, keepdims=True) + edge).mean(axis=1),
    )
    judged = (present.mean(axis=1) >= _PRESENT) & (height > 0) & (at_rail < _CLIPPED)
    sums = _slope_sums(thin, fs)
    block = max(1, round(_BLOCK * fs))
    blocks_of = sums[:, count % block :].reshape(len(sums), -1, block).max(axis=2)
    level = np.median(blocks_of, axis=1)
    apart = max(1, round(_APART * fs))
    padded = np.pad(sums, ((0, 0), (apart, apart)))
    rows, columns = find_energy_peaks(padded, apart)
    columns = columns - apart
    # A rise that the window cuts off is none yet, or none any more.
    whole_rise = (columns >= round(_SLOPE * fs)) & (columns < count - 1)
    pulses = whole_rise & (sums[rows, columns] > _HIGH * level[rows])
    rows, columns = rows[pulses], columns[pulses]
    # Sums of the same rise are equal, so that a pulse may have several maxima in a row.
    first = np.ones(len(rows), np.bool_)
    first[1:] = (np.diff(rows) > 0) | (np.diff(columns) > apart)
    rows, columns = rows[first], columns[first]
    return [
        _wave(thin[row], columns[rows == row], sums[row], fs, float(height[row]))
        if judged[row]
        else _NO_PULSES
        for row in range(len(thin))
    ]


def _held(samples: Floats) -> Floats:
    """Return samples with missing ones replaced by the mean."""
    absent = ~np.isfinite(samples)
    if not absent.any():
        return samples
    number = np.maximum(samples.shape[1] - absent.sum(axis=1), 1)
    mean = np.where(absent, 0.0, samples).sum(axis=1) / number
    return np.where(absent, mean[:, None], samples)


def _slope_sums(thin: Floats, fs: float) -> Floats:
    """Return the sum of the rises of the last `_SLOPE` seconds at each sample."""
    smooth = thin.copy()
    smooth[:, 1:-1] = (thin[:, :-2] + thin[:, 1:-1] + thin[:, 2:]) / 3
    rises = np.maximum(np.diff(smooth, axis=1, prepend=smooth[:, :1]), 0.0)
    width = max(1, round(_SLOPE * fs))
    sums = np.cumsum(np.pad(rises, ((0, 0), (width, 0))), axis=1)
    found: Floats = sums[:, width:] - sums[:, :-width]
    return found


def _wave(wave: Floats, columns: NDArray[np.intp], sums: Floats, fs: float, height: float) -> PulseWave:
    """Return the pulses of a wave at `columns`, compared with the median of all."""
    times = (len(wave) - 1 - columns) / fs
    alike = np.zeros(len(columns), np.bool_)
    before, after = round(_SHAPE[0] * fs), round(_SHAPE[1] * fs)
    whole = (columns >= before) & (columns + after < len(wave))
    if whole.sum() >= _LEAST:
        shapes = wave[columns[whole, None] + np.arange(-before, after + 1)]
        shapes = shapes - shapes.sum(axis=1, keepdims=True) / shapes.shape[1]
        shapes /= np.sqrt((shapes * shapes).sum(axis=1, keepdims=True)) + 1e-12
        usual = np.sort(shapes, axis=0)[len(shapes) // 2]  # faster than np.median of so few
        like = shapes @ usual / (np.sqrt(usual @ usual) + 1e-12)
        heights = sums[columns]
        heights = heights / np.sort(heights)[len(heights) // 2]
        alike = (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1])
        alike[whole] &= like >= _ALIKE
    return PulseWave(times, alike, height)
