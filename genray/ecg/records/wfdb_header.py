"""The headers of WFDB records (https://physionet.org/physiotools/wag/header-5.htm): of one segment, or of
several.

Read here, not by the wfdb package: version 4.3.1 drops every byte that is not ASCII, so that µV becomes V,
takes the gain 2E+2 for 2, refuses file names with two dots, and passes over what it does not understand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from genray.ecg.records.base import MAX_CHANNELS, unusable
from genray.text import printable

NO_SAMPLES = "~"
"""Stands in a header for a segment or a signal that has no samples."""

_LARGEST = 1 << 20  # bytes of a header
_LONGEST_QUOTE = 80
_DEFAULT_GAIN, _DEFAULT_RATE = 200.0, 250.0
_LARGEST_FRAME = 10_000
_RECORD = re.compile(
    r"(?P<name>[^\s/]+)(/(?P<segments>\d+))?\s+(?P<channels>\d+)(\s+(?P<rate>[\d.eE+-]+)(/[^\s]*)?)?"
    r"(\s+(?P<samples>\d+))?(\s+(?P<time>\S+))?(\s+(?P<date>\S+))?\s*"
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(x(?P<frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?"
    r"(\s+(?P<gain>[\d.eE+-]+)(\((?P<baseline>-?\d+)\))?(/(?P<unit>\S+))?"
    r"(\s+(?P<bits>\d+)(\s+(?P<zero>-?\d+)(\s+(?P<initial>-?\d+)(\s+-?\d+(\s+\d+(\s+(?P<name>.*))?)?)?)?)?)?"
    r")?\s*"
)
_CLOCK = re.compile(r"\d{1,2}(:\d{1,2}){0,2}(\.\d{1,9})?")
_DAY = re.compile(r"(?P<day>\d{1,2})[/.-](?P<month>\d{1,2})[/.-](?P<year>\d{4})")
_SEGMENT = re.compile(r"(?P<name>\S+)\s+(?P<frames>\d+)\s*")


@dataclass(frozen=True)
class SignalLine:
    """What a header says of one signal.

    Attributes:
        file: name of the file that holds it, not checked; NO_SAMPLES if there is none.
        format: code of the format of its numbers.
        frame: samples in each frame.
        skew: frames of the file before its first sample of the record.
        offset: bytes of the file before its samples (FLAC: samples).
        gain: numbers a unit.
        unit: of its samples.
        baseline: number that stands for 0 units.
        initial: number before the first, of a format that stores differences.
        is_calibrated: whether the header says the gain.
    """

    name: str
    file: str
    format: str
    frame: int
    skew: int
    offset: int
    gain: float
    unit: str
    baseline: int
    initial: int
    is_calibrated: bool


@dataclass(frozen=True)
class SegmentLine:
    """A segment of a record: the name of its own header, NO_SAMPLES for a gap, and its frames."""

    name: str
    frames: int


@dataclass(frozen=True)
class WfdbHeader:
    """A header.

    Attributes:
        rate: frames a second; None where the header does not say it.
        frames: 0 where the header does not say it.
        start: unix time of the first sample, taken as UTC; None where the header does not say it.
        signals: of a record of one segment.
        segments: of a record of several; there are no `signals` then.
        notes: what of it cannot be used.
    """

    path: Path
    rate: float | None
    frames: int
    start: float | None
    signals: Sequence[SignalLine]
    segments: Sequence[SegmentLine]
    notes: tuple[str, ...] = ()

    @property
    def frames_a_second(self) -> float:
        """The rate, or the one that WFDB takes where none is given."""
        return _DEFAULT_RATE if self.rate is None else self.rate


def read_header(path: Path) -> WfdbHeader:
    """The header `path`.

    Raises:
        DataError: there is none, or it is wrong.
    """
    lines = _lines(_text(path))
    head = _RECORD.fullmatch(lines[0]) if lines else None
    if head is None:
        hint = "a header begins as in: 100 2 360 650000 10:30:00 31/12/2001"
        raise unusable(path, f"its header is not one of WFDB: {_quote(lines[0]) if lines else 'empty'}", hint)
    segments = _integer(path, head["segments"]) if head["segments"] else None
    channels = _integer(path, head["channels"])
    described = len(lines) - 1
    if segments is not None and (described < segments or not segments):
        raise unusable(path, f"its header names {segments} segments and describes {described}")
    if segments is None and (channels > MAX_CHANNELS or described < channels):
        raise unusable(path, f"its header names {channels} channels and describes {described}")
    rate = _number(path, head["rate"]) if head["rate"] else None
    start, notes = _start(head["time"], head["date"])
    return WfdbHeader(
        path=path,
        rate=rate,
        frames=_integer(path, head["samples"] or "0"),
        start=start,
        signals=[]
        if segments is not None
        else [_parse_signal(path, n, line) for n, line in enumerate(lines[1 : channels + 1], 1)],
        segments=[_parse_segment(path, n, line) for n, line in enumerate(lines[1 : (segments or 0) + 1], 1)],
        notes=notes,
    )


def segment_names(path: Path) -> list[str]:
    """The names of the segments of the record `path`; none if it has one only, or cannot be read."""
    try:
        with path.open("rb") as file:
            lines = _lines(_decoded(file.read(_LARGEST)))
    except OSError:
        return []
    head = _RECORD.fullmatch(lines[0]) if lines else None
    if head is None or not head["segments"]:
        return []
    return [segment["name"] for line in lines[1:] if (segment := _SEGMENT.fullmatch(line))]


def beside(path: Path, name: str, kind: str) -> Path:
    """The file `name` that the header `path` names, which must lie in its folder.

    Args:
        kind: what it holds, in words, for the error.

    Raises:
        DataError: it is missing, no regular file, or elsewhere.
    """
    folder = path.parent
    quoted = repr(name[:_LONGEST_QUOTE])
    if name in (".", "..", "-", NO_SAMPLES) or "/" in name or "\\" in name or "\0" in name:
        hint = "copy the file beside its header, and write its name there without a folder"
        raise unusable(path, f"its {kind} would be outside of its folder: {quoted}", hint)
    file = folder / name
    if not file.is_file():
        raise unusable(path, f"its {kind} {quoted} are missing", "copy the file beside its header")
    if Path(os.path.realpath(file)).parent != Path(os.path.realpath(folder)):
        raise unusable(path, f"{quoted} is a link out of its folder", "copy the file instead of linking it")
    return file


def _text(path: Path) -> str:
    if not path.is_file():
        raise unusable(path, f"there is no {path.name}", "check its path; the header is a .hea file")
    if path.stat().st_size > _LARGEST:
        raise unusable(path, f"its header is larger than {_LARGEST >> 20} MB")
    return _decoded(path.read_bytes())


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def _parse_signal(path: Path, number: int, line: str) -> SignalLine:
    fields = _SIGNAL.fullmatch(line)
    if fields is None:
        raise unusable(path, f"signal {number} of its header is not described as WFDB does: {_quote(line)}")
    frame = _integer(path, fields["frame"] or "1")
    if not 0 < frame <= _LARGEST_FRAME:
        raise unusable(path, f"it has {frame} samples in a frame")
    gain = _number(path, fields["gain"] or "0")
    return SignalLine(
        name=fields["name"] or f"ECG{number}",
        file=fields["file"],
        format=fields["format"],
        frame=frame,
        skew=_integer(path, fields["skew"] or "0"),
        offset=_integer(path, fields["offset"] or "0"),
        gain=gain or _DEFAULT_GAIN,
        is_calibrated=gain != 0,
        unit=fields["unit"] or "mV",
        baseline=_integer(path, fields["baseline"] or fields["zero"] or "0"),
        initial=_integer(path, fields["initial"] or "0"),
    )


def _parse_segment(path: Path, number: int, line: str) -> SegmentLine:
    fields = _SEGMENT.fullmatch(line)
    if fields is None:
        raise unusable(path, f"segment {number} of its header is not described as WFDB does: {_quote(line)}")
    return SegmentLine(fields["name"], _integer(path, fields["frames"]))


def _integer(path: Path, text: str) -> int:
    if len(text) > 18:
        raise unusable(path, f"its header has a number of {len(text)} digits")
    return int(text)


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise unusable(path, f"its header has {_quote(text)} for a number") from None


def _start(time: str | None, date: str | None) -> tuple[float | None, tuple[str, ...]]:
    """The unix time of a time of day, as 10:30:00.5, and a date, as 31/12/2001; None where it is not said,
    and a note where it cannot be: the samples are whole without it."""
    if not time or not date:
        return None, ()
    found = _CLOCK.fullmatch(time)
    day = _DAY.fullmatch(date)
    if found and day:
        try:
            midnight = datetime(int(day["year"]), int(day["month"]), int(day["day"]), tzinfo=UTC)
        except ValueError:
            pass
        else:
            seconds = 0.0
            for part in time.split(":"):
                seconds = seconds * 60 + float(part)
            return midnight.timestamp() + seconds, ()
    said = "as its header gives no time of day and day as 10:30:00 31/12/2001"
    return None, (f"the time of its first sample is not known, {said}",)


def _quote(text: str) -> str:
    return repr(printable(text[:_LONGEST_QUOTE]))
