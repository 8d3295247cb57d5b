"""ECG waveforms in DICOM files (PS3.3, C.10.9), read by pydicom: 12-lead, general and ambulatory ECG.

Of the file only the waveforms and the time of acquisition are read, nothing of the patient. A file may hold
several groups of channels, at rates and times of their own: they become one line of time. Groups that are
derived, as median beats, are left out. The value of a sample is sample * sensitivity * correction factor +
baseline.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    choose_channels,
    lead_names,
    listed,
    numbers_a_millivolt,
    resampled_note,
)
from genray.ecg.records.resampling import Upsampling
from genray.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_LARGEST = 1 << 30  # bytes: the package holds a file twice in memory while it is opened
_MOST_GROUPS = 64
_LATEST = 1e8  # s after the beginning
_TAGS = ["WaveformSequence", "AcquisitionDateTime"]
_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_DERIVED = "DERIVED"
_FINEST_RATE = 1000  # parts of 1 Hz that rates are compared in
_TIME = re.compile(r"(?P<time>\d{14})(?P<part>\.\d{1,6})?(?P<zone>[+-]\d{4})?")


@dataclass(frozen=True)
class _Group:
    """Channels that were sampled together.

    Attributes:
        offset: bytes of the file before the first sample.
        kind: of a number, as NumPy writes it.
        channels: numbers of each sample.
        samples: that the file holds.
        rate: samples a second.
        begin: seconds after the beginning of the record.
    """

    offset: int
    kind: str
    channels: int
    samples: int
    rate: float
    begin: float


@dataclass(frozen=True)
class _DicomChannel:
    """A channel of a group: its place there, name, unit and scale; no scale if it is not in volts."""

    group: _Group
    place: int
    name: str
    unit: str
    scale: Scale | None


@dataclass(frozen=True)
class _Stretch:
    """A stretch of a lead: where it begins in the record, and the channel that holds it."""

    lead: int
    begin: int
    channel: int
    scale: Scale
    group: _Group


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomRecord(EcgRecord):
    """The waveforms of a DICOM file. Leads of lower rates are resampled to that of the fastest one.

    Attributes:
        stretches: of all leads.
    """

    stretches: Sequence[_Stretch]

    @classmethod
    def open(cls, path: Path, leads: Sequence[str] = ()) -> DicomRecord:
        """Read the descriptions of the waveforms of `path`.

        Args:
            leads: names of the channels to read (empty: those that look like an ECG).

        Raises:
            DataError: it has no ECG, is damaged or too large, or pydicom is missing.
        """
        try:
            dataset, is_little = _read_dataset(path)
            channels, notes = _channels(path, dataset, is_little)
        except DataError:
            raise
        except Exception as error:  # whose text may have bytes of the file, and so of the patient
            raise unusable(path, f"it is damaged ({type(error).__name__})") from None
        choice = choose_channels(
            path,
            [Channel(c.name, c.unit, c.group.rate, c.scale is not None) for c in channels],
            leads,
        )
        taken = [channels[n] for n in choice.taken]
        rate = max(channel.group.rate for channel in taken)
        names: list[str] = []
        stretches: list[_Stretch] = []
        twice: list[str] = []
        ends: dict[str, list[tuple[int, int]]] = {}
        for channel in taken:
            begin = round(channel.group.begin * rate)
            end = begin + _length(channel.group, rate)
            if any(begin < last and first < end for first, last in ends.get(channel.name, ())):
                twice.append(channel.name)
                continue
            ends.setdefault(channel.name, []).append((begin, end))
            if channel.name not in names:
                names.append(channel.name)
            assert channel.scale is not None
            lead = names.index(channel.name)
            stretches.append(_Stretch(lead, begin, channel.place, channel.scale, channel.group))
        if twice:
            notes.append(f"left out, as a lead of this name has samples at the same time: {listed(twice)}")
        rates = [channel.group.rate for channel in taken]
        record = cls(
            path=path,
            rate=rate,
            leads=lead_names(names),
            samples=max(last for each in ends.values() for _, last in each),
            gains=tuple(
                common_gain([s.scale for s in stretches if s.lead == lead]) for lead in range(len(names))
            ),
            start=_unix_time(str(dataset.get("AcquisitionDateTime") or "")),
            notes=(*notes, *resampled_note([c.name for c in taken], rates, rate), *choice.notes),
            stretches=stretches,
        )
        check_shape(path, len(names), rate, record.samples)
        return record

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        units = np.full((stop - start, len(self.leads)), MISSING, np.int16)
        held: dict[tuple[_Group, int, int], NDArray[np.integer]] = {}
        for stretch in self.stretches:
            group = stretch.group
            low = max(start - stretch.begin, 0)
            high = min(stop - stretch.begin, _length(group, self.rate))
            if low >= high:
                continue
            ratio = _ratio(group, self.rate)
            first, last = (low, high) if group.rate == self.rate else ratio.span(low, high)
            first, last = max(first, 0), min(last, group.samples)
            if (group, first, last) not in held:
                held[group, first, last] = self._rows(group, first, last)
            stored = held[group, first, last][:, stretch.channel].astype(np.int64)
            values = stretch.scale.to_units(stored, self.gains[stretch.lead])
            if group.rate != self.rate:
                values = ratio.read(values, first, low, high)
            begin = stretch.begin - start
            units[begin + low : begin + high, stretch.lead] = values
        return units

    def _rows(self, group: _Group, first: int, last: int) -> NDArray[np.integer]:
        """The samples `first` to `last` of a group, (samples, channels)."""
        width = np.dtype(group.kind).itemsize * group.channels
        with self.path.open("rb") as file:
            file.seek(group.offset + first * width)
            raw = file.read((last - first) * width)
        if len(raw) < (last - first) * width:
            raise EndsEarly("the file ends early")
        return np.frombuffer(raw, group.kind).reshape(-1, group.channels)


def _read_dataset(path: Path) -> tuple[Dataset, bool]:
    """The waveforms of a file, and whether its numbers are little-endian."""
    if not path.is_file():
        raise unusable(path, "there is no such file", "check its path")
    if path.stat().st_size > _LARGEST:
        problem = f"it is larger than {_LARGEST >> 30} GB"
        raise unusable(path, problem, "cut it into parts where it was exported, or export it as EDF")
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        hint = "pip install 'genray[dicom]'"
        raise unusable(path, "it is DICOM, and the package pydicom is missing", hint) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those that are read are checked here
            dataset = pydicom.dcmread(path, specific_tags=_TAGS)
    except InvalidDicomError:
        raise unusable(path, "it is no DICOM file") from None
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        return dataset, syntax is None or bool(syntax.is_little_endian)
    except (AttributeError, ValueError):
        raise unusable(path, "its header names no way of encoding that DICOM knows") from None


def _channels(path: Path, dataset: Dataset, is_little: bool) -> tuple[list[_DicomChannel], list[str]]:
    """The channels of all groups that are read, and what is to be said of the others."""
    items = list(dataset.get("WaveformSequence") or ())
    if not items:
        hint = "give the file of the waveform: PDFs and images of an ECG hold no samples"
        raise unusable(path, "it holds no waveforms", hint)
    if len(items) > _MOST_GROUPS:
        raise unusable(path, f"it has {len(items)} groups of channels; {_MOST_GROUPS} are read at most")
    derived = [item for item in items if str(item.get("WaveformOriginality") or "") == _DERIVED]
    if len(derived) == len(items):
        problem = "its waveforms are derived, as median beats are, and no recording"
        raise unusable(path, problem, "export the rhythm of the same ECG")
    notes = []
    if derived:
        labels = [str(item.get("MultiplexGroupLabel") or "group") for item in derived]
        notes.append(f"left out, derived and not recorded: {listed(labels)}")
    channels: list[_DicomChannel] = []
    for item in items:
        if item not in derived:
            channels += _group_channels(path, item, is_little, notes)
    return channels, notes


def _group_channels(path: Path, item: Dataset, is_little: bool, notes: list[str]) -> list[_DicomChannel]:
    count = _whole(path, item, "NumberOfWaveformChannels")
    samples = _whole(path, item, "NumberOfWaveformSamples")
    definitions = list(item.get("ChannelDefinitionSequence") or ())
    if not 0 < count <= MAX_CHANNELS or len(definitions) != count:
        raise unusable(path, f"it names {count} channels and describes {len(definitions)}")
    kind = _TYPES.get(str(item.get("WaveformSampleInterpretation")))
    if kind is None:
        problem = f"its samples are stored as {str(item.get('WaveformSampleInterpretation'))[:8]!r}"
        raise unusable(path, problem, "export it with samples of 16 bits (SS)")
    width = np.dtype(kind).itemsize
    offset, size = _place(path, item)
    held = size // (width * count)
    if held < samples:
        notes.append(f"cut off: it says {samples} samples, and holds {held}")
    group = _Group(
        offset=offset,
        kind=kind if width == 1 else ("<" if is_little else ">") + kind,
        channels=count,
        samples=min(samples, held),
        rate=_number(path, item, "SamplingFrequency"),
        begin=_number(path, item, "MultiplexGroupTimeOffset", 0.0) / 1000,
    )
    if not (0 <= group.begin < _LATEST and 0 < group.rate < math.inf and group.samples):
        problem = f"{group.samples} samples at {group.rate:g} Hz from {group.begin:g} s on"
        raise unusable(path, f"a group of its channels has {problem}")
    return [_channel(path, item, group, place) for place in range(count)]


def _channel(path: Path, item: Dataset, group: _Group, place: int) -> _DicomChannel:
    definition = item.ChannelDefinitionSequence[place]
    source = next(iter(definition.get("ChannelSourceSequence") or ()), None)
    meaning = str(source.get("CodeMeaning") or "") if source is not None else ""
    label = str(definition.get("ChannelLabel") or "")
    name = re.sub(r"\s*\(.*?\)|^\s*Lead\s+", "", meaning).strip() or label or f"channel {place + 1}"
    units = next(iter(definition.get("ChannelSensitivityUnitsSequence") or ()), None)
    unit = str(units.get("CodeValue") or "") if units is not None else ""
    sensitivity = _number(path, definition, "ChannelSensitivity", math.nan)
    factor = _number(path, definition, "ChannelSensitivityCorrectionFactor", 1.0)
    if numbers_a_millivolt(1.0, unit) is None or not math.isfinite(sensitivity):
        return _DicomChannel(group, place, name, unit, None)
    size = sensitivity * factor
    gain = numbers_a_millivolt(1 / size, unit) if size else None
    if gain is None:
        raise unusable(path, f"its channel {listed([name])} has the sensitivity {size:g}")
    limits = np.iinfo(group.kind)
    padding = item.get("WaveformPaddingValue")
    if isinstance(padding, bytes):
        padding = int(np.frombuffer(padding[: np.dtype(group.kind).itemsize], group.kind)[0])
    scale = Scale(
        gain=gain,
        baseline=-_number(path, definition, "ChannelBaseline", 0.0) / size,
        low=float(limits.min),
        high=float(limits.max),
        missing=None if padding is None else int(padding),
    )
    if scale.fault:
        raise unusable(path, scale.fault)
    return _DicomChannel(group, place, name, unit, scale)


def _place(path: Path, item: Dataset) -> tuple[int, int]:
    """Where in the file the samples of a group lie, and how many bytes."""
    element: Any = item.get_item("WaveformData")
    value = bytes(element.value) if element is not None and element.value else b""
    if not value:
        raise unusable(path, "it holds no samples")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        # The package gives the place within the sequence, or within the file, by how it was written.
        offset = content.find(value)
    if offset < 0:
        hint = f"convert it with DCMTK: dcmconv --write-xfer-little {path.name} plain-{path.name}"
        raise unusable(path, "its samples are compressed", hint)
    return offset, len(value)


def _length(group: _Group, rate: float) -> int:
    """The samples of a group at `rate`."""
    ratio = _ratio(group, rate)
    return group.samples * ratio.up // ratio.down


def _ratio(group: _Group, rate: float) -> Upsampling:
    return Upsampling.between(round(group.rate * _FINEST_RATE), round(rate * _FINEST_RATE))


def _whole(path: Path, item: Dataset, keyword: str) -> int:
    number = _number(path, item, keyword)
    if not 0 <= number < 1 << 40 or number != int(number):
        raise unusable(path, f"its {keyword} is {number:g}")
    return int(number)


def _number(path: Path, item: Dataset, keyword: str, default: float | None = None) -> float:
    try:
        value = item.get(keyword)
        if value is None or value == "":
            if default is None:
                raise unusable(path, f"it does not say its {keyword}")
            return default
        return float(value)
    except DataError:
        raise
    except Exception as error:  # whatever the package makes of a broken value
        raise unusable(path, f"its {keyword} is no number") from error


def _unix_time(text: str) -> float | None:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    zone = found["zone"]
    minutes = (int(zone[1:3]) * 60 + int(zone[3:5])) * (-1 if zone[0] == "-" else 1) if zone else 0
    try:
        time = datetime.strptime(found["time"], "%Y%m%d%H%M%S")
        offset = timezone(timedelta(minutes=minutes)) if zone else UTC
    except ValueError:
        return None
    return time.replace(tzinfo=offset).timestamp() + float(found["part"] or 0)
