"""Evaluation of the monitor on annotated records: beat scores, QRS detection and alarms.

Everything is measured end to end: raw samples go through a ward as if they were live, one second at a time
and all records at once, and the output is compared with the annotations. Beats of AAMI's class N are normal
(see `genray.ecg.beats`), all others abnormal.
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
from monitors.alarms.conditions import CONDITIONS
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
    false_alarms,
    false_onsets,
    pair_beats,
    rhythm_reasons,
)
from monitors.evaluation.rhythm_models import RhythmModels
from monitors.evaluation.rhythms import BedsideJudgement, RhythmJudgement, judge_bedside, judge_rhythms
from monitors.evaluation.timeline import TimeLine, beat_line, bedside_line, rhythm_line
from monitors.patient.output import ScoredBeat, WardOutput
from monitors.patient.scoring import BeatModel, ScoreInputs
from monitors.patient.ward import Ward, WardSettings
from monitors.sources.message import Chunk

Columns = Mapping[str, Sequence[int]]

_LEARNING = 300.0  # s at the beginning that EC57 excludes, for the detector to learn
_PACED = "/"
_NEVER = {"minutes": 120.0, "beats": 128}  # settings with which no reference is learned in a record
_BEGIN = 1_000_000_000.0  # unix time (s) at which every record begins
_BLOCK = 60  # s that are read at once


@dataclass(frozen=True)
class RecordTruth:
    """Annotations of a record.

    Attributes:
        times: times of its beats, (beats,), seconds from the first sample.
        abnormal: whether each beat is abnormal, (beats,).
        paced: whether any beat is paced; EC57 excludes such records from figures by class of beats.
    """

    times: Times
    abnormal: NDArray[np.bool_]
    paced: bool


@dataclass(frozen=True)
class AnnotatedRecord:
    """A record that can be evaluated, with its annotations."""

    record: EcgRecord
    truth: RecordTruth


class BeatCounts(NamedTuple):
    """Numbers of annotated beats, detected beats, and pairs of both."""

    annotated: int
    detected: int
    matched: int


class AlarmCounts(NamedTuple):
    """Numbers of announced alarms, and of false ones among them."""

    announced: int
    false: int


@dataclass(frozen=True)
class LabelledScores:
    """Label (abnormal or not) and score of beats, both (N,)."""

    abnormal: NDArray[np.bool_]
    scores: Times

    @classmethod
    def pooled(cls, parts: Iterable[LabelledScores]) -> LabelledScores:
        """Return the labelled scores of all `parts` together."""
        listed = list(parts)
        return cls(
            np.concatenate([part.abnormal for part in listed]),
            np.concatenate([part.scores for part in listed]),
        )


@dataclass(frozen=True)
class QrsCounts:
    """Numbers of detected beats: in the whole record, and after the first five minutes, which EC57
    excludes."""

    whole: BeatCounts
    after_learning: BeatCounts


@dataclass(frozen=True)
class ScoredRecord:
    """Beats of a record with what their scores are computed from, to score them again with other weights.

    Attributes:
        abnormal: whether each compared beat is abnormal, (N,).
        beats: all scored beats, by time.
        compared: index of each compared beat in these, (N,).
        new: inputs of each compared beat for a monitor that never learns a reference.
        episodes: episodes of abnormal beats.
        watched: time in which anomaly alarms are possible.
    """

    name: str
    abnormal: NDArray[np.bool_]
    beats: tuple[ScoredBeat, ...]
    compared: NDArray[np.intp]
    new: tuple[ScoreInputs, ...]
    episodes: tuple[TimeSpan, ...]
    watched: TimeSpan


@dataclass(frozen=True)
class RecordResult:
    """Results of the monitor on one record.

    Attributes:
        beats: number of annotated beats.
        abnormal: number of abnormal beats.
        qrs: QRS detection with all leads.
        one_lead_qrs: QRS detection with a single lead.
        with_reference: scores of the beats after the patient's reference was learned.
        without_reference: scores of the same beats from a monitor that never learns a reference.
        all_without_reference: scores of all beats of the record from that monitor.
        learned: seconds until the reference was learned; None: never.
        hours: length of the record.
        watched_hours: hours in which anomaly alarms are possible: after the reference was to be learned.
        episodes: number of episodes of abnormal beats.
        delays: seconds until the alarm, for each episode with an alarm.
        anomaly: anomaly alarms.
        rhythm: asystole, bradycardia and tachycardia alarms, by kind.
        technical: number of announced technical alarms.
        rhythms: alarms against the annotated rhythms; None: there are none.
        line: reference, alarms and faults on a time line.
        scored: beats from which the weights of the score are chosen; None: it is paced.
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
    line: TimeLine
    rhythms: RhythmJudgement | None = None
    scored: ScoredRecord | None = None


def read_truth(record: EcgRecord) -> RecordTruth | None:
    """Read the annotations of a record; None: it has fewer than two annotated beats.

    Raises:
        DataError: the annotations are damaged.
    """
    annotations = record.annotations()
    if annotations is None or len(annotations.peaks) < 2:
        return None
    # A code without an AAMI class says nothing about the shape of the beat.
    abnormal = np.array([AAMI.get(symbol, "N") != "N" for symbol in annotations.symbols])
    return RecordTruth(annotations.peaks / record.rate, abnormal, _PACED in annotations.symbols)


def check_readable(record: EcgRecord) -> None:
    """Read all samples of a record, to find damage before the evaluation.

    Raises:
        DataError: the record is damaged.
    """
    for start in range(0, record.samples, 1 << 16):
        record.read(start, start + (1 << 16))


def evaluate(
    annotated: Mapping[str, AnnotatedRecord],
    model: BeatModel,
    settings: WardSettings,
    limits: Limits,
    rhythm: RhythmModels,
    report_progress: Callable[[float], None],
) -> list[RecordResult]:
    """Play records to the monitor as if they were live, and compare its output with the annotations.

    They are played three times: to the monitor as it is; to a monitor that never learns a reference; and with
    one lead of each record, one that the model knows if there is one.

    Args:
        annotated: annotated records, by name.
        model: model that was trained on other patients.
        settings: settings of the analysis.
        limits: alarm limits.
        rhythm: models of ventricular rhythms and beats.
        report_progress: takes the share that is done, 0 to 1.

    Raises:
        DataError: a record can no longer be read.
    """
    torch.set_num_threads(1)  # as in a shard: beat networks are small
    records = {name: each.record for name, each in annotated.items()}
    settings = settings.model_copy(update={"streams": len(records)})
    reference = settings.reference.model_copy(update=_NEVER)
    never_learns = settings.model_copy(update={"reference": reference})
    all_leads: Columns = {name: range(len(record.leads)) for name, record in records.items()}
    one_lead: Columns = {name: [_known_lead(record, model)] for name, record in records.items()}
    plans = [(settings, all_leads), (never_learns, all_leads), (settings, one_lead)]
    played = []
    for number, (ward_settings, columns) in enumerate(plans):
        report = partial(_report_part, report_progress, number, len(plans))
        played.append(_play(records, columns, model, ward_settings, limits, rhythm, report))
    usual, unlearned, single = played
    calibration = 60 * settings.reference.minutes
    return [
        _judge(name, each, _Playbacks(usual[name], unlearned[name], single[name]), limits, calibration)
        for name, each in annotated.items()
    ]


@dataclass(frozen=True)
class RhythmResults:
    """Alarms of records without annotated beats, by name: against their rhythms, or their bedside alarm.

    Attributes:
        lines: reference, alarms and faults of each record on a time line.
        bedside_without_pulse: bedside alarms by the ECG leads only; empty: no record has a pulse wave.
    """

    rhythms: Mapping[str, RhythmJudgement]
    bedside: Mapping[str, BedsideJudgement]
    lines: Mapping[str, TimeLine]
    bedside_without_pulse: Mapping[str, BedsideJudgement] = field(default_factory=dict)


def evaluate_rhythms(
    records: Mapping[str, EcgRecord],
    model: BeatModel,
    settings: WardSettings,
    limits: Limits,
    rhythm: RhythmModels,
    report_progress: Callable[[float], None],
) -> RhythmResults:
    """Play records with annotated rhythms or bedside alarms to the monitor, once; those with a bedside alarm
    and a pulse wave once more by their ECG leads only. Arguments and errors as for `evaluate`."""
    torch.set_num_threads(1)
    settings = settings.model_copy(update={"streams": len(records)})
    with_pulse = {
        name: record
        for name, record in records.items()
        if len(record.ecg_columns) < len(record.leads) and record.bedside_alarm() is not None
    }
    plans: list[tuple[Mapping[str, EcgRecord], Columns]] = [
        (records, {name: range(len(record.leads)) for name, record in records.items()})
    ]
    if with_pulse:
        plans.append((with_pulse, {name: record.ecg_columns for name, record in with_pulse.items()}))
    playbacks = []
    for number, (each, columns) in enumerate(plans):
        report = partial(_report_part, report_progress, number, len(plans))
        playbacks.append(_play(each, columns, model, settings, limits, rhythm, report))
    played, ecg_only = playbacks[0], playbacks[-1]
    rhythms: dict[str, RhythmJudgement] = {}
    bedside: dict[str, BedsideJudgement] = {}
    without_pulse: dict[str, BedsideJudgement] = {}
    lines: dict[str, TimeLine] = {}
    for name, record in records.items():
        alarm = record.bedside_alarm()
        length = record.samples / record.rate
        spans = alarm_spans(played[name].transitions, length)
        if alarm is None:
            rhythms[name] = _judge_rhythms(record, spans)
            lines[name] = rhythm_line(record, rhythms[name], spans, played[name].complexes)
            continue
        bedside[name] = judge_bedside(alarm, spans)
        lines[name] = bedside_line(length, bedside[name], spans, played[name].complexes)
        if with_pulse:
            alone = ecg_only.get(name, played[name])
            without_pulse[name] = judge_bedside(alarm, alarm_spans(alone.transitions, length))
    return RhythmResults(rhythms, bedside, lines, without_pulse)


def _play(
    records: Mapping[str, EcgRecord],
    columns: Columns,
    model: BeatModel,
    settings: WardSettings,
    limits: Limits,
    rhythm: RhythmModels,
    report_progress: Callable[[float], None],
) -> dict[str, PlayedRecord]:
    """Play records to a monitor for each rhythm model: those that this model judges."""
    played: dict[str, PlayedRecord] = {}
    shares = rhythm.shares(records)
    for number, (rhythm_model, names) in enumerate(shares):
        ward = Ward(settings, model, lambda stream: limits, rhythm=rhythm_model)
        report = partial(_report_part, report_progress, number, len(shares))
        played |= play_records({name: records[name] for name in names}, ward, columns, report)
    return played


def _judge_rhythms(record: EcgRecord, alarms: Sequence[AlarmSpan]) -> RhythmJudgement:
    return judge_rhythms(record.rhythms(), record.rate, record.samples / record.rate, alarms)


def _report_part(report_progress: Callable[[float], None], number: int, of: int, share: float) -> None:
    report_progress((number + share) / of)


def _known_lead(record: EcgRecord, model: BeatModel) -> int:
    """Return the index of the first lead that the model knows, else 0."""
    return next((place for place, lead in enumerate(record.leads) if model.knows(lead)), 0)


@dataclass
class PlayedRecord:
    """Output of the monitor for one record. Times are seconds from its first sample.

    Attributes:
        complexes: times of the detected QRS complexes.
        beats: scored beats.
        transitions: transitions of its alarms, in the same time; alarms that are open at the end are ended.
        learned: time at which the patient's reference was learned; None: never.
    """

    complexes: list[float] = field(default_factory=list)
    beats: list[ScoredBeat] = field(default_factory=list)
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
        records: records, by the name that their streams get.
        ward: ward that monitors them.
        columns: indices of the leads of each record that are played.
        report_progress: takes the share that was played (0 to 1), after each second of samples.

    Raises:
        DataError: a record can no longer be read.
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
        record.complexes.sort()  # search-back finds complexes late
        record.beats.sort(key=lambda beat: beat.time)
    return played


def _chunks(name: str, record: EcgRecord, columns: Sequence[int]) -> Iterator[Chunk]:
    size = max(1, round(record.rate))
    leads = tuple(record.leads[column] for column in columns)
    gains = tuple(record.gains[column] for column in columns)
    kinds = tuple(record.kinds[column] for column in columns) if record.kinds else ()
    for number, samples in enumerate(_seconds(record, size)):
        yield Chunk(
            stream=name,
            sequence=number,
            start=_BEGIN + number * size / record.rate,
            rate=record.rate,
            leads=leads,
            gains=gains,
            kinds=kinds,
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
        played[name].beats += [replace(beat, time=beat.time - _BEGIN) for beat in beats]
    for transition in output.transitions:
        time, onset = transition.time - _BEGIN, transition.onset - _BEGIN
        played[transition.stream].transitions.append(replace(transition, time=time, onset=onset))
    for reading in output.readings:
        if reading.learned == 1 and played[reading.stream].learned is None:
            played[reading.stream].learned = reading.time - _BEGIN


class _Playbacks(NamedTuple):
    """Output for one record: of the monitor as it is, without references, and with a single lead."""

    usual: PlayedRecord
    unlearned: PlayedRecord
    one_lead: PlayedRecord


def _judge(
    name: str, annotated: AnnotatedRecord, played: _Playbacks, limits: Limits, calibration: float
) -> RecordResult:
    """Compare the output for a record with its annotations.

    Args:
        calibration: seconds at the beginning in which the reference is learned, without anomaly alarms.
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
    partners, unlearned = _partners(truth, played.usual), _partners(truth, played.unlearned)
    with_reference = _scores(partners, played.usual)
    without_reference = _scores(unlearned, played.unlearned)
    rhythms = _judge_rhythms(record, alarms) if record.rhythms() else None
    scored = np.isfinite(without_reference) & (not truth.paced)
    scored &= truth.times < _or_infinity(played.unlearned.learned)
    compared = scored & np.isfinite(with_reference) & (truth.times > _or_infinity(played.usual.learned))
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
        anomaly=AlarmCounts(len(anomalies), len(false_alarms(anomalies, episodes))),
        rhythm={kind: _count_rhythm_alarms(alarms, kind, reasons[kind]) for kind in RHYTHM},
        technical=sum(CONDITIONS[alarm.kind].category == "technical" for alarm in alarms),
        line=beat_line(record, episodes, reasons, rhythms, alarms, played.usual.complexes),
        rhythms=rhythms,
        scored=ScoredRecord(
            name=name,
            abnormal=truth.abnormal[compared],
            beats=tuple(played.usual.beats),
            compared=partners[compared],
            new=tuple(played.unlearned.beats[place].inputs for place in unlearned[compared]),
            episodes=tuple(episodes),
            watched=TimeSpan(min(calibration, length), length),
        )
        if not truth.paced
        else None,
    )


def _or_infinity(time: float | None) -> float:
    return np.inf if time is None else time


def _count_rhythm_alarms(
    alarms: Sequence[AlarmSpan], kind: AlarmKind, reasons: Sequence[TimeSpan]
) -> AlarmCounts:
    of_kind = [alarm for alarm in alarms if alarm.kind == kind]
    return AlarmCounts(len(of_kind), len(false_onsets(of_kind, reasons)))


def _partners(truth: RecordTruth, played: PlayedRecord) -> NDArray[np.intp]:
    """Return the scored beat of each annotated one, (beats,); -1 where none was detected."""
    return pair_beats(truth.times.tolist(), [beat.time for beat in played.beats], NEAR)


def _scores(partners: NDArray[np.intp], played: PlayedRecord) -> Times:
    """Return the score of each annotated beat, (beats,); NaN where none was detected."""
    return np.array([beat.score for beat in played.beats] + [np.nan])[partners]


def _count_qrs(annotated: Times, detected: Sequence[float]) -> QrsCounts:
    return QrsCounts(_count_beats(annotated, detected, 0.0), _count_beats(annotated, detected, _LEARNING))


def _count_beats(annotated: Times, detected: Sequence[float], start: float) -> BeatCounts:
    true = annotated[annotated >= start].tolist()
    found = [time for time in detected if time >= start]
    return BeatCounts(len(true), len(found), int((pair_beats(true, found, NEAR) >= 0).sum()))
