"""Hops: the ordered messages of one stream in mV, cut into pieces of equal length."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitors.patient.ordering import Ordered
from monitors.sources.message import MISSING

Floats = NDArray[np.float32]

_BRIDGED = 2.0  # s: longest gap that is filled with missing samples; after a longer one analysis restarts


@dataclass(frozen=True, slots=True)
class Hop:
    """Samples that are analysed at a time.

    Attributes:
        samples: (hop, leads) in mV, NaN where missing.
        end_time: unix time just after the last sample, seconds.
        restarted: whether it does not continue the hop before.
    """

    samples: Floats
    end_time: float
    restarted: bool


class _Part(NamedTuple):
    """Samples (samples, leads) in mV, and the unix time just after the last one."""

    samples: Floats
    end_time: float


class HopQueue:
    """Queue of the samples of one stream that wait for analysis.

    A short gap is filled with missing samples, so that hops keep their length and beats their distance. After
    a long gap or a restart, the next samples start a new hop.

    Args:
        rate: sampling rate, Hz.
        leads: number of leads.
        length: samples of a hop.

    Attributes:
        restarts: indices among the waiting samples at which a new part begins; at first the stream itself.
    """

    def __init__(self, rate: float, leads: int, length: int) -> None:
        self._rate = rate
        self._leads = leads
        self._length = length
        self._parts: deque[_Part] = deque()
        self._waiting = 0
        self.restarts: deque[int] = deque([0])

    @property
    def ready(self) -> bool:
        """Whether a hop is complete."""
        return self._waiting >= self._length

    @property
    def seconds(self) -> float:
        """Seconds of samples that wait."""
        return self._waiting / self._rate

    def push(self, ordered: Ordered) -> None:
        """Add the samples of a message."""
        chunk, missing, restarted = ordered
        if restarted or missing > _BRIDGED:
            self._fill_hop()
            if self._waiting not in self.restarts:
                self.restarts.append(self._waiting)
        elif missing:
            self._fill(round(missing * self._rate), chunk.start)
        gains: NDArray[np.float32] = np.array(chunk.gains, np.float32)
        values: NDArray[np.float32] = np.divide(chunk.samples, gains, dtype=np.float32)
        absent = chunk.samples == MISSING
        if absent.any():
            values[absent] = np.nan
        self._append(values, chunk.end)

    def pop(self) -> Hop:
        """Remove and return the next hop; `ready` must be true."""
        parts = []
        count = 0
        while count < self._length:
            samples, end_time = self._parts.popleft()
            rest = count + len(samples) - self._length
            if rest > 0:
                self._parts.appendleft(_Part(samples[-rest:], end_time))
                samples, end_time = samples[:-rest], end_time - rest / self._rate
            parts.append(samples)
            count += len(samples)
        self._waiting -= self._length
        restarted = False
        if self.restarts:
            if self.restarts[0] == 0:
                self.restarts.popleft()
                restarted = True
            self.restarts = deque(place - self._length for place in self.restarts)
        return Hop(parts[0] if len(parts) == 1 else np.concatenate(parts), end_time, restarted)

    def _fill_hop(self) -> None:
        """Fill an incomplete hop with missing samples."""
        remainder = self._waiting % self._length
        if remainder:
            count = self._length - remainder
            self._fill(count, self._parts[-1].end_time + count / self._rate)

    def _fill(self, count: int, end_time: float) -> None:
        self._append(np.full((count, self._leads), np.nan, np.float32), end_time)

    def _append(self, samples: Floats, end_time: float) -> None:
        if len(samples):
            self._parts.append(_Part(samples, end_time))
            self._waiting += len(samples)
