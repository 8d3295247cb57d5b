"""Recorded ECG: WFDB, EDF, BDF and CSV, read stretch by stretch, so that a day of it is never in memory.

    WFDB  .hea .dat .atr  formats 16, 24, 32, 61, 80, 160, 212; not 8, 310, 311, FLAC, several segments
    EDF   .edf .bdf       EDF, EDF+C, BDF, BDF+C; not the discontinuous EDF+D
    CSV   .csv            as `genray/ecg/records/csv.py` says

`open_record` in `open.py` opens any of them. Channels that are no ECG (other units than volts, names such as
RESP or ABP) are left out.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.errors import DataError
from genray.text import printable

MISSING = -32768
"""Stands in 16 bits for a sample that is missing."""

MAX_LEADS = 16
MAX_CHANNELS = 512
RATES = (50.0, 4000.0)
_MOST_LISTED = 10  # channels that are named when none is an ECG
_FINEST = 200.0  # units a millivolt that are kept at least, as in the MIT-BIH database
_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
_NO_ECG = re.compile(
    r"\b(resp|abp|art|cvp|pap|icp|bp|pleth|ppg|spo2|sao2|co2|eeg|emg|eog|temp|status|accel?|acc|event)", re.I
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


@dataclass(frozen=True)
class Scale:
    """How the stored numbers of a channel become units: `(stored - baseline) * factor`.

    Attributes:
        gain: units a millivolt.
        factor: below 0 where the file says that the channel is stored upside down.
        missing: the stored number that says that there is no sample.
    """

    gain: float
    baseline: float
    factor: float = 1.0
    missing: int | None = None

    @classmethod
    def fitting(
        cls, gain: float, baseline: float, low: float, high: float, missing: int | None = None
    ) -> Scale:
        """The scale of a channel that stores `low` to `high` with `gain` numbers a millivolt.

        It is coarser than the file's where 16 bits do not hold all, yet not coarser than 5 uV: what is
        beyond 163 mV then saturates.

        Raises:
            ValueError: a gain or baseline that cannot be.
        """
        size = abs(gain)
        if not (1e-6 < size < 1e9 and abs(baseline) < 1e12):
            raise ValueError(f"a channel has {gain:g} units a millivolt and the baseline {baseline:g}")
        reach = max(abs(low - baseline), abs(high - baseline), 1)
        kept = min(size, max(size * -(MISSING + 1) / reach, _FINEST))
        return cls(kept, baseline, kept / gain, missing)


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
    """

    path: Path
    rate: float
    leads: tuple[str, ...]
    samples: int
    gains: tuple[float, ...]
    start: float | None = None

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
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot read samples {start} to {stop} of {self.name}: {error}",
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

    @abstractmethod
    def _read(self, start: int, stop: int) -> NDArray[np.int16]: ...


def numbers_a_millivolt(numbers_a_unit: float, unit: str) -> float | None:
    """The gain of a channel; None if its unit is not of volts, so that it cannot be an ECG."""
    volts = _MILLIVOLTS.get(unit.strip().replace("\u00b5", "u").replace("\u03bc", "u").lower())
    return None if volts is None else numbers_a_unit / volts


def is_ecg(name: str) -> bool:
    """Whether a channel in volts may be an ECG by its name."""
    return not _NO_ECG.search(name)


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
    listed = ", ".join(f"{name} ({unit.strip() or 'no unit'})" for name, unit, _ in channels[:_MOST_LISTED])
    listed = printable(listed) or "it has none"
    if len(channels) > _MOST_LISTED:
        listed += f" and {len(channels) - _MOST_LISTED} more"
    hint = "give a record of an ECG in V, mV or uV; names such as Resp or ABP are not taken for one"
    without_unit = [name for name, unit, _ in channels if not unit.strip() and is_ecg(name)]
    if without_unit:
        hint = f"if {without_unit[0]} is an ECG, write its unit into the header: V, mV or uV"
    raise DataError(
        f"cannot use the record {path.name}: no channel is an ECG: {listed}", where=str(path), hint=hint
    )


def check_shape(path: Path, leads: int, rate: float, samples: int) -> None:
    """Raise a DataError unless a record of so many leads, samples a second and samples makes sense."""
    if samples <= 0:
        problem = "it holds no samples"
    elif not RATES[0] <= rate <= RATES[1]:
        problem = f"it has {rate:g} samples a second, not {RATES[0]:g} to {RATES[1]:g}"
    elif leads > MAX_LEADS:
        problem = f"it has {leads} leads; {MAX_LEADS} are read at most"
    else:
        return
    raise DataError(
        f"cannot use the record {path.name}: {problem}",
        where=str(path),
        hint="leave the file out, or mend it",
    )


def to_units(stored: NDArray[np.integer], scales: Sequence[Scale]) -> NDArray[np.int16]:
    """Stored numbers (samples, leads) as units."""
    baseline = np.array([scale.baseline for scale in scales])
    factor = np.array([scale.factor for scale in scales])
    scaled = np.clip(np.rint((stored - baseline) * factor), MISSING + 1, -MISSING - 1)
    units: NDArray[np.int16] = scaled.astype(np.int16)
    for lead, scale in enumerate(scales):
        if scale.missing is not None:
            units[stored[:, lead] == scale.missing, lead] = MISSING
    return units
