"""Records of PhysioNet's WFDB, read and written: a header, samples in .dat files beside it, beats in an
.atr file.

Read by their specification (https://physionet.org/physiotools/wag/header-5.htm, signal-5.htm and
annot-5.htm) without the wfdb package: that takes 0.7 s and 90 MB to import, and follows URLs in names. Any
tool of PhysioNet reads what is written here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

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
    unusable,
)
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
_BEATS = dict(zip(range(1, 14), "NLRaVFJASEj/Q", strict=True)) | {
    25: "B", 30: "?", 34: "e", 35: "n", 38: "f", 41: "r"
}  # fmt: skip
"""The symbols of the annotation codes that stand for beats."""

_SKIP, _TEXT = 59, 63  # codes of the words that are no annotations: a long interval, a text
_LONGEST_STEP = 0x3FF  # samples between two annotations that fit into one word
_WRITTEN_GAIN = 1000


@dataclass(eq=False)
class _SignalFile:
    """A .dat file: format of its numbers, bytes before them, and samples of all channels in each frame."""

    path: Path
    format: str
    offset: int
    frame: int = 0


@dataclass(frozen=True)
class _WfdbSignal:
    name: str
    unit: str
    file: _SignalFile
    frame: int  # samples in each frame
    before: int  # samples of other channels before it in each frame of the file
    scale: Scale | None  # None: no ECG


@dataclass(frozen=True, kw_only=True, eq=False)
class WfdbRecord(EcgRecord):
    """A WFDB record. Where channels have different rates, the ECG leads of the highest are taken; skew
    between channels, a few ms on tapes, is not evened out.

    Attributes:
        signals: the channels that are taken, in the order of `leads`.
    """

    signals: Sequence[_WfdbSignal]

    @classmethod
    def open(cls, path: Path) -> WfdbRecord:
        """Read the header `path` and look at the .dat files that it names.

        Raises:
            DataError: the header is wrong or of a kind that is not read, or its .dat files are missing,
                shorter than it says, or not in its folder.
        """
        lines = [
            line for line in _read_header(path).splitlines() if line.strip() and not line.startswith("#")
        ]
        head = _RECORD.fullmatch(lines[0]) if lines else None
        if head is None:
            raise unusable(path, "its header is not one of WFDB")
        if head["segments"]:
            raise unusable(path, "it has several segments", "give the headers of its segments instead")
        count = int(head["channels"])
        if count > MAX_CHANNELS or len(lines) - 1 < count:
            raise unusable(
                path, f"its header names {head['channels']} channels and describes {len(lines) - 1}"
            )
        files: dict[Path, _SignalFile] = {}
        channels = [_parse_channel(path, line, n, files) for n, line in enumerate(lines[1 : count + 1])]
        check_channels(path, [(c.name, c.unit, c.scale is not None) for c in channels])
        frame = max(c.frame for c in channels if c.scale)
        signals = [c for c in channels if c.scale and c.frame == frame]
        record = cls(
            path=path,
            leads=lead_names([signal.name for signal in signals]),
            gains=tuple(signal.scale.gain for signal in signals if signal.scale),
            rate=float(head["rate"] or _DEFAULT_RATE) * frame,
            start=_unix_time(head["time"], head["date"]),
            samples=_count_frames(path, int(head["samples"] or 0), files.values()) * frame,
            signals=signals,
        )
        check_shape(path, len(record.leads), record.rate, record.samples)
        return record

    def annotations(self) -> Annotations | None:
        """The beats of the `.atr` file beside the header."""
        path = self.path.with_suffix(".atr")
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST_ANNOTATIONS:
            raise unusable(self.path, f"its annotations are larger than {_LARGEST_ANNOTATIONS >> 20} MB")
        frame = self.signals[0].frame  # annotations count frames
        beats = sorted((peak * frame, symbol) for peak, symbol in _parse_beats(path.read_bytes()))
        inside = [(peak, symbol) for peak, symbol in beats if 0 <= peak < self.samples]
        return Annotations(np.array([peak for peak, _ in inside], np.int64), [symbol for _, symbol in inside])

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        frame = self.signals[0].frame
        first, last = start // frame, -(-stop // frame)
        stored = np.empty((last - first, frame, len(self.signals)), np.int64)
        for file in dict.fromkeys(signal.file for signal in self.signals):
            frames = _read_stored(file, first * file.frame, last * file.frame).reshape(-1, file.frame)
            for lead, signal in enumerate(self.signals):
                if signal.file is file:
                    stored[:, :, lead] = frames[:, signal.before : signal.before + frame]
        flat = stored.reshape(-1, len(self.signals))[start - first * frame : stop - first * frame]
        return to_units(flat, [signal.scale for signal in self.signals if signal.scale])


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
    units = np.clip(np.rint(np.nan_to_num(millivolts) * _WRITTEN_GAIN), MISSING + 1, -MISSING - 1)
    stored = np.where(np.isfinite(millivolts), units, MISSING).astype("<i2")
    for suffix, data in ((".dat", stored.tobytes()), (".atr", _encode_beats(peaks, symbols))):
        with atomic_write(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(data)
    lines = [f"{path.stem} {len(leads)} {rate:.10g} {len(stored)}"]
    for lead, name in enumerate(leads):
        checksum = int(stored[:, lead].sum(dtype=np.int64).astype(np.int16))
        lines.append(f"{path.stem}.dat 16 {_WRITTEN_GAIN}(0)/mV 16 0 {stored[0, lead]} {checksum} 0 {name}")
    write_text(path, "\n".join(lines) + "\n")


def _read_header(path: Path) -> str:
    if not path.is_file():
        raise unusable(path, f"there is no {path.name}", "check its path; the header is a .hea file")
    if path.stat().st_size > _LARGEST_HEADER:
        raise unusable(path, f"its header is larger than {_LARGEST_HEADER >> 20} MB")
    text = path.read_bytes()
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _parse_channel(path: Path, line: str, number: int, files: dict[Path, _SignalFile]) -> _WfdbSignal:
    """The channel that a line of the header `path` describes; its .dat file is added to `files`, or grows by
    the channel."""
    fields = _CHANNEL.fullmatch(line)
    if fields is None:
        raise unusable(path, f"line {number + 2} of its header describes no channel: {line[:80]!r}")
    if fields["format"] not in _BITS:
        raise unusable(path, f"its format {fields['format']} is not read", "convert it to format 16 or 212")
    samples = _samples_beside(path, fields["file"])
    file = files.setdefault(samples, _SignalFile(samples, fields["format"], int(fields["offset"] or 0)))
    if file.format != fields["format"]:
        raise unusable(path, f"{samples.name} is of two formats at once")
    before = file.frame
    frame = int(fields["frame"] or 1)
    file.frame += frame
    if not 0 < frame <= 10_000:
        raise unusable(path, f"it has {frame} samples in a frame")
    unit = fields["unit"] or "mV"
    gain = numbers_a_millivolt(float(fields["gain"] or 0) or _DEFAULT_GAIN, unit)
    name = fields["name"] or f"ECG{number + 1}"
    scale = None
    if gain is not None and is_ecg(name):
        zero = int(fields["baseline"] or fields["zero"] or 0)
        missing = -(1 << (_BITS[file.format] - 1))
        scale = Scale.fitting(gain, zero, missing + 1, -missing - 1, missing)
    return _WfdbSignal(name, unit, file, frame, before, scale)


def _samples_beside(path: Path, name: str) -> Path:
    """The .dat file `name` of the header `path`, which must lie in its folder."""
    folder = path.parent
    if name in (".", "..", "-", "~") or "/" in name or "\\" in name or "\0" in name:
        raise unusable(path, f"its samples would be outside of its folder: {name[:80]!r}")
    samples = folder / name
    if not samples.is_file():
        raise unusable(path, f"its samples {name[:80]!r} are missing", "copy the .dat file beside its header")
    if Path(os.path.realpath(samples)).parent != Path(os.path.realpath(folder)):
        raise unusable(
            path, f"{name[:80]!r} is a link out of its folder", "copy the file instead of linking it"
        )
    return samples


def _count_frames(path: Path, declared: int, files: Iterable[_SignalFile]) -> int:
    """The frames that the header `path` declares, or that its files hold where it declares none (0)."""
    sizes = [(file.path.stat().st_size - file.offset, _BITS[file.format] * file.frame) for file in files]
    held = min((size * 8 // bits for size, bits in sizes), default=0)
    if declared > held:
        hint = "it was not copied as a whole: fetch it again, or mend the length in the header"
        problem = f"its header says {declared} samples, and its .dat files hold {max(held, 0)}"
        raise unusable(path, problem, hint)
    return declared or held


def _read_stored(file: _SignalFile, start: int, stop: int) -> NDArray[np.int64]:
    """The samples `start` to `stop` of a file, of all its channels in turn."""
    bits = _BITS[file.format]
    # Of 12 bits two samples share three bytes: they are read as pairs.
    first, last = (start // 2 * 2, stop + stop % 2) if bits == 12 else (start, stop)
    count = (last - first) * bits // 8
    raw = np.fromfile(file.path, np.uint8, count, offset=file.offset + first * bits // 8)
    if bits == 12 and len(raw) == count - 1:  # an odd number of samples: the last has only two bytes
        raw = np.append(raw, np.uint8(0))
    if len(raw) < count:
        raise ValueError(f"{file.path.name} ends early")
    return _decode(raw, file.format)[start - first : stop - first]


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


def _parse_beats(data: bytes) -> Iterator[tuple[int, str]]:
    """Frame and symbol of each beat of an .atr file; other annotations are passed over."""
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
            if code in _BEATS:
                yield time, _BEATS[code]


def _unix_time(time: str | None, date: str | None) -> float | None:
    if not time or not date:
        return None
    day, month, year = (int(part) for part in date.split("/"))
    seconds = 0.0
    for part in time.split(":"):
        seconds = seconds * 60 + float(part)
    return datetime(year, month, day, tzinfo=UTC).timestamp() + seconds


def _encode_beats(peaks: NDArray[np.integer], symbols: Sequence[str]) -> bytes:
    """The .atr file of the beats at `peaks`."""
    codes = {symbol: code for code, symbol in _BEATS.items()}
    words: list[int] = []
    last = 0
    for peak, symbol in zip(peaks.tolist(), symbols, strict=True):
        step = peak - last
        last = peak
        if step > _LONGEST_STEP:
            words += [_SKIP << 10, step >> 16, step & 0xFFFF]
            step = 0
        words.append(codes[symbol] << 10 | step)
    return np.array([*words, 0], "<u2").tobytes()
