"""Strips: the samples around the onset of an alarm, as a bedside monitor prints them.

Samples are reduced for display by `keep_peaks`: of each group of samples, the lowest and the highest one are
kept. Taking every n-th sample instead would alias noise, and lose a narrow QRS complex or a pace pulse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.alarms.events import Transition
from monitors.alarms.reasons import measurement
from monitors.patient.hops import Hop
from monitors.patient.output import Strip
from monitors.sources.message import MISSING

Floats = NDArray[np.float32]

BEFORE, AFTER = 10.0, 20.0
"""Seconds of a strip before and after the onset."""

MOST_LEADS = 12
"""Most leads of a strip."""

_MOST_RATE = 500.0  # samples per second, of which a strip holds no more
_SAVE_PERIOD = 2.0  # s of samples between the states of a strip that are saved
_MOST_OPEN = 8  # strips of one bed that are recorded at a time
_LARGEST = 32_767  # uV


def keep_peaks(samples: Floats, rate: float, most: float) -> tuple[Floats, float]:
    """Reduce `samples` (samples, leads) to about `most` values per second or fewer, with their peaks.

    Of each group of samples, the lowest and the highest are kept, in their order, so that a value is at most
    one group away from its time. Samples of at most `most` values per second stay as they are.

    Returns:
        Values (values, leads), NaN where all samples of a group are missing, and their rate.
    """
    count, leads = samples.shape
    group = round(2 * rate / most)
    if rate <= most or group < 3 or not count:
        return samples, rate
    groups = -(-count // group)
    padded = np.full((groups * group, leads), np.nan, np.float32)
    padded[:count] = samples
    parts = padded.reshape(groups, group, leads)
    absent: NDArray[np.bool_] = np.isnan(parts)
    low = np.where(absent, np.inf, parts)
    high = np.where(absent, -np.inf, parts)
    lowest, highest = low.min(axis=1), high.max(axis=1)
    first_low = low.argmin(axis=1) <= high.argmax(axis=1)
    values = np.empty((groups, 2, leads), np.float32)
    values[:, 0] = np.where(first_low, lowest, highest)
    values[:, 1] = np.where(first_low, highest, lowest)
    missing = np.logical_and.reduce(absent, axis=1)
    values = np.where(missing[:, None], np.float32(np.nan), values)
    return values.reshape(2 * groups, leads), 2 * groups * rate / count


@dataclass(slots=True)
class _OpenStrip:
    """A strip whose seconds after the onset are not over.

    Attributes:
        hops: hops since `BEFORE` seconds before the onset.
        saved_until: unix time up to which it was last returned, seconds; None: not yet.
    """

    onset: Transition
    hops: list[Hop]
    saved_until: float | None = None


class StripRecorder:
    """Records the strips of one bed.

    It is responsible for the last samples before any onset, and for the samples after the onset of each
    alarm. It leaves storing strips to the monitor.

    Args:
        rate: sampling rate, Hz.
        leads: names of the leads.
    """

    def __init__(self, rate: float, leads: Sequence[str]) -> None:
        self._rate = rate
        self._leads = tuple(leads)
        self._recent: deque[Hop] = deque()
        self._open: list[_OpenStrip] = []

    def add(self, hop: Hop) -> None:
        """Add the hop that is analysed now."""
        recent = self._recent
        if recent and hop.end_time <= recent[-1].end_time:  # the clock of the samples was set back
            recent.clear()
            self._open.clear()
        recent.append(hop)
        while recent[0].end_time < hop.end_time - BEFORE - self._seconds(hop):
            recent.popleft()
        for strip in self._open:
            strip.hops.append(hop)

    def begin(self, onset: Transition) -> None:
        """Begin the strip of an alarm, whose onset is in the last hop."""
        if len(self._open) < _MOST_OPEN:
            first = onset.onset - BEFORE
            self._open.append(_OpenStrip(onset, [hop for hop in self._recent if hop.end_time > first]))

    def pop_due(self, *, ended: bool = False) -> list[Strip]:
        """Return the strips of which something new is to be saved; those that are complete are forgotten, and
        with `ended` all are."""
        strips: list[Strip] = []
        for strip in list(self._open):
            until = strip.hops[-1].end_time if strip.hops else strip.onset.onset
            complete = until >= strip.onset.onset + AFTER
            saved = strip.saved_until
            if complete or ended:
                self._open.remove(strip)
            elif saved is not None and until - saved < _SAVE_PERIOD:
                continue
            if strip.hops and until != saved:
                strip.saved_until = until
                strips.append(self._strip(strip, min(until, strip.onset.onset + AFTER), complete=complete))
        return strips

    def _seconds(self, hop: Hop) -> float:
        return len(hop.samples) / self._rate

    def _strip(self, strip: _OpenStrip, until: float, *, complete: bool) -> Strip:
        onset = strip.onset
        start = max(onset.onset - BEFORE, strip.hops[0].end_time - self._seconds(strip.hops[0]))
        leads = self._leads[:MOST_LEADS]
        samples = np.full((max(0, round((until - start) * self._rate)), len(leads)), np.nan, np.float32)
        for hop in strip.hops:
            first = round((hop.end_time - self._seconds(hop) - start) * self._rate)
            skipped = max(0, -first)
            place = samples[first + skipped :]
            part = hop.samples[skipped : skipped + len(place), : len(leads)]
            place[: len(part)] = part
        values, rate = keep_peaks(samples, self._rate, _MOST_RATE)
        microvolts = np.clip(np.rint(np.nan_to_num(values, nan=0.0) * 1000), -_LARGEST, _LARGEST)
        return Strip(
            alarm=onset.alarm,
            stream=onset.stream,
            kind=onset.kind,
            priority=onset.priority,
            reason=measurement(onset.kind, onset.priority, onset.why).text,
            onset=onset.onset,
            start=start,
            rate=rate,
            leads=leads,
            left_out=len(self._leads) - len(leads),
            microvolts=np.where(np.isnan(values), MISSING, microvolts).astype(np.int16),
            until=until,
            complete=complete,
        )
