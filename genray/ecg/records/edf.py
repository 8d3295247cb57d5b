"""Records in EDF, EDF+C, BDF and BDF+C (https://www.edfplus.info/specs/edf.html, edfplus.html).

Read here, not by pyedflib: that keeps at most 64 files open, each only once, and has no threads in mind.
What the header says of the patient is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import (
    MAX_CHANNELS,
    EcgRecord,
    Scale,
    check_channels,
    check_shape,
    is_ecg,
    lead_names,
    numbers_a_millivolt,
    to_units,
    unusable,
)

_FIXED, _PER_CHANNEL = 256, 256
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # of the fields of a channel
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")  # no signal
_FIRST_YEAR = 85  # a year of two digits is 1985 to 2084


@dataclass(frozen=True)
class _EdfSignal:
    name: str
    unit: str
    samples: int  # in each data record
    before: int  # samples of other channels before them
    scale: Scale | None  # None: no ECG


@dataclass(frozen=True)
class _DataRecords:
    """Where in the file the data records lie, one after the other."""

    offset: int  # bytes of the header before them
    samples: int  # of all channels, in each
    width: int  # bytes of a sample


@dataclass(frozen=True, kw_only=True, eq=False)
class EdfRecord(EcgRecord):
    """An EDF or BDF file. Where channels have different rates, the ECG leads of the highest are taken.

    Attributes:
        signals: the channels that are taken, in the order of `leads`.
        data: where their samples lie.
    """

    signals: Sequence[_EdfSignal]
    data: _DataRecords

    @classmethod
    def open(cls, path: Path) -> EdfRecord:
        """Read the header of `path`.

        Raises:
            DataError: the header is wrong, the file is shorter than it says, or discontinuous.
        """
        if not path.is_file():
            raise unusable(path, "there is no such file", "check its path")
        with path.open("rb") as file:
            head = file.read(_FIXED)
            is_bdf = head[:8] == b"\xffBIOSEMI"
            if len(head) < _FIXED or not (is_bdf or head[:8] == b"0       "):
                raise unusable(path, "it does not begin as an EDF or BDF file")
            if head[192:197] in (b"EDF+D", b"BDF+D"):
                hint = "convert it to EDF+C, or to one file a part"
                raise unusable(path, "it is discontinuous (EDF+D)", hint)
            count = _number(path, head[252:256])
            if not 0 < count <= MAX_CHANNELS:
                raise unusable(path, f"its header names {count:g} channels")
            fields = file.read(_PER_CHANNEL * int(count))
        if len(fields) < _PER_CHANNEL * count:
            raise unusable(path, "its header ends early")
        channels = _parse_channels(path, fields, int(count))
        _check_ecg(path, channels)
        samples = max(c.samples for c in channels if c.scale)
        signals = [c for c in channels if c.scale and c.samples == samples]
        data = _DataRecords(
            offset=_FIXED + _PER_CHANNEL * int(count),
            samples=sum(c.samples for c in channels),
            width=3 if is_bdf else 2,
        )
        seconds = _number(path, head[244:252])
        record = cls(
            path=path,
            leads=lead_names([signal.name for signal in signals]),
            gains=tuple(signal.scale.gain for signal in signals if signal.scale),
            rate=samples / seconds if seconds > 0 else 0.0,
            start=_unix_time(head[168:184]),
            samples=_count_data_records(path, _number(path, head[236:244]), data) * samples,
            signals=signals,
            data=data,
        )
        check_shape(path, len(record.leads), record.rate, record.samples)
        return record

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        data = self.data
        each = self.signals[0].samples
        stored = np.empty((stop - start, len(self.signals)), np.int64)
        with self.path.open("rb") as file:
            for number in range(start // each, -(-stop // each)):
                first, last = max(start, number * each), min(stop, (number + 1) * each)
                for lead, signal in enumerate(self.signals):
                    before = number * data.samples + signal.before + first - number * each
                    file.seek(data.offset + before * data.width)
                    raw = file.read((last - first) * data.width)
                    if len(raw) < (last - first) * data.width:
                        raise ValueError("the file ends early")
                    stored[first - start : last - start, lead] = _decode(raw, data.width)
        return to_units(stored, [signal.scale for signal in self.signals if signal.scale])


def _parse_channels(path: Path, fields: bytes, count: int) -> list[_EdfSignal]:
    columns: list[list[bytes]] = []
    at = 0
    for width in _WIDTHS:
        columns.append([fields[at + n * width : at + (n + 1) * width] for n in range(count)])
        at += width * count
    channels: list[_EdfSignal] = []
    before = 0
    for label, _, dimension, *limits, _, in_record, _ in zip(*columns, strict=True):
        name = label.decode("latin-1").strip()
        samples = int(_number(path, in_record))
        if samples < 0:
            raise unusable(path, f"channel {len(channels) + 1} has {samples} samples in a data record")
        unit = dimension.decode("latin-1").strip()
        scale = _scale(path, name, unit, limits)
        channels.append(_EdfSignal(name, unit, samples, before, scale if samples else None))
        before += samples
    return channels


def _check_ecg(path: Path, channels: Sequence[_EdfSignal]) -> None:
    """Raise a DataError unless one of the channels is an ECG."""
    signals = [c for c in channels if c.name not in _ANNOTATIONS]
    units = [c.unit if c.samples else f"{c.unit}, no samples" for c in signals]
    check_channels(path, [(c.name, u, c.scale is not None) for c, u in zip(signals, units, strict=True)])


def _scale(path: Path, name: str, unit: str, limits: list[bytes]) -> Scale | None:
    """The scale of a channel; None if it is no ECG."""
    if numbers_a_millivolt(1, unit) is None or not is_ecg(name):
        return None
    least, most, low, high = (_number(path, limit) for limit in limits)
    if least == most or low >= high:
        raise unusable(path, f"the limits of its channel {name!r} are no range")
    slope = (high - low) / (most - least)
    gain = numbers_a_millivolt(slope, unit)
    return None if gain is None else Scale.fitting(gain, low - least * slope, low, high)


def _count_data_records(path: Path, declared: float, data: _DataRecords) -> int:
    """The data records that the header of `path` declares, or that the file holds where the header says -1:
    it was still being written then."""
    size = data.samples * data.width
    held = (path.stat().st_size - data.offset) // size if size else 0
    if declared > held:
        hint = "it was not copied as a whole: fetch it again"
        problem = f"its header says {declared:.0f} data records, and it holds {max(held, 0)}"
        raise unusable(path, problem, hint)
    return int(declared) if declared >= 0 else held


def _number(path: Path, text: bytes) -> float:
    try:
        return float(text.decode("ascii").strip())
    except ValueError:
        raise unusable(path, f"its header has {text!r} for a number") from None


def _decode(raw: bytes, width: int) -> NDArray[np.int64]:
    if width == 2:
        return np.frombuffer(raw, "<i2").astype(np.int64)
    wide = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int64)
    together = wide[:, 0] | wide[:, 1] << 8 | wide[:, 2] << 16
    return together - ((together & 0x800000) << 1)


def _unix_time(text: bytes) -> float | None:
    try:
        day, month, year = (int(part) for part in text[:8].split(b"."))
        hour, minute, second = (int(part) for part in text[8:].split(b"."))
        century = 1900 if year >= _FIRST_YEAR else 2000
        return datetime(century + year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:  # the date was taken out
        return None
