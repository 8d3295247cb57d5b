"""Where beats come from: tables of text, or recordings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from genray.datasets.splits import hold_out, split_of
from genray.datasets.ucr import A_SIGNAL, SUFFIXES, read_rows
from genray.ecg.beats import BeatSettings
from genray.ecg.record_beats import NoLead, Peaks, beats_of
from genray.ecg.records.base import find_records, open_record
from genray.errors import DataError
from genray.images.decode import BadInput
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
    peaks: Peaks = Field("annotated", description="R peaks: annotated, else detected; or detected always")
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
            beats = beats_of(record, settings.beat, settings.leads, settings.peaks)
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
