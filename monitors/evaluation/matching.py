"""Matching of the monitor's output with annotations: detected beats with annotated ones, one to one, and
alarms with the events that the annotated beats show."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitors.alarms.conditions import PRIORITIES
from monitors.alarms.events import AlarmKind, Priority, Transition
from monitors.alarms.limits import Limits

NEAR = 0.15
"""Seconds between a detected beat and an annotation below which they match (ANSI/AAMI EC57)."""
RHYTHM: tuple[AlarmKind, ...] = ("asystole", "bradycardia", "tachycardia")
"""Alarms that depend on the times of beats, not on their shapes."""

Times = NDArray[np.float64]

_BEATS = 20  # last beats whose share of abnormal ones begins and ends an episode
_ON, _OFF = 0.4, 0.2
_WINDOW = 6.0  # s over which the heart rate is averaged
_SLACK = (
    10.0  # s, longest distance of an alarm from its event: IEC 60601-2-27 allows it for heart-rate alarms
)


class TimeSpan(NamedTuple):
    """Start and end in seconds."""

    start: float
    end: float

    def is_near(self, other: TimeSpan) -> bool:
        """Whether they overlap or are at most 10 s apart."""
        return self.start <= other.end + _SLACK and other.start <= self.end + _SLACK


class AlarmSpan(NamedTuple):
    """An alarm from its onset, or from its recurrence, to its end; whether it was announced, and its highest
    priority."""

    kind: AlarmKind
    span: TimeSpan
    announced: bool
    priority: Priority = "low"


def pair_beats(annotated: Sequence[float], detected: Sequence[float], window: float) -> NDArray[np.intp]:
    """Return the detected beat that matches each annotated one.

    Each annotated beat takes the nearest detected one that is left, unless that is nearer to the next
    annotated beat: then the one before. For beats at physiological distances, the result equals that of
    `compare_annotations` of wfdb.

    Args:
        annotated: times of the annotated beats, increasing; in samples or seconds.
        detected: times of the detected beats, increasing, in the same unit.
        window: distance below which beats match, in the same unit.

    Returns:
        (annotated,) indices in `detected`; -1: missed.
    """
    partner = np.full(len(annotated), -1, np.intp)
    left = 0  # first detected beat that was not considered yet
    free = 0  # first detected beat that is not matched yet
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
    """Return the index, from `left` on, of the time that is nearest to `time`; the earlier of two."""
    place = min(bisect_left(times, time, left), len(times) - 1)
    return place - 1 if place > left and time - times[place - 1] <= abs(times[place] - time) else place


def abnormal_episodes(times: Times, abnormal: NDArray[np.bool_]) -> list[TimeSpan]:
    """Return the episodes of abnormal beats: from 40 % of the last 20 beats until below 20 %.

    Args:
        times: times of the annotated beats, (beats,), increasing, seconds.
        abnormal: whether each beat is abnormal, (beats,).
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
    """Return the time spans in which a rhythm alarm is true: a mean heart rate over 6 s beyond the limit, or
    no beat for the time of an asystole. The latter counts for tachycardia too, as no beats are annotated in
    ventricular flutter.

    Args:
        times: times of the annotated beats, (beats,), increasing, seconds.
        limits: alarm limits of the monitor.
    """
    if len(times) < 2:
        return {kind: [] for kind in RHYTHM}
    # From each beat to the first one at least 6 s later, so that a longer pause counts as a whole.
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
    """Return the alarms of one stream in order of their onset.

    An alarm that recurs after its end counts as another one, as it notifies somebody again. An alarm that
    resumes after suppression does not.

    Args:
        transitions: transitions in order of time.
        until: time at which alarms that are still open end, seconds.
    """
    alarms: list[AlarmSpan] = []
    running: dict[str, int] = {}  # places in `alarms`
    for transition in transitions:
        place = running.get(transition.alarm)
        if place is None and transition.change in ("onset", "resumed"):
            running[transition.alarm] = len(alarms)
            span = TimeSpan(transition.time, until)
            alarms.append(AlarmSpan(transition.kind, span, transition.announced, transition.priority))
        elif place is not None:
            alarm = alarms[place]
            priority = max(alarm.priority, transition.priority, key=PRIORITIES.index)
            alarm = alarm._replace(announced=alarm.announced or transition.announced, priority=priority)
            if transition.change in ("latched", "ended"):
                alarm = alarm._replace(span=TimeSpan(alarm.span.start, transition.time))
                del running[transition.alarm]
            alarms[place] = alarm
    return alarms


def false_alarms(alarms: Iterable[AlarmSpan], reasons: Sequence[TimeSpan]) -> list[AlarmSpan]:
    """Return those of `alarms` that are near none of `reasons`."""
    return [alarm for alarm in alarms if not any(alarm.span.is_near(reason) for reason in reasons)]


def false_onsets(alarms: Iterable[AlarmSpan], reasons: Sequence[TimeSpan]) -> list[AlarmSpan]:
    """Return those of `alarms` whose onset is near none of `reasons`."""
    at_onset = ((alarm, TimeSpan(alarm.span.start, alarm.span.start)) for alarm in alarms)
    return [alarm for alarm, onset in at_onset if not any(onset.is_near(reason) for reason in reasons)]


def alarm_delay(episode: TimeSpan, alarms: Iterable[AlarmSpan]) -> float | None:
    """Return the seconds from the start of an episode to the first of `alarms` near it: 0 if that was open
    before; None: there is none."""
    starts = [alarm.span.start for alarm in alarms if alarm.span.is_near(episode)]
    return max(0.0, min(starts) - episode.start) if starts else None
