"""Removal of pace pulses from streams: spikes of 0.1 to 2 ms, narrower than any wave of the heart.

A pulse is recognised by its neighbourhood: it rises from a quiet signal and returns to it within a few
milliseconds, while the samples beside the tip of an R wave differ nearly as much as the tip does. Bedside
monitors have to reject pulses of 2 to 700 mV and 0.1 to 2 ms (IEC 60601-2-27).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_LONGEST = 0.002  # s, longest pulse
_WIDEST = 0.0085  # s over which the samples spread a pulse; wider, it could be a narrow R wave
_QUIET = 0.008  # s before and after a pulse that must be quiet
_LOWEST = 0.15  # mV, height of a pulse; lower ones disturb no detection
_SHARE = 0.2  # largest step beside a pulse, as a share of its height


class PacePulseFilter:
    """Filter that replaces pace pulses by a straight line, for many leads at once and pieces of any length.

    Args:
        rate: sampling rate of all leads, Hz; below 118 Hz the samples cannot show a pulse, and none is
            removed.
        leads: number of leads.
    """

    def __init__(self, rate: float, leads: int) -> None:
        self._width = min(math.ceil(_LONGEST * rate) + 1, math.floor(_WIDEST * rate))
        self._quiet = max(2, round(_QUIET * rate))
        self.delay = self._width + self._quiet + 1 if self._width else 0
        """Delay of the output behind the input, in samples."""
        self._before = self._quiet + 2
        self._tail: Floats = np.zeros((leads, self._before + self.delay), np.float32)

    def __call__(self, rows: NDArray[np.intp], samples: NDArray[np.floating]) -> Floats:
        """Return the next samples (leads, samples) of the leads `rows`, without pulses and `delay` samples
        late, from new samples in mV, which must not contain NaN."""
        if not self._width:
            return np.asarray(samples, np.float32)
        count = samples.shape[1]
        whole: Floats = np.concatenate([self._tail[rows], samples], axis=1, dtype=np.float32)
        first = self._before
        steps = np.abs(np.diff(whole[:, first - 2 : first + count], axis=1))
        sudden = (steps[:, 1:] > _LOWEST / self._width) & (steps[:, 1:] > 3 * steps[:, :-1])
        leads, starts = np.nonzero(sudden)
        if len(leads):
            self._replace(whole, leads, starts + first)
        self._tail[rows] = whole[:, count:]
        return whole[:, first : first + count]

    def _replace(self, whole: Floats, leads: NDArray[np.intp], starts: NDArray[np.intp]) -> None:
        """Replace those pulses that begin at `starts` of `leads`."""
        quiet, width = self._quiet, self._width
        around = whole[leads[:, None], starts[:, None] + np.arange(-1 - quiet, width + quiet + 1)]
        before, after = around[:, quiet], around[:, quiet + 1 + width]
        inside = around[:, quiet + 1 : quiet + 1 + width]
        height = np.abs(inside - (before + after)[:, None] / 2).max(axis=1)
        steps = np.abs(np.diff(around, axis=1))
        beside = np.maximum(steps[:, :quiet].max(axis=1), steps[:, -quiet:].max(axis=1))
        limit = _SHARE * height
        pulses = (height > _LOWEST) & (np.abs(after - before) < limit) & (beside < limit)
        share = np.arange(1, width + 1) / (width + 1)
        line = before[pulses, None] + (after - before)[pulses, None] * share
        whole[leads[pulses, None], starts[pulses, None] + np.arange(width)] = line

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads; `begin` must be called for the new ones."""
        self._tail = np.pad(self._tail, ((0, leads - len(self._tail)), (0, 0)))

    def begin(self, rows: NDArray[np.intp], first: NDArray[np.floating]) -> None:
        """Restart leads whose next samples, from `first` (leads,) on, do not continue the last ones."""
        self._tail[rows] = np.asarray(first, np.float32)[:, None]
