"""How a table is laid out: the lines before it, the names and units of its columns, what separates cells.

The header is the line above the first line of numbers, or the one above that if it has units. What stands
before it is searched for a rate and a gain. It may name a patient, so that nothing of it is kept or shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from genray.ecg.records.base import unusable
from genray.ecg.records.channels import Look, look_of
from genray.ecg.records.csv_times import is_time_text, unit_of_times
from genray.ecg.records.csv_units import Kind, Unit, parse_unit, split_unit
from genray.errors import DataError

MISSING_CELLS = ("", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "-", "--")
ONE_COLUMN = "\x1f"
"""Separator of a table of one column: a character that is in no text."""

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.I | re.A)
_HINT = "it needs a line such as time,II,V1 and then one for each sample, in seconds and millivolts"
_MOST_COLUMNS = 1024
_TAIL = 40  # lines of numbers that show what separates cells
_TIME_NAME = re.compile(
    r"(?:.*[\s_])?(time|times|timestamps?|datetime|date.?time|zeit|zeitstempel|tiempo|temps|tempo|seconds|secs?|"
    r"millis(econds)?|elapsed|clock|t)",
    re.I,
)
_TIME_WITH_UNIT = re.compile(
    r"(?P<name>.*(time|stamp|t|elapsed))[\s_]+(?P<unit>n?s|[mu\u00b5]s|m?sec|min)", re.I
)
_PERSON = re.compile(
    r"name|patient|birth|geburt|geboren|nac|naiss|nascit|dob|\bsex\b|gender|geschlecht|\bmrn\b|\bid\b|physician",
    re.I,
)
_RATE = (
    re.compile(
        r"(?:sampl|abtast|mess|fs|freq|rate)[^\d\n]{0,25}(\d+(?:[.,]\d+)?)[\s\u00a0]*(?P<unit>k?hz|hertz|sps)",
        re.I,
    ),
    re.compile(
        r"(?:sampl\w*[ _-]?(?:rate|freq\w*)|abtastrate|\bfs)[\"']?\s*[:=,;\t ]\s*[\"']?(\d+(?:[.,]\d+)?)",
        re.I,
    ),
)
_INTERVAL = re.compile(r"interval[^\d\n]{0,20}(\d+(?:[.,]\d+)?)\s*(m|u|\u00b5)?s(ec)?", re.I)
_GAIN = re.compile(r"gain[^\d\n]{0,15}(\d.*)", re.I)
_BASELINE = re.compile(r"(?:baseline|zero|offset)[^\d\n-]{0,10}(-?\d{1,9})", re.I)
_RDSAMP_INTERVAL = re.compile(r"(\d+(\.\d+)?([eE]-?\d+)?)\s*sec")


@dataclass(frozen=True)
class Column:
    """A column: its name without a unit, and its unit; `unit_text` also where that is none of volts."""

    name: str
    unit: Unit = field(default_factory=Unit)
    unit_text: str = ""


@dataclass(frozen=True)
class Layout:
    """How a table is laid out.

    Attributes:
        separator: what separates cells.
        point: what stands before decimals.
        quote: what cells may be quoted with; empty if none is.
        is_padded: whether spaces align cells.
        columns: of the table.
        head: lines before it.
        times: columns that may be times, the most exact first.
        rate: samples a second, where a line before the table says it.
        start: unix time of the first sample, where a line before the table says it.
        notes: what was assumed.
    """

    separator: str
    point: str
    quote: str
    is_padded: bool
    columns: Sequence[Column]
    head: int
    times: Sequence[int] = ()
    rate: float | None = None
    start: float | None = None
    notes: Sequence[str] = ()


def parse_header(path: Path, lines: Sequence[str]) -> Layout:
    """Return how the table in `lines`, the beginning of a file, is laid out.

    Raises:
        DataError: there is no table, or nothing names its columns.
    """
    filled = [line for line in lines if line.strip()]
    if not filled:
        raise unusable(path, "it is empty", _HINT)
    layout = _layout_of(filled[-_TAIL:], lines)
    head = next((n for n, line in enumerate(lines) if _is_data(cells_of(line, layout))), None)
    if head is None:
        problem = "it holds no samples: no line consists of numbers"
        raise unusable(path, problem, _HINT)
    width = len(cells_of(lines[head], layout))
    if width > _MOST_COLUMNS:
        raise unusable(
            path, f"it has {width} columns; {_MOST_COLUMNS} are read at most", "keep those of an ECG"
        )
    head = _header_end(lines, head, layout, width)
    names, units, above = _names(path, lines[:head], layout, width)
    if len(names) == 1 and width == 2 and layout.separator == "," and not layout.quote:
        layout, width = replace(layout, separator=ONE_COLUMN, point=","), 1
    if len(names) < width and names:
        names, units = _pad(path, names, units, width, head)
    columns = [_column(name, unit) for name, unit in zip(names, units, strict=True)]
    text = "\n".join(line for line in above if not _PERSON.search(line))
    columns = [_with_gain(column, text) for column in columns]
    interval = next(
        (found for unit in units if (found := _RDSAMP_INTERVAL.fullmatch(unit.strip(" ()'")))), None
    )
    return replace(
        layout,
        columns=columns,
        head=head,
        times=_times(columns),
        rate=1 / float(interval[1]) if interval and float(interval[1]) > 0 else rate_in(text),
    )


def cells_of(line: str, layout: Layout) -> list[str]:
    """Return the cells of a line, without quotes and the spaces around them."""
    line = line.strip("\r\n")
    if layout.separator == " ":
        return line.split()
    if layout.quote and layout.quote in line:
        cells, at = [], 0
        while at <= len(line):
            found = re.compile(rf"\s*{layout.quote}([^{layout.quote}]*){layout.quote}\s*").match(line, at)
            end = line.find(layout.separator, found.end() if found else at)
            end = len(line) if end < 0 else end
            cells.append((found[1] if found else line[at:end]).strip())
            at = end + 1
        return cells
    return [cell.strip() for cell in line.split(layout.separator)]


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, with a decimal point or comma."""
    return NUMBER.fullmatch(cell) is not None


def rate_in(text: str) -> float | None:
    """Return the samples a second that lines before a table say."""
    for pattern in _RATE:
        if found := pattern.search(text):
            thousand = 1000.0 if found.groupdict().get("unit", "").lower() == "khz" else 1.0
            return float(found[1].replace(",", ".")) * thousand
    if (found := _INTERVAL.search(text)) and float(found[1].replace(",", ".")) > 0:
        size = {"m": 1e-3, "": 1.0}.get((found[2] or "").lower(), 1e-6)
        return 1 / (float(found[1].replace(",", ".")) * size)
    return None


def decimal_point(lines: Sequence[str], separator: str, quote: str) -> str:
    """Return what stands before decimals in lines of numbers."""
    if separator == "," and not quote:
        return "."
    layout = Layout(separator, ".", quote, False, (), 0)
    cells = [cell for line in lines for cell in cells_of(line, layout) if is_number(cell)]
    return "," if any("," in cell for cell in cells) else "."


def _layout_of(tail: Sequence[str], lines: Sequence[str]) -> Layout:
    """Return what separates the cells of lines of numbers."""
    quote = next((mark for mark in ('"', "'") if any(mark in line for line in tail)), "")
    plain = [re.sub(rf"{quote}[^{quote}]*{quote}", "q", line) if quote else line for line in tail]
    separator = ONE_COLUMN
    for candidate in ("\t", ";", ","):
        counts = Counter(line.strip("\r\n").count(candidate) for line in plain)
        count, often = counts.most_common(1)[0]
        if count and often > len(plain) / 2:
            separator = candidate
            break
    else:
        count, often = Counter(len(line.split()) for line in plain).most_common(1)[0]
        if count > 1 and often > len(plain) / 2 and not any(is_time_text(line) for line in plain):
            separator = " "
    point = decimal_point(tail, separator, quote)
    padded = separator != " " and any(re.search(rf"^ |{separator} | {separator}", line) for line in plain)
    if not quote:  # a header may be quoted where its numbers are not
        quote = next(
            (mark for mark in ('"', "'") if any(line.lstrip("# ").startswith(mark) for line in lines)), ""
        )
    return Layout(separator, point, quote, padded, (), 0)


def _is_data(cells: Sequence[str]) -> bool:
    """Return whether cells are those of a line of numbers; labels may stand beside them."""
    if not any(is_number(cell) for cell in cells):
        return False
    first = [cell for cell in cells if cell]
    numbers = sum(is_number(cell) or is_time_text(cell) or cell in MISSING_CELLS for cell in cells)
    return numbers == len(cells) or (
        numbers > len(cells) / 2 and (is_number(first[0]) or is_time_text(first[0]))
    )


def _header_end(lines: Sequence[str], head: int, layout: Layout, width: int) -> int:
    """Return the lines before the table. Those above its first line of numbers that have a number among their
    cells are broken lines of the table, if a header stands before them."""
    end = head
    for number in range(head - 1, -1, -1):
        cells = cells_of(lines[number], layout)
        if len(cells) != width:
            break
        if not any(is_number(cell) for cell in cells):
            return end
        end = number
    return head


def _names(
    path: Path, above: Sequence[str], layout: Layout, width: int
) -> tuple[list[str], list[str], Sequence[str]]:
    """Return the names of columns, their units where a line of its own has them, and the lines before."""
    filled = [n for n, line in enumerate(above) if line.strip()]
    rows = [cells_of(above[n].lstrip("#%/ "), layout) for n in filled[-2:]]
    rows = [row[:-1] if len(row) == width + 1 and not row[-1] else row for row in rows]
    if not rows or (_PERSON.search(above[filled[-1]]) and len(rows[-1]) != width):
        raise _no_header(path)
    if len(rows) == 2 and len(rows[0]) == len(rows[1]) <= width and _is_unit_row(rows[1]):
        return rows[0], rows[1], [above[n] for n in filled[:-2]]
    names = rows[-1]
    if not any(any(c.isalpha() for c in name) for name in names) or _is_key_and_value(names):
        raise _no_header(path)
    if len(names) not in (1, width, width - 1):
        problem = f"line {filled[-1] + 1} names {len(names)} columns, and the lines after it have {width}"
        hint = (
            "save it with semicolons between its columns: its numbers have decimal commas"
            if width == 2 * len(names) and layout.separator == ","
            else _HINT
        )
        raise unusable(path, problem, hint)
    return names, [""] * len(names), [above[n] for n in filled[:-1]]


def _pad(
    path: Path, names: list[str], units: list[str], width: int, head: int
) -> tuple[list[str], list[str]]:
    """Return names and units with those of a last column that the header does not name."""
    if len(names) != width - 1:
        problem = f"line {head} names {len(names)} columns, and the lines after it have {width}"
        raise unusable(path, problem, _HINT)
    return [*names, ""], [*units, ""]


def _no_header(path: Path) -> DataError:
    return unusable(path, "its first line does not name columns", _HINT)


def _is_key_and_value(names: Sequence[str]) -> bool:
    """Return whether a line is keys and values, which may name a person, and no header."""
    if any(is_number(name) or name.endswith("=") for name in names):
        return True
    return len(names) == 2 and _PERSON.search(names[0]) is not None


def _is_unit_row(cells: Sequence[str]) -> bool:
    filled = [cell.strip(" ()[]'\"") for cell in cells if cell.strip()]
    known = [
        parse_unit(cell) is not None
        or bool(unit_of_times(cell))
        or re.fullmatch(r"hh:mm.*|.*sec|%|bpm|mmhg|1/min|hours|minutes|ohms?|nu", cell, re.I) is not None
        for cell in filled
    ]
    return bool(filled) and sum(known) * 2 > len(filled)


def _column(name: str, unit: str) -> Column:
    """Return the column of a name, with its unit from the name or from a line of units."""
    plain, in_name = split_unit(name)
    if len(plain) > 1 and unit_of_times(plain):  # a column called ms, seconds or min
        in_name = in_name or plain
    if not in_name and (found := _TIME_WITH_UNIT.fullmatch(plain)):
        plain, in_name = found["name"], found["unit"]
    unit = unit.strip(" ()[]'\"") or in_name
    return Column(plain.strip("'\" "), parse_unit(unit) or Unit(text=unit), unit)


def _with_gain(column: Column, text: str) -> Column:
    """Return a column with the gain and baseline that lines before the table say, if it needs them."""
    if column.unit.kind is Kind.VOLTS or column.unit.gain is not None or not (gain := _GAIN.search(text)):
        return column
    unit = parse_unit(gain[1].strip(" \t,;\"'"))
    if unit is None or unit.gain is None or unit.kind is not Kind.COUNTS:
        return column
    if column.unit.kind is Kind.UNKNOWN and (column.unit.text or look_of(column.name) is not Look.ECG):
        return column
    baseline = _BASELINE.search(text)
    return replace(column, unit=replace(unit, baseline=float(baseline[1]) if baseline else 0.0))


def _is_clock(column: Column) -> bool:
    return column.unit_text.startswith("hh:mm")


def _times(columns: Sequence[Column]) -> list[int]:
    """Return the columns that may be times: those that state a unit of time first."""
    places = [
        n
        for n, column in enumerate(columns)
        if column.unit.gain is None
        and (_TIME_NAME.fullmatch(column.name) or unit_of_times(column.unit_text) or _is_clock(column))
    ]
    return sorted(places, key=lambda n: (not unit_of_times(columns[n].unit_text), n))
