"""Interpolation of a lead of a lower rate to the rate of the others, by windowed sinc. Any stretch can be
read, and stretches fit together whatever their bounds are.

The kernel has 16 samples and a Kaiser window (Oppenheim & Schafer, Discrete-Time Signal Processing, 7.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import MISSING

REACH = 8
"""Samples of a lead on each side of a place that its value is computed from."""

_TAPS = np.arange(1 - REACH, REACH + 1)
_BETA = 8.0
_PART = 1 << 16  # samples that are computed at once
_MOST_PHASES = 1 << 12  # for which the weights are kept


@dataclass(frozen=True)
class Upsampling:
    """Ratio of a higher rate to that of a lead, `up` to `down`, in lowest terms.

    Sample n at the higher rate lies at n * down / up of the lead, counted from the beginning of a run without
    gaps.
    """

    up: int
    down: int

    @classmethod
    def between(cls, rate: int, higher: int) -> Upsampling:
        """Return the ratio of `higher` to `rate`, in any common unit."""
        common = gcd(rate, higher)
        return cls(higher // common, rate // common)

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Return the samples of the lead, first and last + 1, that those from `start` up to `stop` need; they
        may lie outside of the run."""
        return start * self.down // self.up - REACH + 1, (stop - 1) * self.down // self.up + REACH + 1

    def read(self, stored: NDArray[np.int16], first: int, start: int, stop: int) -> NDArray[np.int16]:
        """Return the samples from `start` up to `stop` at the higher rate.

        Args:
            stored: samples of the lead from `first` on, cut at the ends of the run, MISSING where none is.
        """
        if not len(stored):
            return np.full(stop - start, MISSING, np.int16)
        gone = stored == MISSING
        values = _without_gaps(stored, gone)
        parts = [
            self._read_part(values, gone, first, at, min(at + _PART, stop))
            for at in range(start, stop, _PART)
        ]
        return np.concatenate(parts)

    def _read_part(
        self, values: NDArray[np.float64], gone: NDArray[np.bool_], first: int, start: int, stop: int
    ) -> NDArray[np.int16]:
        places = np.arange(start, stop, dtype=np.int64) * self.down
        before, phase = places // self.up - first, places % self.up
        last = len(values) - 1
        missing = (before > last) | gone[np.clip(before, 0, last)]
        missing |= gone[np.clip(before + 1, 0, last)] & (phase > 0)
        window = values[np.clip(before[:, None] + _TAPS, 0, last)]
        weights = _weights(self.up)[phase] if self.up <= _MOST_PHASES else _kernel(phase / self.up)
        sums: NDArray[np.float64] = np.einsum("ij,ij->i", window, weights)
        units = np.clip(np.rint(sums), MISSING + 1, -MISSING - 1).astype(np.int16)
        units[missing] = MISSING
        return units


@lru_cache(maxsize=16)
def _weights(up: int) -> NDArray[np.float64]:
    """The weights of each phase, (up, taps)."""
    return _kernel(np.arange(up) / up)


def _kernel(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights, of the sum 1, of the samples around a place that lies `share` of the way between two."""
    places = _TAPS - share[:, None]
    inside = np.clip(1 - (places / REACH) ** 2, 0, None)
    kernel = np.sinc(places) * np.i0(_BETA * np.sqrt(inside))
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True), np.float64)


def _without_gaps(stored: NDArray[np.int16], gone: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the samples with a straight line across those that are missing."""
    there = np.flatnonzero(~gone)
    if len(there) == len(stored) or not len(there):
        return stored.astype(np.float64)
    return np.interp(np.arange(len(stored)), there, stored[there])
