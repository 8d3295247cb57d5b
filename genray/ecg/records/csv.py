"""Records as text: a header line that names the columns, then a line for each sample.

    time,II,V1
    0.0000,0.012,-0.105
    0.0028,,-0.110

`time` is in seconds, from anything or unix time (above 10^8), and even; without that column the rate has
to be given. Every other column is a lead in millivolts. An empty cell or NaN is a missing sample. No cell is
quoted. Commas separate, or semicolons or tabs if these do in the header; numbers may then have a decimal
comma.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import MAX_LEADS, MISSING, RATES, EcgRecord, check_shape, is_ecg, lead_names
from genray.errors import DataError

_GAIN = 1000.0
_STRIDE = 1024  # the place of every so manieth line is remembered
_BLOCK = 4 << 20
_LONGEST_LINE = 1 << 16
_UNIX_TIME = 1e8
_MISSING_CELLS = ["", "nan", "NaN", "NA", "null"]
_FINER = {"milliseconds": 1000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
_SECONDS = "`time` is in seconds, from anything or unix time: no dates, no clock times"
_HINT = "it needs a line such as time,II,V1 and then one for each sample, in seconds and millivolts"


class CsvRecord(EcgRecord):
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
            begin = file.read(_LONGEST_LINE)
        text = header.decode("utf-8-sig", "replace")
        self._separator = max(",;\t", key=text.count)  # the comma, if there is none
        self._point = "," if self._separator != "," and b"," in begin else "."
        self._names = names = [name.strip() for name in text.split(self._separator)]
        if not header.endswith(b"\n") or all(_is_number(name) for name in names):
            self._refuse("its first line does not name columns")
        if len(names) > MAX_LEADS + 1:
            self._refuse(f"it has {len(names)} columns; {MAX_LEADS} leads are read at most")
        self._time = next((n for n, name in enumerate(names) if name.lower() == "time"), None)
        self._lead_columns = [n for n, name in enumerate(names) if n != self._time and is_ecg(name)]
        if not self._lead_columns:
            self._refuse(f"no column is an ECG: {', '.join(names)}"[:200])
        self.leads = lead_names([names[n] for n in self._lead_columns])
        self.gains = (_GAIN,) * len(self.leads)
        self._end = self._find_end(len(header))
        self._marks, self.samples = self._find_lines(len(header))
        if not self.samples:
            self._refuse("it holds no samples")
        self.rate = rate or 0.0
        if self._time is not None and self.samples > 1:
            self._first = float(self._cells(0, 1)[0, self._time])
            self.rate = self._rate(float(self._cells(self.samples - 1, self.samples)[0, self._time]))
            self.start = self._first if self._first > _UNIX_TIME else None
        elif rate is None:
            hint = "add a column `time` in seconds; or tell the monitor the samples a second: source.csv_rate"
            self._refuse("nothing says its rate", hint)
        check_shape(path, len(self.leads), self.rate, self.samples)
        self._read(0, min(_STRIDE, self.samples))

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        cells = self._cells(start, stop)
        if self._time is not None and self.samples > 1:
            off = (cells[:, self._time] - self._first) * self.rate - np.arange(start, stop)
            if not (np.abs(off) <= 1).all():
                back = np.diff(cells[:, self._time]) <= 0
                if back.any():
                    line = start + 3 + int(np.argmax(back))
                    hint = "sort its lines, keep each sample once, and give times enough digits"
                    self._refuse(f"its times do not increase, as line {line} shows", hint)
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
        names = [str(n) for n in range(len(self._names))]
        try:
            table = csv.read_csv(
                pa.py_buffer(text),
                csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(text), 1)),
                csv.ParseOptions(delimiter=self._separator, quote_char=False, ignore_empty_lines=False),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.float64()),
                    null_values=_MISSING_CELLS,
                    decimal_point=self._point,
                ),
            )
        except pa.ArrowInvalid:
            self._explain(text, first * _STRIDE + 2)
            raise
        if len(table) < stop - first * _STRIDE:
            raise ValueError("the file ends early")
        columns = [table.column(n).to_numpy() for n in range(len(names))]
        cells: NDArray[np.float64] = np.stack(columns, axis=1, dtype=np.float64)
        return cells[start - first * _STRIDE : stop - first * _STRIDE]

    def _rate(self, last: float) -> float:
        """Samples a second, by the times of the first line and the last."""
        length = last - self._first
        if not length > 0:  # also where one is missing
            said = f"its times do not increase: {self._first:.10g} at first, {last:.10g} at last"
            self._refuse(said, "sort its lines by time; every line has a time")
        rate = (self.samples - 1) / length
        for unit, each in _FINER.items():
            if rate < RATES[0] and RATES[0] <= rate * each <= RATES[1]:
                said = f"it has {rate:g} samples a second, not {RATES[0]:g} to {RATES[1]:g}"
                self._refuse(said, f"`time` is in seconds: if it holds {unit}, divide it by {each}")
        return rate

    def _explain(self, text: bytes, number: int) -> None:
        """Refuse the first line of `text`, the first of which is line `number`, that cannot be read."""
        for at, line in enumerate(text.decode("utf-8", "replace").removesuffix("\n").split("\n"), number):
            cells = line.split(self._separator)
            if len(cells) != len(self._names):
                self._refuse(f"line {at} has {len(cells)} columns, its header {len(self._names)}")
            for column, cell in enumerate(cell.strip() for cell in cells):
                if cell not in _MISSING_CELLS and not _is_number(cell.replace(self._point, ".")):
                    said = f"line {at}, column {self._names[column]}: {cell[:40]!r} is no number"
                    hint = _SECONDS if column == self._time else "leave the cell empty if there is no sample"
                    self._refuse(said, hint)

    def _find_end(self, first: int) -> int:
        """Where the text ends, without the empty lines after it."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(max(first, size - _LONGEST_LINE))
            return file.tell() + len(file.read().rstrip(b" \r\n"))  # no tabs: these end empty cells

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
