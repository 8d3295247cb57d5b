"""Where beats come from: tables of text, or recordings.

A set of heartbeats, normalised and split into train, val and test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
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
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError
from genray.io.bad_input import BadInput
from genray.settings.base import Location, Settings

Name = Annotated[str, BeforeValidator(str)]  # records and classes may be called by numbers
_RECORDINGS = (".hea", ".edf", ".bdf")
_PART = re.compile(r"(?:^|[_\-. ])(train|val|test)(?:[_\-. ]|$)", re.IGNORECASE)


class BeatSetSettings(Settings):
    """Settings of a set of beats."""

    path: Location = Field("data/ecg5000", description="folder or file of the beats")
    layout: Literal["auto", "table", "records"] = Field(
        "auto", description="table: a row of text for each beat, UCR files or CSV; records: WFDB, EDF"
    )
    label: Literal["auto", "first", "last"] = Field(
        "auto", description="column of a table that says the class; auto: the last of .csv, else the first"
    )
    normal: tuple[Name, ...] = Field(
        (), description="classes that are normal; []: N of AAMI's N, S, V, F, Q for records, 1 for tables"
    )
    leads: tuple[str, ...] = Field(
        ("MLII", "II", "I", "ECG", "ECG1", "V1", "V5"),
        description="of each record the first of these that it has; []: every lead, each with its own beats",
    )
    records: tuple[Name, ...] = Field((), description="names of the records that are used; []: all")
    test_records: tuple[Name, ...] = Field(
        (), description="of these, the records to judge on; []: test_share of them"
    )
    peaks: PeakSource = Field(
        "annotated", description="R peaks: annotated, else detected; or detected always"
    )
    beat: BeatSettings = Field(BeatSettings(), description="what a beat is")
    normalisation: Literal["zscore", "minmax"] = Field(
        "zscore", description="of each beat by its mean and deviation, or of all by the range of normal ones"
    )
    test_share: float = Field(
        0.2, ge=0, lt=0.9, description="share of records or rows to judge on, where nothing says which"
    )
    val_share: float = Field(0.05, gt=0, lt=0.9, description="share of the normal records or beats held out")
    max_bad_share: float = Field(0.2, ge=0, le=1, description="stop if more rows or records are broken")
    epoch_beats: int = Field(
        4096, ge=1, description="an epoch comes to all beats again until it has at least so many"
    )


@dataclass
class FoundBeats:
    """Beats as they were read.

    Attributes:
        recordings: whether they are of recordings; else of tables.
        values: pieces (beats, samples), not normalised.
        classes: of each beat; "" where nobody says.
        groups: number of the record of each; of tables each row is a group of its own.
        parts: of each what its file or folder says: train, val, test or "".
        bad: rows or records that are broken.
        leads: that the beats are of.
        total: rows or records that were looked at.
        records: that beats are of.
        split: how records were split.
        other_leads: of records that have none of the wanted ones.
    """

    recordings: bool
    values: list[NDArray[np.float32]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    bad: list[BadInput] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    total: int = 0
    records: int = 0
    split: str = ""
    other_leads: list[str] = field(default_factory=list)

    def add(self, values: NDArray[np.float32], classes: Sequence[str], part: str, groups: list[int]) -> None:
        """Take in the beats of a file."""
        self.values.append(values)
        self.classes += classes
        self.groups += groups
        self.parts += [part] * len(classes)


def read_beats(settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> FoundBeats:
    """All beats that `settings` name.

    Raises:
        DataError: there are none, or too much is broken.
    """
    path = Path(settings.path)
    if not path.exists() and (header := path.with_name(f"{path.name}.hea")).exists():
        path = header  # records of WFDB are named without a suffix
    if "://" in settings.path or not path.exists():
        why = "they are read from local folders" if "://" in settings.path else "there is no such folder"
        raise DataError(f"cannot read beats from {settings.path}: {why}", where="data.path", hint=_HINT)
    recordings = settings.layout == "records" or (settings.layout == "auto" and _holds_recordings(path))
    found = FoundBeats(recordings)
    if recordings:
        _read_records(path, settings, found, seed, note)
    else:
        _read_tables(path, settings, found)
    if not found.classes or len(found.bad) > settings.max_bad_share * found.total:
        what = "records" if recordings else "rows"
        without = found.bad and all(b.reason == "unused" for b in found.bad)
        said = f"no beats under {settings.path}"
        if recordings and not found.total:
            said = f"no records (.hea, .edf, .bdf) in the folder {settings.path}"
        if found.classes:
            said = f"{len(found.bad)} of {found.total} {what} are broken, more than data.max_bad_share="
            said += f"{settings.max_bad_share:g}:"
        if without:
            said = f"{len(found.bad)} of {found.total} records have none of the leads of data.leads"
        shown = "".join(f"\n    {b.path}: {b.reason} ({b.detail})" for b in found.bad[:5])
        if without:
            hint = f"choose of the leads that they have: {', '.join(found.other_leads[:20])}; [] takes all"
            raise DataError(said + shown, where="data.leads", hint=hint)
        signals = any(b.detail == A_SIGNAL for b in found.bad)
        raise DataError(said + shown, where="data.path", hint=_SIGNALS if signals else _HINT)
    return found


def _holds_recordings(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() not in SUFFIXES
    return any(file.suffix.lower() in _RECORDINGS for file in find_records(path))


def _read_tables(path: Path, settings: BeatSetSettings, found: FoundBeats) -> None:
    kinds = [[path]]
    if path.is_dir():
        every = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        by_suffix = ([p for p in every if p.suffix.lower() == suffix] for suffix in SUFFIXES)
        # Archives hold the same beats in files of several kinds; other files are about them.
        kinds = sorted(by_suffix, key=lambda files: not any(_part_of(file, path) for file in files))
    for files in kinds:
        for file in files:
            rows = read_rows(file, settings.label)
            found.total += rows.total
            found.bad += rows.bad
            if rows.classes:
                start = len(found.groups)
                resampled = _resampled(rows.values, settings.beat.samples)
                numbers = list(range(start, start + len(rows.classes)))
                found.add(resampled, rows.classes, _part_of(file, path), numbers)
        if found.classes:
            found.bad = [b for b in found.bad if b.path.partition(":")[0] in {file.name for file in files}]
            return


def _part_of(file: Path, root: Path) -> str:
    """What a file or its folders below `root` say: train, val, test or ""."""
    named = _PART.search(file.stem)
    return named[1].lower() if named else split_of(file.relative_to(root).as_posix())


def _read_records(
    path: Path, settings: BeatSetSettings, found: FoundBeats, seed: int, note: Callable[[str], None]
) -> None:
    files = (
        {p.relative_to(path).with_suffix("").as_posix(): p for p in find_records(path)}
        if path.is_dir()
        else {}
    )
    if not path.is_dir():
        files = {path.stem: path}
    if unknown := sorted({*settings.records, *settings.test_records} - set(files)):
        some = ", ".join(list(files)[:20])
        raise DataError(
            f"no record is called {', '.join(unknown)}; there are: {some}", where="data.records", hint=_HINT
        )
    wanted = {*settings.records, *settings.test_records} if settings.records else set(files)
    names = [name for name in files if name in wanted]
    test = set(settings.test_records) or set(hold_out(names, settings.test_share, seed)[1])
    if not settings.test_share and not settings.test_records:
        test = set()
    if names and test >= set(names):
        raise DataError(
            f"data.test_records takes all {len(names)} records: there is none to train on",
            where="data.test_records",
            hint="name fewer records to judge on",
        )
    found.total = len(names)
    for number, name in enumerate(names):
        if number % 10 == 9:
            note(f"reading records: {number + 1} of {len(names)}")
        try:
            record = open_record(files[name])
            beats = read_record_beats(record, settings.beat, settings.leads, settings.peaks)
        except NoLead as error:
            found.bad.append(BadInput(name, "unused", error.what))
            found.other_leads += [lead for lead in record.leads if lead not in found.other_leads]
            continue
        except DataError as error:
            found.bad.append(BadInput(name, "unreadable", error.what))
            continue
        part = "test" if name in test else "train"
        part = part if len(names) > 1 else ""  # the beats of a single one are split
        found.add(beats.values, beats.classes, part, [number] * len(beats.classes))
        found.records += 1
        found.leads += [lead for lead in beats.leads if lead not in found.leads]
    chosen = "by name" if settings.test_records else f"by seed {seed}"
    found.split = (
        f"{len(test)} of {len(names)} records to judge on, chosen {chosen}" if len(names) > 1 else ""
    )


def _resampled(values: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    if values.shape[1] == samples:
        return values
    at = np.linspace(0, values.shape[1] - 1, samples)
    before = np.minimum(at.astype(np.int64), values.shape[1] - 2)
    share = (at - before).astype(np.float32)
    resampled: NDArray[np.float32] = values[:, before] * (1 - share) + values[:, before + 1] * share
    return resampled


_SIGNALS = "if these are recordings, time,II,V1 and a line for each sample, add data.layout=records; " + (
    "a table of beats has a row for each, of its values and its class"
)
_HINT = (
    "give a folder with WFDB or EDF records, with UCR files such as ECG5000_TRAIN.txt, or a CSV file of beats"
)


_LEAST = 8  # normal beats that can be trained on


@dataclass(frozen=True)
class Beats:
    """Some beats.

    Attributes:
        values: (N, 1, samples) float32.
        labels: (N,) indices of the set's classes; -1: nobody says.
        groups: (N,) the record that each is of; of a table each row is a group of its own.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, where: NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]) -> Beats:
        """Those at `where`."""
        chosen = np.asarray(where) if len(where) else np.empty(0, np.int64)
        return Beats(self.values[chosen], self.labels[chosen], self.groups[chosen])

    def joined(self, more: Beats) -> Beats:
        """These and then `more`."""
        return Beats(
            np.concatenate([self.values, more.values]),
            np.concatenate([self.labels, more.labels]),
            np.concatenate([self.groups, more.groups]),
        )


@dataclass(frozen=True)
class BeatSet:
    """A set of beats, split.

    Attributes:
        train: normal beats, to train on.
        val: normal beats that are held out.
        test: beats to judge on, of all classes; there may be none.
        classes: their names.
        normal: which of these are normal.
        preprocessing: what was done to them.
        records: that they are of; 0 for tables.
        bad: rows or records that were set aside.
        fingerprint: of all beats and classes.
        split: how they were split, for the bundle.
        left_out: how many beats of which kinds are not used, in words.
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

    def described(self) -> dict[str, Any]:
        """For the bundle: fingerprint, split and counts."""
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
        }


def open_beat_set(settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> BeatSet:
    """Read the beats that `settings` name, all of them into memory, and split them.

    Raises:
        DataError: no beats, none that are normal, or too much that is broken.
    """
    found = read_beats(settings, seed, note)
    classes, labels, normal = _labelled(found, settings)
    every = Beats(np.concatenate(found.values)[:, None], labels, np.array(found.groups, np.int64))
    known = (labels >= 0).any()  # if nobody says what is normal, all is taken for it
    good = np.isin(labels, normal) if known else np.ones(len(labels), bool)
    parts, split = _parted(found, labels, good, settings, seed)
    train, val, test = (every.take(parts == part) for part in ("train", "val", "test"))
    strange = int(((parts == "") & (labels >= 0)).sum())
    counts = {"abnormal": strange, "without a class": int((parts == "").sum()) - strange}
    left_out = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if len(train) < _LEAST:
        raise DataError(
            f"{len(train)} normal beats to train on: at least {_LEAST} are needed"
            + f" (left out: {left_out})" * bool(left_out),
            where="data.normal",
            hint=_VALUES
            if _are_values(found, classes)
            else "give more of them, or say which classes are "
            "normal; a beat without a class is not taken for normal where others have one",
        )
    digest = hashlib.sha256(every.values.tobytes() + "\n".join(found.classes).encode())
    preprocessing = _preprocessing(settings, train.joined(val).values, found)
    train, val, test = (
        Beats(preprocessing.normalise(beats.values), beats.labels, beats.groups)
        for beats in (train, val, test)
    )
    if not len(val):
        # Beats of a record are alike: those of whole records are held out, if there are several.
        names = np.unique(train.groups)
        places = train.groups if len(names) > 1 else np.arange(len(train))
        held_out = np.isin(places, hold_out(np.unique(places).tolist(), settings.val_share, seed)[1])
        train, val = train.take(~held_out), train.take(held_out)
        what = "records" if found.records > 1 else "beats"
        split = f"{split}; {settings.val_share:g} of the normal {what} held out by seed {seed}"
    return BeatSet(
        train=train,
        val=val,
        test=test,
        classes=classes,
        normal=normal,
        preprocessing=preprocessing,
        records=found.records,
        bad=tuple(found.bad),
        fingerprint=f"sha256:{digest.hexdigest()}",
        split=split,
        left_out=left_out,
    )


def _labelled(
    found: FoundBeats, settings: BeatSetSettings
) -> tuple[tuple[str, ...], NDArray[np.int64], tuple[int, ...]]:
    """The names of the classes, the label of each beat, and the labels of the normal classes."""
    known = set(found.classes) - {UNKNOWN}
    order = (
        list(dict.fromkeys(AAMI.values())) if found.recordings else sorted(known, key=lambda n: (len(n), n))
    )
    names = tuple(name for name in order if name in known)
    number = {name: i for i, name in enumerate(names)}
    wanted = settings.normal or (("N",) if found.recordings else ("1",))
    if names and (unknown := sorted(set(wanted) - known)):
        raise DataError(
            f"no class is called {', '.join(unknown)}; there are: {', '.join(names[:20])}",
            where="data.normal",
            hint=_VALUES if _are_values(found, names) else "name the classes that are normal",
        )
    labels = np.array([number.get(name, -1) for name in found.classes], np.int64)
    return names, labels, tuple(number[name] for name in wanted if name in number)


def _parted(
    found: FoundBeats,
    labels: NDArray[np.int64],
    good: NDArray[np.bool_],
    settings: BeatSetSettings,
    seed: int,
) -> tuple[NDArray[np.str_], str]:
    """Of each beat train, val, test, or "" where it is left out; and how that was chosen."""
    said = found.split or "by files"
    parts = np.array(found.parts, "<U5")
    strange = ~good & (labels >= 0)
    nothing_said = (parts == "").all()
    parts[parts == ""] = "train"
    if "test" not in parts and settings.test_share and (nothing_said or strange.any()):
        # Of a table without parts a share is put aside as it is: the protocol of TensorFlow's tutorial.
        some = np.flatnonzero(nothing_said | (good & (parts == "train")))
        parts[hold_out(some.tolist(), settings.test_share, seed)[1]] = "test"
        said = f"{settings.test_share:g} of the {'' if nothing_said else 'normal '}beats to judge on"
        said += f", chosen by seed {seed}"
        if not nothing_said:
            parts[strange] = "test"
            said += ", and all abnormal ones"
    judges = parts == "test"
    if (labels[judges] >= 0).any():
        parts[judges & (labels < 0)] = ""  # what nobody knows can judge nothing
    parts[~judges & ~good] = ""
    return parts, said


def _preprocessing(
    settings: BeatSetSettings, values: NDArray[np.float32], found: FoundBeats
) -> BeatPreprocessing:
    if not normalise_beats(values).any():
        raise DataError(
            "all normal beats are flat lines", where=settings.path, hint="look at the data, and at data.leads"
        )
    span = (float(values.min()), float(values.max())) if settings.normalisation == "minmax" else None
    known = settings.beat.model_dump() if found.recordings else {"samples": settings.beat.samples}
    return BeatPreprocessing(
        **known,
        normalisation=settings.normalisation,
        span=span,
        leads=tuple(found.leads),
    )


def _are_values(found: FoundBeats, classes: Sequence[str]) -> bool:
    """Whether the classes of a table look like values of beats: classes are whole numbers."""
    return not found.recordings and any(not name.lstrip("-").isdigit() for name in classes)


_VALUES = "these look like values, not classes: say with data.label=first or last where the class stands"
