"""Irregularity of the RR intervals of one stream, by which atrial fibrillation is told from other rhythms."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from monitors.alarms.events import Irregularity, JudgedBeat

_BEATS = 128  # intervals that are judged together (Dash et al. 2009)
_ENDS = 8  # shortest and longest of them that the entropy leaves out
_BINS = 16
_EVERY = 8  # new intervals after which they are judged again
_LONGEST = 3.0  # s of an interval; longer ones are gaps
_OLDEST = 300.0  # s over which the intervals may be spread
_ECTOPIC = 0.5  # probability from which a beat counts as ventricular


class IrregularityMeter:
    """Measures the RR intervals between beats that are not ventricular.

    The measures are those of Dash et al. (2009), "Automatic real time detection of atrial fibrillation", over
    128 intervals.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_BEATS)
        self._ends: deque[float] = deque(maxlen=_BEATS)
        self._ectopic: deque[bool] = deque(maxlen=_BEATS)
        self._previous: JudgedBeat | None = None
        self._new = 0
        self.now: Irregularity | None = None
        """Irregularity of the last intervals; None: too few in the last minutes."""

    def add(self, beat: JudgedBeat) -> None:
        """Add the next beat; one that search-back found late is passed over."""
        previous = self._previous
        if previous is not None and beat.time <= previous.time:
            return
        self._previous = beat
        ectopic = beat.ventricular >= _ECTOPIC
        self._ectopic.append(ectopic)
        if previous is None or ectopic or previous.ventricular >= _ECTOPIC:
            return
        interval = beat.time - previous.time
        if interval > _LONGEST:
            return
        self._intervals.append(interval)
        self._ends.append(beat.time)
        self._new += 1
        if self._new >= _EVERY:
            self._new = 0
            self._measure(beat.time)

    def _measure(self, now: float) -> None:
        if len(self._intervals) < _BEATS or now - self._ends[0] > _OLDEST:
            self.now = None
            return
        seconds = np.array(self._intervals)
        self.now = Irregularity(
            variation=float(np.sqrt(np.mean(np.diff(seconds) ** 2)) / seconds.mean()),
            entropy=_entropy(seconds),
            turning=_turning(seconds),
            ectopic=sum(self._ectopic) / len(self._ectopic),
        )


def _entropy(seconds: NDArray[np.float64]) -> float:
    """Return the Shannon entropy of intervals in 16 classes, 0 to 1."""
    inner = np.sort(seconds)[_ENDS:-_ENDS]
    if inner[-1] <= inner[0]:
        return 0.0
    counts, _ = np.histogram(inner, _BINS)
    shares = counts[counts > 0] / len(inner)
    return float(-(shares * np.log(shares)).sum() / np.log(_BINS))


def _turning(seconds: NDArray[np.float64]) -> float:
    """Return the share of intervals that are longer or shorter than both beside them: 2/3 of random ones."""
    before, middle, after = seconds[:-2], seconds[1:-1], seconds[2:]
    peaks = (middle > before) & (middle > after)
    troughs = (middle < before) & (middle < after)
    return float((peaks | troughs).mean())
