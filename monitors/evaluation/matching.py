"""Matching what was found with what is annotated: detected beats with annotated ones, one to one, and alarms
with what there was to be alarmed of, by the annotated beats."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitors.alarms.events import AlarmKind, Transition
from monitors.alarms.limits import Limits

NEAR = 0.15
"""Seconds between a beat and its annotation, less than which they belong together (ANSI/AAMI EC57)."""
RHYTHM: tuple[AlarmKind, ...] = ("asystole", "bradycardia", "tachycardia")
"""Alarms that go by when beats come, not by what they look like."""

Times = NDArray[np.float64]

_BEATS = 20  # of which so many are abnormal in an episode
_ON, _OFF = 0.4, 0.2
_WINDOW = 6.0  # s over which a rate is meant
_SLACK = 10.0  # s between an alarm and its reason at most: what IEC 60601-2-27 leaves for a heart-rate alarm


class TimeSpan(NamedTuple):
    """From when to when, in seconds."""

    start: float
    end: float

    def is_near(self, other: TimeSpan) -> bool:
        """Whether they overlap or are at most 10 s apart."""
        return self.start <= other.end + _SLACK and other.start <= self.end + _SLACK


class AlarmSpan(NamedTuple):
    """An alarm from its onset, or from when it came again, to its end; whether it was announced."""

    kind: AlarmKind
    span: TimeSpan
    announced: bool


def pair_beats(annotated: Sequence[float], detected: Sequence[float], window: float) -> NDArray[np.intp]:
    """Which detected beat belongs to each annotated one.

    Each annotated beat takes the nearest that is left, unless that is nearer to the annotated beat after it:
    then the one before. Where beats are as far apart as hearts allow, these are the numbers of wfdb's
    `compare_annotations`.

    Args:
        annotated: when the annotated beats were, increasing; in samples or seconds.
        detected: when the detected ones were, increasing.
        window: they must be less than this apart.

    Returns:
        (annotated,) indices in `detected`; -1: missed.
    """
    partner = np.full(len(annotated), -1, np.intp)
    left = 0  # the first detected beat that was not looked at
    free = 0  # the first that belongs to none before
    for number, time in enumerate(annotated):
        if left >= len(detected):
            break
        place = _nearest(detected, left, time)
        if number + 1 < len(annotated):
            after = annotated[number + 1]
            wanted = _nearest(detected, left, after) == place
            if wanted and abs(detected[place] - after) < abs(detected[place] - time):
                place -= 1
        if place < free:
            continue
        if abs(detected[place] - time) < window:
            partner[number] = place
            free = place + 1
        left = place + 1
    return partner


def _nearest(times: Sequence[float], left: int, time: float) -> int:
    """The place from `left` on that is nearest to `time`; the earlier of two."""
    place = min(bisect_left(times, time, left), len(times) - 1)
    return place - 1 if place > left and time - times[place - 1] <= abs(times[place] - time) else place


def abnormal_episodes(times: Times, abnormal: NDArray[np.bool_]) -> list[TimeSpan]:
    """Where at least 40 % of the last 20 beats are abnormal, until fewer than 20 % are.

    Args:
        times: of the annotated beats, (beats,), increasing seconds.
        abnormal: which of them are.
    """
    share = np.convolve(abnormal, np.ones(_BEATS), "full")[: len(times)] / _BEATS
    episodes: list[TimeSpan] = []
    start: float | None = None
    for time, now in zip(times[_BEATS - 1 :].tolist(), share[_BEATS - 1 :].tolist(), strict=True):
        if start is None and now >= _ON - 1e-9:
            start = time
        elif start is not None and now < _OFF - 1e-9:
            episodes.append(TimeSpan(start, time))
            start = None
    if start is not None:
        episodes.append(TimeSpan(start, float(times[-1])))
    return episodes


def rhythm_reasons(times: Times, limits: Limits) -> Mapping[AlarmKind, list[TimeSpan]]:
    """Where the annotated beats give a reason for an alarm of the rhythm: a mean rate over 6 s beyond the
    limit, or no beat for as long as makes an asystole. That is one for a tachycardia too: in ventricular
    flutter no beats are annotated.

    Args:
        times: of the annotated beats, (beats,), increasing seconds.
        limits: the monitor's.
    """
    if len(times) < 2:
        return {kind: [] for kind in RHYTHM}
    # From each beat to the first one 6 s later: a pause that is longer counts as a whole.
    last = np.minimum(np.searchsorted(times, times[:-1] + _WINDOW), len(times) - 1)
    first = np.arange(len(last))
    rates = 60 * (last - first) / (times[last] - times[first])
    pauses = np.diff(times) >= limits.asystole.silence

    def spans(where: NDArray[np.bool_], until: NDArray[np.intp]) -> list[TimeSpan]:
        return [TimeSpan(float(times[i]), float(times[until[i]])) for i in np.flatnonzero(where)]

    silent = spans(pauses, first + 1)
    return {
        "asystole": silent,
        "bradycardia": spans(rates < limits.bradycardia.medium, last),
        "tachycardia": spans(rates > limits.tachycardia.medium, last) + silent,
    }


def alarm_spans(transitions: Iterable[Transition], until: float) -> list[AlarmSpan]:
    """The alarms of one stream, those first that came first.

    One that ended and came again counts anew, for it calls somebody again. One that was suppressed in
    between does not.

    Args:
        transitions: in order of time.
        until: when alarms that are still open end.
    """
    alarms: list[AlarmSpan] = []
    running: dict[str, int] = {}  # places in `alarms`
    for transition in transitions:
        place = running.get(transition.alarm)
        if place is None and transition.change in ("onset", "resumed"):
            running[transition.alarm] = len(alarms)
            span = TimeSpan(transition.time, until)
            alarms.append(AlarmSpan(transition.kind, span, transition.announced))
        elif place is not None:
            alarm = alarms[place]
            alarm = alarm._replace(announced=alarm.announced or transition.announced)
            if transition.change in ("latched", "ended"):
                alarm = alarm._replace(span=TimeSpan(alarm.span.start, transition.time))
                del running[transition.alarm]
            alarms[place] = alarm
    return alarms


def count_without_reason(alarms: Iterable[AlarmSpan], reasons: Sequence[TimeSpan]) -> int:
    """How many `alarms` are near none of `reasons`."""
    return sum(not any(alarm.span.is_near(reason) for reason in reasons) for alarm in alarms)


def count_begun_without_reason(alarms: Iterable[AlarmSpan], reasons: Sequence[TimeSpan]) -> int:
    """How many of `alarms` began near none of `reasons`."""
    onsets = (TimeSpan(alarm.span.start, alarm.span.start) for alarm in alarms)
    return sum(not any(onset.is_near(reason) for reason in reasons) for onset in onsets)


def alarm_delay(episode: TimeSpan, alarms: Iterable[AlarmSpan]) -> float | None:
    """Seconds from the beginning of an episode to the first of `alarms` that is near it: 0 where that was on
    already; None: there is none."""
    starts = [alarm.span.start for alarm in alarms if alarm.span.is_near(episode)]
    return max(0.0, min(starts) - episode.start) if starts else None
