"""Recorded ECG: WFDB, EDF, BDF and CSV, read stretch by stretch, so that a day of it is never in memory.

    WFDB  .hea .dat .atr  one segment or several; formats 8, 16, 24, 32, 61, 80, 160, 212, 310, 311, FLAC
    EDF   .edf .bdf       EDF, EDF+C, EDF+D, BDF, BDF+C, BDF+D
    CSV   .csv            as `genray/ecg/records/csv.py` says

`open_record` in `open.py` opens any of them. Every record is one line of time at one rate: where nothing was
recorded, or a file was cut off, its samples are MISSING. Channels that are no ECG (other units than volts,
names such as RESP or ABP) are left out.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.errors import DataError
from genray.text import printable

MISSING = -32768
"""Stands in 16 bits for a sample that is missing."""

MAX_LEADS = 16
MAX_CHANNELS = 512
MAX_DAYS = 366
RATES = (50.0, 4000.0)
_MOST_LISTED = 10  # channels that are named when none is an ECG
_LONGEST_DETAIL = 200  # characters of what a library says of a damaged file
_FINEST = 200.0  # units a millivolt that are kept at least, as in the MIT-BIH database
_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
_NO_ECG = re.compile(
    r"\b(resp|abp|art|cvp|pap|icp|n?i?bp|pleth|ppg|spo2|sao2|co2|eeg|emg|eog|temp|status|accel?|acc|event"
    r"|(hr|heart.?rate|pulse|pr|bpm|marker|trigger|loc|roc|chin|leg)\b)",
    re.I,
)
_EEG = re.compile(  # electrodes of the 10-20 system or beside the eyes against others: C3-M2, Fp1-F7, E1-A2
    r"\s*(fp|af|fc|ft|cp|tp|po|[fctpo])(z|\d\d?)\s*[-:]\s*(ref|avg?|fp|af|fc|ft|cp|tp|po|[amfctpo])(z|\d)?\s*|"
    r"\s*(e[12]|[lr]oc)\s*[-:]\s*[am]\d\s*",
    re.I,
)
_NAMED_ECG = re.compile(
    r".*(ecg|ekg).*|(lead|ableitung|mod\.?)?[ _-]?"
    r"(i{1,3}|v[1-9]?r?|m?av[rlf]|ml?i{1,3}|mv[1-9]|mcl\d|cm\d|d(i{1,3}|[123])|es|as|ai)",
    re.I,
)


@dataclass(frozen=True)
class Annotations:
    """The annotated beats of a record.

    Attributes:
        peaks: sample of each beat, (beats,), increasing.
        symbols: of each beat, a code of PhysioNet's: N is normal, V ventricular, A and S supraventricular.
    """

    peaks: NDArray[np.int64]
    symbols: list[str]


class RhythmMark(NamedTuple):
    """Annotated change of the rhythm: the sample at which it begins, and its name (N, VT, VFL, AFIB)."""

    sample: int
    name: str


class BedsideAlarm(NamedTuple):
    """Alarm of a bedside monitor at 300 s of a record (PhysioNet/CinC Challenge 2015).

    Attributes:
        kind: its kind, as genray calls it.
        confirmed: whether experts confirmed it.
    """

    kind: str
    confirmed: bool


BEDSIDE_ALARM_AT = 300.0
"""Seconds at which the bedside alarm of a record of the challenge was raised."""


@dataclass(frozen=True)
class Scale:
    """How the stored numbers of a channel become millivolts: `(stored - baseline) / gain`.

    Attributes:
        gain: stored numbers a millivolt; below 0 where the channel is stored upside down.
        baseline: number that stands for 0 mV.
        low: least number that can be stored.
        high: greatest number that can be stored.
        missing: number that says that there is no sample.
    """

    gain: float
    baseline: float
    low: float
    high: float
    missing: int | None = None

    @property
    def fault(self) -> str:
        """Why it cannot be; empty if it can."""
        if 1e-6 < abs(self.gain) < 1e9 and abs(self.baseline) < 1e12:
            return ""
        return f"a channel has {self.gain:g} units a millivolt and the baseline {self.baseline:g}"

    @property
    def gain_of_all(self) -> float:
        """Units a millivolt at which 16 bits hold every number that can be stored."""
        reach = max(abs(self.low - self.baseline), abs(self.high - self.baseline), 1)
        return abs(self.gain) * -(MISSING + 1) / reach

    def to_units(self, stored: NDArray[np.integer], gain: float) -> NDArray[np.int16]:
        """Stored numbers (samples,) as `gain` units a millivolt."""
        scaled = np.rint((stored - self.baseline) * (gain / self.gain))
        units: NDArray[np.int16] = np.clip(scaled, MISSING + 1, -MISSING - 1).astype(np.int16)
        if self.missing is not None:
            units[stored == self.missing] = MISSING
        return units


def common_gain(scales: Sequence[Scale]) -> float:
    """The units a millivolt in which a lead is read that is stored by one of `scales` here, another there.

    It is coarser than the file's where 16 bits do not hold all, yet not coarser than 5 uV: what is beyond
    163 mV then saturates.
    """
    finest = max(abs(scale.gain) for scale in scales)
    return min(finest, max(min(scale.gain_of_all for scale in scales), _FINEST))


@dataclass(frozen=True, kw_only=True, eq=False)
class EcgRecord(ABC):
    """One recording, of which header and layout are known; samples are read when they are asked for. Any
    number of threads may read it, and it pickles.

    Attributes:
        path: the file that was opened.
        rate: samples a second.
        leads: their names as in the file, printable, of at most 16 characters, none twice.
        samples: of each lead.
        gains: units a millivolt of each lead.
        start: unix time of the first sample, if the file says it (files know no time zone: taken as UTC).
        notes: what was left out, is missing, or was assumed, each in a few words.
    """

    path: Path
    rate: float
    leads: tuple[str, ...]
    samples: int
    gains: tuple[float, ...]
    start: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the record is called: the stem of its file."""
        return self.path.stem

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """The samples from `start` up to `stop`, cut at the end of the record.

        Returns:
            (samples, leads): MISSING where there is none, else millivolts times the lead's gain.

        Raises:
            DataError: the file cannot be read any more.
        """
        start = min(max(start, 0), self.samples)
        stop = min(stop, self.samples)
        if stop <= start:
            return np.empty((0, len(self.leads)), np.int16)
        try:
            return self._read(start, stop)
        except DataError:
            raise
        except Exception as error:  # whatever a library makes of a damaged file
            raise DataError(
                f"cannot read samples {start} to {stop} of {self.name}: {reason_of(error)}",
                where=str(self.path),
                hint="mend the file or leave it out; if it was being written, open it again",
            ) from error

    def millivolts(self, start: int, stop: int) -> NDArray[np.float32]:
        """As `read`, in millivolts, NaN where a sample is missing."""
        units = self.read(start, stop)
        volts = units / np.asarray(self.gains, np.float32)
        return np.where(units == MISSING, np.float32(np.nan), volts).astype(np.float32, copy=False)

    def annotations(self) -> Annotations | None:
        """The annotated beats, None if the record has none; a DataError if they are broken."""
        return None

    def rhythms(self) -> list[RhythmMark]:
        """Return the annotated changes of the rhythm, by time; empty if the record has none.

        Raises:
            DataError: they are broken.
        """
        return []

    def bedside_alarm(self) -> BedsideAlarm | None:
        """Return the bedside alarm that the record was cut around, if it says one."""
        return None

    @abstractmethod
    def _read(self, start: int, stop: int) -> NDArray[np.int16]: ...


def numbers_a_millivolt(numbers_a_unit: float, unit: str) -> float | None:
    """The gain of a channel; None if its unit is not of volts, so that it cannot be an ECG."""
    volts = _MILLIVOLTS.get(unit.strip().replace("\u00b5", "u").replace("\u03bc", "u").lower())
    return None if volts is None else numbers_a_unit / volts


def is_in_volts(unit: str) -> bool:
    """Whether `unit` is one of volts."""
    return numbers_a_millivolt(1, unit) is not None


def is_ecg(name: str) -> bool:
    """Whether a channel in volts may be an ECG by its name."""
    return not (_NO_ECG.search(name) or _EEG.fullmatch(name))


def is_named_ecg(name: str) -> bool:
    """Whether a channel has the name of an ECG lead: II, aVR, V1, MLII, ECG 2."""
    return is_ecg(name) and _NAMED_ECG.fullmatch(name.strip()) is not None


def watched_rate(rates: Sequence[tuple[str, int]]) -> int:
    """The rate at which a record is read, of its channels by name: the highest of those that have the name of
    an ECG lead, else of all."""
    return max((rate for name, rate in rates if is_named_ecg(name)), default=max(rate for _, rate in rates))


def no_ecg_note(names: Sequence[str]) -> str:
    """What is said of channels that may be in volts, and are no ECG by their names."""
    return f"left out, no ECG by their names: {_listed(names)}"


def other_rates_note(left_out: Sequence[str]) -> str:
    """What is said of channels that have another rate than those that are read."""
    return f"left out, of another rate than the leads that are read: {_listed(left_out)}"


def lead_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are printable, short, and none of them twice."""
    leads: list[str] = []
    for number, name in enumerate(names, 1):
        lead = "".join(c for c in name if c.isascii() and c.isprintable()).strip()[:16] or f"ECG{number}"
        while lead in leads:
            lead = f"{lead[:12]}-{number}"[:16]
        leads.append(lead)
    return tuple(leads)


def unusable(path: Path, problem: str, hint: str = "leave it out, or mend it") -> DataError:
    """The error of a record that `problem` keeps from being used."""
    return DataError(f"cannot use the record {path.stem}: {problem}", where=str(path), hint=hint)


def check_channels(path: Path, channels: Sequence[tuple[str, str, bool]]) -> None:
    """Raise a DataError unless one of the channels, each with its unit and whether it is taken, is an ECG."""
    if any(taken for _, _, taken in channels):
        return
    listed = _listed([f"{name} ({unit.strip() or 'no unit'})" for name, unit, _ in channels]) or "it has none"
    hint = "give a record of an ECG in V, mV or uV; names such as Resp or ABP are not taken for one"
    without_unit = [name for name, unit, _ in channels if not unit.strip() and is_ecg(name)]
    if without_unit:
        hint = f"if {without_unit[0]} is an ECG, write its unit into the header: V, mV or uV"
    raise DataError(
        f"cannot use the record {path.name}: no channel is an ECG: {listed}", where=str(path), hint=hint
    )


def reason_of(error: Exception) -> str:
    """What an exception that was not raised by a reader itself says of a file: our words, then its own."""
    if isinstance(error, EndsEarly):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    detail = printable(str(error))[:_LONGEST_DETAIL]
    return f"it is damaged, or not of its format ({type(error).__name__}: {detail})"


class EndsEarly(ValueError):
    """A file that has become shorter than it was when it was opened."""


def check_shape(path: Path, leads: int, rate: float, samples: int) -> None:
    """Raise a DataError unless a record of so many leads, samples a second and samples makes sense."""
    if samples <= 0:
        problem = "it holds no samples"
    elif not RATES[0] <= rate <= RATES[1]:
        problem = f"it has {rate:g} samples a second, not {RATES[0]:g} to {RATES[1]:g}"
    elif leads > MAX_LEADS:
        problem = f"it has {leads} leads; {MAX_LEADS} are read at most"
    elif samples / rate > MAX_DAYS * 86400:
        problem = f"it would last {samples / rate / 86400:.0f} days; {MAX_DAYS} are read at most"
    else:
        return
    raise DataError(
        f"cannot use the record {path.name}: {problem}",
        where=str(path),
        hint="leave the file out, or mend it",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return printable(", ".join(names[:_MOST_LISTED])) + more
