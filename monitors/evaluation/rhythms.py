"""Judgement of the alarms for life-threatening rhythms: by annotated rhythms, and by experts' verdicts on
bedside alarms (PhysioNet/CinC Challenge 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from genray.ecg.records.base import BEDSIDE_ALARM_AT, BedsideAlarm, RhythmMark
from monitors.alarms.events import AlarmKind
from monitors.evaluation.matching import AlarmSpan, TimeSpan

RHYTHM_KINDS: Mapping[AlarmKind, frozenset[str]] = {
    "ventricular-fibrillation": frozenset({"VF", "VFIB", "VFL"}),
    "ventricular-tachycardia": frozenset({"VT"}),
    "asystole": frozenset({"ASYS"}),
}
"""Kinds of alarms that annotated rhythms judge, and the names of these rhythms."""
BEDSIDE_KINDS: tuple[AlarmKind, ...] = (
    "asystole",
    "bradycardia",
    "tachycardia",
    "ventricular-tachycardia",
    "ventricular-fibrillation",
)
"""Kinds of alarms of the challenge."""
LEAST = 8.0
"""Seconds from which an episode must be alarmed; shorter ones only excuse an alarm."""
WITHIN = 10.0
"""Seconds from the onset of an episode within which the alarm counts (IEC 60601-2-27)."""
_UNCLEAR = frozenset({"HGEA", "VER", "IVR"})  # neither a reason for an alarm nor a false one
_JOINED = 1.0  # s, longest interval between two episodes that are one
_BEFORE, _AFTER = 6.0, 1.5  # s before and after the bedside alarm in which one of the monitor must be active
BEDSIDE_SPAN = TimeSpan(BEDSIDE_ALARM_AT - _BEFORE, BEDSIDE_ALARM_AT + _AFTER)
"""Time span in which an alarm of the kind of the bedside alarm must be active."""
_MISSED = 5  # weight of a missed true alarm in the score of the challenge


@dataclass(frozen=True)
class RhythmEpisode:
    """An annotated rhythm of 8 s or more, and the alarm for it.

    Attributes:
        kind: kind of alarm that it calls for.
        span: in seconds from the first sample.
        delay: seconds from its onset to the first high alarm for a life-threatening rhythm; None: none within
            10 s.
        named: whether an alarm of its own kind was raised within 10 s, or during it.
    """

    kind: AlarmKind
    span: TimeSpan
    delay: float | None
    named: bool


@dataclass(frozen=True)
class RhythmJudgement:
    """Alarms of a record against its annotated rhythms.

    Attributes:
        hours: length of the record.
        episodes: annotated episodes of 8 s or more.
        alarms: onsets of announced alarms of each kind, and of the false ones among them; seconds.
    """

    hours: float
    episodes: tuple[RhythmEpisode, ...]
    alarms: Mapping[AlarmKind, tuple[float, ...]]
    false: Mapping[AlarmKind, tuple[float, ...]]


def judge_rhythms(
    marks: Sequence[RhythmMark], rate: float, length: float, alarms: Sequence[AlarmSpan]
) -> RhythmJudgement:
    """Compare the alarms of a record with its annotated rhythms.

    Args:
        marks: annotated changes of the rhythm.
        rate: sampling rate, Hz.
        length: length of the record, seconds.
        alarms: alarms of the record, by onset; of all kinds.
    """
    begins = [(mark.sample / rate, mark.name) for mark in marks]
    stretches = [
        (TimeSpan(begin, end), name) for (begin, name), (end, _) in pairwise([*begins, (length, "")])
    ]
    judged = [alarm for alarm in alarms if alarm.kind in RHYTHM_KINDS]
    episodes = [
        _episode(kind, span, judged)
        for kind, names in RHYTHM_KINDS.items()
        for span in _joined([span for span, name in stretches if name in names])
        if span.end - span.start >= LEAST
    ]
    announced = [alarm for alarm in judged if alarm.announced]
    reasons = [
        span
        for span, name in stretches
        if name in _UNCLEAR or any(name in names for names in RHYTHM_KINDS.values())
    ]
    false = [alarm for alarm in announced if not _is_near(alarm.span.start, reasons)]
    return RhythmJudgement(
        length / 3600,
        tuple(sorted(episodes, key=lambda episode: episode.span)),
        {kind: tuple(a.span.start for a in announced if a.kind == kind) for kind in RHYTHM_KINDS},
        {kind: tuple(a.span.start for a in false if a.kind == kind) for kind in RHYTHM_KINDS},
    )


def kind_of_rhythm(name: str) -> AlarmKind | None:
    """Return the kind of alarm that an annotated rhythm calls for; None: none."""
    return next((kind for kind, names in RHYTHM_KINDS.items() if name in names), None)


def _joined(spans: Sequence[TimeSpan]) -> list[TimeSpan]:
    joined: list[TimeSpan] = []
    for span in spans:
        if joined and span.start - joined[-1].end <= _JOINED:
            joined[-1] = TimeSpan(joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined


def _episode(kind: AlarmKind, span: TimeSpan, alarms: Sequence[AlarmSpan]) -> RhythmEpisode:
    open_alarms = [alarm for alarm in alarms if alarm.span.start <= span.end and alarm.span.end >= span.start]
    delays = [max(0.0, alarm.span.start - span.start) for alarm in open_alarms]
    within = [delay for delay in delays if delay <= WITHIN]
    return RhythmEpisode(
        kind, span, min(within) if within else None, any(alarm.kind == kind for alarm in open_alarms)
    )


def _is_near(onset: float, reasons: Sequence[TimeSpan]) -> bool:
    return any(TimeSpan(onset, onset).is_near(reason) for reason in reasons)


@dataclass(frozen=True)
class BedsideJudgement:
    """A bedside alarm, and whether the monitor had an alarm of its kind at the same time."""

    alarm: BedsideAlarm
    raised: bool

    @property
    def is_right(self) -> bool:
        """Whether the monitor agrees with the experts."""
        return self.raised == self.alarm.confirmed


def judge_bedside(alarm: BedsideAlarm, alarms: Sequence[AlarmSpan]) -> BedsideJudgement:
    """Return whether an alarm of the kind of `alarm` was active between 294 and 301.5 s."""
    begin, end = BEDSIDE_SPAN
    raised = any(
        each.kind == alarm.kind and each.span.start <= end and each.span.end >= begin for each in alarms
    )
    return BedsideJudgement(alarm, raised)


@dataclass(frozen=True)
class BedsideCounts:
    """Numbers of true and false bedside alarms that the monitor raised and did not raise."""

    true_raised: int
    true_missed: int
    false_raised: int
    false_refused: int

    @classmethod
    def of(cls, judgements: Sequence[BedsideJudgement]) -> BedsideCounts:
        """Return the counts of `judgements`."""

        def count(*, confirmed: bool, raised: bool) -> int:
            return sum(j.alarm.confirmed == confirmed and j.raised == raised for j in judgements)

        return cls(
            count(confirmed=True, raised=True),
            count(confirmed=True, raised=False),
            count(confirmed=False, raised=True),
            count(confirmed=False, raised=False),
        )

    @property
    def score(self) -> float | None:
        """Score of the challenge, 0 to 100: a missed alarm counts five times."""
        right = self.true_raised + self.false_refused
        weight = right + self.false_raised + _MISSED * self.true_missed
        return 100 * right / weight if weight else None

    @property
    def sensitivity(self) -> float | None:
        """Share of the true alarms that were raised."""
        true = self.true_raised + self.true_missed
        return self.true_raised / true if true else None

    @property
    def specificity(self) -> float | None:
        """Share of the false alarms that were not raised."""
        false = self.false_raised + self.false_refused
        return self.false_refused / false if false else None

    def as_json(self) -> dict[str, Any]:
        """Return counts and rates as plain JSON values."""
        return {
            "true": self.true_raised + self.true_missed,
            "raised": self.true_raised,
            "false": self.false_raised + self.false_refused,
            "refused": self.false_refused,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "score": self.score,
        }
