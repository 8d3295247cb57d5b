"""How good the monitor is on annotated records: its scores of beats, its QRS detector, its alarms.

All of it is measured end to end: raw samples go through a ward as if they came live, a second at a time and
all records at once, and what comes out is compared with the annotations. Normal are the beats of AAMI's
class N (see `genray.ecg.beats`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genray.ecg.beats import AAMI
from genray.ecg.records.base import EcgRecord
from monitors.alarms.events import AlarmKind, Transition
from monitors.alarms.limits import Limits
from monitors.evaluation.matching import (
    NEAR,
    RHYTHM,
    AlarmSpan,
    Times,
    TimeSpan,
    abnormal_episodes,
    alarm_delay,
    alarm_spans,
    count_begun_without_reason,
    count_without_reason,
    pair_beats,
    rhythm_reasons,
)
from monitors.patient.output import WardOutput
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from monitors.sources.message import Chunk

Columns = Mapping[str, Sequence[int]]

_LEARNING = 300.0  # s at the beginning in which EC57 lets a detector learn
_PACED = "/"
_NEVER = {"minutes": 120.0, "beats": 128}  # of signal and beats that a reference would need
_BEGIN = 1_000_000_000.0  # unix s at which every record begins
_BLOCK = 60  # s that are read at once


@dataclass(frozen=True)
class RecordTruth:
    """What the annotations of a record say.

    Attributes:
        times: of its beats, (beats,), seconds from the first sample.
        abnormal: which of them are.
        paced: whether a pacemaker made any of them: of such records EC57 counts no classes of beats.
    """

    times: Times
    abnormal: NDArray[np.bool_]
    paced: bool


@dataclass(frozen=True)
class AnnotatedRecord:
    """A record that can be judged."""

    record: EcgRecord
    truth: RecordTruth


class BeatCounts(NamedTuple):
    """Beats that are annotated, that were detected, and that are both."""

    annotated: int
    detected: int
    matched: int


class AlarmCounts(NamedTuple):
    """Alarms that were announced, and how many of them without a reason."""

    announced: int
    false: int


@dataclass(frozen=True)
class LabelledScores:
    """Whether each of some beats is abnormal, (N,), and its score, (N,)."""

    abnormal: NDArray[np.bool_]
    scores: Times

    @classmethod
    def pooled(cls, parts: Iterable[LabelledScores]) -> LabelledScores:
        """Those of all `parts`."""
        listed = list(parts)
        return cls(
            np.concatenate([part.abnormal for part in listed]),
            np.concatenate([part.scores for part in listed]),
        )


@dataclass(frozen=True)
class QrsCounts:
    """How many beats were detected: in the whole record, and after the five minutes in which EC57 lets a
    detector learn."""

    whole: BeatCounts
    after_learning: BeatCounts


@dataclass(frozen=True)
class RecordResult:
    """How the monitor did on one record.

    Attributes:
        beats: annotated ones.
        abnormal: how many of them are.
        qrs: of all leads together.
        one_lead_qrs: of a single lead.
        with_reference: scores of the beats after the patient's reference was learned.
        without_reference: of the same beats, by a monitor that never learns a reference.
        all_without_reference: of all beats of the record.
        learned: seconds until the reference was; None: never.
        hours: of the record.
        watched_hours: those in which shapes can be alarmed: after the calibration.
        episodes: of abnormal beats.
        delays: seconds until the alarm of each episode for which there was one.
        anomaly: alarms of shape.
        rhythm: alarms of the rhythm, by kind.
        technical: how many others were announced.
    """

    name: str
    leads: tuple[str, ...]
    beats: int
    abnormal: int
    paced: bool
    qrs: QrsCounts
    one_lead_qrs: QrsCounts
    with_reference: LabelledScores
    without_reference: LabelledScores
    all_without_reference: LabelledScores
    learned: float | None
    hours: float
    watched_hours: float
    episodes: int
    delays: tuple[float, ...]
    anomaly: AlarmCounts
    rhythm: Mapping[AlarmKind, AlarmCounts]
    technical: int


def read_truth(record: EcgRecord) -> RecordTruth | None:
    """What its annotations say; None if it has none, or too few to compare anything.

    Raises:
        DataError: they are broken.
    """
    annotations = record.annotations()
    if annotations is None or len(annotations.peaks) < 2:
        return None
    # A code that AAMI puts into no class says nothing of a beat's shape.
    abnormal = np.array([AAMI.get(symbol, "N") != "N" for symbol in annotations.symbols])
    return RecordTruth(annotations.peaks / record.rate, abnormal, _PACED in annotations.symbols)


def check_readable(record: EcgRecord) -> None:
    """Read all of a record.

    Raises:
        DataError: it is broken.
    """
    for start in range(0, record.samples, 1 << 16):
        record.read(start, start + (1 << 16))


def evaluate(
    annotated: Mapping[str, AnnotatedRecord],
    model: BeatModel,
    settings: WardSettings,
    limits: Limits,
    report_progress: Callable[[float], None],
) -> list[RecordResult]:
    """Play records to the monitor, as if they came live, and judge what it says.

    They are played three times: as they are; to a monitor that never learns a patient's reference; and of
    each record a single lead, one that the model knows if there is one.

    Args:
        annotated: records by name.
        model: that has learned on other patients.
        settings: of the ward.
        limits: of the alarms.
        report_progress: takes the share that is done.

    Raises:
        DataError: a record cannot be read any more.
    """
    torch.set_num_threads(1)  # as in a shard: networks of beats are small
    records = {name: each.record for name, each in annotated.items()}
    settings = settings.model_copy(update={"streams": len(records)})
    reference = settings.reference.model_copy(update=_NEVER)
    never_learns = settings.model_copy(update={"reference": reference})
    all_leads: Columns = {name: range(len(record.leads)) for name, record in records.items()}
    one_lead: Columns = {name: [_known_lead(record, model)] for name, record in records.items()}
    plans = [(settings, all_leads), (never_learns, all_leads), (settings, one_lead)]
    played = []
    for number, (ward_settings, columns) in enumerate(plans):
        ward = Ward(ward_settings, model, lambda stream: limits)
        report = partial(_report_part, report_progress, number, len(plans))
        played.append(play_records(records, ward, columns, report))
    usual, unlearned, single = played
    calibration = 60 * settings.reference.minutes
    return [
        _judge(name, each, _Playbacks(usual[name], unlearned[name], single[name]), limits, calibration)
        for name, each in annotated.items()
    ]


def _report_part(report_progress: Callable[[float], None], number: int, of: int, share: float) -> None:
    report_progress((number + share) / of)


def _known_lead(record: EcgRecord, model: BeatModel) -> int:
    """The first lead that the model knows, else the first."""
    return next((place for place, lead in enumerate(record.leads) if model.knows(lead)), 0)


@dataclass
class PlayedRecord:
    """What the monitor made of a record. Times are seconds from its first sample.

    Attributes:
        complexes: when it detected a QRS.
        beats: time and score of each that was scored.
        transitions: of its alarms, their times like all others here; what was open at the end is ended.
        learned: when the patient's reference was learned; None: never.
    """

    complexes: list[float] = field(default_factory=list)
    beats: list[tuple[float, float]] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    learned: float | None = None


def play_records(
    records: Mapping[str, EcgRecord],
    ward: Ward,
    columns: Columns,
    report_progress: Callable[[float], None],
) -> dict[str, PlayedRecord]:
    """Play `records` to a ward that has no streams yet.

    Args:
        records: by the name that their streams get.
        ward: that watches them.
        columns: which leads of each are sent.
        report_progress: takes the share that was played, each second of it.

    Raises:
        DataError: a record cannot be read any more.
    """
    ward.watched = frozenset(records)
    played = {name: PlayedRecord() for name in records}
    playing = {name: _chunks(name, record, columns[name]) for name, record in records.items()}
    longest = max(record.samples / record.rate for record in records.values())
    second = 0
    while playing:
        now = float(second)
        for name in list(playing):
            chunk = next(playing[name], None)
            if chunk is not None:
                ward.push(chunk, now)
                continue
            del playing[name]
            _gather(ward.discharge(name), played)
        _gather(ward.step(now), played)
        while ward.waiting:
            _gather(ward.step(now), played)
        second += 1
        report_progress(min(1.0, second / longest))
    for record in played.values():
        record.complexes.sort()  # a complex may be found by looking back
        record.beats.sort()
    return played


def _chunks(name: str, record: EcgRecord, columns: Sequence[int]) -> Iterator[Chunk]:
    size = max(1, round(record.rate))
    leads = tuple(record.leads[column] for column in columns)
    gains = tuple(record.gains[column] for column in columns)
    for number, samples in enumerate(_seconds(record, size)):
        yield Chunk(
            stream=name,
            sequence=number,
            start=_BEGIN + number * size / record.rate,
            rate=record.rate,
            leads=leads,
            gains=gains,
            samples=samples[:, list(columns)],
            received=float(number),
        )


def _seconds(record: EcgRecord, size: int) -> Iterator[NDArray[np.int16]]:
    for start in range(0, record.samples, _BLOCK * size):
        block = record.read(start, start + _BLOCK * size)
        yield from (block[i : i + size] for i in range(0, len(block), size))


def _gather(output: WardOutput, played: Mapping[str, PlayedRecord]) -> None:
    for name, times in output.complexes.items():
        played[name].complexes += [time - _BEGIN for time in times]
    for name, beats in output.beats.items():
        played[name].beats += [(beat.time - _BEGIN, beat.score) for beat in beats]
    for transition in output.transitions:
        time, onset = transition.time - _BEGIN, transition.onset - _BEGIN
        played[transition.stream].transitions.append(replace(transition, time=time, onset=onset))
    for reading in output.readings:
        if reading.learned == 1 and played[reading.stream].learned is None:
            played[reading.stream].learned = reading.time - _BEGIN


class _Playbacks(NamedTuple):
    """A record as it is, to a monitor that never learns a reference, and a single lead of it."""

    usual: PlayedRecord
    unlearned: PlayedRecord
    one_lead: PlayedRecord


def _judge(
    name: str, annotated: AnnotatedRecord, played: _Playbacks, limits: Limits, calibration: float
) -> RecordResult:
    """Compare what the monitor made of a record with its annotations.

    Args:
        calibration: seconds at the beginning in which shapes are not alarmed.
    """
    record, truth = annotated.record, annotated.truth
    length = record.samples / record.rate
    alarms = [alarm for alarm in alarm_spans(played.usual.transitions, length) if alarm.announced]
    episodes: list[TimeSpan] = []
    anomalies: list[AlarmSpan] = []
    if not truth.paced:
        late = truth.times > calibration
        episodes = abnormal_episodes(truth.times[late], truth.abnormal[late])
        anomalies = [alarm for alarm in alarms if alarm.kind == "anomaly"]
    delays = (alarm_delay(episode, anomalies) for episode in episodes)
    reasons = rhythm_reasons(truth.times, limits)
    with_reference = _scores(truth, played.usual)
    without_reference = _scores(truth, played.unlearned)
    scored = np.isfinite(without_reference) & (not truth.paced)
    scored &= truth.times < _or_never(played.unlearned.learned)
    compared = scored & np.isfinite(with_reference) & (truth.times > _or_never(played.usual.learned))
    return RecordResult(
        name=name,
        leads=record.leads,
        beats=len(truth.times),
        abnormal=int(truth.abnormal.sum()),
        paced=truth.paced,
        qrs=_count_qrs(truth.times, played.usual.complexes),
        one_lead_qrs=_count_qrs(truth.times, played.one_lead.complexes),
        with_reference=LabelledScores(truth.abnormal[compared], with_reference[compared]),
        without_reference=LabelledScores(truth.abnormal[compared], without_reference[compared]),
        all_without_reference=LabelledScores(truth.abnormal[scored], without_reference[scored]),
        learned=played.usual.learned,
        hours=length / 3600,
        watched_hours=0.0 if truth.paced else max(0.0, length - calibration) / 3600,
        episodes=len(episodes),
        delays=tuple(delay for delay in delays if delay is not None),
        anomaly=AlarmCounts(len(anomalies), count_without_reason(anomalies, episodes)),
        rhythm={kind: _count_rhythm_alarms(alarms, kind, reasons[kind]) for kind in RHYTHM},
        technical=sum(alarm.kind not in (*RHYTHM, "anomaly") for alarm in alarms),
    )


def _or_never(time: float | None) -> float:
    return np.inf if time is None else time


def _count_rhythm_alarms(
    alarms: Sequence[AlarmSpan], kind: AlarmKind, reasons: Sequence[TimeSpan]
) -> AlarmCounts:
    of_kind = [alarm for alarm in alarms if alarm.kind == kind]
    return AlarmCounts(len(of_kind), count_begun_without_reason(of_kind, reasons))


def _scores(truth: RecordTruth, played: PlayedRecord) -> Times:
    """The score of each annotated beat, (beats,); NaN where none was detected."""
    partner = pair_beats(truth.times.tolist(), [time for time, _ in played.beats], NEAR)
    scores = np.array([score for _, score in played.beats] + [np.nan])
    return scores[partner]


def _count_qrs(annotated: Times, detected: Sequence[float]) -> QrsCounts:
    return QrsCounts(_count_beats(annotated, detected, 0.0), _count_beats(annotated, detected, _LEARNING))


def _count_beats(annotated: Times, detected: Sequence[float], start: float) -> BeatCounts:
    true = annotated[annotated >= start].tolist()
    found = [time for time in detected if time >= start]
    return BeatCounts(len(true), len(found), int((pair_beats(true, found, NEAR) >= 0).sum()))
