"""Times of the lines of a table: what they are, at which rate samples follow, and where some are missing.

Times are numbers (seconds, or a finer unit) or texts: ISO 8601, clock times, dates with clock times. Stamps
may be rounded, so that several lines have the same. The rate is the number of steps by their time, gaps
left out. A step that is longer than usual by half a sample or more is a gap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genray.ecg.records.channels import RATES

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds of each unit that numbers may have."""

UNIT_NAMES = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "d": "days of a spreadsheet",
}
_UNIT_WORDS = {
    "s": "s|sec|secs|second|seconds|sekunden|seg|segundos|secondes",
    "ms": "ms|msec|millis|millisecond|milliseconds|millisekunden",
    "us": "us|\u00b5s|\u03bcs|usec|microsecond|microseconds|micros",
    "ns": "ns|nsec|nanosecond|nanoseconds|nanos",
    "min": "min|minute|minutes",
    "h": "h|hour|hours",
}
_DAY = 86400.0
_ALL_UNITS = UNITS | {"min": 60.0, "h": 3600.0, "d": _DAY}
_UNIX_TIME = 1e8  # s: smaller numbers count from anything
_SPREADSHEET_DAYS = (20_000.0, 80_000.0)
_SPREADSHEET_EPOCH = -25_569 * _DAY  # s: 30 December 1899, from which spreadsheets count days
_POLAR_EPOCH = 946_684_800.0  # s: 1 January 2000, from which Polar's sensors count
_COARSE = 0.05  # share of lines that have the time of the one before, from which on stamps are rounded
_MOST_GAPS = 1000
_CLOCK = (
    r"^\W*(?:(?P<d1>\d{1,4})[-/.](?P<d2>\d{1,2})[-/.](?P<d3>\d{1,4})[T ,;]+)?"
    r"(?:(?P<h>\d{1,4}):)?(?P<m>\d{1,2}):(?P<s>\d{1,2}(?:[.,]\d+|:\d{3})?)\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
    r"\s*(?P<zone>Z|[+-]\d{2}:?\d{2})?(?:\s+(?P<e1>\d{1,2})/(?P<e2>\d{1,2})/(?P<e3>\d{4}))?\W*$"
)
_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(?P<zone>Z|[+-]\d\d:?\d\d)?")


class BadTimes(ValueError):
    """Times that cannot be those of samples: what is wrong, and what to do."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True)
class Gap:
    """Time that is missing before a line, in seconds."""

    line: int
    seconds: float


@dataclass(frozen=True)
class Timing:
    """What the times of all lines say.

    Attributes:
        rate: samples a second.
        gaps: where samples are missing.
        start: unix time of the first line, if they say it.
        notes: what was assumed.
    """

    rate: float
    gaps: Sequence[Gap]
    start: float | None
    notes: Sequence[str]


def unit_of_times(text: str) -> str:
    """Return the unit that a text states: "s", "ms", "us", "ns", "min", "h"; empty if it is none of these."""
    plain = text.strip().strip("()[]").strip().lower()
    return next((unit for unit, words in _UNIT_WORDS.items() if re.fullmatch(words, plain)), "")


def is_time_text(cell: str) -> bool:
    """Return whether a cell is a clock time, with a date or without."""
    return re.match(_CLOCK, cell.strip()) is not None or _ISO.fullmatch(cell.strip()) is not None


@dataclass
class TextTimes:
    """Reader of the texts of a column of times, block after block.

    Attributes:
        origin: midnight from which seconds count, where the first text is ISO 8601.
        begin: unix time of 0 s; None where the texts do not say it.
        is_clock: whether times begin again at midnight, as their days are not read.
        notes: what the texts leave open.
    """

    origin: np.datetime64 | None = None
    begin: float | None = None
    is_clock: bool = False
    notes: tuple[str, ...] = ()

    def read(self, cells: pa.Array) -> NDArray[np.float64]:
        """Return times in seconds, NaN where a cell is none."""
        if self.origin is not None:
            plain = pc.replace_substring_regex(pc.replace_substring(cells, ",", "."), _ZONE, "")
            try:
                stamps = pc.cast(plain, pa.timestamp("ns")).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid:
                return np.full(len(cells), np.nan)
            since = (stamps - self.origin).astype("timedelta64[ns]")
            seconds: NDArray[np.float64] = since.astype(np.float64) * 1e-9
            seconds[np.isnat(stamps)] = np.nan
            return seconds
        return _clock_seconds(cells)

    def open(self, first: str) -> None:
        """Learn from the first text what the texts are."""
        if found := _ISO.fullmatch(first):
            try:
                self.origin = np.datetime64(first[:10], "D")
                self.begin = float(self.origin.astype("datetime64[s]").astype(np.int64)) - _offset(
                    found["zone"]
                )
                return
            except ValueError:  # a month 13
                self.origin = None
        self.is_clock = True
        if found := re.match(_CLOCK, first):
            day = _day(found.groupdict())
            self.begin = None if day is None else day.timestamp() - _offset(found["zone"])
            if day is None and found["d1"]:
                self.notes = ("the day of its first sample is not known: its dates can be read in two ways",)


def _clock_seconds(cells: pa.Array) -> NDArray[np.float64]:
    parts = pc.extract_regex(cells, _CLOCK)
    seconds = np.zeros(len(cells))
    for name, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        texts = pc.replace_substring_regex(pc.struct_field(parts, name), "[,:]", ".")
        numbers = pc.cast(pc.if_else(pc.equal(texts, ""), "0", texts), pa.float64())
        numbers = numbers.to_numpy(zero_copy_only=False)
        if name == "h" and any(halves := pc.struct_field(parts, "half").to_pylist()):
            numbers = numbers % 12 + 12 * np.array([(half or "")[:1].lower() == "p" for half in halves])
        seconds += numbers * size
    return seconds


def measure(
    blocks: Iterable[NDArray[np.float64]],
    unit: str = "",
    *,
    begin: float | None = None,
    is_text: bool = False,
    is_clock: bool = False,
) -> Timing:
    """Return what the times of all lines say.

    Args:
        blocks: times of all lines, some thousand at once.
        unit: of the numbers, where it is stated.
        begin: unix time of 0, if it is known.
        is_text: whether they were texts, which are in seconds.
        is_clock: whether times begin again at midnight.

    Raises:
        BadTimes: they do not increase, are uneven, or one is missing.
    """
    line = _TimeLine(is_clock=is_clock)
    for block in blocks:
        line.add(block)
    found = line.rate()
    unit, notes = ("s", []) if is_text else _unit_of(found, unit)
    return line.finish(_ALL_UNITS[unit], begin, notes)


def _unit_of(found: float, stated: str) -> tuple[str, list[str]]:
    """Return the unit of times of which so many lie in one unit of them, and what is to be said of that."""
    tried = {**UNITS, "d": _DAY}
    fitting = [unit for unit, size in tried.items() if RATES[0] <= found / size <= RATES[1]]
    if not stated:
        unit = fitting[0] if fitting else "s"
        rate = found / tried[unit]
        said = f"its times are taken as {UNIT_NAMES[unit]}, which makes {rate:.6g} samples a second"
        return unit, [] if unit == "s" else [said]
    rate = found / _ALL_UNITS[stated]
    if fitting and not RATES[0] <= rate <= RATES[1]:
        raise BadTimes(
            f"its times are in {stated} by its header, which makes {rate:g} samples a second",
            f"if they are {UNIT_NAMES[fitting[0]]}, write ({fitting[0]}) after the name of their column",
        )
    return stated, []


@dataclass
class _TimeLine:
    """Times that were met so far, in their own unit.

    Attributes:
        usual: the usual step from one stamp to the next; 0 before the first block.
        longest: steps above this are gaps.
        spread: how much usual steps differ.
        is_coarse: whether several lines have the same stamp, as stamps are rounded.
        changes: lines and time between the first new stamp and the last, without gaps.
    """

    is_clock: bool = False
    first: float = math.nan
    last: float = math.nan
    lines: int = 0
    usual: float = 0.0
    longest: float = math.inf
    spread: float = 0.0
    is_coarse: bool = False
    gaps: list[Gap] = field(default_factory=list)
    first_change: int = -1
    last_change: int = -1
    change_time: float = 0.0

    def add(self, times: NDArray[np.float64]) -> None:
        """Add the times of the lines that follow."""
        if not len(times):
            return
        if not np.isfinite(times).all():
            at = self.lines + int(np.argmin(np.isfinite(times)))
            raise BadTimes(f"line {{{at}}} has no time", "give each line its time, or leave the line out")
        if not self.lines:
            self.first = float(times[0])
        steps = np.diff(times, prepend=times[:1] if not self.lines else self.last)
        if self.is_clock and (steps < -_DAY / 2).any():
            steps = np.where(steps < -_DAY / 2, steps + _DAY, steps)
        if (steps < 0).any():
            at = self.lines + int(np.argmax(steps < 0))
            raise BadTimes(
                f"its times do not increase, as line {{{at}}} shows",
                "sort its lines by time, keep each sample once, and give each recording a file of its own",
            )
        if not self.usual:
            self._learn(steps[1:] if not self.lines else steps)
        new = np.flatnonzero(steps > 0)
        long = steps > self.longest
        for place in np.flatnonzero(long):
            self.gaps.append(Gap(self.lines + int(place), float(steps[place] - self.usual)))
        if len(self.gaps) > _MOST_GAPS and len(self.gaps) > self.lines / 50:
            lines = self.lines + len(times)
            raise BadTimes(
                f"its times are not even: {len(self.gaps)} of the first {lines} steps are long",
                "resample it to an even rate, for example with pandas: interpolate at even times",
            )
        if len(new):
            time = float(np.where(long, self.usual, steps)[new].sum())
            if self.first_change < 0:
                self.first_change = self.lines + int(new[0])
                time -= float(np.where(long, self.usual, steps)[new[0]])
            self.last_change = self.lines + int(new[-1])
            self.change_time += time
        self.last = float(times[-1])
        self.lines += len(times)

    def rate(self) -> float:
        """Return the samples in a unit of the times.

        Raises:
            BadTimes: the times do not increase.
        """
        if self.lines == 2 and self.last > self.first:
            self.first_change, self.last_change, self.change_time = 0, 1, self.last - self.first
        if not self.change_time > 0:
            raise BadTimes(
                f"its times do not increase: {self.first:.10g} at first, {self.last:.10g} at last",
                "sort its lines by time; every line has a time",
            )
        return (self.last_change - self.first_change) / self.change_time

    def finish(self, size: float, begin: float | None, notes: list[str]) -> Timing:
        """Return what all times say, whose unit is `size` seconds."""
        count = self.last_change - self.first_change
        error = max(self.spread / self.change_time, 1 / count if self.is_coarse else 0.0)
        rate = _even(self.rate() / size, error)
        gaps = [Gap(gap.line, gap.seconds * size) for gap in self.gaps if gap.seconds * size * rate >= 0.5]
        if gaps:
            lost = sum(gap.seconds for gap in gaps)
            where = "1 place" if len(gaps) == 1 else f"{len(gaps)} places"
            notes.append(f"samples are missing at {where}, {lost:.6g} s together")
        if begin is None and size == _DAY and _SPREADSHEET_DAYS[0] < self.first < _SPREADSHEET_DAYS[1]:
            begin = _SPREADSHEET_EPOCH
        start = self.first * size + (begin or 0.0)
        if begin is None and not start > _UNIX_TIME:
            return Timing(rate, gaps, None, notes)
        return Timing(rate, gaps, start, notes)

    def _learn(self, steps: NDArray[np.float64]) -> None:
        """Learn the usual step from the first block."""
        if not len(steps) or not (steps > 0).any():
            return
        new = steps[steps > 0]
        self.is_coarse = is_coarse = len(new) < (1 - _COARSE) * len(steps)
        ordinary = new[new <= 2 * np.median(new)]
        if not is_coarse and len(new) < len(steps):
            ordinary = np.concatenate([ordinary, np.zeros(len(steps) - len(new))])
        self.usual = float(ordinary.mean())
        low, high = np.quantile(ordinary, [0.01, 0.99])
        self.spread = float(high - low)
        if not is_coarse and len(ordinary) > 20 and self.spread > 1.5 * self.usual:
            raise BadTimes(
                f"its times are not even: steps of {low:.4g} to {high:.4g}",
                "resample it to an even rate, for example with pandas: interpolate at even times",
            )
        self.longest = 1.5 * self.usual + self.spread / 2


def polar_epoch(name: str) -> float | None:
    """Return the unix time from which a column of this name counts, if it is one of Polar's sensors."""
    return _POLAR_EPOCH if re.search(r"sensor.?timestamp", name, re.I) else None


def _even(rate: float, error: float) -> float:
    """Return the whole number that a rate is within its error; the rate if there is none."""
    whole = round(rate)
    return float(whole) if abs(rate - whole) <= rate * max(error, 1e-6) else rate


def _offset(zone: str | None) -> float:
    """Return the seconds that a zone such as +02:00 is ahead of UTC."""
    if not zone or zone == "Z":
        return 0.0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return (-60.0 if zone[0] == "-" else 60.0) * minutes


def _day(parts: Mapping[str, str | None]) -> datetime | None:
    """Return the midnight of the day that a text names; None if it names none, or may name two."""
    texts = [text for key in ("d1", "d2", "d3") if (text := parts.get(key))]
    is_rdsamp = not texts  # which writes day, month and year after the time
    if is_rdsamp:
        texts = [text for key in ("e1", "e2", "e3") if (text := parts.get(key))]
    if len(texts) != 3:
        return None
    first, second, third = map(int, texts)
    year, month, day = third, second, first
    if len(texts[0]) == 4:
        year, month, day = first, second, third
    elif len(texts[2]) != 4:
        return None
    elif second > 12:
        month, day = first, second
    elif not is_rdsamp and max(first, second) <= 12 and first != second:
        return None  # day and month, or month and day
    try:
        return datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
