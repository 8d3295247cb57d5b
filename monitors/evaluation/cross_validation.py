"""Cross-validation over records: each record is evaluated with a model that was trained on other records.

Training is passed in as a function, as the monitor does not train bundles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from genray.datasets.beats import BeatSetSettings
from genray.ecg.noisy_records import NoiseTest
from genray.ecg.records.base import EcgRecord
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError
from monitors.alarms.limits import Limits
from monitors.evaluation.evaluate import AnnotatedRecord, RecordResult, check_readable, evaluate, read_truth
from monitors.evaluation.rhythm_models import RhythmModels
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import WardSettings

_BEATS = 60_000  # approximate number of beats that a model is trained on: more add little


@dataclass(frozen=True)
class AnnotatedRecords:
    """Records of a folder that can be evaluated, what is missing of them, and why others are left out; all by
    name.

    Attributes:
        records: records with annotated beats.
        rhythms: records with annotated rhythms or a bedside alarm, and no annotated beats.
    """

    folder: Path
    records: dict[str, AnnotatedRecord] = field(default_factory=dict)
    rhythms: dict[str, EcgRecord] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingPart:
    """Training data of one fold.

    Attributes:
        fold: number of the fold, from 1.
        folds: number of folds.
        lead: the lead that most records have.
        records: names of the training records, which have this lead and are not evaluated in this fold.
        beats: number of their normal beats.
    """

    fold: int
    folds: int
    lead: str
    records: tuple[str, ...]
    beats: int


def open_annotated(
    folder: Path, note: Callable[[str], None], noise: NoiseTest | None = None
) -> AnnotatedRecords:
    """Open the annotated records below `folder`, with `noise` added; `note` gets a line for each record that
    is left out.

    Raises:
        DataError: there is no such folder.
    """
    annotated = AnnotatedRecords(folder)
    for path in find_records(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            record = open_record(path, pulse=True)
            truth = read_truth(record)
            judges_rhythms = bool(record.rhythms()) or record.bedside_alarm() is not None
            if truth is not None or judges_rhythms:
                check_readable(record)
                if noise is not None:
                    record = noise.add_to(record)
        except DataError as error:
            annotated.left_out[name] = error.what
            note(f"left out: {name}: {error.what}")
            continue
        if truth is None and not judges_rhythms:
            annotated.left_out[name] = "no annotated beats"
            note(f"left out: {name}: no annotated beats, rhythms or bedside alarm")
            continue
        if truth is None:
            annotated.rhythms[name] = record
        else:
            annotated.records[name] = AnnotatedRecord(record, truth)
        if record.notes:
            annotated.notes[name] = list(record.notes)
        for text in record.notes:
            note(f"{name}: {text}")
    return annotated


def cross_validate(
    records: Mapping[str, AnnotatedRecord],
    folds: int,
    train: Callable[[TrainingPart], BeatModel],
    ward: WardSettings,
    alarms: Limits,
    rhythm: RhythmModels,
    report_progress: Callable[[int, int, float], None],
) -> list[RecordResult]:
    """Evaluate every record with a model that `train` made from other records.

    Args:
        records: annotated records, by name.
        folds: number of folds; reduced to the number of records.
        train: trains the model of a fold.
        ward: settings of the analysis.
        alarms: alarm limits.
        rhythm: models of ventricular rhythms and beats.
        report_progress: takes the fold, its number of evaluated records, and the share that is done (0 to 1).
    """
    names = list(records)
    folds = min(folds, len(names))
    results = []
    for fold in range(1, folds + 1):
        judged = {name: records[name] for name in names[fold - 1 :: folds]}
        others = {name: annotated for name, annotated in records.items() if name not in judged}
        model = train(_training_part(others, fold, folds))
        results += evaluate(judged, model, ward, alarms, rhythm, partial(report_progress, fold, len(judged)))
    return results


def _training_part(others: Mapping[str, AnnotatedRecord], fold: int, folds: int) -> TrainingPart:
    lead = _common_lead([annotated.record for annotated in others.values()])
    normal_beats = {
        name: int((~annotated.truth.abnormal).sum())
        for name, annotated in others.items()
        if lead in map(str.upper, annotated.record.leads)
    }
    chosen = _subset(normal_beats)
    return TrainingPart(fold, folds, lead, tuple(chosen), sum(normal_beats[name] for name in chosen))


def _subset(normal_beats: Mapping[str, int]) -> list[str]:
    """Return a subset of the records with enough beats, evenly spread over all of them."""
    return list(normal_beats)[:: max(1, sum(normal_beats.values()) // _BEATS)]


def _common_lead(records: Sequence[EcgRecord]) -> str:
    """Return the lead that most records have; among several, the one that train-ecg prefers."""
    counts = Counter(record.leads[n].upper() for record in records for n in record.ecg_columns)
    preferred = {lead: -place for place, lead in enumerate(BeatSetSettings().leads)}
    return max(counts, key=lambda lead: (counts[lead], preferred.get(lead, -len(preferred))))
