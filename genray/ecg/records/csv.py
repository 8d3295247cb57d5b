"""Records as text: a header line that names the columns, then a line for each sample.

    time,II,V1
    0.0000,0.012,-0.105
    0.0028,,-0.110

`time` is in seconds, from anything or unix time (above 10^8), and even; without that column the rate has
to be given. The columns with names of ECG leads are read, or all that may be an ECG if none has such a name;
in millivolts, or in the unit that the name ends with: `II (uV)`, `ECG [mV]`, `V1_uV`. An empty cell or NaN is
a missing sample. No cell is quoted. Commas separate, or semicolons or tabs if these do in the header; numbers
may then have a decimal comma.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import (
    MAX_LEADS,
    MISSING,
    RATES,
    EcgRecord,
    check_shape,
    is_ecg,
    is_named_ecg,
    lead_names,
    no_ecg_note,
    numbers_a_millivolt,
    unusable,
)

_GAIN = 1000.0
_STRIDE = 1024  # the place of every so manieth line is remembered
_BLOCK = 4 << 20
_LONGEST_LINE = 1 << 16
_UNIX_TIME = 1e8
_MISSING_CELLS = ["", "nan", "NaN", "NA", "null"]
_FINER = {"milliseconds": 1000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
_SECONDS = "`time` is in seconds, from anything or unix time: no dates, no clock times"
_WITH_UNIT = re.compile(
    r"(?P<name>.*?)\s*([(\[]\s*(?P<unit>[^()\[\]]*?)\s*[)\]]|[\s_/](?P<bare>(n|u|\u00b5|\u03bc|m)v))", re.I
)
_HINT_UNIT = "name columns after leads, as II or ECG; a unit after the name is V, mV or uV, as in ECG (uV)"
_HINT = "it needs a line such as time,II,V1 and then one for each sample, in seconds and millivolts"


@dataclass(frozen=True)
class _Columns:
    """How a line is made: what separates cells, what stands before decimals, and what the cells are."""

    separator: str
    point: str
    names: Sequence[str]
    time: int | None  # column of the times
    leads: Sequence[_Lead]


@dataclass(frozen=True)
class _Lead:
    """A column that is a lead: where it is, its name without a unit, and its millivolts a unit."""

    column: int
    name: str
    millivolts: float


@dataclass(frozen=True)
class _Lines:
    """Where the lines lie: every `_STRIDE`th begins at one of `marks`, and the text ends at `end`."""

    marks: Sequence[int]
    count: int
    end: int


@dataclass(frozen=True)
class _CsvTable:
    """The lines of a file as numbers."""

    path: Path
    columns: _Columns
    lines: _Lines

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        """The lines `start` to `stop` as (lines, columns), NaN where empty."""
        import pyarrow as pa
        from pyarrow import csv

        first, last = start // _STRIDE, -(-stop // _STRIDE)
        marks = self.lines.marks
        end = marks[last] if last < len(marks) else self.lines.end
        with self.path.open("rb") as file:
            file.seek(marks[first])
            text = file.read(end - marks[first])
        names = [str(n) for n in range(len(self.columns.names))]
        try:
            table = csv.read_csv(
                pa.py_buffer(text),
                csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(text), 1)),
                csv.ParseOptions(
                    delimiter=self.columns.separator, quote_char=False, ignore_empty_lines=False
                ),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.float64()),
                    null_values=_MISSING_CELLS,
                    decimal_point=self.columns.point,
                ),
            )
        except pa.ArrowInvalid:
            self._check_lines(text, first * _STRIDE + 2)
            raise
        if len(table) < stop - first * _STRIDE:
            raise ValueError("the file ends early")
        columns = [table.column(n).to_numpy() for n in range(len(names))]
        cells: NDArray[np.float64] = np.stack(columns, axis=1, dtype=np.float64)
        return cells[start - first * _STRIDE : stop - first * _STRIDE]

    def time(self, line: int) -> float:
        """The time of one line, in seconds; only where there is a column of times."""
        assert self.columns.time is not None
        return float(self.read(line, line + 1)[0, self.columns.time])

    def _check_lines(self, text: bytes, number: int) -> None:
        """Raise a DataError for the first line of `text`, which begins with line `number`, that cannot be
        read."""
        names = self.columns.names
        for at, line in enumerate(text.decode("utf-8", "replace").removesuffix("\n").split("\n"), number):
            cells = line.split(self.columns.separator)
            if len(cells) != len(names):
                problem = f"line {at} has {len(cells)} columns, its header {len(names)}"
                raise unusable(self.path, problem, _HINT)
            for column, cell in enumerate(cell.strip() for cell in cells):
                if cell not in _MISSING_CELLS and not _is_number(cell.replace(self.columns.point, ".")):
                    problem = f"line {at}, column {names[column]}: {cell[:40]!r} is no number"
                    is_time = column == self.columns.time
                    hint = _SECONDS if is_time else "leave the cell empty if there is no sample"
                    raise unusable(self.path, problem, hint)


@dataclass(frozen=True, kw_only=True, eq=False)
class CsvRecord(EcgRecord):
    """A CSV file.

    Attributes:
        table: its numbers.
        first_time: seconds of the first line; None where a given rate says the times.
    """

    table: _CsvTable
    first_time: float | None

    @classmethod
    def open(cls, path: Path, rate: float | None = None) -> CsvRecord:
        """Read once through `path`, to learn where the lines are.

        Args:
            rate: samples a second, for a file without a column `time`.

        Raises:
            DataError: there is no rate, the times are not even, or the text is something else.
        """
        if not path.is_file():
            raise unusable(path, "there is no such file", "check its path")
        with path.open("rb") as file:
            header = file.readline(_LONGEST_LINE)
            beginning = file.read(_LONGEST_LINE)
        columns = _parse_header(path, header, beginning)
        lines = _find_lines(path, len(header))
        if not lines.count:
            raise unusable(path, "it holds no samples", _HINT)
        table = _CsvTable(path, columns, lines)
        first_time = None
        if columns.time is not None and lines.count > 1:
            first_time = table.time(0)
            rate = _rate(path, first_time, table.time(lines.count - 1), lines.count)
        elif rate is None:
            hint = "add a column `time` in seconds; or tell the monitor the samples a second: source.csv_rate"
            raise unusable(path, "nothing says its rate", hint)
        leads = lead_names([lead.name for lead in columns.leads])
        record = cls(
            path=path,
            rate=rate,
            leads=leads,
            samples=lines.count,
            gains=(_GAIN,) * len(leads),
            start=first_time if first_time is not None and first_time > _UNIX_TIME else None,
            notes=_notes(columns),
            table=table,
            first_time=first_time,
        )
        check_shape(path, len(leads), rate, record.samples)
        record._read(0, min(_STRIDE, record.samples))
        return record

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        cells = self.table.read(start, stop)
        if self.first_time is not None:
            self._check_times(cells[:, self.table.columns.time], start, self.first_time)
        leads = self.table.columns.leads
        values = cells[:, [lead.column for lead in leads]] * [lead.millivolts for lead in leads]
        most = (-MISSING - 1) / _GAIN
        units = np.rint(np.nan_to_num(np.clip(values, -most, most)) * _GAIN)
        return np.where(np.isfinite(values), units, MISSING).astype(np.int16)

    def _check_times(self, times: NDArray[np.float64], start: int, first_time: float) -> None:
        """Raise a DataError unless `times`, the first of which is of sample `start`, are even."""
        off = (times - first_time) * self.rate - np.arange(start, start + len(times))
        if (np.abs(off) <= 1).all():
            return
        back = np.diff(times) <= 0
        if back.any():
            problem = f"its times do not increase, as line {start + 3 + int(np.argmax(back))} shows"
            hint = "sort its lines, keep each sample once, and give times enough digits"
            raise unusable(self.path, problem, hint)
        problem = f"its times are not even, as line {start + 2 + int(np.argmin(np.abs(off) <= 1))} shows"
        hint = "write a line with empty cells for each sample that is missing"
        raise unusable(self.path, problem, hint)


def _parse_header(path: Path, header: bytes, beginning: bytes) -> _Columns:
    """The columns that the line `header` names; `beginning` is some of the text after it."""
    text = header.decode("utf-8-sig", "replace")
    separator = max(",;\t", key=text.count)  # the comma, if there is none
    names = [name.strip() for name in text.split(separator)]
    if not header.endswith(b"\n") or all(_is_number(name) for name in names):
        raise unusable(path, "its first line does not name columns", _HINT)
    if len(names) > MAX_LEADS + 1:
        raise unusable(path, f"it has {len(names)} columns; {MAX_LEADS} leads are read at most", _HINT)
    time = next((n for n, name in enumerate(names) if name.lower() == "time"), None)
    leads = [lead for n, name in enumerate(names) if n != time and (lead := _lead(n, name))]
    leads = [lead for lead in leads if is_named_ecg(lead.name)] or leads
    if not leads:
        raise unusable(path, f"no column is an ECG: {', '.join(names)}"[:200], _HINT_UNIT)
    point = "," if separator != "," and b"," in beginning else "."
    return _Columns(separator, point, names, time, leads)


def _lead(column: int, name: str) -> _Lead | None:
    """The lead that a column of this name is; None if it is no ECG."""
    units: float | None = 1.0
    if found := _WITH_UNIT.fullmatch(name):
        unit = found["unit"] or found["bare"] or ""
        units = numbers_a_millivolt(1.0, unit)
        if units is None and is_named_ecg(unit):  # no unit, as in ECG (II)
            units = 1.0
        else:
            name = found["name"]
    return _Lead(column, name, 1 / units) if units is not None and is_ecg(name) else None


def _notes(columns: _Columns) -> tuple[str, ...]:
    """What is said of the columns that are not read."""
    taken = {columns.time, *(lead.column for lead in columns.leads)}
    left_out = [name for n, name in enumerate(columns.names) if n not in taken and name]
    return (no_ecg_note(left_out),) if left_out else ()


def _rate(path: Path, first: float, last: float, lines: int) -> float:
    """Samples a second, by the times of the first line and the last."""
    length = last - first
    if not length > 0:  # also where one is missing
        problem = f"its times do not increase: {first:.10g} at first, {last:.10g} at last"
        raise unusable(path, problem, "sort its lines by time; every line has a time")
    rate = (lines - 1) / length
    for unit, each in _FINER.items():
        if rate < RATES[0] and RATES[0] <= rate * each <= RATES[1]:
            problem = f"it has {rate:g} samples a second, not {RATES[0]:g} to {RATES[1]:g}"
            raise unusable(path, problem, f"`time` is in seconds: if it holds {unit}, divide it by {each}")
    return rate


def _find_lines(path: Path, first: int) -> _Lines:
    """The lines of `path` from byte `first` on."""
    end = _find_end(path, first)
    if end <= first:
        return _Lines([], 0, end)
    marks = [first]
    count = 1
    for places in _line_ends(path, first, end):
        # The line with number n begins after the n-th end.
        numbers = np.arange(count, count + len(places))
        marks += (places[numbers % _STRIDE == 0] + 1).tolist()
        count += len(places)
    return _Lines(marks, count, end)


def _find_end(path: Path, first: int) -> int:
    """Where the text ends, without the empty lines after it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(first, size - _LONGEST_LINE))
        return file.tell() + len(file.read().rstrip(b" \r\n"))  # no tabs: these end empty cells


def _line_ends(path: Path, first: int, end: int) -> Iterator[NDArray[np.int64]]:
    """Where lines end, block by block."""
    with path.open("rb") as file:
        file.seek(first)
        at = last = first
        while at < end and (block := file.read(min(_BLOCK, end - at))):
            places = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + at
            at += len(block)
            ends = np.concatenate([[last], places, [at]])
            if np.diff(ends).max() > _LONGEST_LINE:
                raise unusable(path, "it has lines of absurd length", _HINT)
            last = int(places[-1]) if len(places) else last
            yield places


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
