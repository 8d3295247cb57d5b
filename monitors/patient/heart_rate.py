"""Rhythm: heart rate, and how early a beat comes."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_USUAL = 20  # intervals of which the median is the usual one
_SECONDS = 4.0  # of the last intervals that make the heart rate: short, so that alarms come within 10 s


class HeartRate:
    """The intervals between the beats of one stream."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_USUAL)
        self._spread: deque[float] = deque(maxlen=_USUAL)
        self._recent: deque[float] = deque(maxlen=32)

    def beat(self, interval: float) -> tuple[float, float]:
        """A beat came `interval` seconds after the one before it.

        Returns:
            The interval as a share of the usual one; and how irregular the last ones were: the median of the
            absolute logarithms of these shares.
        """
        self._intervals.append(interval)
        self._recent.append(interval)
        share = interval / median(self._intervals)
        self._spread.append(abs(math.log(share)))
        return share, median(self._spread)

    def interrupt(self) -> None:
        """The next beat's interval is not known: what is usual stays, the heart rate begins anew."""
        self._recent.clear()

    def rate(self, silence: float) -> float | None:
        """Beats a minute by the intervals of the last seconds, three at least; None if there are fewer.

        Args:
            silence: seconds since the last beat; longer than an interval, it counts as one that is not over,
                and after some seconds as all that there is.
        """
        those: list[float] = []
        for interval in reversed(self._recent):
            if len(those) >= 3 and sum(those) >= _SECONDS:
                break
            those.append(interval)
        if len(those) < 3:
            return None
        usual = median(those)
        if silence > _SECONDS:
            return 60.0 / silence
        return 60.0 / (median([*those, silence]) if silence > 1.5 * usual else usual)


def earliness(share: float, spread: float) -> float:
    """How early a beat is beyond what the rhythm's irregularity explains: 0 in time; logarithmic."""
    return max(0.0, -math.log(share) - 1.5 * spread)
