"""Data sets of heartbeats, read from text tables or recordings, normalised, and split into train, val and
test."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from genray.datasets.splits import hold_out, split_of
from genray.datasets.ucr import A_SIGNAL, SUFFIXES, read_rows
from genray.ecg.beats import (
    AAMI,
    UNKNOWN,
    BeatPreprocessing,
    BeatSettings,
    NoLead,
    PeakSource,
    normalise_beats,
    read_record_beats,
)
from genray.ecg.records.base import EcgRecord
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError
from genray.io.bad_input import BadInput
from genray.settings.base import Location, Settings

Name = Annotated[str, BeforeValidator(str)]  # YAML reads the names 100 and 1 as numbers

_LEAST = 8  # smallest number of normal beats to train on
_RECORDINGS = (".hea", ".edf", ".bdf", ".dcm")
_PART = re.compile(r"(?:^|[_\-. ])(train|val|test)(?:[_\-. ]|$)", re.IGNORECASE)
_HINT = (
    "give a folder with WFDB or EDF records, with UCR files such as ECG5000_TRAIN.txt, or a CSV file of beats"
)
_HINT_SIGNALS = (
    "for recordings (columns time,II,V1 and a line for each sample) set data.layout=records; "
    "a table of beats has one row for each beat: its values and its class"
)
_HINT_NORMAL = (
    "give more normal beats, or name the normal classes with data.normal; where some beats have a class, "
    "those without one do not count as normal"
)
_HINT_VALUES = (
    "these look like values, not classes: set data.label=first or data.label=last, the column of the class"
)


class BeatSetSettings(Settings):
    """Settings of a set of beats."""

    path: Location = Field("data/ecg5000", description="folder or file of the beats or records")
    layout: Literal["auto", "table", "records"] = Field(
        "auto",
        description="layout of the data (table: a row of text for each beat, UCR files or CSV; records: "
        "WFDB, EDF; auto: by the files)",
    )
    label: Literal["auto", "first", "last"] = Field(
        "auto",
        description="column of a table that contains the class (auto: the last of .csv, else the first)",
    )
    normal: tuple[Name, ...] = Field(
        (), description="normal classes ([]: N of the AAMI classes N, S, V, F, Q for records, 1 for tables)"
    )
    leads: tuple[str, ...] = Field(
        ("MLII", "II", "I", "ECG", "ECG1", "V1", "V5"),
        description="leads to use: of each record the first that it has ([]: every lead, each with its "
        "own beats)",
    )
    records: tuple[Name, ...] = Field((), description="names of the records to use ([]: all)")
    test_records: tuple[Name, ...] = Field(
        (), description="names of the records to judge on ([]: test_share of them)"
    )
    peaks: PeakSource = Field(
        "annotated",
        description="source of the R peaks (annotated: annotations, or detected where there are none; "
        "detected: always detected)",
    )
    beat: BeatSettings = Field(BeatSettings(), description="window and resampling of a beat")
    normalisation: Literal["zscore", "minmax"] = Field(
        "zscore",
        description="normalisation (zscore: each beat by its mean and standard deviation; minmax: all by "
        "the range of the normal ones)",
    )
    test_share: float = Field(
        0.2,
        ge=0,
        lt=0.9,
        description="share of records or rows to judge on (0 to 1), where nothing says which",
    )
    val_share: float = Field(
        0.05, gt=0, lt=0.9, description="share of the normal records or beats that is held out (0 to 1)"
    )
    max_bad_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="largest share of broken rows or records (0 to 1); with more the training does not start",
    )
    epoch_beats: int = Field(
        4096,
        ge=1,
        description="least number of beats in an epoch; a smaller set is repeated until it has them",
    )


@dataclass(frozen=True)
class Beats:
    """Beats with their labels and records.

    Attributes:
        values: (N, 1, samples) float32.
        labels: (N,) indices of the set's classes (-1: unknown).
        groups: (N,) number of the record of each beat; in a table each row is its own group.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def select(self, where: NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]) -> Beats:
        """Return the beats at `where`, a mask or indices."""
        places = np.asarray(where) if len(where) else np.empty(0, np.int64)
        return Beats(self.values[places], self.labels[places], self.groups[places])

    def joined(self, more: Beats) -> Beats:
        """Return these beats followed by `more`."""
        return Beats(
            np.concatenate([self.values, more.values]),
            np.concatenate([self.labels, more.labels]),
            np.concatenate([self.groups, more.groups]),
        )


@dataclass(frozen=True)
class BeatSet:
    """Data set of beats, split.

    Attributes:
        train: normal beats, to train on.
        val: normal beats that are held out.
        test: beats of all classes to judge on; may be empty.
        classes: names of the classes.
        normal: indices of the normal classes.
        preprocessing: window and normalisation that were applied.
        records: number of records (0 for tables).
        bad: rows or records that were set aside.
        fingerprint: hash of all beats and classes.
        split: rule of the split, for the bundle.
        left_out: number of unused beats of each kind, in words.
        notes: what is missing in records that are used, in words.
    """

    train: Beats
    val: Beats
    test: Beats
    classes: tuple[str, ...]
    normal: tuple[int, ...]
    preprocessing: BeatPreprocessing
    records: int
    bad: tuple[BadInput, ...]
    fingerprint: str
    split: str
    left_out: str
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return fingerprint, split and counts as JSON values, for the bundle."""
        return {
            "fingerprint": self.fingerprint,
            "split": self.split,
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
            "classes": list(self.classes),
            "normal": [self.classes[i] for i in self.normal],
            "records": self.records,
            "set_aside": len(self.bad),
            "notes": list(self.notes),
        }


def open_beat_set(settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> BeatSet:
    """Read all beats of `settings` into memory and split them.

    Raises:
        DataError: no beats, too few normal beats, or too many broken rows or records.
    """
    raw = read_beats(settings, seed, note)
    classes = _number_classes(raw, settings)
    beats = Beats(np.concatenate(raw.values)[:, None], classes.labels, np.array(raw.groups, np.int64))
    parts, split = _assign_parts(raw, classes, settings, seed)
    train, val, test = (beats.select(parts == part) for part in ("train", "val", "test"))
    left_out = _left_out(classes.labels[parts == ""])
    if len(train) < _LEAST:
        message = f"{len(train)} normal beats to train on: at least {_LEAST} are needed"
        if left_out:
            message += f" (left out: {left_out})"
        hint = _HINT_VALUES if _look_like_values(raw, classes.names) else _HINT_NORMAL
        raise DataError(message, where="data.normal", hint=hint)
    digest = hashlib.sha256(beats.values.tobytes() + "\n".join(raw.classes).encode())
    preprocessing = _preprocessing(settings, train.joined(val).values, raw)
    train, val, test = (
        Beats(preprocessing.normalise(part.values), part.labels, part.groups) for part in (train, val, test)
    )
    if not len(val):
        train, val = _hold_out_val(train, settings.val_share, seed)
        kind = "records" if raw.records > 1 else "beats"
        split = f"{split}; {settings.val_share:g} of the normal {kind} held out by seed {seed}"
    return BeatSet(
        train=train,
        val=val,
        test=test,
        classes=classes.names,
        normal=classes.normal,
        preprocessing=preprocessing,
        records=raw.records,
        bad=tuple(raw.bad),
        fingerprint=f"sha256:{digest.hexdigest()}",
        split=split,
        left_out=left_out,
        notes=tuple(raw.notes),
    )


@dataclass
class RawBeats:
    """Beats as read, before normalisation and split.

    Attributes:
        recordings: true for beats of recordings, false for beats of tables.
        values: arrays (beats, samples), one for each file or record.
        classes: class of each beat ("": unknown).
        groups: number of the record of each beat; in a table each row is its own group.
        parts: train, val, test or "" for each beat, by the name of its file or folder.
        bad: broken rows or records.
        notes: what is missing in records that are used.
        leads: names of the leads that the beats come from.
        total: number of rows or records that were read.
        records: number of records that have beats.
        split: rule by which records were split.
        other_leads: leads of the records that have none of the wanted leads.
    """

    recordings: bool
    values: list[NDArray[np.float32]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    bad: list[BadInput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    total: int = 0
    records: int = 0
    split: str = ""
    other_leads: list[str] = field(default_factory=list)

    def add(self, values: NDArray[np.float32], classes: Sequence[str], part: str, groups: list[int]) -> None:
        """Add the beats of a file or record."""
        self.values.append(values)
        self.classes += classes
        self.groups += groups
        self.parts += [part] * len(classes)


def read_beats(settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> RawBeats:
    """Read all beats that `settings` name.

    Raises:
        DataError: no beats, or too many broken rows or records.
    """
    path = Path(settings.path)
    if not path.exists() and (header := path.with_name(f"{path.name}.hea")).exists():
        path = header  # WFDB names records without a suffix
    if "://" in settings.path or not path.exists():
        why = "they are read from local folders" if "://" in settings.path else "there is no such folder"
        raise DataError(f"cannot read beats from {settings.path}: {why}", where="data.path", hint=_HINT)
    if settings.layout == "records" or (settings.layout == "auto" and _holds_recordings(path)):
        raw = _read_records(path, settings, seed, note)
    else:
        raw = _read_tables(path, settings)
    if not raw.classes or len(raw.bad) > settings.max_bad_share * raw.total:
        raise _refusal(raw, settings)
    return raw


def _refusal(raw: RawBeats, settings: BeatSetSettings) -> DataError:
    """Return the error for beats of which there are none, or too many are broken."""
    examples = "".join(f"\n    {b.path}: {b.reason} ({b.detail})" for b in raw.bad[:5])
    if raw.bad and all(b.reason == "unused" for b in raw.bad):
        return DataError(
            f"{len(raw.bad)} of {raw.total} records have none of the leads of data.leads{examples}",
            where="data.leads",
            hint=f"choose of the leads that they have: {', '.join(raw.other_leads[:20])}; [] takes all",
        )
    message = f"no beats under {settings.path}"
    if raw.classes:
        kind = "records" if raw.recordings else "rows"
        message = f"{len(raw.bad)} of {raw.total} {kind} are broken, more than "
        message += f"data.max_bad_share={settings.max_bad_share:g}:"
    elif raw.recordings and not raw.total:
        message = f"no records (.hea, .edf, .bdf) in the folder {settings.path}"
    signals = any(b.detail == A_SIGNAL for b in raw.bad)
    return DataError(message + examples, where="data.path", hint=_HINT_SIGNALS if signals else _HINT)


def _holds_recordings(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() not in SUFFIXES
    return any(file.suffix.lower() in _RECORDINGS for file in find_records(path))


def _read_tables(path: Path, settings: BeatSetSettings) -> RawBeats:
    raw = RawBeats(recordings=False)
    for files in _files_by_kind(path):
        for file in files:
            rows = read_rows(file, settings.label)
            raw.total += rows.total
            raw.bad += rows.bad
            if rows.classes:
                start = len(raw.groups)
                values = _resampled(rows.values, settings.beat.samples)
                groups = list(range(start, start + len(rows.classes)))
                raw.add(values, rows.classes, _part_of(file, path), groups)
        if raw.classes:
            names = {file.name for file in files}
            raw.bad = [b for b in raw.bad if b.path.partition(":")[0] in names]
            break
    return raw


def _files_by_kind(path: Path) -> list[list[Path]]:
    """Return the files that may be tables, grouped by suffix, groups with a named part (train, test)
    first.

    Archives contain the same beats in several formats, so only one group is read."""
    if not path.is_dir():
        return [[path]]
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    by_suffix = [[file for file in files if file.suffix.lower() == suffix] for suffix in SUFFIXES]
    return sorted(by_suffix, key=lambda kind: not any(_part_of(file, path) for file in kind))


def _part_of(file: Path, root: Path) -> str:
    """Return train, val, test or "" (none) by the name of a file or of its folders below `root`."""
    named = _PART.search(file.stem)
    return named[1].lower() if named else split_of(file.relative_to(root).as_posix())


def _open_with_leads(path: Path, leads: Sequence[str]) -> EcgRecord:
    """Return the record at `path`, with the channels of `leads` where none of them looks like an ECG."""
    record = open_record(path)
    wanted = {lead.upper() for lead in leads}
    if not wanted or wanted.intersection(lead.upper() for lead in record.leads):
        return record
    try:
        return open_record(path, leads=leads)
    except DataError:  # it has none of them: its leads are named by the error that follows
        return record


def _read_records(path: Path, settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> RawBeats:
    files = {path.stem: path}
    if path.is_dir():
        files = {p.relative_to(path).with_suffix("").as_posix(): p for p in find_records(path)}
    names = _wanted_records(files, settings)
    test = _test_records(names, settings, seed)
    raw = RawBeats(recordings=True, total=len(names))
    for number, name in enumerate(names):
        if number % 10 == 9:
            note(f"reading records: {number + 1} of {len(names)}")
        try:
            record = _open_with_leads(files[name], settings.leads)
            beats = read_record_beats(record, settings.beat, settings.leads, settings.peaks)
        except NoLead as error:
            raw.bad.append(BadInput(name, "unused", error.what))
            raw.other_leads += [lead for lead in record.leads if lead not in raw.other_leads]
            continue
        except DataError as error:
            raw.bad.append(BadInput(name, "unreadable", error.what))
            continue
        part = "test" if name in test else "train"
        if len(names) == 1:  # a single record is split by its beats
            part = ""
        raw.add(beats.values, beats.classes, part, [number] * len(beats.classes))
        raw.records += 1
        raw.notes += [f"{name}: {text}" for text in record.notes]
        raw.leads += [lead for lead in beats.leads if lead not in raw.leads]
    if len(names) > 1:
        chosen = "by name" if settings.test_records else f"by seed {seed}"
        raw.split = f"{len(test)} of {len(names)} records to judge on, chosen {chosen}"
    return raw


def _wanted_records(files: Mapping[str, Path], settings: BeatSetSettings) -> list[str]:
    """Return the names of the records to use."""
    named = {*settings.records, *settings.test_records}
    if unknown := sorted(named - set(files)):
        raise DataError(
            f"no record is called {', '.join(unknown)}; there are: {', '.join(list(files)[:20])}",
            where="data.records",
            hint=_HINT,
        )
    return [name for name in files if not settings.records or name in named]


def _test_records(names: Sequence[str], settings: BeatSetSettings, seed: int) -> set[str]:
    """Return the names of the records to judge on."""
    if settings.test_records:
        test = set(settings.test_records)
    elif settings.test_share:
        test = set(hold_out(names, settings.test_share, seed)[1])
    else:
        test = set()
    if names and test >= set(names):
        raise DataError(
            f"data.test_records names all {len(names)} records: none remains to train on",
            where="data.test_records",
            hint="name fewer records to judge on",
        )
    return test


def _resampled(values: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    if values.shape[1] == samples:
        return values
    at = np.linspace(0, values.shape[1] - 1, samples)
    before = np.minimum(at.astype(np.int64), values.shape[1] - 2)
    share = (at - before).astype(np.float32)
    resampled: NDArray[np.float32] = values[:, before] * (1 - share) + values[:, before + 1] * share
    return resampled


@dataclass(frozen=True)
class _Classes:
    """Class names, the label of each beat, and the labels of the normal classes."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    normal: tuple[int, ...]


def _number_classes(raw: RawBeats, settings: BeatSetSettings) -> _Classes:
    present = set(raw.classes) - {UNKNOWN}
    if raw.recordings:
        names = tuple(name for name in dict.fromkeys(AAMI.values()) if name in present)
    else:
        names = tuple(sorted(present, key=lambda name: (len(name), name)))
    number = {name: i for i, name in enumerate(names)}
    normal = settings.normal or (("N",) if raw.recordings else ("1",))
    if names and (unknown := sorted(set(normal) - present)):
        raise DataError(
            f"no class is called {', '.join(unknown)}; there are: {', '.join(names[:20])}",
            where="data.normal",
            hint=_HINT_VALUES if _look_like_values(raw, names) else "name the classes that are normal",
        )
    labels = np.array([number.get(name, -1) for name in raw.classes], np.int64)
    return _Classes(names, labels, tuple(number[name] for name in normal if name in number))


def _look_like_values(raw: RawBeats, classes: Sequence[str]) -> bool:
    """Return whether the classes of a table look like samples of a beat: not all are whole numbers."""
    return not raw.recordings and any(not name.lstrip("-").isdigit() for name in classes)


def _assign_parts(
    raw: RawBeats, classes: _Classes, settings: BeatSetSettings, seed: int
) -> tuple[NDArray[np.str_], str]:
    """Return train, val, test or "" (left out) for each beat, and the rule in words."""
    labelled = classes.labels >= 0
    normal = np.isin(classes.labels, classes.normal)
    if not labelled.any():  # without classes all beats count as normal
        normal = np.ones(len(labelled), bool)
    abnormal = ~normal & labelled
    split = raw.split or "by files"
    parts = np.array(raw.parts, "<U5")
    unassigned = bool((parts == "").all())
    parts[parts == ""] = "train"
    if "test" not in parts and settings.test_share and (unassigned or abnormal.any()):
        # A table without parts is split at random, classes mixed, as in TensorFlow's tutorial.
        candidates = np.flatnonzero(unassigned | (normal & (parts == "train")))
        parts[hold_out(candidates.tolist(), settings.test_share, seed)[1]] = "test"
        kind = "" if unassigned else "normal "
        split = f"{settings.test_share:g} of the {kind}beats to judge on, chosen by seed {seed}"
        if not unassigned:
            parts[abnormal] = "test"
            split += ", and all abnormal ones"
    judged = parts == "test"
    if labelled[judged].any():
        parts[judged & ~labelled] = ""  # beats of unknown class cannot be judged on
    parts[~judged & ~normal] = ""
    return parts, split


def _left_out(labels: NDArray[np.int64]) -> str:
    """Return the number of left-out beats of each kind, in words."""
    abnormal = int((labels >= 0).sum())
    counts = {"abnormal": abnormal, "without a class": len(labels) - abnormal}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _hold_out_val(train: Beats, share: float, seed: int) -> tuple[Beats, Beats]:
    """Split `train` into the beats that remain and those held out: whole records where there are several,
    because beats of one record are alike."""
    groups = train.groups
    if len(np.unique(groups)) == 1:
        groups = np.arange(len(train))
    held_out = np.isin(groups, hold_out(np.unique(groups).tolist(), share, seed)[1])
    return train.select(~held_out), train.select(held_out)


def _preprocessing(
    settings: BeatSetSettings, values: NDArray[np.float32], raw: RawBeats
) -> BeatPreprocessing:
    if not normalise_beats(values).any():
        raise DataError(
            "all normal beats are flat lines", where=settings.path, hint="look at the data, and at data.leads"
        )
    span = (float(values.min()), float(values.max())) if settings.normalisation == "minmax" else None
    cut = settings.beat.model_dump() if raw.recordings else {"samples": settings.beat.samples}
    return BeatPreprocessing(
        **cut,
        normalisation=settings.normalisation,
        span=span,
        leads=tuple(raw.leads),
    )
