"""Reader of text tables of beats: files of the UCR archive, and the CSV of TensorFlow's tutorial.

A row is a beat: its values and its class. The class is the first column in files of the UCR archive (Dau et
al. 2019, such as ECG5000_TRAIN.txt) and the last in TensorFlow's "Intro to Autoencoders" (ecg.csv).
Values are separated by spaces, tabs or commas.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genray.io.bad_input import BadInput

SUFFIXES = (".tsv", ".csv", ".txt")
A_SIGNAL = "a signal, a line for each sample, and no table with a row for each beat"

_LONGEST = 2**20  # bytes of a row
_LARGEST = 2**32  # bytes of a file
_LEAST = 8  # numbers in a row: values of the beat and its class
_MOST = 16384
_BEYOND = 1e15  # squares of larger values overflow float32
_SEPARATORS = re.compile(rb"[\s,;]+")
_NO_NUMBER = "no number: values and classes are numbers between spaces, tabs or commas"
_NO_VALUE = f"a value that is NaN, infinite or beyond {_BEYOND:g}"


@dataclass(frozen=True)
class BeatRows:
    """Beats of a file.

    Attributes:
        values: (beats, samples), as they are in the file.
        classes: class of each beat, as text ("1").
        bad: broken rows.
    """

    values: NDArray[np.float32]
    classes: list[str]
    bad: list[BadInput]

    @property
    def total(self) -> int:
        """Number of rows in the file, good and bad."""
        return len(self.classes) + len(self.bad)


def read_rows(path: Path, label: Literal["auto", "first", "last"] = "auto") -> BeatRows:
    """Read the beats in the file `path`.

    A first line of column names is skipped. Broken rows, and rows of another length than most, are listed as
    bad. A table with a column `time` is a signal and has no beats.

    Args:
        label: column of the class (auto: the last in .csv files, else the first).
    """
    table = _BeatTable()
    try:
        if path.stat().st_size > _LARGEST:
            return _nothing(path, "too-large", f"more than {_LARGEST >> 30} GB")
        for number, line in _lines(path):
            if number == 1 and b"time" in _SEPARATORS.split(line.strip().lower()):
                return _nothing(path, "odd-shape", A_SIGNAL)
            table.add(f"{path.name}:{number}", line)
    except OSError as error:
        table.bad.append(BadInput(path.name, "unreadable", error.strerror or str(error)))
    bad = table.bad
    if not table.rows and 0 < len(bad) - 1 <= table.short:  # the first line may be column names
        return _nothing(path, "odd-shape", A_SIGNAL)
    if not table.rows:
        return _nothing(path, bad[0].reason, bad[0].detail) if bad else _nothing(path, "empty", "no rows")
    if bad and bad[0].path == f"{path.name}:1" and bad[0].detail == _NO_NUMBER:
        del bad[0]  # column names
    usual = Counter(len(values) for values in table.rows.values()).most_common(1)[0][0]
    for place, values in table.rows.items():
        if len(values) != usual:
            bad.append(BadInput(place, "odd-shape", f"{len(values)} values, most rows have {usual}"))
    rows = np.stack([values for values in table.rows.values() if len(values) == usual])
    if label == "last" or (label == "auto" and path.suffix.lower() == ".csv"):
        beats, classes = rows[:, :-1], rows[:, -1]
    else:
        beats, classes = rows[:, 1:], rows[:, 0]
    return BeatRows(beats.astype(np.float32), [f"{number:g}" for number in classes], bad)


@dataclass
class _BeatTable:
    """Rows of a table: values of possible beats by place, the bad rows, and the number of those with too
    few values."""

    rows: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    bad: list[BadInput] = field(default_factory=list)
    short: int = 0

    def add(self, place: str, line: bytes) -> None:
        values = _numbers(line)
        if values is None:
            self.bad.append(BadInput(place, "truncated", _NO_NUMBER))
        elif not _LEAST < len(values) <= _MOST:
            self.short += len(values) <= _LEAST
            self.bad.append(BadInput(place, "odd-shape", f"{len(values)} values"))
        elif not np.abs(values).max() < _BEYOND:  # false for NaN
            self.bad.append(BadInput(place, "truncated", _NO_VALUE))
        else:
            self.rows[place] = values


def _nothing(path: Path, reason: str, detail: str) -> BeatRows:
    return BeatRows(np.empty((0, 0), np.float32), [], [BadInput(path.name, reason, detail)])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            if line.strip():
                yield number, line


def _numbers(line: bytes) -> NDArray[np.float64] | None:
    try:
        return np.array(line.replace(b",", b" ").split(), np.float64)
    except ValueError:
        return None
