"""Repairs of JPEG files (ITU-T T.81) that lack no pixel.

Viewers show such files, because libjpeg skips what it does not understand. Here a repair is made only if
there is one way to make it, and the repaired file must then decode without any warning of libjpeg: a warning
may stand for missing pixels.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

END = b"\xff\xd9"
START_OF_SCAN = 0xDA
START_OF_IMAGE = 0xD8
END_OF_IMAGE = 0xD9
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})

_HUFFMAN = 0xC4
_QUANTISATION = 0xDB
_RESTART = 0xDD
_APPLICATIONS = range(0xE0, 0xF0)
_EXIF = 0xE1
_COMMENT = 0xFE
_IDENTIFIERS = (
    b"JFIF\0",
    b"JFXX\0",
    b"Exif\0\0",
    b"http://",
    b"ICC_PROFILE\0",
    b"MPF\0",
    b"Photoshop",
    b"Adobe",
)
_MAX_SEGMENTS = 100_000
_MAX_PLACES = 16  # of repairs in a header; each costs a look at the whole file
_MAX_SCANS_TRIED = 8  # each costs a decoding
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
# Within a scan FF 00 is a byte of data, and the restart markers FF D0 to FF D7 belong to the scan.
_MARKER_IN_SCAN = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]+)")
_PROGRESSIVE = 0xC2
_SEQUENTIAL = (0xC0, 0xC1)
_ALL_COEFFICIENTS = 64


class Segment(NamedTuple):
    """Segment of a JPEG before its first scan: offset, second byte of its marker, content."""

    at: int
    marker: int
    body: bytes


class Segments(NamedTuple):
    """Segments before the first scan, offset of that scan, and notes on what was repaired."""

    found: list[Segment]
    scan_at: int
    repairs: tuple[str, ...]


def read_segments(data: bytes) -> Segments:
    """Read the segments before the first scan (annex B), whatever their lengths say.

    Raises:
        ValueError, IndexError: the header is damaged, and cannot be repaired in one way only.
    """
    found: list[Segment] = []
    repairs: list[str] = []
    has_frame = False
    end = len(data)
    at = 2
    for _ in range(_MAX_SEGMENTS):
        marker = data[at + 1] if at + 4 <= end and data[at] == 0xFF else 0
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == START_OF_SCAN and has_frame:
            return Segments(found, at, tuple(repairs))
        length = data[at + 2] << 8 | data[at + 3] if marker else 0
        if marker < 0xC0 or 0xD0 <= marker <= START_OF_SCAN or length < 2:
            if len(repairs) == _MAX_PLACES:
                raise ValueError(f"its header is damaged at more than {_MAX_PLACES} places")
            at = _resume(data, at, found, repairs)
            has_frame = any(segment.marker in FRAMES for segment in found)
            continue
        has_frame |= marker in FRAMES
        found.append(Segment(at, marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
    raise ValueError(f"more than {_MAX_SEGMENTS} segments before the pixels")


def joined(data: bytes, segments: Segments, skipped: frozenset[int] = frozenset()) -> bytes:
    """Return the file with `segments` as its header, without the segments whose marker is in `skipped`."""
    parts = [data[:2]]
    for _, marker, body in segments.found:
        if marker not in skipped and len(body) < 65534:
            parts.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
    return b"".join([*parts, data[segments.scan_at :]])


def scan_markers(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield offset and second byte of the markers of a picture from its first scan at offset `at` to its end:
    the end marker, or (if that is missing) the start of the next picture."""
    while at + 2 <= len(data):
        marker = data[at + 1]
        yield at, marker
        if marker in (START_OF_IMAGE, END_OF_IMAGE):
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        found = _MARKER_IN_SCAN.search(data, at)
        if found is None:
            return
        at = found.start(1) - 1


def repaired(data: bytes, problem: str, segments: Segments) -> Iterator[tuple[bytes, str]]:
    """Yield files that may be `data` without the problem that libjpeg reported, each with a note.

    Args:
        data: the file, without damage in its header.
        problem: first warning of libjpeg.
        segments: segments of `data`.
    """
    extraneous = _EXTRANEOUS.search(problem)
    if extraneous is not None:
        count, marker = int(extraneous[1]), int(extraneous[2], 16)
        places = [at for at, found in scan_markers(data, segments.scan_at) if found == marker]
        where = "the end marker" if marker == END_OF_IMAGE else "a scan"
        for at in places[:_MAX_SCANS_TRIED]:
            yield data[: at - count] + data[at:], f"meaningless bytes before {where}"
    elif "Premature end of JPEG file" in problem and not data.endswith(END):
        if _has_all_scans(data, segments):
            yield data + END, "the end marker is missing"
    elif "ICC marker" in problem:
        # Under another identifier libjpeg ignores the segments of the damaged profile.
        yield data.replace(b"ICC_PROFILE\0", b"ICC_PROFILE-"), ""
    elif "JFIF revision" in problem:
        yield _patched(data, segments, b"JFIF\0", 5, b"\1\1"), "an unknown version of JFIF"
    elif "Adobe color transform" in problem:
        transform = b"\2" if _frame(segments).body[5] == 4 else b"\1"  # YCCK, YCbCr
        note = "an unknown colour transform, taken as the usual one"
        yield _patched(data, segments, b"Adobe", 11, transform), note
    elif "Invalid SOS parameters" in problem:
        yield _with_whole_scans(data, segments), "scans with a wrong range of coefficients"


def _resume(data: bytes, at: int, found: list[Segment], repairs: list[str]) -> int:
    """Return where the header resumes after damage at offset `at`.

    Args:
        data: the file.
        at: offset at which a segment should begin and does not.
        found: segments before it; the last one is corrected, and segments that are skipped are added.
        repairs: receives a note.
    """
    last = (
        found[-1] if found and (found[-1].marker in _APPLICATIONS or found[-1].marker == _COMMENT) else None
    )
    start = at if last is None else last.at + 4
    resumed = _begin_of_chain(data, start, has_frame=any(segment.marker in FRAMES for segment in found))
    if last is not None and (resumed < at or last.marker == _EXIF):
        found[-1] = last._replace(body=data[last.at + 4 : resumed])
    if data.find(b"\xff\xd8\xff", start, resumed) < 0:  # else they may be those of an embedded picture
        found += _sound_segments(data, at, resumed)
    repairs.append("a segment with a wrong length" if resumed < at else "meaningless bytes between segments")
    return resumed


def _begin_of_chain(data: bytes, start: int, *, has_frame: bool) -> int:
    """Return the first offset from which segments follow one another to the first scan.

    Pictures that are embedded, as thumbnails are, do not count: they follow a start marker of their own.

    Raises:
        ValueError: there is none, or there are several pictures.
    """
    chains: dict[int, _Chain] = {}
    for match in reversed(list(_SEGMENT.finditer(data, start))):
        at = match.start()
        if data[at + 1] == START_OF_SCAN:
            if _is_sound(data, at):
                chains[at] = _Chain(at, False)
        elif _is_sound(data, at):
            following = _end_of_segment(data, at)
            while data[following : following + 2] == b"\xff\xff":
                following += 1
            if following in chains:
                scan, has_own_frame = chains[following]
                chains[at] = _Chain(scan, has_own_frame or data[at + 1] in FRAMES)
    begins: dict[int, int] = {}
    for at, chain in chains.items():
        begins[chain.scan] = min(at, begins.get(chain.scan, at))
    own = sorted(scan for scan, at in begins.items() if data[at - 2 : at] != b"\xff\xd8")
    framed = [scan for scan in own if chains[begins[scan]].has_frame]
    if not own or len(framed) > (not has_frame):
        raise ValueError(f"its header is damaged at byte {start}, and where it resumes is not clear")
    return begins[(framed or own)[0]]


class _Chain(NamedTuple):
    """Segments that follow one another: offset of the scan at their end; whether they include a frame."""

    scan: int
    has_frame: bool


def _sound_segments(data: bytes, start: int, end: int) -> Iterator[Segment]:
    """Yield the segments among damage."""
    for match in _SEGMENT.finditer(data, start, max(start, end)):
        at = match.start()
        if at >= start and _is_sound(data, at) and _end_of_segment(data, at) <= end:
            start = _end_of_segment(data, at)
            yield Segment(at, data[at + 1], data[at + 4 : start])


def _end_of_segment(data: bytes, at: int) -> int:
    return at + 2 + int.from_bytes(data[at + 2 : at + 4])


def _is_sound(data: bytes, at: int) -> bool:
    """Return whether the bytes at a marker are a segment, by the form of its content."""
    marker = data[at + 1]
    body = data[at + 4 : _end_of_segment(data, at)]
    if marker == _QUANTISATION:
        while body and body[0] >> 4 <= 1 and body[0] & 15 <= 3 and len(body) > 64 << (body[0] >> 4):
            body = body[1 + (64 << (body[0] >> 4)) :]
        return not body
    if marker == _HUFFMAN:
        while (
            len(body) > 16 and body[0] >> 4 <= 1 and body[0] & 15 <= 3 and len(body) >= 17 + sum(body[1:17])
        ):
            body = body[17 + sum(body[1:17]) :]
        return not body
    if marker in FRAMES:
        return len(body) > 5 and len(body) == 6 + 3 * body[5]
    if marker == START_OF_SCAN:
        return len(body) > 0 and 1 <= body[0] <= 4 and len(body) == 4 + 2 * body[0]
    if marker == _RESTART:
        return len(body) == 2
    return marker == _COMMENT or (marker in _APPLICATIONS and body.startswith(_IDENTIFIERS))


def _has_all_scans(data: bytes, segments: Segments) -> bool:
    """Return whether the scans bring every coefficient of every component to its full precision.

    Of arithmetic coding nothing is said: libjpeg gives no warning if data of a scan are missing.
    """
    frame = _frame(segments)
    if frame.marker not in (*_SEQUENTIAL, _PROGRESSIVE):
        return False
    missing = {frame.body[6 + 3 * index]: [1] * _ALL_COEFFICIENTS for index in range(frame.body[5])}
    for at, marker in scan_markers(data, segments.scan_at):
        if marker != START_OF_SCAN:
            continue
        count = data[at + 4]
        first, last, bits = data[at + 5 + 2 * count : at + 8 + 2 * count]
        if frame.marker != _PROGRESSIVE:
            first, last, bits = 0, _ALL_COEFFICIENTS - 1, 0
        for component in data[at + 5 : at + 5 + 2 * count : 2]:
            if component in missing:
                missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    return not any(any(bits) for bits in missing.values())


def _frame(segments: Segments) -> Segment:
    return next(segment for segment in segments.found if segment.marker in FRAMES)


def _patched(data: bytes, segments: Segments, begins: bytes, at: int, value: bytes) -> bytes:
    """Return the file with `value` at offset `at` of the segments whose content begins with `begins`."""
    found = [
        segment._replace(body=segment.body[:at] + value + segment.body[at + len(value) :])
        if segment.body.startswith(begins)
        else segment
        for segment in segments.found
    ]
    return joined(data, segments._replace(found=found))


def _with_whole_scans(data: bytes, segments: Segments) -> bytes:
    """Return the sequential file with all coefficients in the header of each scan."""
    whole = bytearray(data)
    for at, marker in scan_markers(data, segments.scan_at):
        if marker == START_OF_SCAN:
            place = at + 5 + 2 * data[at + 4]
            whole[place : place + 3] = b"\0\x3f\0"
    return bytes(whole)
