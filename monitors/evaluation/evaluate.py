"""How good the monitor is on annotated records: its scores of beats, its QRS detector, its alarms.

All of it is measured end to end: raw samples go through a ward, and what comes out is compared with the
annotations. Normal are the beats of AAMI's class N (see `genray.ecg.beats`).

Records played to a ward as if they came live: raw samples, a second at a time, all records at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    Alarmed,
    Times,
    TimeSpan,
    abnormal_episodes,
    alarms_of,
    begun_without_reason,
    delay,
    paired,
    rhythm_reasons,
    without_reason,
)
from monitors.patient.output import WardOutput
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from monitors.sources.message import Chunk

LEFT_OUT = 300.0
"""Seconds at the beginning in which EC57 lets a detector learn."""

Columns = Mapping[str, Sequence[int]]

_PACED = "/"
_NEVER = {"minutes": 120.0, "beats": 128}  # of signal and beats that a reference would need


class Counts(NamedTuple):
    """Beats that are annotated, that were found, and that are both."""

    known: int
    found: int
    both: int


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
class Judged:
    """What was found in one record.

    Attributes:
        beats: annotated ones; `abnormal` of these so many.
        qrs: of all leads together, of the whole record and `qrs_after` the first five minutes; `one_lead`
            the same of a single lead.
        truth: whether each of the beats by which scores are compared is abnormal, (N,): those after the
            patient's reference was learned.
        calibrated: their scores, (N,); `alone` those without a reference.
        every: as `truth` and `alone`, of all beats of the record.
        learned: seconds until the reference was; None: never.
        hours: of the record; `watched` those in which shapes can be alarmed: after the calibration.
        episodes: of abnormal beats, and `delays` until the alarm of those for which there was one.
        anomaly: how many alarms were announced, and how many of these without a reason; `rhythm` by kind.
        technical: how many others were announced.
    """

    name: str
    leads: tuple[str, ...]
    beats: int
    abnormal: int
    paced: bool
    qrs: Counts
    qrs_after: Counts
    one_lead: Counts
    one_lead_after: Counts
    truth: NDArray[np.bool_]
    calibrated: Times
    alone: Times
    every: tuple[NDArray[np.bool_], Times]
    learned: float | None
    hours: float
    watched: float
    episodes: int
    delays: tuple[float, ...]
    anomaly: tuple[int, int]
    rhythm: Mapping[AlarmKind, tuple[int, int]]
    technical: int


def truth_of(record: EcgRecord) -> RecordTruth | None:
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


def evaluate(
    records: Mapping[str, EcgRecord],
    truths: Mapping[str, RecordTruth],
    model: BeatModel,
    settings: WardSettings,
    limits: Limits,
    moved: Callable[[float], None],
) -> list[Judged]:
    """Play `records` to the monitor, as if they came live, and judge what it says.

    They are played three times: as they are; to a monitor that never learns a patient's reference; and of
    each record a single lead, one that the model knows if there is one.

    Args:
        records: by name.
        truths: of each of them.
        model: of beats, that has learned on other patients.
        moved: is told the share that is done.

    Raises:
        DataError: a record cannot be read any more.
    """
    torch.set_num_threads(1)  # as in a shard: networks of beats are small
    settings = settings.model_copy(update={"streams": len(records)})
    reference = settings.reference.model_copy(update=_NEVER)
    new = settings.model_copy(update={"reference": reference})
    every: Columns = {name: range(len(record.leads)) for name, record in records.items()}
    single: Columns = {name: [_known(record, model)] for name, record in records.items()}
    plans = [(settings, every), (new, every), (settings, single)]
    runs = []
    for number, (how, columns) in enumerate(plans):
        ward = Ward(how, model, lambda stream: limits)
        runs.append(watch(records, ward, columns, partial(_part, moved, number, len(plans))))
    calibration = 60 * settings.reference.minutes
    seen, alone, one = runs
    return [
        _judged(name, record, truths[name], (seen[name], alone[name], one[name]), limits, calibration)
        for name, record in records.items()
    ]


def check_readable(record: EcgRecord) -> None:
    """Read all of a record.

    Raises:
        DataError: it is broken.
    """
    for start in range(0, record.samples, 1 << 16):
        record.read(start, start + (1 << 16))


def _part(moved: Callable[[float], None], number: int, of: int, share: float) -> None:
    moved((number + share) / of)


def _known(record: EcgRecord, model: BeatModel) -> int:
    return next((place for place, lead in enumerate(record.leads) if model.knows(lead)), 0)


def _judged(
    name: str,
    record: EcgRecord,
    truth: RecordTruth,
    runs: tuple[WatchedRecord, WatchedRecord, WatchedRecord],
    limits: Limits,
    calibration: float,
) -> Judged:
    seen, alone, one = runs
    length = record.samples / record.rate
    alarms = [alarm for alarm in alarms_of(seen.transitions, length) if alarm.announced]
    late = truth.times > calibration
    episodes, anomalies = [], []
    if not truth.paced:
        episodes = abnormal_episodes(truth.times[late], truth.abnormal[late])
        anomalies = [alarm for alarm in alarms if alarm.kind == "anomaly"]
    delays = (delay(episode, anomalies) for episode in episodes)
    reasons = rhythm_reasons(truth.times, limits)
    with_reference, without = (_scores(truth, run) for run in (seen, alone))
    known = np.isfinite(without) & (not truth.paced)
    known &= truth.times < (alone.learned if alone.learned is not None else np.inf)
    learned = seen.learned if seen.learned is not None else np.inf
    compared = known & np.isfinite(with_reference) & (truth.times > learned)
    return Judged(
        name=name,
        leads=record.leads,
        beats=len(truth.times),
        abnormal=int(truth.abnormal.sum()),
        paced=truth.paced,
        qrs=_counts(truth.times, seen.complexes, 0.0),
        qrs_after=_counts(truth.times, seen.complexes, LEFT_OUT),
        one_lead=_counts(truth.times, one.complexes, 0.0),
        one_lead_after=_counts(truth.times, one.complexes, LEFT_OUT),
        truth=truth.abnormal[compared],
        calibrated=with_reference[compared],
        alone=without[compared],
        every=(truth.abnormal[known], without[known]),
        learned=seen.learned,
        hours=length / 3600,
        watched=0.0 if truth.paced else max(0.0, length - calibration) / 3600,
        episodes=len(episodes),
        delays=tuple(each for each in delays if each is not None),
        anomaly=(len(anomalies), without_reason(anomalies, episodes)),
        rhythm={kind: _rhythm(alarms, kind, reasons[kind]) for kind in RHYTHM},
        technical=sum(alarm.kind not in (*RHYTHM, "anomaly") for alarm in alarms),
    )


def _rhythm(alarms: Sequence[Alarmed], kind: AlarmKind, reasons: Sequence[TimeSpan]) -> tuple[int, int]:
    those = [alarm for alarm in alarms if alarm.kind == kind]
    return len(those), begun_without_reason(those, reasons)


def _scores(truth: RecordTruth, run: WatchedRecord) -> Times:
    """The score of each annotated beat, (beats,); NaN where none was found."""
    partner = paired(truth.times.tolist(), [time for time, _ in run.beats], NEAR)
    scores = np.array([score for _, score in run.beats] + [np.nan])
    return scores[partner]


def _counts(known: Times, found: Sequence[float], start: float) -> Counts:
    here = known[known >= start].tolist()
    those = [time for time in found if time >= start]
    return Counts(len(here), len(those), int((paired(here, those, NEAR) >= 0).sum()))


_BEGIN = 1_000_000_000.0  # unix s at which every record begins
_BLOCK = 60  # s that are read at once


@dataclass
class WatchedRecord:
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


def watch(
    records: Mapping[str, EcgRecord],
    ward: Ward,
    columns: Mapping[str, Sequence[int]],
    moved: Callable[[float], None],
) -> dict[str, WatchedRecord]:
    """Play `records` to a ward that has no streams yet.

    Args:
        records: by the name that their streams get.
        columns: which leads of each are sent.
        moved: is told the share that was played, each second of it.

    Raises:
        DataError: a record cannot be read any more.
    """
    ward.watched = frozenset(records)
    found = {name: WatchedRecord() for name in records}
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
            _gather(ward.discharge(name), found)
        _gather(ward.step(now), found)
        while ward.waiting:
            _gather(ward.step(now), found)
        second += 1
        moved(min(1.0, second / longest))
    for each in found.values():
        each.complexes.sort()  # a complex may be found by looking back
        each.beats.sort()
    return found


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


def _gather(made: WardOutput, found: Mapping[str, WatchedRecord]) -> None:
    for name, times in made.complexes.items():
        found[name].complexes += [time - _BEGIN for time in times]
    for name, beats in made.beats.items():
        found[name].beats += [(beat.time - _BEGIN, beat.score) for beat in beats]
    for transition in made.transitions:
        at, onset = transition.time - _BEGIN, transition.onset - _BEGIN
        found[transition.stream].transitions.append(replace(transition, time=at, onset=onset))
    for reading in made.readings:
        if reading.learned == 1 and found[reading.stream].learned is None:
            found[reading.stream].learned = reading.time - _BEGIN
