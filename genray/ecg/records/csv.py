"""Records as text: a header line that names the columns, then a line for each sample.

    time,II,V1
    0.0000,0.012,-0.105
    0.0028,,-0.110

`time` is in seconds, from anything or unix time (above 10^8); in the unit of its name (`time (ms)`); in a
finer unit if only that makes the rate of an ECG; or a text (ISO 8601, clock time). Stamps may be rounded.
Where they jump, samples are missing. Without times a line before the header, or the caller, gives the rate.

Columns with names of ECG leads are read (`channels.py`), in the unit of the header (`II (uV)`, `ECG [200
adu/mV]`, a line of units) or, where it states none, in the one that the values show; a note says which. An
empty cell, NaN or `-` is a missing sample. Commas, semicolons, tabs or spaces separate; numbers may have a
decimal comma. Lines before the header are searched for a rate and a gain, and never shown, as they may name
a patient. `csv_exports.py` lists the exports that are known.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from genray.ecg.records.base import MISSING, EcgRecord, EndsEarly, check_shape, unusable
from genray.ecg.records.channels import (
    Channel,
    Choice,
    LeadKind,
    Look,
    choose_channels,
    lead_names,
    listed,
    look_of,
)
from genray.ecg.records.csv_exports import parse_export
from genray.ecg.records.csv_header import MISSING_CELLS, Layout, cells_of, is_number, parse_header
from genray.ecg.records.csv_text import STRIDE, Lines, TextFile
from genray.ecg.records.csv_times import (
    BadTimes,
    Gap,
    TextTimes,
    Timing,
    is_time_text,
    measure,
    polar_epoch,
    unit_of_times,
)
from genray.ecg.records.csv_units import (
    Kind,
    Unit,
    contradiction,
    looks_like_counts,
    swing_of,
    unit_of_swing,
)
from genray.errors import DataError

_GAIN = 1000.0
_LARGEST = (-MISSING - 1) / _GAIN  # mV
_BLOCK = 1 << 16  # lines whose times are read at once
_STRETCH = 4.0  # s of each stretch whose values show the unit
_STRETCHES = 8
_NEARLY_FLAT = 0.005  # mV
_HINT_UNIT = "write the unit after its name: ECG (mV), ECG (uV), or ECG (200/mV) for ADC counts of that gain"
_HINT_RATE = (
    "add a column `time` in seconds, or a line `sampling rate: 250 Hz` before the header; "
    "or set source.csv_rate to the samples a second"
)


@dataclass(frozen=True)
class _CsvTable:
    """The lines of a file as numbers."""

    file: TextFile
    layout: Layout
    lines: Lines

    def read(self, start: int, stop: int, columns: Sequence[int]) -> list[NDArray[np.float64]]:
        """The lines `start` to `stop` of each of `columns`, NaN where empty."""
        arrays = self._cells(start, stop, columns, pa.float64())
        return [array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False) for array in arrays]

    def texts(self, start: int, stop: int, column: int) -> pa.Array:
        """The cells of a column as they are written."""
        return self._cells(start, stop, [column], pa.string())[0]

    def _cells(self, start: int, stop: int, columns: Sequence[int], kind: pa.DataType) -> list[pa.Array]:
        begin, end, first = self.lines.bounds(start, stop)
        text = self.file.read(begin, end)
        layout = self.layout
        if layout.separator == " ":
            text = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", text))
        elif layout.is_padded:
            mark = layout.separator.encode()
            text = re.sub(rb"(?m)^ +| +(?=\r?$)", b"", re.sub(rb" *" + mark + rb" *", mark, text))
        names = [str(n) for n in range(len(layout.columns))]
        try:
            table = csv.read_csv(
                pa.py_buffer(text),
                csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(text), 1)),
                csv.ParseOptions(
                    delimiter=layout.separator, quote_char=layout.quote or False, ignore_empty_lines=False
                ),
                csv.ConvertOptions(
                    column_types={str(n): kind for n in columns},
                    include_columns=[str(n) for n in columns],
                    null_values=list(MISSING_CELLS),
                    quoted_strings_can_be_null=True,
                    decimal_point=layout.point,
                    check_utf8=kind == pa.string(),
                ),
            )
        except pa.ArrowInvalid:
            raise self._broken_line(text, first, columns, kind) from None
        if len(table) < stop - first:
            raise EndsEarly("the file ends early")
        cut = table.slice(start - first, stop - start)
        return [cut.column(n).combine_chunks() for n in range(len(columns))]

    def _broken_line(self, text: bytes, first: int, columns: Sequence[int], kind: pa.DataType) -> DataError:
        """The error of the first line of `text`, which begins with line `first` of the table, that cannot be
        read."""
        layout, at = self.layout, first
        for at, line in enumerate(text.decode("utf-8", "replace").removesuffix("\n").split("\n"), first):
            cells = cells_of(line, layout)
            number = self.number(at)
            if len(cells) != len(layout.columns):
                problem = f"line {number} has {len(cells)} columns, its header {len(layout.columns)}"
                return unusable(self.file.path, problem)
            for column in columns:
                cell = cells[column]
                is_read = "\ufffd" not in cell if kind == pa.string() else is_number(cell)
                if cell not in MISSING_CELLS and not is_read:
                    name = listed([layout.columns[column].name])
                    problem = f"line {number}, column {name}: {cell[:40]!r} is no number"
                    hint = "leave the cell empty if there is no sample"
                    if column in layout.times:
                        hint = "give all times in one way: seconds, or ISO 8601 as 2026-01-31T10:00:00.004"
                    return unusable(self.file.path, problem, hint)
        return unusable(
            self.file.path, f"one of its lines {self.number(first)} to {self.number(at)} is broken"
        )

    def number(self, line: int) -> int:
        """The number of a line of the table in its file, from 1."""
        return self.layout.head + line + 1


@dataclass(frozen=True)
class _CsvLead:
    """A column that is read: its place, the unit of its numbers, what it shows, and units of the record a
    millivolt, or a unit of a pulse wave."""

    column: int
    unit: Unit
    kind: LeadKind = LeadKind.ECG
    gain: float = _GAIN


@dataclass(frozen=True)
class _CsvRun:
    """Lines without a gap: the first line, its sample, and how many."""

    line: int
    sample: int
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CsvRecord(EcgRecord):
    """A text file.

    Attributes:
        table: its numbers.
        columns: those that are read, in the order of `leads`.
        runs: lines without a gap, by time.
    """

    table: _CsvTable
    columns: Sequence[_CsvLead]
    runs: Sequence[_CsvRun]

    @classmethod
    def open(
        cls, path: Path, rate: float | None = None, leads: Sequence[str] = (), *, pulse: bool = False
    ) -> CsvRecord:
        """Read once through `path`, to learn where the lines are and what their times say.

        Args:
            rate: samples a second, for a file that does not say it.
            leads: names of the columns to read (empty: those that look like an ECG).
            pulse: whether pulse waves and arterial pressures are read too.

        Raises:
            DataError: there is no ECG or no rate, the unit is not known, the times are not even, or the text
                is something else.
        """
        file = TextFile.open(path)
        head = file.head()
        layout = parse_export(path, head) or parse_header(path, head)
        lines = file.find_lines(file.begin + file.size_of(head[: layout.head]))
        if not lines.count:
            raise unusable(path, "it holds no samples")
        table = _CsvTable(file, layout, lines)
        timing = _timing(table, rate)
        check_shape(path, 1, timing.rate, lines.count)
        choice = _choose(table, leads, pulse=pulse)
        columns, unit_notes = _with_units(table, choice, timing.rate)
        runs = _runs(timing, lines.count)
        names = lead_names([layout.columns[lead.column].name for lead in columns])
        record = cls(
            path=path,
            rate=timing.rate,
            leads=names,
            samples=runs[-1].sample + runs[-1].count,
            gains=tuple(lead.gain for lead in columns),
            kinds=tuple(lead.kind for lead in columns) if pulse else (),
            start=timing.start,
            notes=(*timing.notes, *unit_notes, *layout.notes, *choice.notes),
            table=table,
            columns=columns,
            runs=runs,
        )
        check_shape(path, len(names), record.rate, record.samples)
        return record

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        units = np.full((stop - start, len(self.columns)), MISSING, np.int16)
        begins = [run.sample for run in self.runs]
        for run in self.runs[max(0, bisect_right(begins, start) - 1) :]:
            if run.sample >= stop:
                break
            low, high = max(start - run.sample, 0), min(stop - run.sample, run.count)
            if low >= high:
                continue
            places = [lead.column for lead in self.columns]
            values = self.table.read(run.line + low, run.line + high, places)
            begin = run.sample - start
            for lead, column in enumerate(self.columns):
                assert column.unit.gain is not None
                millivolts = (values[lead] - column.unit.baseline) / column.unit.gain
                largest = (-MISSING - 1) / column.gain
                rounded = np.rint(np.nan_to_num(np.clip(millivolts, -largest, largest)) * column.gain)
                units[begin + low : begin + high, lead] = np.where(np.isfinite(millivolts), rounded, MISSING)
        return units


def names_ecg(path: Path) -> bool:
    """Whether a text file begins as a table with a column that is named as an ECG.

    Raises:
        DataError: it begins as none.
    """
    head = TextFile.open(path).head()
    layout = parse_export(path, head) or parse_header(path, head)
    return any(look_of(column.name) is Look.ECG for column in layout.columns)


def _timing(table: _CsvTable, rate: float | None) -> Timing:
    """What the times of the lines say; without any, the rate of the header or the caller."""
    layout, path = table.layout, table.file.path
    for column in layout.times:
        cells = table.texts(0, min(2, table.lines.count), column).to_pylist()
        if (
            table.lines.count < 2
            or not all(cells)
            or (len(layout.times) > 1 and _stands_still(table, column))
        ):
            continue
        known = layout.rate or rate
        if _counts_samples(table, column):
            if known is None:
                name = listed([layout.columns[column].name])
                problem = f"column {name} counts 1, 2, 3: milliseconds, or the numbers of samples"
                raise unusable(
                    path, problem, f"name it `{name} (ms)`, or set source.csv_rate to the samples a second"
                )
            continue
        try:
            return _measure(table, column)
        except BadTimes as bad:
            problem = re.sub(r"\{(\d+)\}", lambda found: str(table.number(int(found[1]))), bad.problem)
            raise unusable(path, problem, bad.hint) from None
    known = layout.rate or rate
    if known is None:
        raise unusable(path, "nothing says its rate", _HINT_RATE)
    return Timing(known, (), layout.start, ())


def _counts_samples(table: _CsvTable, column: int) -> bool:
    """Whether the times of a column of no stated unit are whole numbers that follow on each other."""
    if unit_of_times(table.layout.columns[column].unit_text):
        return False
    cells = table.texts(0, min(STRIDE, table.lines.count), column).to_pylist()
    if not all(re.fullmatch(r"[0-9]{1,15}", cell or "") for cell in cells):
        return False
    return all(int(after) - int(before) == 1 for before, after in pairwise(cells))


def _stands_still(table: _CsvTable, column: int) -> bool:
    """Whether the times of a column do not change in the first lines, or are none: another is taken."""
    cells = table.texts(0, min(_BLOCK, table.lines.count), column)
    first, last = cells[0].as_py(), cells[-1].as_py()
    return first == last or not (is_number(first or "") or is_time_text(first or ""))


def _measure(table: _CsvTable, column: int) -> Timing:
    """What the times of `column` say."""
    name = table.layout.columns[column]
    count = table.lines.count
    bounds = [(at, min(at + _BLOCK, count)) for at in range(0, count, _BLOCK)]
    first = table.texts(0, 1, column)[0].as_py()
    if not is_number(first):
        if not is_time_text(first):
            problem = f"line {table.number(0)}, column {listed([name.name])}: {first[:40]!r} is no time"
            hint = "give seconds, ISO 8601 as 2026-01-31T10:00:00.004, or clock times as 10:00:00.004"
            raise unusable(table.file.path, problem, hint)
        texts = TextTimes()
        blocks: Iterator[NDArray[np.float64]] = (texts.read(table.texts(*each, column)) for each in bounds)
        texts.open(first)
        timing = measure(blocks, begin=texts.begin, is_text=True, is_clock=texts.is_clock)
        return replace(timing, notes=(*timing.notes, *texts.notes))
    numbers = (table.read(*each, [column])[0] for each in bounds)
    return measure(numbers, unit_of_times(name.unit_text), begin=polar_epoch(name.name))


def _choose(table: _CsvTable, wanted: Sequence[str], *, pulse: bool) -> Choice:
    """The columns that are read, and what is to be said of the others."""
    layout = table.layout
    places = [n for n, column in enumerate(layout.columns) if n not in layout.times and column.name]
    channels = [
        Channel(
            name=layout.columns[n].name,
            unit="mV" if layout.columns[n].unit.gain is not None else layout.columns[n].unit_text,
            in_volts=layout.columns[n].unit.kind is not Kind.UNKNOWN or not layout.columns[n].unit_text,
        )
        for n in places
    ]
    choice = choose_channels(table.file.path, channels, wanted, pulse=pulse)
    return replace(choice, taken=tuple(places[n] for n in choice.taken))


def _with_units(table: _CsvTable, choice: Choice, rate: float) -> tuple[list[_CsvLead], list[str]]:
    """The columns with their units, and what is to be said of those that the header does not state."""
    places = choice.taken
    columns = [table.layout.columns[n] for n in places]
    size = min(table.lines.count, max(2, round(_STRETCH * min(rate, 1e6))))
    begins = sorted({round(at) for at in np.linspace(0, table.lines.count - size, _STRETCHES)})
    stretches = _stretches(table, [(at, at + size) for at in begins], places)
    leads: list[_CsvLead] = []
    assumed: dict[str, list[str]] = {}
    notes: list[str] = []
    for lead, (place, column) in enumerate(zip(places, columns, strict=True)):
        values = np.concatenate([stretch[lead] for stretch in stretches])
        if choice.kinds[lead] is not LeadKind.ECG:
            leads.append(_wave(place, choice.kinds[lead], values))
            continue
        swing = swing_of(values, rate)
        unit = column.unit
        if unit.kind is Kind.COUNTS and not column.unit_text and not _are_whole(values):
            unit = Unit()  # a line before the header has a gain, but these are not the counts that it is of
        if problem := contradiction(unit, swing):
            text = f"column {listed([column.name])} is {problem}"
            raise unusable(table.file.path, text, "correct the unit in its header, for example to uV")
        if unit.gain is None:
            unit = _shown_unit(table.file.path, column.name, unit, values, swing)
            assumed.setdefault(unit.text, []).append(column.name)
        finite = values[np.isfinite(values)]
        assert unit.gain is not None
        if 0 < swing / unit.gain < _NEARLY_FLAT:
            stated = f"{listed([column.name])} is nearly flat, or not in {unit.text}"
            notes.append(f"{stated}: its values swing by {swing:.3g} within 2 s")
        middle = float(np.median(finite)) if len(finite) else 0.0
        if abs(middle - unit.baseline) / unit.gain > _LARGEST / 2:
            offset = (middle - unit.baseline) / unit.gain
            notes.append(f"a constant offset was taken off: {listed([column.name])} ({offset:.4g} mV)")
            unit = replace(unit, baseline=middle)
        leads.append(_CsvLead(place, unit))
    said = [
        f"no unit in the header, taken as {unit} by the values: {listed(n)}" for unit, n in assumed.items()
    ]
    return leads, [*said, *notes]


def _wave(place: int, kind: LeadKind, values: NDArray[np.float64]) -> _CsvLead:
    """Return the column of a pulse wave, whose unit is its own; the middle of a plethysmogram means nothing
    and is taken off. The values may go three times as far as those that were looked at."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        finite = np.zeros(1)
    baseline = 0.0 if kind is LeadKind.PRESSURE else float(finite.min() + finite.max()) / 2
    reach = float(np.abs(finite - baseline).max())
    gain = min(_GAIN, (-MISSING - 1) / (3 * reach)) if reach > 0 else _GAIN
    return _CsvLead(place, Unit(Kind.UNKNOWN, 1.0, "", baseline), kind, gain)


def _are_whole(values: NDArray[np.float64]) -> bool:
    finite = values[np.isfinite(values)]
    return bool((finite == np.rint(finite)).all())


def _stretches(
    table: _CsvTable, bounds: Sequence[tuple[int, int]], columns: Sequence[int]
) -> list[list[NDArray[np.float64]]]:
    """The values of some stretches, without those that cannot be read, which is told when they are watched.

    Raises:
        DataError: none can be read.
    """
    stretches: list[list[NDArray[np.float64]]] = []
    errors: list[DataError] = []
    for each in bounds:
        try:
            stretches.append(table.read(*each, columns))
        except DataError as error:
            errors.append(error)
    if not stretches:
        raise errors[0]
    return stretches


def _shown_unit(path: Path, name: str, unit: Unit, values: NDArray[np.float64], swing: float) -> Unit:
    """The unit that the values of a column show, where the header states none."""
    shown = listed([name])
    finite = values[np.isfinite(values)]
    if unit.kind is Kind.COUNTS or looks_like_counts(finite, swing):
        where = f"in {unit.text} by its header" if unit.text else "in ADC counts by its values"
        problem = f"column {shown} is {where}, and nothing says how many are a millivolt"
        hint = (
            "write the gain after its name, as ECG (200/mV), or into a line before the header: gain: 200/mV; "
            "rdsamp of the WFDB software writes millivolts with -p"
        )
        raise unusable(path, problem, hint)
    text = unit_of_swing(values, swing)
    if not text:
        problem = (
            f"column {shown} has no unit, and its values swing by {swing:.3g} within 2 s, as no ECG does"
        )
        raise unusable(path, problem, _HINT_UNIT)
    return Unit(Kind.VOLTS, {"uV": 1e3, "mV": 1.0, "V": 1e-3}[text], text)


def _runs(timing: Timing, count: int) -> list[_CsvRun]:
    """Lines without a gap."""
    runs: list[_CsvRun] = []
    line = sample = 0
    for gap in (*timing.gaps, Gap(count, 0.0)):
        runs.append(_CsvRun(line, sample, gap.line - line))
        sample += gap.line - line + round(gap.seconds * timing.rate)
        line = gap.line
    return [run for run in runs if run.count]
