"""Items in the segments of a JPEG (JFIF 1.02; XMP, part 3; CIPA DC-008): read, and written again."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from genray.images.carried.items import (
    Carried,
    Density,
    ItemCollector,
    MetadataChunk,
    Resource,
    Unit,
    collect_resources,
    density_of,
    plain_text,
    resource_bytes,
    text_name,
)
from genray.images.carried.png import leave_out_colours

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_UNITS: dict[int, Unit] = {0: "none", 1: "inch", 2: "cm"}
_MOST = 65533  # bytes of a segment's content
_APP0, _ADOBE, _APP15, _COMMENT, _TABLES = 0xE0, 0xEE, 0xEF, 0xFE, 0xDB
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Segments that are read elsewhere: EXIF, the colour profile, the index of further pictures.
_ELSEWHERE = ((0xE1, b"Exif\0"), (0xE2, b"ICC_PROFILE\0"), (0xE2, b"MPF\0"))


def read_segments(segments: Iterable[tuple[int, bytes]], collector: ItemCollector) -> Carried:
    """Read the items of a JPEG.

    Args:
        segments: marker and content of each segment before the first scan.
        collector: takes the names of what is left out.
    """
    density: Density | None = None
    xmp: bytes | None = None
    more_xmp = []
    photoshop = []
    texts = []
    tables = []
    frame = b""
    adobe = b""
    is_jfif = False
    for marker, body in segments:
        if marker < _APP0:
            if marker == _TABLES:
                tables.append(body)
            elif marker in _FRAMES:
                frame = frame or body
        elif marker == _COMMENT:
            if collector.admits("comment", body):
                texts.append(MetadataChunk(b"COM", body))
        elif marker > _APP15:
            continue
        elif body.startswith(b"JFIF\0") and marker == _APP0:
            is_jfif = True
            density = density or _density(body)
            if len(body) > 14 and body[12] and body[13]:
                collector.leave_out("JFIF thumbnail")
        elif body.startswith(b"JFXX\0"):
            collector.leave_out("JFIF thumbnail")
        elif body.startswith(_XMP):
            if xmp is None and collector.admits("XMP", body):
                xmp = body[len(_XMP) :]
        elif body.startswith(_MORE_XMP):
            if collector.admits("extended XMP", body):
                more_xmp.append(body)
        elif body.startswith(_PHOTOSHOP):
            if collector.admits("Photoshop resources", body):
                photoshop.append(body[len(_PHOTOSHOP) :])
        elif marker == _ADOBE and body.startswith(b"Adobe"):
            adobe = adobe or body
        elif not any(marker == each and body.startswith(head) for each, head in _ELSEWHERE):
            collector.leave_out(_segment_name(marker, body))
    return Carried(
        density,
        xmp,
        tuple(more_xmp),
        collect_resources(b"".join(photoshop), collector) if photoshop else (),
        tuple(texts),
        tables=() if _is_rgb(frame, adobe, is_jfif) else _tables(b"".join(tables), frame[8::3]),
    )


def _is_rgb(frame: bytes, adobe: bytes, is_jfif: bool) -> bool:
    """Return whether three components are R, G and B, as libjpeg finds it: Adobe's transform is 0, or the
    components have these names."""
    if len(frame) != 15 or is_jfif:
        return False
    return adobe[11] == 0 if len(adobe) > 11 else frame[6::3] == b"RGB"


@lru_cache(maxsize=256)
def _tables(segments: bytes, numbers: bytes) -> tuple[bytes, ...]:
    """Read the quantisation tables of luma and chroma, each 64 bytes in zigzag order.

    Args:
        segments: content of the segments of tables.
        numbers: number of the table of each component.

    Returns:
        One table for gray, two for colour; none if the file has tables of 16 bits, or others for each of its
        chroma components.
    """
    tables: dict[int, bytes] = {}
    while segments and not segments[0] >> 4:
        tables[segments[0]] = segments[1:65]
        segments = segments[65:]
    used = [tables.get(number, b"") for number in numbers]
    if len(used) not in (1, 3) or used[1:2] != used[2:3] or any(len(table) != 64 for table in used):
        return ()
    return tuple(used[:2])


def put_segments(
    data: bytes, carried: Carried, exif: bytes | None, icc: bytes | None, left_out: list[str]
) -> bytes:
    """Write items into an encoded JPEG.

    Args:
        data: the JPEG, with a JFIF segment and none of the others.
        carried: the items.
        exif: EXIF block.
        icc: colour profile.
        left_out: takes the names of what a JPEG has no place for.
    """
    segments = list(_segments(carried, exif, icc, left_out))
    # The JFIF segment has to be the first.
    at = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2
    head = bytearray(data[:at])
    if carried.density is not None and at >= 20:
        _put_density(head, carried.density, left_out)
    packed = (struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return b"".join([head, *packed, data[at:]])


def _segments(
    carried: Carried, exif: bytes | None, icc: bytes | None, left_out: list[str]
) -> Iterator[tuple[int, bytes]]:
    if exif is not None:
        if len(exif) + 6 <= _MOST:
            yield 0xE1, b"Exif\0\0" + exif
        else:
            left_out.append(f"EXIF ({len(exif)} bytes)")
    if carried.xmp is not None:
        if len(_XMP) + len(carried.xmp) <= _MOST:
            yield 0xE1, _XMP + carried.xmp
            yield from ((0xE1, body) for body in carried.more_xmp)
        else:
            left_out.append(f"XMP ({len(carried.xmp)} bytes)")
    if icc is not None:
        parts = [icc[at : at + 65519] for at in range(0, len(icc), 65519)]
        if len(parts) < 256:
            for number, part in enumerate(parts, start=1):
                yield 0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part
        else:
            left_out.append(f"ICC profile ({len(icc)} bytes)")
    yield from ((0xED, _PHOTOSHOP + part) for part in _photoshop_parts(carried.resources))
    for text in carried.texts:
        comment = _comment(text, left_out)
        if comment is not None:
            yield _COMMENT, comment
    leave_out_colours(carried.colours, left_out)
    left_out += [chunk.kind.decode("latin-1") for chunk in carried.chunks]


def _photoshop_parts(resources: tuple[Resource, ...]) -> Iterator[bytes]:
    """Put resources together into segments; a resource that is too large for one is continued in the next."""
    room = _MOST - len(_PHOTOSHOP)
    part = b""
    for resource in resources:
        packed = resource_bytes([resource])
        if part and len(part) + len(packed) > room:
            yield part
            part = b""
        part += packed
        while len(part) > room:
            yield part[:room]
            part = part[room:]
    if part:
        yield part


def _comment(text: MetadataChunk, left_out: list[str]) -> bytes | None:
    """Return the content of a comment for a text; its key is written before it."""
    body: bytes | None = text.body
    if text.kind != b"COM":
        try:
            key, words = plain_text(text)
            body = (words if key == "Comment" else f"{key}: {words}").encode()
        except ValueError:
            body = None
    if body is None or len(body) > _MOST:
        left_out.append(text_name(text))
        return None
    return body


def _density(body: bytes) -> Density | None:
    if len(body) < 12 or body[7] not in _UNITS:
        return None
    across, down = struct.unpack_from(">HH", body, 8)
    return density_of(across, down, _UNITS[body[7]])


def _put_density(head: bytearray, density: Density, left_out: list[str]) -> None:
    """Put a density into the JFIF segment at the head of a JPEG, in whole pixels per inch or cm."""
    unit = {"metre": "inch"}.get(density.unit, density.unit)
    code = {"none": 0, "inch": 1, "cm": 2}[unit]
    across, down = (density.across, density.down) if not code else density.per("inch" if code == 1 else "cm")
    numbers = [round(across), round(down)]
    if not all(1 <= number <= 65535 for number in numbers):
        left_out.append("resolution")
        return
    struct.pack_into(">BHH", head, 13, code, *numbers)


def _segment_name(marker: int, body: bytes) -> str:
    if marker == 0xEB and body[:2] == b"JP":
        return "content credentials (JUMBF)"
    word = body[:12].partition(b"\0")[0].decode("latin-1")
    return f"APP{marker - _APP0} {word}".strip()
