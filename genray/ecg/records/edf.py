"""Records in EDF, EDF+C, EDF+D, BDF, BDF+C and BDF+D: https://www.edfplus.info/specs/edf.html, edfplus.html.

Read here, not by a library: pyedflib 0.1.42 refuses a file that is discontinuous, one that was cut off, and
one whose unit is µV; edfio 0.4.18 puts the data records of a discontinuous file side by side, without their
gaps, and cannot decode the unit µV. What the header says of the patient is never looked at.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import (
    MAX_CHANNELS,
    MISSING,
    EcgRecord,
    EndsEarly,
    Scale,
    check_channels,
    check_shape,
    common_gain,
    is_ecg,
    is_in_volts,
    lead_names,
    no_ecg_note,
    numbers_a_millivolt,
    other_rates_note,
    unusable,
    watched_rate,
)

_FIXED, _PER_CHANNEL = 256, 256
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # of the fields of a channel
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")  # no signal
_FIRST_YEAR = 85  # a year of two digits is 1985 to 2084
_ONSET = re.compile(rb"([+-]\d{1,12}(?:\.\d{0,12})?)[\x14\x15]")  # seconds, at the beginning of a data record
_LONGEST_ONSET = 32  # bytes
_OVERLAP = 0.01  # of a data record may lie within the one before it, as clocks are not exact


@dataclass(frozen=True)
class _EdfSignal:
    name: str
    unit: str
    samples: int  # in each data record
    before: int  # samples of other channels before them
    scale: Scale | None  # None: no ECG


@dataclass(frozen=True)
class _DataRecords:
    """Where in the file the data records lie, one after the other.

    Attributes:
        offset: bytes of the header before them.
        samples: of all channels, in each.
        width: bytes of a sample.
        size: bytes of the file.
        count: data records, the last of which may be cut off.
    """

    offset: int
    samples: int
    width: int
    size: int
    count: int

    @property
    def whole(self) -> int:
        """The data records that are whole."""
        return min(self.count, (self.size - self.offset) // (self.samples * self.width))

    def byte(self, number: int, sample: int) -> int:
        """Where in the file a sample of data record `number` lies."""
        return self.offset + (number * self.samples + sample) * self.width

    def held(self, number: int, signal: _EdfSignal) -> int:
        """Samples of `signal` that data record `number` holds: all, unless the file was cut off there."""
        there = (self.size - self.byte(number, signal.before)) // self.width
        return min(max(there, 0), signal.samples)


@dataclass(frozen=True, kw_only=True, eq=False)
class EdfRecord(EcgRecord):
    """An EDF or BDF file. Where channels have different rates, the ECG leads of one rate are taken.

    Attributes:
        signals: the channels that are taken, in the order of `leads`.
        data: where their samples lie.
        begins: the sample with which each data record begins; None where they follow on each other.
    """

    signals: Sequence[_EdfSignal]
    data: _DataRecords
    begins: Sequence[int] | None = None

    @classmethod
    def open(cls, path: Path) -> EdfRecord:
        """Read the header of `path`, and of a discontinuous file the times of its data records.

        Raises:
            DataError: the header or one of these times is wrong.
        """
        if not path.is_file():
            raise unusable(path, "there is no such file", "check its path")
        with path.open("rb") as file:
            head = file.read(_FIXED)
            is_bdf = head[:8] == b"\xffBIOSEMI"
            if len(head) < _FIXED or not (is_bdf or head[:8] == b"0       "):
                raise unusable(path, "it does not begin as an EDF or BDF file")
            channel_count = _number(path, head[252:256])
            if not 0 < channel_count <= MAX_CHANNELS:
                raise unusable(path, f"its header names {channel_count:g} channels")
            fields = file.read(_PER_CHANNEL * int(channel_count))
        if len(fields) < _PER_CHANNEL * channel_count:
            raise unusable(path, "its header ends early")
        channels = _parse_channels(path, fields, int(channel_count))
        _check_ecg(path, channels)
        leads = [c for c in channels if c.scale]
        each = watched_rate([(c.name, c.samples) for c in leads])
        signals = [c for c in leads if c.samples == each]
        seconds = _number(path, head[244:252])
        rate = each / seconds if seconds > 0 else 0.0
        data = _DataRecords(
            offset=_FIXED + len(fields),
            samples=sum(c.samples for c in channels),
            width=3 if is_bdf else 2,
            size=path.stat().st_size,
            count=0,
        )
        data, notes = _count_data_records(path, _number(path, head[236:244]), data)
        if others := [f"{c.name} ({c.samples / seconds:g} Hz)" for c in leads if c.samples != each and rate]:
            notes.append(other_rates_note(others))
        if passed := [c.name for c in channels if c.samples and not c.scale and is_in_volts(c.unit)]:
            notes.append(no_ecg_note(passed))
        begins, first = None, 0.0
        if head[192:197] in (b"EDF+D", b"BDF+D") and data.whole and rate:
            onsets = _read_onsets(path, data, channels)
            begins, first = _begins(path, onsets, rate, each), onsets[0]
        start = _unix_time(head[168:184])
        record = cls(
            path=path,
            leads=lead_names([signal.name for signal in signals]),
            gains=tuple(common_gain([signal.scale]) for signal in signals if signal.scale),
            rate=rate,
            start=None if start is None else start + first,
            samples=_count_samples(data, signals) if begins is None else begins[-1] + each,
            notes=tuple(notes),
            signals=signals,
            data=data,
            begins=begins,
        )
        check_shape(path, len(record.leads), record.rate, record.samples)
        return record

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        each = self.signals[0].samples
        units = np.full((stop - start, len(self.signals)), MISSING, np.int16)
        first = start // each if self.begins is None else max(0, bisect_right(self.begins, start) - 1)
        count = self.data.count if self.begins is None else len(self.begins)
        with self.path.open("rb") as file:
            for number in range(first, count):
                begin = number * each if self.begins is None else self.begins[number]
                if begin >= stop:
                    break
                low, high = max(start, begin), min(stop, begin + each)
                if low < high:
                    within = units[low - start : high - start]
                    self._read_data_record(file, number, low - begin, high - begin, within)
        return units

    def _read_data_record(
        self, file: BinaryIO, number: int, first: int, last: int, units: NDArray[np.int16]
    ) -> None:
        """Read the samples `first` to `last` of a data record into `units`, (samples, leads)."""
        for lead, signal in enumerate(self.signals):
            count = min(last, self.data.held(number, signal)) - first
            if count <= 0 or signal.scale is None:
                continue
            file.seek(self.data.byte(number, signal.before + first))
            raw = file.read(count * self.data.width)
            if len(raw) < count * self.data.width:
                raise EndsEarly("the file ends early")
            units[:count, lead] = signal.scale.to_units(_decode(raw, self.data.width), self.gains[lead])


def _parse_channels(path: Path, fields: bytes, count: int) -> list[_EdfSignal]:
    columns: list[list[bytes]] = []
    at = 0
    for width in _WIDTHS:
        columns.append([fields[at + n * width : at + (n + 1) * width] for n in range(count)])
        at += width * count
    channels: list[_EdfSignal] = []
    before = 0
    for label, _, dimension, *limits, _, in_record, _ in zip(*columns, strict=True):
        name = _text(label)
        samples = int(_number(path, in_record))
        if samples < 0:
            raise unusable(path, f"channel {len(channels) + 1} has {samples} samples in a data record")
        unit = _text(dimension)
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
    if gain is None:
        return None
    scale = Scale(gain, low - least * slope, low, high)
    if scale.fault:
        raise unusable(path, scale.fault)
    return scale


def _count_data_records(path: Path, declared: float, data: _DataRecords) -> tuple[_DataRecords, list[str]]:
    """`data` with the data records that the file holds, of those that its header declares, and what is to be
    said of that. A header declares -1 while the file is being written."""
    if not math.isfinite(declared):
        raise unusable(path, f"its header says {declared:g} data records")
    held = max(0, -((data.offset - data.size) // (data.samples * data.width)))
    data = replace(data, count=held if declared < 0 else min(held, int(declared)))
    if declared < 0:
        return data, ["its header does not say its length, as if it was still being written"]
    if data.whole < declared:
        part = " and a part of one" if data.count > data.whole else ""
        return data, [
            f"cut off: its header says {declared:.0f} data records, and it holds {data.whole}{part}"
        ]
    return data, []


def _count_samples(data: _DataRecords, signals: Sequence[_EdfSignal]) -> int:
    """The samples of data records that follow on each other."""
    if not data.count:
        return 0
    return (data.count - 1) * signals[0].samples + max(data.held(data.count - 1, s) for s in signals)


def _read_onsets(path: Path, data: _DataRecords, channels: Sequence[_EdfSignal]) -> list[float]:
    """When each data record that is whole begins, in seconds: the first annotation of each says it."""
    times = next((c for c in channels if c.name in _ANNOTATIONS and c.samples), None)
    if times is None:
        raise unusable(path, "it is discontinuous (EDF+D), and has no annotations that say its times")
    onsets: list[float] = []
    with path.open("rb") as file:
        for number in range(data.whole):
            file.seek(data.byte(number, times.before))
            onset = _ONSET.match(file.read(min(times.samples * data.width, _LONGEST_ONSET)))
            if onset is None:
                raise unusable(
                    path, f"it is discontinuous (EDF+D), and its data record {number + 1} says no time"
                )
            onsets.append(float(onset[1]))
    return onsets


def _begins(path: Path, onsets: Sequence[float], rate: float, each: int) -> list[int]:
    """The sample with which each data record of `each` samples begins."""
    begins = [0]
    for number, onset in enumerate(onsets[1:], 2):
        begin = round((onset - onsets[0]) * rate)
        end = begins[-1] + each
        if begin < begins[-1] + each * (1 - _OVERLAP) - 1:
            problem = f"its data record {number} begins before the one before it ends"
            raise unusable(path, f"it is discontinuous (EDF+D), and {problem}: at {onset:g} s")
        begins.append(end if abs(begin - end) <= 1 else begin)  # times are rounded: that is no gap
    return begins


def _text(field: bytes) -> str:
    try:
        return field.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return field.decode("latin-1").strip(" \0")


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
