"""Records in EDF, EDF+C, BDF and BDF+C (https://www.edfplus.info/specs/edf.html, edfplus.html).

Read here, not by pyedflib: that keeps at most 64 files open, each only once, and has no threads in mind.
What the header says of the patient is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

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
)
from genray.errors import DataError

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


class EdfRecord(EcgRecord):
    """An EDF or BDF file. Where channels have different rates, the ECG leads of the highest are taken.

    Raises:
        DataError: the header is wrong, the file is shorter than it says, or discontinuous.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            self._refuse("there is no such file", "check its path")
        with path.open("rb") as file:
            head = file.read(_FIXED)
            self._bdf = head[:8] == b"\xffBIOSEMI"
            if len(head) < _FIXED or not (self._bdf or head[:8] == b"0       "):
                self._refuse("it does not begin as an EDF or BDF file")
            if head[192:197] in (b"EDF+D", b"BDF+D"):
                self._refuse("it is discontinuous (EDF+D)", "convert it to EDF+C, or to one file a part")
            count = self._number(head[252:256])
            if not 0 < count <= MAX_CHANNELS:
                self._refuse(f"its header names {count:g} channels")
            fields = file.read(_PER_CHANNEL * int(count))
        if len(fields) < _PER_CHANNEL * count:
            self._refuse("its header ends early")
        self._width = 3 if self._bdf else 2
        channels = self._all_channels(fields, int(count))
        signals = [c for c in channels if c.name not in _ANNOTATIONS]
        units = [c.unit if c.samples else f"{c.unit}, no samples" for c in signals]
        check_channels(path, [(c.name, u, c.scale is not None) for c, u in zip(signals, units, strict=True)])
        each = max(c.samples for c in channels if c.scale)
        self._channels = [c for c in channels if c.scale and c.samples == each]
        self._scales = [c.scale for c in self._channels if c.scale]
        self._each, self._all = each, sum(c.samples for c in channels)
        self._data = _FIXED + _PER_CHANNEL * int(count)
        seconds = self._number(head[244:252])
        self.leads = lead_names([c.name for c in self._channels])
        self.gains = tuple(scale.gain for scale in self._scales)
        self.rate = each / seconds if seconds > 0 else 0.0
        self.start = _unix_time(head[168:184])
        self.samples = self._records(self._number(head[236:244])) * each
        check_shape(path, len(self.leads), self.rate, self.samples)

    def _all_channels(self, fields: bytes, count: int) -> list[_EdfSignal]:
        columns: list[list[bytes]] = []
        at = 0
        for width in _WIDTHS:
            columns.append([fields[at + n * width : at + (n + 1) * width] for n in range(count)])
            at += width * count
        channels: list[_EdfSignal] = []
        before = 0
        for label, _, dimension, *limits, _, samples, _ in zip(*columns, strict=True):
            name, each = label.decode("latin-1").strip(), int(self._number(samples))
            if each < 0:
                self._refuse(f"channel {len(channels) + 1} has {each} samples in a data record")
            unit = dimension.decode("latin-1").strip()
            scale = self._scale(name, unit, limits)
            channels.append(_EdfSignal(name, unit, each, before, scale if each else None))
            before += each
        return channels

    def _scale(self, name: str, unit: str, limits: list[bytes]) -> Scale | None:
        if numbers_a_millivolt(1, unit) is None or not is_ecg(name):
            return None
        least, most, low, high = (self._number(limit) for limit in limits)
        if least == most or low >= high:
            self._refuse(f"the limits of its channel {name!r} are no range")
        slope = (high - low) / (most - least)
        gain = numbers_a_millivolt(slope, unit)
        return None if gain is None else Scale.fitting(gain, low - least * slope, low, high)

    def _records(self, said: float) -> int:
        size = self._all * self._width
        held = (self.path.stat().st_size - self._data) // size if size else 0
        if said > held:
            hint = "it was not copied as a whole: fetch it again"
            self._refuse(f"its header says {said:.0f} data records, and it holds {max(held, 0)}", hint)
        return int(said) if said >= 0 else held  # -1: it was still being written

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        each, width = self._each, self._width
        stored = np.empty((stop - start, len(self._channels)), np.int64)
        with self.path.open("rb") as file:
            for record in range(start // each, -(-stop // each)):
                first, last = max(start, record * each), min(stop, (record + 1) * each)
                for lead, channel in enumerate(self._channels):
                    before = record * self._all + channel.before + first - record * each
                    file.seek(self._data + before * width)
                    raw = file.read((last - first) * width)
                    if len(raw) < (last - first) * width:
                        raise ValueError("the file ends early")
                    stored[first - start : last - start, lead] = _decode(raw, width)
        return to_units(stored, self._scales)

    def _number(self, text: bytes) -> float:
        try:
            return float(text.decode("ascii").strip())
        except ValueError:
            self._refuse(f"its header has {text!r} for a number")

    def _refuse(self, wrong: str, hint: str = "leave it out, or mend it") -> NoReturn:
        raise DataError(f"cannot use the record {self.name}: {wrong}", where=str(self.path), hint=hint)


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
