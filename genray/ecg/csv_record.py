"""Records as text: a header line that names the columns, then a line for each sample.

    time,II,V1
    0.0000,0.012,-0.105
    0.0028,,-0.110

`time` is in seconds, from anything or unix time (above 10^8), and even; without that column the rate has
to be given. Every other column is a lead in millivolts. An empty cell or NaN is a missing sample. Commas
separate, and no cell is quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records import MAX_LEADS, MISSING, Record, check_shape, is_ecg, lead_names
from genray.errors import DataError

_GAIN = 1000.0
_STRIDE = 1024  # the place of every so manieth line is remembered
_BLOCK = 4 << 20
_LONGEST_LINE = 1 << 16
_UNIX_TIME = 1e8
_HINT = "it needs a line such as time,II,V1 and then one for each sample, in seconds and millivolts"


class CsvRecord(Record):
    """A CSV file. Opening reads through it once, to learn where the lines are.

    Raises:
        DataError: there is no rate, the times are not even, or the text is something else.
    """

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self.path = path
        if not path.is_file():
            self._refuse("there is no such file", "check its path")
        with path.open("rb") as file:
            header = file.readline(_LONGEST_LINE)
        names = [name.strip() for name in header.decode("utf-8-sig", "replace").split(",")]
        if not header.endswith(b"\n") or all(_is_number(name) for name in names):
            self._refuse("its first line does not name columns")
        if len(names) > MAX_LEADS + 1:
            self._refuse(f"it has {len(names)} columns; {MAX_LEADS} leads are read at most")
        self._columns = len(names)
        self._time = next((n for n, name in enumerate(names) if name.lower() == "time"), None)
        self._lead_columns = [n for n, name in enumerate(names) if n != self._time and is_ecg(name)]
        self.leads = lead_names([names[n] for n in self._lead_columns])
        self.gains = (_GAIN,) * len(self.leads)
        self._end = self._find_end(len(header))
        self._marks, self.samples = self._find_lines(len(header))
        if not self.samples:
            self._refuse("it holds no samples")
        self.rate = rate or 0.0
        if self._time is not None and self.samples > 1:
            self._first = float(self._cells(0, 1)[0, self._time])
            length = float(self._cells(self.samples - 1, self.samples)[0, self._time]) - self._first
            self.rate = (self.samples - 1) / length if length > 0 else 0.0
            self.start = self._first if self._first > _UNIX_TIME else None
        elif rate is None:
            self._refuse("nothing says its rate", "add a column `time` in seconds, or give the rate")
        check_shape(path, len(self.leads), self.rate, self.samples)
        self._read(0, min(_STRIDE, self.samples))

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        cells = self._cells(start, stop)
        if self._time is not None and self.samples > 1:
            off = (cells[:, self._time] - self._first) * self.rate - np.arange(start, stop)
            if not (np.abs(off) <= 1).all():
                line = start + 2 + int(np.argmin(np.abs(off) <= 1))
                hint = "write a line with empty cells for each sample that is missing"
                self._refuse(f"its times are not even, as line {line} shows", hint)
        values = cells[:, self._lead_columns]
        most = (-MISSING - 1) / _GAIN
        units = np.rint(np.nan_to_num(np.clip(values, -most, most)) * _GAIN)
        return np.where(np.isfinite(values), units, MISSING).astype(np.int16)

    def _cells(self, start: int, stop: int) -> NDArray[np.float64]:
        """The lines `start` to `stop` as (lines, columns), NaN where empty."""
        import pyarrow as pa
        from pyarrow import csv

        first, last = start // _STRIDE, -(-stop // _STRIDE)
        until = self._marks[last] if last < len(self._marks) else self._end
        with self.path.open("rb") as file:
            file.seek(self._marks[first])
            text = file.read(until - self._marks[first])
        names = [str(n) for n in range(self._columns)]
        table = csv.read_csv(
            pa.py_buffer(text),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(text), 1)),
            csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.float64()), null_values=["", "nan", "NaN", "NA", "null"]
            ),
        )
        if len(table) < stop - first * _STRIDE:
            raise ValueError("the file ends early")
        columns = [table.column(n).to_numpy() for n in range(self._columns)]
        cells: NDArray[np.float64] = np.stack(columns, axis=1, dtype=np.float64)
        return cells[start - first * _STRIDE : stop - first * _STRIDE]

    def _find_end(self, first: int) -> int:
        """Where the text ends, without the empty lines after it."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(max(first, size - _LONGEST_LINE))
            return file.tell() + len(file.read().rstrip())

    def _find_lines(self, first: int) -> tuple[list[int], int]:
        """Where every `_STRIDE`th line begins, and how many there are."""
        if self._end <= first:
            return [], 0
        marks, lines = [first], 1
        for places in self._line_ends(first):
            # The line with number n begins after the n-th end.
            numbers = np.arange(lines, lines + len(places))
            marks += (places[numbers % _STRIDE == 0] + 1).tolist()
            lines += len(places)
        return marks, lines

    def _line_ends(self, first: int) -> Iterator[NDArray[np.int64]]:
        with self.path.open("rb") as file:
            file.seek(first)
            at = last = first
            while at < self._end and (block := file.read(min(_BLOCK, self._end - at))):
                places = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + at
                at += len(block)
                ends = np.concatenate([[last], places, [at]])
                if np.diff(ends).max() > _LONGEST_LINE:
                    self._refuse("it has lines of absurd length")
                last = int(places[-1]) if len(places) else last
                yield places

    def _refuse(self, wrong: str, hint: str = _HINT) -> NoReturn:
        raise DataError(f"cannot use the record {self.name}: {wrong}", where=str(self.path), hint=hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
