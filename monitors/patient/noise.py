"""Noise of muscles in each lead, measured between QRS complexes from beat to beat.

P and T waves repeat from beat to beat and hardly have frequencies above 20 Hz, muscles do not and have: half
the power of the difference of two beats at these frequencies, outside their complexes, is that of the noise.
Of the differences from the last two beats the smaller counts, as ectopic beats differ from normal ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from genray.ecg.beats import BeatSettings

Rows = NDArray[np.intp]
Floats = NDArray[np.float32]

_SMOOTH = 0.025  # s of the moving mean above which the noise lies, about 18 Hz
_QRS = (-0.08, 0.12)  # s around the R peak that are left out, as complexes differ by their alignment
_COMPARED = 2  # last beats with which a beat is compared
_LAST = 6  # beats whose median noise counts


class NoiseMeter:
    """Meter of the noise of each lead; a lead is a row.

    Args:
        beat: window and samples of the beats.
    """

    def __init__(self, beat: BeatSettings) -> None:
        times = np.linspace(-beat.before, beat.after, beat.samples)
        self._between = np.flatnonzero((times < _QRS[0]) | (times > _QRS[1]))
        self._width = max(3, 2 * round(_SMOOTH / (times[1] - times[0]) / 2) + 1)
        self._last: Floats = np.full((0, _COMPARED, beat.samples), np.nan, np.float32)
        self._powers: Floats = np.full((0, _LAST), np.nan, np.float32)

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads."""
        more = (0, leads - len(self._last))
        self._last = np.pad(self._last, (more, (0, 0), (0, 0)), constant_values=np.nan)
        self._powers = np.pad(self._powers, (more, (0, 0)), constant_values=np.nan)

    def forget(self, rows: Rows) -> None:
        """Delete what was measured of leads, for samples that do not continue the last ones."""
        self._last[rows] = np.nan
        self._powers[rows] = np.nan

    def measure(self, rows: Rows, beats: Floats) -> Floats:
        """Return the power of the noise of leads, (leads,) in mV²; 0 before their second beat.

        Args:
            rows: (leads,) rows, each at most once.
            beats: (leads, samples) the next beat of each, in mV; NaN where samples are missing.
        """
        fast = beats - uniform_filter1d(beats, self._width, axis=1, mode="nearest")
        last = self._last[rows]
        powers = 0.5 * np.square((fast[:, None] - last)[..., self._between]).mean(axis=2)
        self._last[rows] = np.concatenate([fast[:, None], last[:, :-1]], axis=1)
        self._powers[rows] = np.roll(self._powers[rows], 1, axis=1)
        self._powers[rows, 0] = np.fmin.reduce(powers, axis=1)  # NaN only where all are
        known = self._powers[rows]
        measured = np.zeros(len(rows), np.float32)
        some = np.isfinite(known).any(axis=1)
        measured[some] = np.nanmedian(known[some], axis=1)
        return measured
