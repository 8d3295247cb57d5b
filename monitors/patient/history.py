"""Last samples of many leads, written hop by hop."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Floats = NDArray[np.float32]

_SPARE = 5  # hops that are written before the samples of a lead are moved to the front


class History:
    """Last samples of each lead; a lead is a row.

    A hop is written behind the one before it, and only after some hops the samples of a lead are moved, as
    moving seconds of samples with each hop costs more than the filters.

    Args:
        hop: samples of a hop.
        samples: least number of last samples that are stored.
    """

    def __init__(self, hop: int, samples: int) -> None:
        self._hop = hop
        self._stored = math.ceil(samples / hop)  # hops
        self._hops: Floats = np.full((0, self._stored + _SPARE, hop), np.nan, np.float32)
        self._next: Rows = np.zeros(0, np.intp)  # place of the next hop

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads."""
        more = (0, leads - len(self._next))
        self._hops = np.pad(self._hops, (more, (0, 0), (0, 0)), constant_values=np.nan)
        self._next = np.pad(self._next, more, constant_values=self._stored)

    def forget(self, rows: Rows) -> None:
        """Replace the samples of `rows` by missing ones."""
        self._hops[rows] = np.nan

    def append(self, rows: Rows, new: Floats) -> None:
        """Add a hop (leads, hop) of each of `rows`."""
        full = rows[self._next[rows] == self._hops.shape[1]]
        if len(full):
            kept = self._stored - 1
            self._hops[full, :kept] = self._hops[full, self._hops.shape[1] - kept :]
            self._next[full] = kept
        self._hops[rows, self._next[rows]] = new
        self._next[rows] += 1

    def last(self, rows: Rows, samples: int) -> Floats:
        """Return the last samples of `rows`, (leads, samples)."""
        hops = math.ceil(samples / self._hop)
        places = self._next[rows, None] - np.arange(hops, 0, -1)
        whole: Floats = self._hops[rows[:, None], places].reshape(len(rows), hops * self._hop)
        return whole[:, hops * self._hop - samples :]

    @property
    def values(self) -> Floats:
        """Samples of all leads (leads, columns), of which those of a row end before its column `ends`."""
        return self._hops.reshape(len(self._hops), -1)

    def ends(self, rows: Rows) -> Rows:
        """Return the column of `values` after the last sample of each of `rows`."""
        return self._next[rows] * self._hop
