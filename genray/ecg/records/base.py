"""Recorded ECG: WFDB, EDF, BDF, CSV and DICOM, read stretch by stretch: a day of it is never in memory.

    WFDB  .hea .dat .atr  one segment or several; formats 8, 16, 24, 32, 61, 80, 160, 212, 310, 311, FLAC
    EDF   .edf .bdf       EDF, EDF+C, EDF+D, BDF, BDF+C, BDF+D
    CSV   .csv .tsv .txt  as `genray/ecg/records/csv.py` says
    DICOM .dcm            waveforms, as `genray/ecg/records/dicom.py` says

`open_record` in `open.py` opens any of them; `channels.py` says which channels are read. Every record is one
line of time at one rate: where nothing was recorded, or a file was cut off, its samples are MISSING; leads of
lower rates are resampled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.channels import MAX_LEADS, RATES, LeadKind
from genray.errors import DataError
from genray.text import printable

MISSING = -32768
"""Stands in 16 bits for a sample that is missing."""

MAX_CHANNELS = 512
MAX_DAYS = 366
_LONGEST_DETAIL = 200  # characters of what a library says of a damaged file
_TOOLS = {
    ".edf": "check it with EDFbrowser (Tools, Check EDF/BDF compatibility), correct its header there (Tools, "
    "Header editor), or export it again",
    ".hea": "check it with wfdbdesc and rdsamp of the WFDB software, and copy the record again with all "
    "its files",
    ".csv": "open it in a text editor or a spreadsheet, and compare it with: time,II,V1 and a line for each "
    "sample, in seconds and millivolts",
    ".dcm": "check it with dcmdump (DCMTK) or dciodvfy (dicom3tools), or export it again",
    "": "export it again as EDF, WFDB, DICOM or CSV, or leave it out",
}
_TOOLS |= {".bdf": _TOOLS[".edf"], ".rec": _TOOLS[".edf"], ".txt": _TOOLS[".csv"], ".tsv": _TOOLS[".csv"]}
_TOOLS |= {".dat": _TOOLS[".hea"], ".atr": _TOOLS[".hea"], ".dicom": _TOOLS[".dcm"]}
_FINEST = 200.0  # units a millivolt that are kept at least, as in the MIT-BIH database


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
        gains: units a millivolt of each lead; of a pulse wave, units a unit of its own.
        kinds: what each lead shows; empty: all an ECG.
        start: unix time of the first sample, if the file says it (files know no time zone: taken as UTC).
        notes: what was left out, is missing, or was assumed, each in a few words.
    """

    path: Path
    rate: float
    leads: tuple[str, ...]
    samples: int
    gains: tuple[float, ...]
    kinds: tuple[LeadKind, ...] = ()
    start: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the record is called: the stem of its file."""
        return self.path.stem

    @property
    def ecg_columns(self) -> list[int]:
        """Places of the leads that are an ECG."""
        kinds = self.kinds or (LeadKind.ECG,) * len(self.leads)
        return [place for place, kind in enumerate(kinds) if kind is LeadKind.ECG]

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
                hint=f"if it was being written, open it again; else {tool_hint(self.path)}",
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


def unusable(path: Path, problem: str, hint: str = "") -> DataError:
    """The error of a record that `problem` keeps from being used.

    Args:
        hint: what to do next; empty: with which tool its format is checked.
    """
    what = f"cannot use the record {path.stem}: {problem}"
    return DataError(what, where=str(path), hint=hint or tool_hint(path))


def tool_hint(path: Path) -> str:
    """With which tool a file of this name is checked and mended."""
    return _TOOLS.get(path.suffix.lower(), _TOOLS[""])


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
    hint = ""
    if samples <= 0:
        problem = "it holds no samples"
    elif not RATES[0] <= rate <= RATES[1]:
        problem = f"it has {rate:g} samples a second, not {RATES[0]:g} to {RATES[1]:g}"
        hint = "correct the rate in its header, or resample it with xform of the WFDB software or EDFbrowser"
    elif leads > MAX_LEADS:
        problem = f"it has {leads} leads; {MAX_LEADS} are read at most"
        hint = "choose some with source.leads"
    elif samples / rate > MAX_DAYS * 86400:
        problem = f"it would last {samples / rate / 86400:.0f} days; {MAX_DAYS} are read at most"
        hint = "correct its times, or cut it with EDFbrowser or rdsamp -f -t of the WFDB software"
    else:
        return
    raise unusable(path, problem, hint)
