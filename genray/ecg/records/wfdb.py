"""Records of PhysioNet's WFDB: a header, samples in .dat files beside it, beats in an .atr file.

Read from their specification (https://physionet.org/physiotools/wag/header-5.htm, signal-5.htm and
annot-5.htm) without the wfdb package: that takes 0.7 s and 90 MB to import, and follows URLs in names.

Writing WFDB records, so that any tool of PhysioNet reads what was generated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import (
    MAX_CHANNELS,
    MISSING,
    Annotations,
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
from genray.io.files import atomic_write, write_text

_BITS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}
_LARGEST_HEADER = 1 << 20
_LARGEST_ANNOTATIONS = 64 << 20
_DEFAULT_GAIN, _DEFAULT_RATE = 200.0, 250.0
_RECORD = re.compile(
    r"(?P<name>[^\s/]+)(?P<segments>/\d+)?\s+(?P<channels>\d+)(\s+(?P<rate>[\d.eE+-]+)(/[^\s]*)?)?"
    r"(\s+(?P<samples>\d+))?(\s+(?P<time>[\d:.]+))?(\s+(?P<date>[\d/]+))?\s*"
)
_CHANNEL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(x(?P<frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?"
    r"(\s+(?P<gain>[\d.eE+-]+)(\((?P<baseline>-?\d+)\))?(/(?P<unit>\S+))?"
    r"(\s+(?P<bits>\d+)(\s+(?P<zero>-?\d+)(\s+-?\d+(\s+-?\d+(\s+\d+(\s+(?P<name>.*))?)?)?)?)?)?)?\s*"
)
BEATS = dict(zip(range(1, 14), "NLRaVFJASEj/Q", strict=True)) | {25: "B", 30: "?", 34: "e", 35: "n", 38: "f"}
BEATS[41] = "r"
_SKIP, _NUMBER, _SUBTYPE, _CHANNEL_OF, _TEXT = 59, 60, 61, 62, 63


@dataclass(frozen=True)
class _WfdbSignal:
    name: str
    unit: str
    file: Path
    format: str
    frame: int  # samples in each frame
    before: int  # samples of other channels before it in each frame of the file
    scale: Scale | None  # None: no ECG


@dataclass
class _File:
    format: str
    offset: int
    frame: int = 0  # samples of all channels in each frame


class WfdbRecord(EcgRecord):
    """A WFDB record. Where channels have different rates, the ECG leads of the highest are taken; skew
    between channels, a few ms on tapes, is not evened out.

    Raises:
        DataError: the header is wrong or of a kind that is not read, or its .dat files are missing,
            shorter than it says, or not in its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = [line for line in self._header().splitlines() if line.strip() and not line.startswith("#")]
        head = _RECORD.fullmatch(lines[0]) if lines else None
        if head is None:
            self._refuse("its header is not one of WFDB")
        if head["segments"]:
            self._refuse("it has several segments", "give the headers of its segments instead")
        if int(head["channels"]) > MAX_CHANNELS or len(lines) - 1 < int(head["channels"]):
            self._refuse(f"its header names {head['channels']} channels and describes {len(lines) - 1}")
        self._files: dict[Path, _File] = {}
        channels = [self._channel(line, n) for n, line in enumerate(lines[1 : int(head["channels"]) + 1])]
        check_channels(path, [(c.name, c.unit, c.scale is not None) for c in channels])
        frame = max(c.frame for c in channels if c.scale)
        self._channels = [c for c in channels if c.scale and c.frame == frame]
        self._scales = [c.scale for c in self._channels if c.scale]
        self.leads = lead_names([c.name for c in self._channels])
        self.gains = tuple(scale.gain for scale in self._scales)
        self.rate = float(head["rate"] or _DEFAULT_RATE) * frame
        self.start = _unix_time(head["time"], head["date"])
        self.samples = self._frames(int(head["samples"] or 0)) * frame
        check_shape(path, len(self.leads), self.rate, self.samples)

    def annotations(self) -> Annotations | None:
        """The beats of the `.atr` file beside the header."""
        path = self.path.with_suffix(".atr")
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST_ANNOTATIONS:
            self._refuse(f"its annotations are larger than {_LARGEST_ANNOTATIONS >> 20} MB")
        frame = self._channels[0].frame  # annotations count frames
        beats = sorted((peak * frame, symbol) for peak, symbol in _beats(path.read_bytes()))
        inside = [(peak, symbol) for peak, symbol in beats if 0 <= peak < self.samples]
        return Annotations(np.array([peak for peak, _ in inside], np.int64), [symbol for _, symbol in inside])

    def _header(self) -> str:
        if not self.path.is_file():
            self._refuse(f"there is no {self.path.name}", "check its path; the header is a .hea file")
        if self.path.stat().st_size > _LARGEST_HEADER:
            self._refuse(f"its header is larger than {_LARGEST_HEADER >> 20} MB")
        text = self.path.read_bytes()
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            return text.decode("latin-1")

    def _channel(self, line: str, number: int) -> _WfdbSignal:
        found = _CHANNEL.fullmatch(line)
        if found is None:
            self._refuse(f"line {number + 2} of its header describes no channel: {line[:80]!r}")
        if found["format"] not in _BITS:
            self._refuse(f"its format {found['format']} is not read", "convert it to format 16 or 212")
        path = self._beside(found["file"])
        file = self._files.setdefault(path, _File(found["format"], int(found["offset"] or 0)))
        if file.format != found["format"]:
            self._refuse(f"{path.name} is of two formats at once")
        before, frame = file.frame, int(found["frame"] or 1)
        file.frame += frame
        if not 0 < frame <= 10_000:
            self._refuse(f"it has {frame} samples in a frame")
        unit = found["unit"] or "mV"
        gain = numbers_a_millivolt(float(found["gain"] or 0) or _DEFAULT_GAIN, unit)
        name = found["name"] or f"ECG{number + 1}"
        scale = None
        if gain is not None and is_ecg(name):
            zero = int(found["baseline"] or found["zero"] or 0)
            missing = -(1 << (_BITS[found["format"]] - 1))
            scale = Scale.fitting(gain, zero, missing + 1, -missing - 1, missing)
        return _WfdbSignal(name, unit, path, found["format"], frame, before, scale)

    def _beside(self, name: str) -> Path:
        folder = self.path.parent
        if name in (".", "..", "-", "~") or "/" in name or "\\" in name or "\0" in name:
            self._refuse(f"its samples would be outside of its folder: {name[:80]!r}")
        path = folder / name
        if not path.is_file():
            self._refuse(f"its samples {name[:80]!r} are missing", "copy the .dat file beside its header")
        if Path(os.path.realpath(path)).parent != Path(os.path.realpath(folder)):
            self._refuse(f"{name[:80]!r} is a link out of its folder", "copy the file instead of linking it")
        return path

    def _frames(self, said: int) -> int:
        sizes = [
            (path.stat().st_size - f.offset, _BITS[f.format] * f.frame) for path, f in self._files.items()
        ]
        held = min((size * 8 // bits for size, bits in sizes), default=0)
        if said > held:
            hint = "it was not copied as a whole: fetch it again, or mend the length in the header"
            self._refuse(f"its header says {said} samples, and its .dat files hold {max(held, 0)}", hint)
        return said or held

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        frame = self._channels[0].frame
        first, last = start // frame, -(-stop // frame)
        stored = np.empty((last - first, frame, len(self._channels)), np.int64)
        for path in {c.file for c in self._channels}:
            file = self._files[path]
            part = _stored(path, file, first * file.frame, last * file.frame).reshape(-1, file.frame)
            for lead, channel in enumerate(self._channels):
                if channel.file == path:
                    stored[:, :, lead] = part[:, channel.before : channel.before + frame]
        flat = stored.reshape(-1, len(self._channels))[start - first * frame : stop - first * frame]
        return to_units(flat, self._scales)

    def _refuse(self, wrong: str, hint: str = "leave it out, or mend it") -> NoReturn:
        raise DataError(f"cannot use the record {self.name}: {wrong}", where=str(self.path), hint=hint)


def _stored(path: Path, file: _File, start: int, stop: int) -> NDArray[np.int64]:
    """The samples `start` to `stop` of a file, of all its channels in turn."""
    bits = _BITS[file.format]
    from_, until = (start // 2 * 2, stop + stop % 2) if bits == 12 else (start, stop)
    count = (until - from_) * bits // 8
    raw = np.fromfile(path, np.uint8, count, offset=file.offset + from_ * bits // 8)
    if bits == 12 and len(raw) == count - 1:  # an odd number of samples: the last has only two bytes
        raw = np.append(raw, np.uint8(0))
    if len(raw) < count:
        raise ValueError(f"{path.name} ends early")
    return _decode(raw, file.format)[start - from_ : stop - from_]


def _decode(raw: NDArray[np.uint8], kind: str) -> NDArray[np.int64]:
    if kind == "212":
        low, middle, high = (raw[n::3].astype(np.int64) for n in range(3))
        pairs = np.stack([low | (middle & 0x0F) << 8, high | (middle & 0xF0) << 4], axis=1).ravel()
        return _signed(pairs, 12)
    if kind == "24":
        wide = raw.reshape(-1, 3).astype(np.int64)
        return _signed(wide[:, 0] | wide[:, 1] << 8 | wide[:, 2] << 16, 24)
    if kind == "80":
        return raw.astype(np.int64) - 128
    if kind == "160":
        return raw.view("<u2").astype(np.int64) - 32768
    words: NDArray[np.int64] = raw.view({"16": "<i2", "61": ">i2", "32": "<i4"}[kind]).astype(np.int64)
    return words


def _signed(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    signed: NDArray[np.int64] = values - ((values >> (bits - 1)) << bits)
    return signed


def _beats(data: bytes) -> Iterator[tuple[int, str]]:
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2").tolist()
    at = time = 0
    while at < len(words) and words[at]:
        code, value = words[at] >> 10, words[at] & 0x3FF
        at += 1
        if code == _SKIP and at + 1 < len(words):
            skip = words[at] << 16 | words[at + 1]
            time += skip - (1 << 32 if skip & 0x80000000 else 0)
            at += 2
        elif code == _TEXT:
            at += (value + 1) // 2
        elif code < _SKIP:
            time += value
            if code in BEATS:
                yield time, BEATS[code]


def _unix_time(time: str | None, date: str | None) -> float | None:
    if not time or not date:
        return None
    day, month, year = (int(part) for part in date.split("/"))
    seconds = 0.0
    for part in time.split(":"):
        seconds = seconds * 60 + float(part)
    return datetime(year, month, day, tzinfo=UTC).timestamp() + seconds


_GAIN = 1000
_LONG_GAP = 59
_FAR = 0x3FF  # samples between two annotations that fit into one word


def write_wfdb(
    path: Path,
    millivolts: NDArray[np.floating],
    rate: float,
    leads: Sequence[str],
    peaks: NDArray[np.integer],
    symbols: Sequence[str],
) -> None:
    """Write the header `path`, a .dat file of format 16 and an .atr file, the header last.

    Args:
        millivolts: (samples, leads), NaN where a sample is missing.
        peaks: samples of the annotated beats, increasing.
        symbols: a code of PhysioNet's for each, as N or V.

    Raises:
        StorageFull: there was no room for them.
    """
    units = np.clip(np.rint(np.nan_to_num(millivolts) * _GAIN), MISSING + 1, -MISSING - 1)
    stored = np.where(np.isfinite(millivolts), units, MISSING).astype("<i2")
    for suffix, data in ((".dat", stored.tobytes()), (".atr", _annotations(peaks, symbols))):
        with atomic_write(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(data)
    lines = [f"{path.stem} {len(leads)} {rate:.10g} {len(stored)}"]
    for lead, name in enumerate(leads):
        checksum = int(stored[:, lead].sum(dtype=np.int64).astype(np.int16))
        lines.append(f"{path.stem}.dat 16 {_GAIN}(0)/mV 16 0 {stored[0, lead]} {checksum} 0 {name}")
    write_text(path, "\n".join(lines) + "\n")


def _annotations(peaks: NDArray[np.integer], symbols: Sequence[str]) -> bytes:
    codes = {symbol: code for code, symbol in BEATS.items()}
    words: list[int] = []
    last = 0
    for peak, symbol in zip(peaks.tolist(), symbols, strict=True):
        step, last = peak - last, peak
        if step > _FAR:
            words += [_LONG_GAP << 10, step >> 16, step & 0xFFFF]
            step = 0
        words.append(codes[symbol] << 10 | step)
    return np.array([*words, 0], "<u2").tobytes()
