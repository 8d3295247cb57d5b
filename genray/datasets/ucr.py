"""Beats as rows of text: files of the UCR archive, and the CSV table of TensorFlow's tutorial.

A row is a beat: its values and its class, which stands first in files of the UCR archive (Dau et al. 2019,
such as ECG5000_TRAIN.txt) and last in the table of TensorFlow's "Intro to Autoencoders" (ecg.csv).
Values are separated by spaces, tabs or commas.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genray.io.bad_input import BadInput

SUFFIXES = (".tsv", ".csv", ".txt")
_LONGEST = 2**20  # bytes of a row
_LARGEST = 2**32  # bytes of a file
_LEAST, _MOST = 8, 16384  # values of a beat
_BEYOND = 1e15  # squares of such values are still float32
_SEPARATORS = re.compile(rb"[\s,;]+")
_NO_NUMBER = "no number: values and classes are numbers between spaces, tabs or commas"
A_SIGNAL = "a signal, a line for each sample, and no table with a row for each beat"
_NO_VALUE = f"a value that is NaN, infinite or beyond {_BEYOND:g}"


@dataclass(frozen=True)
class BeatRows:
    """The beats of a file.

    Attributes:
        values: (beats, samples), as they are in the file.
        classes: of each beat, as text: "1".
        bad: rows that are no beats.
    """

    values: NDArray[np.float32]
    classes: list[str]
    bad: list[BadInput]

    @property
    def total(self) -> int:
        """Rows of the file."""
        return len(self.classes) + len(self.bad)


def read_rows(path: Path, label: Literal["auto", "first", "last"] = "auto") -> BeatRows:
    """The beats in the file `path`. A first line of names is passed over; rows that are broken, or of
    another length than most, are listed. A table with a column `time` is a signal, and has none.

    Args:
        label: the column of the class; auto: the last in .csv files, else the first.
    """
    last = label == "last" or (label == "auto" and path.suffix.lower() == ".csv")
    good: list[tuple[int, NDArray[np.float64]]] = []
    bad: list[BadInput] = []
    short = 0
    try:
        if path.stat().st_size > _LARGEST:
            return _nothing(path, "too-large", f"more than {_LARGEST >> 30} GB")
        for number, line in _lines(path):
            row = _numbers(line)
            if number == 1 and b"time" in _SEPARATORS.split(line.strip().lower()):
                return _nothing(path, "odd-shape", A_SIGNAL)
            short += row is not None and len(row) <= _LEAST
            if row is None:
                bad.append(BadInput(f"{path.name}:{number}", "truncated", _NO_NUMBER))
            elif not _LEAST < len(row) <= _MOST:
                bad.append(BadInput(f"{path.name}:{number}", "odd-shape", f"{len(row)} values"))
            elif not np.abs(row).max() < _BEYOND:  # NaN compares false
                bad.append(BadInput(f"{path.name}:{number}", "truncated", _NO_VALUE))
            else:
                good.append((number, row))
    except OSError as error:
        bad.append(BadInput(path.name, "unreadable", error.strerror or str(error)))
    if good and bad and bad[0].path == f"{path.name}:1" and bad[0].detail == _NO_NUMBER:
        del bad[0]  # it names the columns
    if not good and 0 < len(bad) - 1 <= short:  # the first line may name the columns
        return _nothing(path, "odd-shape", A_SIGNAL)
    if not good:
        return _nothing(path, *_why(bad))
    usual = Counter(len(row) for _, row in good).most_common(1)[0][0]
    odd = [(number, row) for number, row in good if len(row) != usual]
    detail = f"{{}} values, most rows have {usual}"
    bad += [BadInput(f"{path.name}:{n}", "odd-shape", detail.format(len(row))) for n, row in odd]
    table = np.stack([row for _, row in good if len(row) == usual])
    values = table[:, :-1] if last else table[:, 1:]
    return BeatRows(values.astype(np.float32), [f"{c:g}" for c in table[:, -1 if last else 0]], bad)


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


def _why(bad: list[BadInput]) -> tuple[str, str]:
    return (bad[0].reason, bad[0].detail) if bad else ("empty", "no rows")
