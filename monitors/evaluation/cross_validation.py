"""Cross-validation over records: each is judged by a detector that was trained on others.

Training is passed in: the monitor does not know how its bundles are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genray.datasets.beats import BeatSetSettings
from genray.ecg.records.base import EcgRecord
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError
from monitors.alarms.limits import Limits
from monitors.evaluation.evaluate import Judged, RecordTruth, check_readable, evaluate, truth_of
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import WardSettings

_BEATS = 60_000  # that a network is trained on, about: more of them add little


@dataclass(frozen=True)
class AnnotatedRecords:
    """The records of a folder that can be judged, what their annotations say, and why others cannot be;
    each by its name."""

    folder: Path
    records: dict[str, EcgRecord] = field(default_factory=dict)
    truths: dict[str, RecordTruth] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingPart:
    """What the detector of a fold learns from.

    Attributes:
        fold: its number, from 1; `folds` is how many there are.
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
    found = AnnotatedRecords(folder)
    for path in find_records(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            record = open_record(path)
            truth = truth_of(record)
            if truth is not None:
                check_readable(record)
        except DataError as error:
            found.left_out[name] = error.what
            note(f"set aside: {name}: {error.what}")
            continue
        if truth is None:
            found.left_out[name] = "no annotated beats"
            note(f"left out: {name}: no annotated beats")
        else:
            found.records[name], found.truths[name] = record, truth
    return found


def cross_validate(
    found: AnnotatedRecords,
    folds: int,
    train: Callable[[TrainingPart], BeatModel],
    ward: WardSettings,
    alarms: Limits,
    progress: Callable[[int, int, float], None],
) -> list[Judged]:
    """Judge every record by what `train` made of the others.

    Args:
        folds: parts that the records are dealt into, at most as many as there are records.
        train: makes the detector of a fold.
        progress: told of the fold, the number of records in it and the share of them that was watched.
    """
    names = list(found.records)
    folds = min(folds, len(names))
    judged = []
    for number in range(1, folds + 1):
        test = names[number - 1 :: folds]
        model = train(_training_part(found, test, number, folds))
        some = {name: found.records[name] for name in test}
        judged += evaluate(some, found.truths, model, ward, alarms, _of_fold(progress, number, len(test)))
    return judged


def _of_fold(
    progress: Callable[[int, int, float], None], number: int, records: int
) -> Callable[[float], None]:
    return lambda share: progress(number, records, share)


def _training_part(found: AnnotatedRecords, test: Sequence[str], fold: int, folds: int) -> TrainingPart:
    others = {name: record for name, record in found.records.items() if name not in test}
    lead = _common_lead(list(others.values()))
    usable = {
        name: int((~found.truths[name].abnormal).sum())
        for name, record in others.items()
        if lead in map(str.upper, record.leads)
    }
    chosen = _thinned(usable)
    return TrainingPart(fold, folds, lead, tuple(chosen), sum(usable[name] for name in chosen))


def _thinned(usable: Mapping[str, int]) -> list[str]:
    """So many of the records that their beats are enough, evenly from all of them."""
    return list(usable)[:: max(1, sum(usable.values()) // _BEATS)]


def _common_lead(records: Sequence[EcgRecord]) -> str:
    """The lead that the most records have; of several the one that train-ecg prefers."""
    counts = Counter(lead.upper() for record in records for lead in record.leads)
    preferred = {lead: -place for place, lead in enumerate(BeatSetSettings().leads)}
    return max(counts, key=lambda lead: (counts[lead], preferred.get(lead, -len(preferred))))
