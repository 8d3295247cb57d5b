"""Units of columns: as their names and headers state them, and as their values show them.

A name may end with its unit, as `II (uV)`, `ECG [mV]`, `V1_uV`, or with the gain of ADC counts, as `ECG
(200 adu/mV)` or `ECG (2.44 uV/LSB)`. Where nothing states a unit, the swing of the values does: within 2 s
an ECG swings by 0.1 to 15 mV.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.channels import Look, is_in_volts, look_of, numbers_a_millivolt

_COUNT = r"(?:adu|adc|counts?|lsb|digits?|units?|steps?|bits?)"
_VOLTS = r"(?P<volts>[nu\u00b5\u03bcm]?v)"
_NUMBER = r"(?P<number>\d+(?:[.,]\d+)?(?:e[+-]?\d+)?)"
_COUNTS_A_VOLT = re.compile(rf".*?{_NUMBER}\s*{_COUNT}?\s*(?:/|per|a)\s*{_VOLTS}\s*", re.I)
_VOLTS_A_COUNT = re.compile(rf".*?{_NUMBER}\s*{_VOLTS}\s*(?:/|per|a)\s*{_COUNT}\s*", re.I)
_COUNTS = re.compile(rf"({_COUNT}|adc.*|raw|a\.?u\.?|arb.*|unitless|int\d*)", re.I)
_WITH_UNIT = re.compile(
    r"(?P<name>.*?)\s*([(\[{]\s*(?P<unit>[^()\[\]{}]*?)\s*[)\]}]|[\s_/](?P<bare>(n|u|\u00b5|\u03bc|m)v|adu|adc|raw))",
    re.I,
)
_WINDOW = 2.0  # s
_MILLIVOLTS = (0.1, 15.0)  # swing of an ECG in a window
_FLAT = 1e-9


class Kind(Enum):
    """What the numbers of a column are."""

    VOLTS = "volts"
    COUNTS = "counts"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Unit:
    """The unit of a column.

    Attributes:
        kind: what its numbers are.
        gain: numbers a millivolt; None where it is not known.
        text: as the file has it; empty where it has none.
        baseline: number that stands for 0 mV.
    """

    kind: Kind = Kind.UNKNOWN
    gain: float | None = None
    text: str = ""
    baseline: float = 0.0


def parse_unit(text: str) -> Unit | None:
    """Return the unit that a text states; None if it is neither one of volts nor of ADC counts."""
    text = text.strip()
    if is_in_volts(text):
        return Unit(Kind.VOLTS, numbers_a_millivolt(1.0, text), text)
    if found := _VOLTS_A_COUNT.fullmatch(text):
        size = float(found["number"].replace(",", "."))
        millivolts = 1 / (numbers_a_millivolt(1.0, found["volts"]) or 1)
        return Unit(Kind.COUNTS, 1 / (size * millivolts), text) if size > 0 else None
    if found := _COUNTS_A_VOLT.fullmatch(text):
        counts = float(found["number"].replace(",", "."))
        return Unit(Kind.COUNTS, numbers_a_millivolt(counts, found["volts"]), text) if counts > 0 else None
    return Unit(Kind.COUNTS, None, text) if _COUNTS.fullmatch(text) else None


def split_unit(name: str) -> tuple[str, str]:
    """Return the name of a column without its unit, and the unit: "II (uV)" -> "II", "uV". What stands in
    brackets and is a lead's name is none."""
    found = _WITH_UNIT.fullmatch(name.strip())
    if found is None:
        return name.strip(), ""
    unit = found["unit"] or found["bare"] or ""
    if parse_unit(unit) is None and look_of(unit) is Look.ECG:
        return name.strip(), ""
    return found["name"], unit


def swing_of(values: NDArray[np.float64], rate: float) -> float:
    """Return how far values (samples,) swing within 2 s, the median of all windows; NaN if none is whole."""
    size = max(2, round(_WINDOW * rate))
    if len(values) < size:
        size = max(2, len(values))
    windows = values[: len(values) // size * size].reshape(-1, size)
    windows = windows[np.isfinite(windows).all(axis=1)]
    return float(np.median(np.ptp(windows, axis=1))) if len(windows) else float("nan")


def unit_of_swing(values: NDArray[np.float64], swing: float) -> str:
    """Return the unit of volts that values show by their swing; empty if they may be ADC counts, or anything.

    Values that do not swing, and those of a weak ECG, are taken for millivolts.
    """
    finite = values[np.isfinite(values)]
    if looks_like_counts(finite, swing):
        return ""
    least, most = _MILLIVOLTS
    if not swing > _FLAT or least / 5 <= swing <= most:
        return "mV"
    if least * 1e3 <= swing <= most * 1e3:
        return "uV"
    return "V" if least * 1e-3 <= swing <= most * 1e-3 else ""


def looks_like_counts(values: NDArray[np.float64], swing: float) -> bool:
    """Return whether values are the numbers of an AD converter: whole, none negative, far above 0."""
    if not len(values) or not swing >= 8:
        return False
    return bool((values == np.rint(values)).all() and values.min() >= 0 and np.median(values) > swing)


def contradiction(unit: Unit, swing: float) -> str:
    """Return in words why values that swing so far cannot be an ECG in the unit that is stated; empty if they
    can."""
    if unit.gain is None or not np.isfinite(swing) or swing / unit.gain <= 100:
        return ""
    return f"in {unit.text} by its header, but its values swing by {swing:.3g} within 2 s"
