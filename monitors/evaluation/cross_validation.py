"""Cross-validation over records: each is judged by a model that was trained on others.

Training is passed in: the monitor does not know how its bundles are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from genray.datasets.beats import BeatSetSettings
from genray.ecg.records.base import EcgRecord
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError
from monitors.alarms.limits import Limits
from monitors.evaluation.evaluate import AnnotatedRecord, RecordResult, check_readable, evaluate, read_truth
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import WardSettings

_BEATS = 60_000  # that a network is trained on, about: more of them add little


@dataclass(frozen=True)
class AnnotatedRecords:
    """The records of a folder that can be judged, what is missing of them, and why others cannot be; each by
    its name."""

    folder: Path
    records: dict[str, AnnotatedRecord] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingPart:
    """What the model of a fold learns from.

    Attributes:
        fold: its number, from 1.
        folds: how many there are.
        lead: the lead that the most records have.
        records: names of the records that have it, without those that are judged.
        beats: how many normal beats they have.
    """

    fold: int
    folds: int
    lead: str
    records: tuple[str, ...]
    beats: int


def open_annotated(folder: Path, note: Callable[[str], None]) -> AnnotatedRecords:
    """Open the records below `folder`; what is left out is said to `note`.

    Raises:
        DataError: there is no such folder.
    """
    annotated = AnnotatedRecords(folder)
    for path in find_records(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            record = open_record(path)
            truth = read_truth(record)
            if truth is not None:
                check_readable(record)
        except DataError as error:
            annotated.left_out[name] = error.what
            note(f"set aside: {name}: {error.what}")
            continue
        if truth is None:
            annotated.left_out[name] = "no annotated beats"
            note(f"left out: {name}: no annotated beats")
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
    report_progress: Callable[[int, int, float], None],
) -> list[RecordResult]:
    """Judge every record by what `train` made of the others.

    Args:
        records: by name.
        folds: parts that the records are dealt into, at most as many as there are records.
        train: makes the model of a fold.
        ward: settings of it.
        alarms: their limits.
        report_progress: takes the fold, the number of records in it and the share of them that was watched.
    """
    names = list(records)
    folds = min(folds, len(names))
    results = []
    for fold in range(1, folds + 1):
        judged = {name: records[name] for name in names[fold - 1 :: folds]}
        others = {name: annotated for name, annotated in records.items() if name not in judged}
        model = train(_training_part(others, fold, folds))
        results += evaluate(judged, model, ward, alarms, partial(report_progress, fold, len(judged)))
    return results


def _training_part(others: Mapping[str, AnnotatedRecord], fold: int, folds: int) -> TrainingPart:
    lead = _common_lead([annotated.record for annotated in others.values()])
    normal_beats = {
        name: int((~annotated.truth.abnormal).sum())
        for name, annotated in others.items()
        if lead in map(str.upper, annotated.record.leads)
    }
    chosen = _thinned(normal_beats)
    return TrainingPart(fold, folds, lead, tuple(chosen), sum(normal_beats[name] for name in chosen))


def _thinned(normal_beats: Mapping[str, int]) -> list[str]:
    """So many of the records that their beats are enough, evenly from all of them."""
    return list(normal_beats)[:: max(1, sum(normal_beats.values()) // _BEATS)]


def _common_lead(records: Sequence[EcgRecord]) -> str:
    """The lead that the most records have; of several the one that train-ecg prefers."""
    counts = Counter(lead.upper() for record in records for lead in record.leads)
    preferred = {lead: -place for place, lead in enumerate(BeatSetSettings().leads)}
    return max(counts, key=lambda lead: (counts[lead], preferred.get(lead, -len(preferred))))
