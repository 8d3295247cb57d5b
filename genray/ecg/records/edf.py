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
    check_shape,
    common_gain,
    unusable,
)
from genray.ecg.records.channels import (
    Channel,
    LeadKind,
    choose_channels,
    is_in_volts,
    lead_names,
    numbers_a_millivolt,
    resampled_note,
)
from genray.ecg.records.resampling import Upsampling
from genray.errors import DataError

EDF, BDF = b"0       ", b"\xffBIOSEMI"
"""The first bytes of a file."""

_FIXED, _PER_CHANNEL = 256, 256
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # of the fields of a channel
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")  # no signal
_FIRST_YEAR = 85  # a year of two digits is 1985 to 2084
_ONSET = re.compile(rb"([+-]\d{1,12}(?:\.\d{0,12})?)[\x14\x15]")  # seconds, at the beginning of a data record
_LONGEST_ONSET = 32  # bytes
_MOST_ONSETS = 4_000_000  # data records of a discontinuous file, whose times are read one by one
_MOST_SAMPLES = 1 << 24  # of a channel in a data record: the header has eight digits
_OVERLAP = 0.01  # of a data record may lie within the one before it, as clocks are not exact


@dataclass(frozen=True)
class _Field:
    """What the header says of a channel: its name, unit, four limits, samples in each data record, and the
    samples of other channels before them."""

    name: str
    unit: str
    limits: Sequence[bytes]
    samples: int
    before: int


@dataclass(frozen=True)
class _EdfSignal:
    """A channel that is read: samples in each data record, those of other channels before them, its scale,
    and what it shows."""

    name: str
    samples: int
    before: int
    scale: Scale
    kind: LeadKind


@dataclass(frozen=True)
class _Run:
    """Data records that follow on each other without a gap: the first sample, number and count of them."""

    begin: int
    first: int
    count: int


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
    """An EDF or BDF file. Leads of lower rates are resampled to that of the fastest one.

    Attributes:
        signals: the channels that are read, in the order of `leads`.
        data: where their samples lie.
        runs: stretches without a gap, by time.
    """

    signals: Sequence[_EdfSignal]
    data: _DataRecords
    runs: Sequence[_Run]

    @classmethod
    def open(cls, path: Path, leads: Sequence[str] = (), *, pulse: bool = False) -> EdfRecord:
        """Read the header of `path`, and of a discontinuous file the times of its data records.

        Args:
            leads: names of the channels to read (empty: those that look like an ECG).
            pulse: whether pulse waves and arterial pressures are read too.

        Raises:
            DataError: the header or one of these times is wrong, or there is no ECG.
        """
        if not path.is_file():
            raise unusable(path, "there is no such file", "check its path")
        with path.open("rb") as file:
            head = file.read(_FIXED)
            is_bdf = head[:8] == BDF
            if len(head) < _FIXED or not (is_bdf or head[:8] == EDF):
                raise unusable(path, "it does not begin as an EDF or BDF file")
            channel_count = _number(path, head[252:256])
            if not 0 < channel_count <= MAX_CHANNELS:
                raise unusable(path, f"its header names {channel_count:g} channels")
            fields = file.read(_PER_CHANNEL * int(channel_count))
        if len(fields) < _PER_CHANNEL * int(channel_count):
            raise unusable(path, "its header ends early")
        channels = _parse_channels(path, fields, int(channel_count))
        seconds = _number(path, head[244:252])
        signals, notes = _choose(path, channels, seconds, leads, pulse=pulse)
        each = max(signal.samples for signal in signals)
        rate = each / seconds if seconds > 0 else 0.0
        data = _DataRecords(
            offset=_FIXED + len(fields),
            samples=sum(c.samples for c in channels),
            width=3 if is_bdf else 2,
            size=path.stat().st_size,
            count=0,
        )
        data, count_notes = _count_data_records(path, _number(path, head[236:244]), data)
        runs, first = [_Run(0, 0, data.count)], 0.0
        samples = _count_samples(data, signals)
        if head[192:197] in (b"EDF+D", b"BDF+D") and data.whole and rate:
            onsets = _read_onsets(path, data, channels)
            runs, first = _runs(path, onsets, rate, each), onsets[0]
            samples = runs[-1].begin + runs[-1].count * each
        start = _unix_time(head[168:184])
        names = [signal.name for signal in signals]
        rates = [signal.samples / seconds if seconds > 0 else 0.0 for signal in signals]
        record = cls(
            path=path,
            leads=lead_names(names),
            gains=tuple(common_gain([signal.scale]) for signal in signals),
            kinds=tuple(signal.kind for signal in signals) if pulse else (),
            rate=rate,
            start=None if start is None else start + first,
            samples=samples,
            notes=(*count_notes, *resampled_note(names, rates, rate), *notes),
            signals=signals,
            data=data,
            runs=runs,
        )
        check_shape(path, len(record.leads), record.rate, record.samples)
        return record

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        each = max(signal.samples for signal in self.signals)
        units = np.full((stop - start, len(self.signals)), MISSING, np.int16)
        begins = [run.begin for run in self.runs]
        with self.path.open("rb") as file:
            for run in self.runs[max(0, bisect_right(begins, start) - 1) :]:
                if run.begin >= stop:
                    break
                low = max(start, run.begin) - run.begin
                high = min(stop - run.begin, run.count * each)
                if low >= high:
                    continue
                within = units[low + run.begin - start : high + run.begin - start]
                for lead, signal in enumerate(self.signals):
                    if signal.samples == each:
                        within[:, lead] = self._stored(file, run, lead, low, high)
                        continue
                    ratio = Upsampling.between(signal.samples, each)
                    first, last = ratio.span(low, high)
                    first, last = max(first, 0), min(last, run.count * signal.samples)
                    within[:, lead] = ratio.read(self._stored(file, run, lead, first, last), first, low, high)
        return units

    def _stored(self, file: BinaryIO, run: _Run, lead: int, first: int, last: int) -> NDArray[np.int16]:
        """The samples `first` to `last` of a lead in a run, at its own rate, MISSING where the file was cut
        off."""
        signal = self.signals[lead]
        units = np.full(last - first, MISSING, np.int16)
        for number in range(first // signal.samples, -(-last // signal.samples)):
            begin = number * signal.samples
            low = max(first - begin, 0)
            high = min(last - begin, self.data.held(run.first + number, signal))
            if low >= high:
                continue
            file.seek(self.data.byte(run.first + number, signal.before + low))
            raw = file.read((high - low) * self.data.width)
            if len(raw) < (high - low) * self.data.width:
                raise EndsEarly("the file ends early")
            units[begin + low - first : begin + high - first] = signal.scale.to_units(
                _decode(raw, self.data.width), self.gains[lead]
            )
        return units


def _parse_channels(path: Path, fields: bytes, count: int) -> list[_Field]:
    columns: list[list[bytes]] = []
    at = 0
    for width in _WIDTHS:
        columns.append([fields[at + n * width : at + (n + 1) * width] for n in range(count)])
        at += width * count
    channels: list[_Field] = []
    before = 0
    for label, _, dimension, *limits, _, in_record, _ in zip(*columns, strict=True):
        samples = _number(path, in_record)
        if not 0 <= samples <= _MOST_SAMPLES:
            raise unusable(path, f"channel {len(channels) + 1} has {samples:g} samples in a data record")
        channels.append(_Field(_text(label), _text(dimension), limits, int(samples), before))
        before += int(samples)
    return channels


def _choose(
    path: Path, fields: Sequence[_Field], seconds: float, wanted: Sequence[str], *, pulse: bool
) -> tuple[list[_EdfSignal], tuple[str, ...]]:
    """The channels that are read, and what is to be said of the others. A channel whose limits make no scale
    is left out if there are others."""
    fields = [field for field in fields if field.name not in _ANNOTATIONS]
    # Without a length of the data records the rate is unknown, and refused later.
    channels = [
        Channel(
            field.name,
            field.unit if field.samples else f"{field.unit}, no samples",
            rate=field.samples / seconds if seconds > 0 else None,
            in_volts=is_in_volts(field.unit) and field.samples > 0,
        )
        for field in fields
    ]
    choice = choose_channels(path, channels, wanted, pulse=pulse)
    signals: list[_EdfSignal] = []
    notes = list(choice.notes)
    ecg = choice.kinds.count(LeadKind.ECG)
    for number, (place, kind) in enumerate(zip(choice.taken, choice.kinds, strict=True), 1):
        field = fields[place]
        try:
            scale = _scale(path, field, kind)
        except DataError as error:
            if not signals and number == ecg:
                raise
            notes.append(f"left out: {error.what.partition(': ')[2]}")
            continue
        signals.append(_EdfSignal(field.name, field.samples, field.before, scale, kind))
    return signals, tuple(notes)


def _scale(path: Path, field: _Field, kind: LeadKind) -> Scale:
    """Return the scale of a channel: of volts, or of a pulse wave, whose unit is its own."""
    least, most, low, high = (_number(path, limit) for limit in field.limits)
    slope = (high - low) / (most - least) if least != most else math.nan
    gain = numbers_a_millivolt(slope, field.unit) if kind is LeadKind.ECG else slope
    if gain is None or not math.isfinite(slope) or not low < high:
        raise unusable(path, f"the limits of its channel {field.name!r} are no range")
    scale = Scale(gain, low - least * slope, low, high)
    if scale.fault:
        raise unusable(path, scale.fault)
    return scale


def _count_data_records(path: Path, declared: float, data: _DataRecords) -> tuple[_DataRecords, list[str]]:
    """`data` with the data records that the file holds, of those that its header declares, and what is to be
    said of that. A header declares -1 while the file is being written."""
    if not math.isfinite(declared):
        raise unusable(path, f"its header says {declared:g} data records")
    size = data.samples * data.width
    held, whole = (
        max(0, n) for n in (-((data.offset - data.size) // size), (data.size - data.offset) // size)
    )
    data = replace(data, count=held if declared < 0 else min(held, int(declared)))
    if declared < 0:
        return data, ["its header does not say its length, as if it was still being written"]
    if declared < whole:
        said = f"its header says {declared:.0f} data records, and it holds {whole}"
        if not declared:  # a recorder that stopped before it wrote their number
            return replace(data, count=held), [f"{said}: all are read"]
        return data, [f"left out: {said}"]
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
    each = max(signal.samples for signal in signals)
    last = max(-(-data.held(data.count - 1, s) * each // s.samples) for s in signals)
    return (data.count - 1) * each + last


def _read_onsets(path: Path, data: _DataRecords, channels: Sequence[_Field]) -> list[float]:
    """When each data record that is whole begins, in seconds: the first annotation of each says it."""
    times = next((c for c in channels if c.name in _ANNOTATIONS and c.samples), None)
    if times is None:
        raise unusable(path, "it is discontinuous (EDF+D), and has no annotations that say its times")
    if data.whole > _MOST_ONSETS:
        problem = (
            f"it is discontinuous (EDF+D) and has {data.whole} data records; {_MOST_ONSETS} are read at most"
        )
        raise unusable(
            path, problem, "cut it into parts with EDFbrowser (Tools, Reduce signals, duration or samplerate)"
        )
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


def _runs(path: Path, onsets: Sequence[float], rate: float, each: int) -> list[_Run]:
    """The stretches without a gap of data records of `each` samples that begin at `onsets`."""
    runs = [_Run(0, 0, 1)]
    for number, onset in enumerate(onsets[1:], 1):
        begin = round((onset - onsets[0]) * rate)
        run = runs[-1]
        end = run.begin + run.count * each
        if begin < end - each * _OVERLAP - 1:
            problem = f"its data record {number + 1} begins before the one before it ends"
            raise unusable(path, f"it is discontinuous (EDF+D), and {problem}: at {onset:g} s")
        if abs(begin - end) <= 1:  # times are rounded: that is no gap
            runs[-1] = replace(run, count=run.count + 1)
        else:
            runs.append(_Run(begin, number, 1))
    return runs


def _text(field: bytes) -> str:
    try:
        return field.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return field.decode("latin-1").strip(" \0")


def _number(path: Path, text: bytes) -> float:
    try:
        return float(text.decode("ascii").strip(" \0").replace(",", "."))
    except ValueError:
        # Of a header that is shifted, letters may be those of the patient.
        shown = "letters" if any(c.isalpha() for c in text.decode("latin-1")) else repr(text)
        raise unusable(path, f"its header has {shown} for a number") from None


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
