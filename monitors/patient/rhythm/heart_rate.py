"""Heart rate and prematurity of beats, from the RR intervals of one stream."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import NamedTuple

_USUAL = 20  # number of last intervals whose median is the usual interval
_PACE = 5  # number of last intervals whose median is the pace
_STEADY = 4  # of these that must be close to it
_CLOSE = (0.85, 1.2)  # shares of the pace between which an interval is close to it
_SECONDS = 4.0  # of last intervals that the heart rate is averaged over; short, for alarms within 10 s


class RelativeInterval(NamedTuple):
    """The RR interval before a beat, relative to the usual one; NaN: unknown.

    Attributes:
        ratio: ratio to the usual interval.
        irregularity: median of the absolute logarithms of the ratios of the last intervals.
        seconds: the interval itself.
        pace: median of the last intervals, s, if they and this one are close to it: it follows the heart rate
            at once where `ratio` takes as long as an atrial run; NaN: the rhythm is not regular.
    """

    ratio: float
    irregularity: float
    seconds: float = math.nan
    pace: float = math.nan


UNKNOWN_INTERVAL = RelativeInterval(math.nan, math.nan)


class RrIntervals:
    """RR intervals of one stream: the usual interval, its irregularity and the heart rate."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_USUAL)
        self._deviations: deque[float] = deque(maxlen=_USUAL)
        self._recent: deque[float] = deque(maxlen=32)

    def add(self, seconds: float) -> RelativeInterval:
        """Add the interval before a new beat, in seconds, and return it relative to the usual one."""
        self._intervals.append(seconds)
        self._recent.append(seconds)
        ratio = seconds / median(self._intervals)
        self._deviations.append(abs(math.log(ratio)))
        return RelativeInterval(ratio, median(self._deviations), seconds, self._pace(seconds))

    def _pace(self, seconds: float) -> float:
        last = list(self._intervals)[-_PACE:]
        pace = median(last)
        low, high = pace * _CLOSE[0], pace * _CLOSE[1]
        steady = low < seconds < high and sum(low < interval < high for interval in last) >= _STEADY
        return pace if steady else math.nan

    def interrupt(self) -> None:
        """Mark the next interval as unknown: the usual interval stays, the heart rate restarts."""
        self._recent.clear()

    def heart_rate(self, silence: float) -> float | None:
        """Return the heart rate in beats per minute: the median of the last intervals, at least three and at
        least 4 s; None if there are fewer than three.

        Args:
            silence: seconds since the last beat. If clearly longer than the usual interval it counts as one
                more interval; if longer than 4 s it alone gives the rate.
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
    """Return how much earlier a beat is than the irregularity of the rhythm explains: 0 for a beat in time,
    else the negative logarithm of its ratio, less 1.5 times the irregularity."""
    return max(0.0, -math.log(ratio) - 1.5 * irregularity)
