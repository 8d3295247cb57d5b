"""Reader of JPEG files (ITU-T T.81): header, number of scans, pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from genray.images.carried.tags import TagDirectory
from genray.images.image_file import FilePixels, ImageFile, to_srgb
from genray.images.limits import ReadLimits
from genray.images.repairs.jpeg import (
    FRAMES,
    START_OF_SCAN,
    Segment,
    joined,
    read_segments,
    repaired,
    scan_markers,
)
from genray.io.bad_input import BadImage

_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
# ITU-T T.81, annex K, table K.1, in the zigzag order of the file.
_LUMA = """16 11 12 14 12 10 16 14 13 14 18 17 16 19 24 40 26 24 22 22 24 49 35 37 29 40 58 51 61 60 57 51
56 55 64 72 92 78 64 68 87 69 55 56 80 109 81 87 95 98 103 104 103 62 77 113 121 112 100 120 92 101 103 99"""
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)  # markers of sequential frames
# Segments that define no pixels: all of applications but JFIF's and Adobe's, which define the colour space.
_BESIDE_PIXELS = frozenset({*range(0xE1, 0xF0)} - {0xEE})
_MAX_REPAIRS = 4  # of one picture's scans; each costs a decoding
_MPF_COUNT = 0xB001


@dataclass
class _Header:
    """Header of a JPEG: the content of the segments before the first scan.

    Attributes:
        frame: content of the frame header.
        frame_marker: second byte of its marker.
        exif: EXIF block, with its prefix.
        tables: quantisation tables, by number.
        profile: parts of the ICC profile, by number.
        pictures: number of pictures in the file (MPO: more than 1).
        scan_at: offset of the first scan.
        repairs: notes on what was repaired.
        segments: all segments before the first scan.
    """

    frame: bytes = b""
    frame_marker: int = 0
    exif: bytes | None = None
    tables: dict[int, bytes] = field(default_factory=dict)
    profile: dict[int, bytes] = field(default_factory=dict)
    pictures: int = 1
    scan_at: int = 0
    repairs: tuple[str, ...] = ()
    segments: Sequence[Segment] = ()


def inspect_jpeg(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header, see `inspect_file`.

    Raises:
        BadImage, ValueError, LookupError, struct.error: the file cannot be read.
    """
    header = _read_header(data)
    frame = header.frame
    depth, height, width, samples = struct.unpack_from(">BHHB", frame)
    if depth != 8 or samples not in (1, 3, 4):
        raise BadImage(
            "unsupported",
            f"a JPEG with {samples} components of {depth} bits; convert it to 8 bits, gray, RGB or CMYK",
        )
    limits.check_pixels(width, height)
    if not _is_one_scan(data, header):
        _check_scans(data, header.scan_at, width * height, limits)
    # For each component: horizontal and vertical sampling factor, number of its quantisation table.
    components = [(frame[7 + 3 * c] >> 4, frame[7 + 3 * c] & 15, frame[8 + 3 * c]) for c in range(samples)]
    across, down, table = components[0]
    fewer_across, fewer_down, _ = components[-1]
    subsampling = None
    if samples == 3 and components[1][:2] == components[2][:2]:
        subsampling = _SUBSAMPLING.get((across // fewer_across, down // fewer_down))
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    if header.pictures > 1:
        notes = (f"pictures after the first are left out: {header.pictures - 1}",)
        left_out = (f"pictures after the first ({header.pictures - 1})",)
    return ImageFile(
        "jpeg",
        (width, height),
        samples,
        icc=_joined_profile(header.profile),
        exif=header.exif,
        quality=_quality(steps) if len(steps := header.tables.get(table, b"")) in (64, 128) else None,
        subsampling=subsampling,
        left_out=left_out,
        notes=notes,
        salvaged=header.repairs,
        segments=header.segments,
    )


def decode_jpeg(data: bytes, file: ImageFile, repairs: list[str], *, gray: bool) -> FilePixels:
    """Decode the pixels, see `decode_file`.

    Args:
        data: the whole file.
        file: result of `inspect_jpeg`.
        repairs: receives notes on what was repaired.
        gray: decode only the luma of a gray or colour JPEG.

    Raises:
        Exception: any error of the decoders.
    """
    if file.salvaged:
        data = joined(data, read_segments(data))
    if file.samples == 3 and file.subsampling is None:  # TurboJPEG knows only the common ones
        # Pillow parses the segments beside the pixels, and may fail.
        with JpegImagePlugin.JpegImageFile(
            io.BytesIO(joined(data, read_segments(data), _BESIDE_PIXELS))
        ) as image:
            return np.array(image.convert("RGB"))
    space = "GRAY" if gray and file.samples < 4 else {1: "GRAY", 3: "RGB", 4: "CMYK"}[file.samples]
    pixels = _decode(data, space, repairs)
    if file.samples == 4:  # stored inverted, as Adobe does
        pixels = np.array(to_srgb(Image.frombytes("CMYK", file.size, (255 - pixels).tobytes()), file.icc))
    return pixels


def count_scans(data: bytes, at: int) -> int:
    """Return the number of scans of a picture whose first scan begins at offset `at`."""
    return sum(marker == START_OF_SCAN for _, marker in scan_markers(data, at))


def _check_scans(data: bytes, at: int, pixels: int, limits: ReadLimits) -> None:
    # Counting the marker's two bytes is faster, but also counts those in segments and after the picture. The
    # exact count is needed only if this one is too high.
    if not limits.allow_scans(data.count(b"\xff\xda", at), pixels):
        limits.check_scans(count_scans(data, at), pixels)


def _decode(data: bytes, space: str, repairs: list[str]) -> FilePixels:
    """Decode the pixels, after repairs if needed; fail if libjpeg warns of anything else."""
    try:
        return cast(FilePixels, simplejpeg.decode_jpeg(data, colorspace=space, strict=True))
    except ValueError as error:
        if len(repairs) < _MAX_REPAIRS:
            for whole, note in repaired(data, str(error), read_segments(data)):
                made = [*repairs, note]
                try:
                    pixels = _decode(whole, space, made)
                except ValueError:
                    continue
                repairs[:] = [repair for repair in made if repair]
                return pixels
        raise


def _is_one_scan(data: bytes, header: _Header) -> bool:
    """Return whether libjpeg reads one scan only: a sequential file whose first scan has all components."""
    return header.frame_marker in _SEQUENTIAL and data[header.scan_at + 4] == header.frame[5]


def _read_header(data: bytes) -> _Header:
    found = read_segments(data)
    header = _Header(scan_at=found.scan_at, repairs=found.repairs, segments=found.found)
    for _, marker, body in found.found:
        if marker == 0xDB:
            while body:
                size = 128 if body[0] >> 4 else 64
                header.tables[body[0] & 15] = body[1 : 1 + size]
                body = body[1 + size :]
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            header.exif = header.exif or body
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            header.profile[body[12]] = body[13:]
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            header.pictures = _count_pictures(body[4:])
        elif marker in FRAMES:
            header.frame = header.frame or body
            header.frame_marker = header.frame_marker or marker
    return header


def _count_pictures(index: bytes) -> int:
    """Return the number of pictures in an MPO, from its index (CIPA DC-007)."""
    try:
        return TagDirectory.parse(index).number(_MPF_COUNT, 1)
    except (ValueError, LookupError, struct.error):
        return 1


def _joined_profile(parts: Mapping[int, bytes]) -> bytes | None:
    """Join the parts of an ICC profile; None if one is missing. Each begins with the number of parts."""
    if not parts or sorted(parts) != list(range(1, parts[min(parts)][0] + 1)):
        return None
    return b"".join(parts[number][1:] for number in sorted(parts))


@lru_cache(maxsize=256)
def _quality(table: bytes) -> int:
    """Return libjpeg's quality whose luma table is nearest to `table`."""
    qualities = np.arange(1, 101)[:, None]
    scale = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    steps = np.frombuffer(table, np.uint8 if len(table) == 64 else ">u2")
    luma = np.array([int(number) for number in _LUMA.split()])
    return 1 + int(np.abs(((luma * scale + 50) // 100).clip(1, 255) - steps).sum(axis=1).argmin())
