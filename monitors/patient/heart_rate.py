"""The intervals between the beats of one stream: the heart rate, and how early a beat comes."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import NamedTuple

_USUAL = 20  # intervals of which the median is the usual one
_SECONDS = 4.0  # of the last intervals that make the heart rate: short, so that alarms come within 10 s


class RelativeInterval(NamedTuple):
    """The interval before a beat, compared with the usual one. NaN: it is not known.

    Attributes:
        ratio: of it to the usual one.
        irregularity: of the last intervals: the median of the absolute logarithms of their ratios.
    """

    ratio: float
    irregularity: float


UNKNOWN_INTERVAL = RelativeInterval(math.nan, math.nan)


class RrIntervals:
    """The intervals between beats (RR intervals) of one stream."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_USUAL)
        self._deviations: deque[float] = deque(maxlen=_USUAL)
        self._recent: deque[float] = deque(maxlen=32)

    def add(self, seconds: float) -> RelativeInterval:
        """A beat came `seconds` after the one before it."""
        self._intervals.append(seconds)
        self._recent.append(seconds)
        ratio = seconds / median(self._intervals)
        self._deviations.append(abs(math.log(ratio)))
        return RelativeInterval(ratio, median(self._deviations))

    def interrupt(self) -> None:
        """The next beat's interval is not known: what is usual stays, the heart rate begins anew."""
        self._recent.clear()

    def heart_rate(self, silence: float) -> float | None:
        """Beats a minute by the intervals of the last seconds, three at least; None if there are fewer.

        Args:
            silence: seconds since the last beat; longer than an interval, it counts as one that is not over,
                and after some seconds as all that there is.
        """
        last: list[float] = []
        for interval in reversed(self._recent):
            if len(last) >= 3 and sum(last) >= _SECONDS:
                break
            last.append(interval)
        if len(last) < 3:
            return None
        usual = median(last)
        if silence > _SECONDS:
            return 60.0 / silence
        return 60.0 / (median([*last, silence]) if silence > 1.5 * usual else usual)


def prematurity(ratio: float, irregularity: float) -> float:
    """How early a beat is beyond what the rhythm's irregularity explains: 0 in time; logarithmic."""
    return max(0.0, -math.log(ratio) - 1.5 * irregularity)
