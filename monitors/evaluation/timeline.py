"""Time line of a record: what its annotations say, what was alarmed, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from genray.ecg.records.base import EcgRecord
from monitors.alarms.events import AlarmKind
from monitors.evaluation.matching import RHYTHM, AlarmSpan, TimeSpan, alarm_delay, false_alarms, false_onsets
from monitors.evaluation.rhythms import (
    BEDSIDE_KINDS,
    BEDSIDE_SPAN,
    RHYTHM_KINDS,
    BedsideJudgement,
    RhythmJudgement,
    kind_of_rhythm,
)

_ORDERLY = frozenset({"N", "NSR", ""})  # rhythms that a time line does not show


class Reference(NamedTuple):
    """What the annotations say of a time span.

    Attributes:
        name: as annotated, such as VFL, or in a few words.
        kind: kind of alarm that it calls for; None: none.
    """

    name: str
    kind: AlarmKind | None
    span: TimeSpan


class Fault(NamedTuple):
    """An episode without its alarm, or an alarm without a reason.

    Attributes:
        kind: kind of alarm.
        missed: whether the alarm is missing; else it is false.
        span: the episode, or the alarm.
    """

    kind: AlarmKind
    missed: bool
    span: TimeSpan


@dataclass(frozen=True)
class TimeLine:
    """What happened in a record. Times are seconds from its first sample.

    Attributes:
        length: length of the record.
        reference: what the annotations say.
        alarms: announced alarms.
        faults: missed episodes and false alarms.
        complexes: detected QRS complexes.
    """

    length: float
    reference: tuple[Reference, ...]
    alarms: tuple[AlarmSpan, ...]
    faults: tuple[Fault, ...]
    complexes: tuple[float, ...]


def rhythm_line(
    record: EcgRecord, judgement: RhythmJudgement, alarms: Sequence[AlarmSpan], complexes: Sequence[float]
) -> TimeLine:
    """Return the time line of a record with annotated rhythms."""
    faults = sorted(_rhythm_faults(judgement, alarms), key=lambda fault: fault.span)
    return _line(record.samples / record.rate, _rhythms(record), alarms, faults, complexes)


def beat_line(
    record: EcgRecord,
    episodes: Sequence[TimeSpan],
    reasons: Mapping[AlarmKind, Sequence[TimeSpan]],
    judgement: RhythmJudgement | None,
    alarms: Sequence[AlarmSpan],
    complexes: Sequence[float],
) -> TimeLine:
    """Return the time line of a record with annotated beats.

    Args:
        record: the record.
        episodes: episodes of abnormal beats.
        reasons: time spans in which alarms for heart rate and asystole are true.
        judgement: alarms against the annotated rhythms; None: there are none.
        alarms: alarms of the record, by onset.
        complexes: times of the detected QRS complexes.
    """
    reference = [Reference("abnormal beats", "anomaly", span) for span in episodes]
    reference += [Reference(kind, kind, span) for kind in RHYTHM for span in reasons[kind]]
    anomalies = [alarm for alarm in alarms if alarm.kind == "anomaly" and alarm.announced]
    faults = [Fault("anomaly", True, span) for span in episodes if alarm_delay(span, anomalies) is None]
    wrong = false_alarms(anomalies, episodes)
    for kind in RHYTHM:
        of_kind = [alarm for alarm in alarms if alarm.kind == kind and alarm.announced]
        wrong += false_onsets(of_kind, reasons[kind])
    faults += [Fault(alarm.kind, False, alarm.span) for alarm in wrong]
    if judgement is not None:
        # Annotated beats judge an asystole already.
        faults += [each for each in _rhythm_faults(judgement, alarms) if each.kind not in RHYTHM]
        reference += _rhythms(record)
    length = record.samples / record.rate
    return _line(length, reference, alarms, sorted(faults, key=lambda fault: fault.span), complexes)


def bedside_line(
    length: float, judgement: BedsideJudgement, alarms: Sequence[AlarmSpan], complexes: Sequence[float]
) -> TimeLine:
    """Return the time line of a record with a bedside alarm."""
    confirmed = judgement.alarm.confirmed
    kind = next(kind for kind in BEDSIDE_KINDS if kind == judgement.alarm.kind)
    verdict = f"{kind}: {'true' if confirmed else 'false'}"
    span = TimeSpan(BEDSIDE_SPAN.start, min(BEDSIDE_SPAN.end, length))  # some records end at the alarm
    reference = Reference(verdict, kind if confirmed else None, span)
    faults = [] if judgement.is_right else [Fault(kind, confirmed, span)]
    return _line(length, [reference], alarms, faults, complexes)


def _line(
    length: float,
    reference: Sequence[Reference],
    alarms: Sequence[AlarmSpan],
    faults: Sequence[Fault],
    complexes: Sequence[float],
) -> TimeLine:
    announced = tuple(alarm for alarm in alarms if alarm.announced)
    return TimeLine(length, tuple(reference), announced, tuple(faults), tuple(complexes))


def _rhythms(record: EcgRecord) -> list[Reference]:
    """Return the annotated rhythms that are not normal."""
    begins = [(mark.sample / record.rate, mark.name) for mark in record.rhythms()]
    ends = [*begins, (record.samples / record.rate, "")]
    return [
        Reference(name, kind_of_rhythm(name), TimeSpan(begin, end))
        for (begin, name), (end, _) in pairwise(ends)
        if name not in _ORDERLY
    ]


def _rhythm_faults(judgement: RhythmJudgement, alarms: Sequence[AlarmSpan]) -> list[Fault]:
    faults = [Fault(each.kind, True, each.span) for each in judgement.episodes if each.delay is None]
    for kind in RHYTHM_KINDS:
        wrong = judgement.false[kind]
        faults += [
            Fault(kind, False, alarm.span)
            for alarm in alarms
            if alarm.kind == kind and alarm.announced and alarm.span.start in wrong
        ]
    return faults
