"""Records of PhysioNet's WFDB, read and written: a header, samples in signal files beside it, beats in an
.atr file.

A record of several segments is one line of time. Its leads are those of all segments by their names; where a
segment does not have one, and between segments, samples are missing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import (
    MISSING,
    Annotations,
    BedsideAlarm,
    EcgRecord,
    RhythmMark,
    Scale,
    check_shape,
    common_gain,
    reason_of,
    unusable,
)
from genray.ecg.records.channels import (
    Channel,
    Choice,
    LeadKind,
    choose_channels,
    is_in_volts,
    lead_kind,
    lead_names,
    listed,
    numbers_a_millivolt,
    resampled_note,
)
from genray.ecg.records.resampling import REACH, Upsampling
from genray.ecg.records.wfdb_header import NO_SAMPLES, SignalLine, WfdbHeader, beside, read_header
from genray.ecg.records.wfdb_signals import (
    FileChannel,
    SignalFile,
    is_readable,
    readable_formats,
    stored_scale,
)
from genray.errors import DataError
from genray.io.files import atomic_write, write_text
from genray.text import printable

_LARGEST_HEADER = 1 << 20  # characters
_LARGEST_ANNOTATIONS = 8 << 20  # bytes: the beats of a fortnight
_NO_FORMAT = "0"  # of a signal without samples
_MOST_NOTES = 5
_BEATS = dict(zip(range(1, 14), "NLRaVFJASEj/Q", strict=True)) | {
    25: "B", 30: "?", 34: "e", 35: "n", 38: "f", 41: "r"
}  # fmt: skip
"""The symbols of the annotation codes that stand for beats."""

_BEDSIDE_ALARMS = {
    "Asystole": "asystole",
    "Bradycardia": "bradycardia",
    "Tachycardia": "tachycardia",
    "Ventricular_Tachycardia": "ventricular-tachycardia",
    "Ventricular_Flutter_Fib": "ventricular-fibrillation",
}
_VERDICTS = {"True alarm": True, "False alarm": False}
_NOTE, _RHYTHM, _SKIP = 22, 28, 59  # codes of a text, a rhythm, and words that are a long interval
_TIME_RESOLUTION = re.compile(r"## time resolution: (\d{1,9}\.?\d{0,9})")
_AFTER_CUT = 512  # bytes: more than any annotation has
_LONGEST_STEP = 0x3FF  # samples between two annotations that fit into one word
_WRITTEN_GAIN = 1000


class _LeadKey(NamedTuple):
    """A signal's name, and which of the signals of a segment with this name it is."""

    name: str
    number: int


@dataclass(frozen=True)
class _Channel:
    """A signal of a segment that may be an ECG.

    Attributes:
        frame: samples in each frame.
        skew: frames of its file before its first sample.
        scale: of its numbers.
        file: that holds it; None where it has no samples.
        place: of it among the channels of its file.
    """

    frame: int
    skew: int
    scale: Scale
    file: SignalFile | None
    place: int


@dataclass(frozen=True)
class _Segment:
    """A stretch of a record: it begins with the frame `first`; of each lead there is a channel or none."""

    first: int
    frames: int
    channels: Sequence[_Channel | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class WfdbRecord(EcgRecord):
    """A WFDB record. Leads of lower rates are resampled to that of the fastest one.

    Attributes:
        frame: samples of each lead in each frame.
        segments: those that have samples, by time.
    """

    frame: int
    segments: Sequence[_Segment]

    @classmethod
    def open(cls, path: Path, leads: Sequence[str] = (), *, pulse: bool = False) -> WfdbRecord:
        """Read the header `path`, those of its segments, and look at the signal files that they name.

        Args:
            leads: names of the channels to read (empty: those that look like an ECG).
            pulse: whether pulse waves and arterial pressures are read too.

        Raises:
            DataError: a header is wrong or of a kind that is not read, there is no ECG, or its signal files
                are missing or not in its folder.
        """
        header = read_header(path)
        found = _Found(path, header.frames_a_second)
        found.notes += header.notes
        if header.segments:
            found.add_segments(header)
        else:
            found.add(header, 0, header.frames)
        choice = found.choose(leads, pulse=pulse)
        keys = [list(found.units)[n] for n in choice.taken]
        frames = {key: found.frames[key] for key in keys}
        frame = max(frames.values())
        names = [key.name for key in keys]
        rates = [header.frames_a_second * each for each in frames.values()]
        segments = [part.segment(keys) for part in found.parts if part.frames]
        record = cls(
            path=path,
            leads=lead_names(names),
            gains=tuple(common_gain(found.scales[key]) for key in keys),
            kinds=choice.kinds if pulse else (),
            rate=header.frames_a_second * frame,
            start=header.start,
            samples=found.length * frame,
            notes=(
                *found.all_notes(),
                *resampled_note(names, rates, header.frames_a_second * frame),
                *choice.notes,
            ),
            frame=frame,
            segments=[segment for segment in segments if any(segment.channels)],
        )
        check_shape(path, len(record.leads), record.rate, record.samples)
        return record

    def annotations(self) -> Annotations | None:
        """The beats of the `.atr` file beside the header."""
        found = self._annotated()
        if found is None:
            return None
        beats = sorted((sample, _BEATS[code]) for sample, code, _ in found if code in _BEATS)
        inside = [(peak, symbol) for peak, symbol in beats if 0 <= peak < self.samples]
        return Annotations(np.array([peak for peak, _ in inside], np.int64), [symbol for _, symbol in inside])

    def rhythms(self) -> list[RhythmMark]:
        """Return the rhythm annotations of the `.atr` file beside the header."""
        found = sorted(
            (sample, note.strip("\0 ")) for sample, code, note in self._annotated() or () if code == _RHYTHM
        )
        return [
            RhythmMark(max(0, sample), note[1:])
            for sample, note in found
            if note.startswith("(") and sample < self.samples
        ]

    def bedside_alarm(self) -> BedsideAlarm | None:
        """Return the alarm that the last lines of the header name, as in the challenge of 2015."""
        lines = [line[1:].strip() for line in self._header_lines() if line.startswith("#")]
        if len(lines) < 2 or lines[0] not in _BEDSIDE_ALARMS or lines[1] not in _VERDICTS:
            return None
        return BedsideAlarm(_BEDSIDE_ALARMS[lines[0]], _VERDICTS[lines[1]])

    def _header_lines(self) -> list[str]:
        with self.path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST_HEADER).splitlines()

    def _annotated(self) -> list[tuple[int, int, str]] | None:
        """Return sample, code and note of each annotation; None: there is no file of them."""
        path = self.path.with_suffix(".atr")
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST_ANNOTATIONS:
            raise unusable(self.path, f"its annotations are larger than {_LARGEST_ANNOTATIONS >> 20} MB")
        try:
            found = _read_annotations(path.read_bytes(), self.rate / self.frame)
        except Exception as error:  # whatever the package makes of damaged ones
            raise unusable(self.path, f"its annotations cannot be read: {reason_of(error)}") from error
        return [(frame * self.frame, code, note) for frame, code, note in found]

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        first, last = start // self.frame, -(-stop // self.frame)
        units = np.full((last - first, self.frame, len(self.leads)), MISSING, np.int16)
        begins = [segment.first for segment in self.segments]
        for segment in self.segments[max(0, bisect_right(begins, first) - 1) :]:
            if segment.first >= last:
                break
            begin, end = max(first, segment.first), min(last, segment.first + segment.frames)
            if begin < end:
                within = units[begin - first : end - first]
                self._read_segment(segment, begin - segment.first, end - segment.first, within)
        return units.reshape(-1, len(self.leads))[start - first * self.frame : stop - first * self.frame]

    def _read_segment(self, segment: _Segment, first: int, last: int, units: NDArray[np.int16]) -> None:
        """Read the frames `first` to `last` of a segment into `units`, (frames, samples in each, leads)."""
        leads: dict[tuple[SignalFile, int], list[int]] = {}
        for lead, channel in enumerate(segment.channels):
            if channel is not None and channel.file is not None:
                leads.setdefault((channel.file, channel.skew), []).append(lead)
        for (file, skew), those in leads.items():
            held = min(
                segment.frames, file.frames - skew
            )  # what would be after the end of the file is missing
            end = min(last, held)
            if end <= first:
                continue
            channels = [segment.channels[lead] for lead in those]
            around = max(self._frames_around(channel) for channel in channels if channel is not None)
            begin = max(first - around, 0)
            signals = file.read(begin + skew, min(end + around, held) + skew)
            for lead, channel in zip(those, channels, strict=True):
                assert channel is not None
                values = channel.scale.to_units(signals[channel.place], self.gains[lead])
                if channel.frame == self.frame:
                    values = values[(first - begin) * self.frame : (end - begin) * self.frame]
                else:
                    ratio = Upsampling.between(channel.frame, self.frame)
                    at = (begin * channel.frame, first * self.frame, end * self.frame)
                    values = ratio.read(values, *at)
                units[: end - first, :, lead] = values.reshape(-1, self.frame)

    def _frames_around(self, channel: _Channel) -> int:
        """The frames before and after a stretch that its samples are computed from."""
        return 0 if channel.frame == self.frame else -(-REACH // channel.frame) + 1


@dataclass(frozen=True)
class _Part:
    """A segment, before it is known which leads are taken."""

    first: int
    frames: int
    channels: Mapping[_LeadKey, _Channel]

    def segment(self, keys: Iterable[_LeadKey]) -> _Segment:
        """It, with the channels of these leads."""
        return _Segment(self.first, self.frames, [self.channels.get(key) for key in keys])


@dataclass
class _Found:
    """What the headers of a record say, gathered segment by segment.

    Attributes:
        path: of the record's header.
        rate: frames a second.
        units: of each signal that was met, its unit.
        frames: of each signal, its samples in each frame, the most of all segments.
        scales: of each lead, those that it is stored by.
        parts: the segments.
        files: signal files that each header names.
        length: frames of all of them together.
        notes: what a person should know.
    """

    path: Path
    rate: float
    units: dict[_LeadKey, str] = field(default_factory=dict)
    frames: dict[_LeadKey, int] = field(default_factory=dict)
    scales: dict[_LeadKey, list[Scale]] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)
    files: dict[Path, dict[str, SignalFile]] = field(default_factory=dict)
    length: int = 0
    notes: list[str] = field(default_factory=list)

    def add_segments(self, header: WfdbHeader) -> None:
        """Add the segments that `header` names, one after the other."""
        known: dict[str, WfdbHeader] = {}
        for line in header.segments:
            if line.name == NO_SAMPLES:
                self.length += line.frames
                continue
            if line.name not in known:
                known[line.name] = self._segment_header(line.name)
            self.add(known[line.name], self.length, line.frames)
            self.length += line.frames
        if header.frames not in (0, self.length):
            self.notes.append(f"its header says {header.frames} samples, and its segments {self.length}")

    def add(self, header: WfdbHeader, first: int, frames: int) -> None:
        """Add the signals that `header` describes; they begin with the frame `first` and are so many `frames`
        long, as long as the files if 0."""
        if header.path not in self.files:  # a segment may come again and again
            self.files[header.path] = _open_files(header)
        files = self.files[header.path]
        held = max((file.frames for file in files.values()), default=0)
        if header.path == self.path:
            frames = frames or held
            self.length = min(frames, held)
        self._note_cut(header, frames, files)
        met: Counter[str] = Counter()
        places: Counter[str] = Counter()
        channels: dict[_LeadKey, _Channel] = {}
        for signal in header.signals:
            met[signal.name] += 1
            place = places[signal.file]
            places[signal.file] += _is_stored(signal)
            key = _LeadKey(signal.name, met[signal.name])
            scale = _scale(header, signal)
            if scale is None:
                self.units.setdefault(key, signal.unit)
                self.frames.setdefault(key, signal.frame)
                continue
            self.units[key] = signal.unit
            self.frames[key] = max(signal.frame, self.frames.get(key, 0))
            channels[key] = _Channel(
                signal.frame,
                signal.skew,
                scale,
                files.get(signal.file) if _is_stored(signal) else None,
                place,
            )
            if _is_stored(signal):
                self.scales.setdefault(key, []).append(scale)
        if uncalibrated := [signal.name for signal in header.signals if not signal.is_calibrated]:
            self.notes.append(
                f"no gain in the header, taken as 200 a millivolt, as WFDB does: {listed(uncalibrated)}"
            )
        self.parts.append(_Part(first, frames, channels))

    def choose(self, wanted: Sequence[str], *, pulse: bool) -> Choice:
        """The leads that are read, by their places in `units`, and what is to be said of the other
        signals."""
        channels = [
            Channel(
                key.name,
                unit,
                self.rate * self.frames[key] or None,
                in_volts=is_in_volts(unit) and key in self.scales,
            )
            for key, unit in self.units.items()
        ]
        return choose_channels(self.path, channels, wanted, pulse=pulse)

    def _segment_header(self, name: str) -> WfdbHeader:
        """The header of the segment `name`."""
        header = read_header(beside(self.path, f"{name}.hea", "segments"))
        if header.segments:
            raise unusable(self.path, f"its segment {name} has segments itself")
        if header.rate is not None and header.rate != self.rate:
            problem = f"its segment {name} has {header.rate:g} samples a second, and the record {self.rate:g}"
            raise unusable(self.path, problem, "give the headers of its segments one by one")
        return header

    def _note_cut(self, header: WfdbHeader, frames: int, files: Mapping[str, SignalFile]) -> None:
        """Note the files that hold fewer than the `frames` that are said to be in them."""
        for name, file in files.items():
            if file.frames < frames:
                where = "" if header.path == self.path else f" of {header.path.stem}"
                said = f"the header{where} says {frames} samples, and {printable(name)} holds {file.frames}"
                self.notes.append(f"cut off: {said}")

    def all_notes(self) -> tuple[str, ...]:
        """The notes, each once and not too many."""
        notes = list(dict.fromkeys(self.notes))
        if len(notes) > _MOST_NOTES:
            notes[_MOST_NOTES:] = [f"and {len(notes) - _MOST_NOTES} more of its segments are not whole"]
        return tuple(notes)


def _is_stored(signal: SignalLine) -> bool:
    """Whether a signal has samples, in the file that its line names."""
    return signal.file != NO_SAMPLES and signal.format != _NO_FORMAT


def _open_files(header: WfdbHeader) -> dict[str, SignalFile]:
    """The signal files that a header names, by their names in it."""
    described: dict[str, list[SignalLine]] = {}
    for signal in header.signals:
        if _is_stored(signal):
            described.setdefault(signal.file, []).append(signal)
    files: dict[str, SignalFile] = {}
    for name, signals in described.items():
        at = beside(header.path, name, "samples")
        code, offset = signals[0].format, signals[0].offset
        if any(signal.format != code for signal in signals):
            raise unusable(header.path, f"{name} is of two formats at once")
        if not is_readable(code):
            hint = f"convert it with xform of the WFDB software to one of the formats {readable_formats()}"
            raise unusable(header.path, f"its format {code} is not read", hint)
        channels = [FileChannel(signal.frame, signal.initial) for signal in signals]
        try:
            files[name] = SignalFile.open(at, code, offset, channels)
        except DataError:
            raise
        except Exception as error:  # whatever a library makes of a damaged file
            raise unusable(header.path, f"its samples {name} cannot be read: {reason_of(error)}") from error
    return files


def _scale(header: WfdbHeader, signal: SignalLine) -> Scale | None:
    """The scale of a signal; None if it is neither in volts nor a pulse wave, whose unit is its own."""
    gain = numbers_a_millivolt(signal.gain, signal.unit)
    if gain is None:
        if lead_kind(signal.name, signal.unit) is LeadKind.ECG:
            return None
        gain = signal.gain
    scale = stored_scale("16" if signal.format == _NO_FORMAT else signal.format, gain, signal.baseline)
    if scale.fault:
        raise unusable(header.path, scale.fault)
    return scale


def _read_annotations(data: bytes, rate: float) -> list[tuple[int, int, str]]:
    """Return frame, code and note of each annotation of an .atr file.

    Read with the wfdb package, but not with its `rdann`: that of version 4.3.1 never returns from a note at
    sample 0 that begins with ## and is none that it knows, and refuses a file that was cut off.
    """
    from wfdb.io import annotation

    words = np.frombuffer(data + bytes(_AFTER_CUT + len(data) % 2), np.uint8).reshape(-1, 2)
    times, codes, _, _, _, notes = annotation.proc_ann_bytes(words, None)
    # A file may count the time by a rate of its own.
    step = rate / (_own_rate(times, codes, notes) or rate)
    return [
        (round(int(time) * step), code, note) for time, code, note in zip(times, codes, notes, strict=True)
    ]


def _own_rate(times: Sequence[int], codes: Sequence[int], notes: Sequence[str]) -> float | None:
    """The rate by which an annotation file counts, if a note at its beginning says one."""
    for time, code, note in zip(times, codes, notes, strict=True):
        if time:
            break
        if code == _NOTE and (found := _TIME_RESOLUTION.match(note)):
            return float(found[1])
    return None


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
