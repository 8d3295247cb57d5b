"""Items in the chunks of a PNG (ISO 15948, third edition): read, and written again."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from genray.images.carried.items import (
    Carried,
    Density,
    ItemCollector,
    MetadataChunk,
    density_of,
    plain_text,
    resource_name,
    text_name,
)

_XMP_KEY = b"XML:com.adobe.xmp"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLOURS = (b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB", b"sBIT")
_LENGTHS: dict[bytes, tuple[int, ...]] = {
    b"cICP": (4,), b"mDCV": (24,), b"cLLI": (8,), b"gAMA": (4,), b"cHRM": (32,), b"sRGB": (1,),
    b"sBIT": (1, 2, 3, 4), b"pHYs": (9,), b"bKGD": (1, 2, 6), b"tIME": (7,),
}  # fmt: skip
_LONGEST_KEY = 79
# Chunks that are read elsewhere, or that say how the pixels are coded.
_ELSEWHERE = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_BACKGROUND = b"bKGD"
_TIME = b"tIME"
_SRGB_GAMMA = struct.pack(">L", 45455)
_SRGB_CHROMATICITIES = struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_SRGB_CODES = (b"\x01\x0d\x00\x01", b"\x01\x0d\x00\x00")  # cICP: BT.709 primaries, the curve of sRGB
_SIGNIFICANT = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # bytes of sBIT, by colour type
_BACKGROUNDS = {0: 2, 2: 6, 3: 1, 4: 2, 6: 6}  # bytes of bKGD, by colour type


@dataclass(frozen=True)
class PngLayout:
    """How a PNG stores its pixels: colour type, and bits of a value."""

    colour: int
    depth: int


def read_chunks(chunks: Iterable[tuple[bytes, bytes]], collector: ItemCollector) -> Carried:
    """Read the items of a PNG.

    Unknown chunks are kept if their name says that editors may copy them (the safe-to-copy bit).

    Args:
        chunks: kind and content of the chunks with a valid checksum, in order.
        collector: takes the names of what is left out.
    """
    density: Density | None = None
    xmp: bytes | None = None
    texts = []
    colours = []
    others = []
    for kind, body in chunks:
        if kind in _ELSEWHERE:
            continue
        name = kind.decode("latin-1")
        if not _is_well_formed(kind, body):
            collector.leave_out(f"{name} (damaged)")
        elif kind == b"pHYs":
            density = _density(body)
        elif kind == b"iTXt" and xmp is None and body.startswith(_XMP_KEY + b"\0"):
            xmp = _packet(body, collector)
        elif kind in _TEXTS:
            if collector.admits(text_name(MetadataChunk(kind, body)), body):
                texts.append(MetadataChunk(kind, body))
        elif kind in _COLOURS:
            if collector.admits(name, body):
                colours.append(MetadataChunk(kind, body))
        elif kind in (_BACKGROUND, _TIME) or _is_safe_to_copy(kind):
            if collector.admits(name, body):
                others.append(MetadataChunk(kind, body))
        else:
            collector.leave_out(name)
    return Carried(density, xmp, texts=tuple(texts), colours=tuple(colours), chunks=tuple(others))


def put_chunks(
    data: bytes,
    carried: Carried,
    exif: bytes | None,
    icc: bytes | None,
    read_from: PngLayout | None,
    left_out: list[str],
) -> bytes:
    """Write items into an encoded PNG.

    Args:
        data: the PNG, with chunks for its pixels only.
        carried: the items.
        exif: EXIF block.
        icc: colour profile.
        read_from: layout of the PNG that the items were read from, if it is one.
        left_out: takes the names of what a PNG has no place for.
    """
    layout = PngLayout(data[25], data[24])
    first = []  # before the palette
    for chunk in carried.colours:
        if chunk.kind == b"sBIT" and (
            len(chunk.body) != _SIGNIFICANT[layout.colour] or max(chunk.body) > layout.depth
        ):
            left_out.append("sBIT")
        else:
            first.append(chunk)
    if icc is not None:
        first.append(MetadataChunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    then = []
    if exif is not None:
        then.append(MetadataChunk(b"eXIf", exif))
    if carried.density is not None:
        then += _resolution(carried.density, left_out)
    if carried.xmp is not None:
        then.append(MetadataChunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + carried.xmp))
        if carried.more_xmp:
            left_out.append("extended XMP")
    for chunk in carried.chunks:
        same = layout == read_from and len(chunk.body) == _BACKGROUNDS[layout.colour]
        if chunk.kind == _BACKGROUND and not same:
            left_out.append("bKGD")
        else:
            then.append(chunk)
    for text in carried.texts:
        then += _text(text, left_out)
    for resource in carried.resources:
        left_out.append(resource_name(resource))
    if not first and not then:
        return data
    at = 33  # behind the header
    while data[at + 4 : at + 8] != b"IDAT":
        at += 12 + int.from_bytes(data[at : at + 4])
    packed = ([_packed(chunk) for chunk in part] for part in (first, then))
    before, behind = packed
    return b"".join([data[:33], *before, data[33:at], *behind, data[at:]])


def leave_out_colours(colours: Iterable[MetadataChunk], left_out: list[str]) -> None:
    """Record the colour chunks that say anything else than sRGB, which files without a profile mean."""
    for kind, body in colours:
        if kind in (b"sRGB", b"sBIT"):
            continue
        usual = {b"gAMA": (_SRGB_GAMMA,), b"cHRM": (_SRGB_CHROMATICITIES,), b"cICP": _SRGB_CODES}
        if body not in usual.get(kind, ()):
            left_out.append(kind.decode("latin-1"))


def _packed(chunk: MetadataChunk) -> bytes:
    checksum = zlib.crc32(chunk.kind + chunk.body)
    return struct.pack(">L", len(chunk.body)) + chunk.kind + chunk.body + struct.pack(">L", checksum)


def _is_well_formed(kind: bytes, body: bytes) -> bool:
    """Return whether a known chunk has a possible length, and a text a key."""
    if kind in _TEXTS:
        return 1 <= body.find(b"\0") <= _LONGEST_KEY
    return kind not in _LENGTHS or len(body) in _LENGTHS[kind]


def _is_safe_to_copy(kind: bytes) -> bool:
    return kind.isalpha() and bool(kind[3] & 0x20)


def _density(body: bytes) -> Density | None:
    across, down, unit = struct.unpack(">LLB", body)
    return density_of(across, down, "metre" if unit == 1 else "none")


def _resolution(density: Density, left_out: list[str]) -> list[MetadataChunk]:
    is_length = density.unit != "none"
    numbers = density.per("metre") if is_length else (density.across, density.down)
    across, down = (round(number) for number in numbers)
    if not (1 <= across < 2**31 and 1 <= down < 2**31):
        left_out.append("resolution")
        return []
    return [MetadataChunk(b"pHYs", struct.pack(">LLB", across, down, int(is_length)))]


def _packet(body: bytes, collector: ItemCollector) -> bytes | None:
    """Return the XMP packet of an iTXt chunk."""
    head, rest = body[len(_XMP_KEY) + 1 :][:2], body[len(_XMP_KEY) + 3 :]
    rest = rest.partition(b"\0")[2].partition(b"\0")[2]  # without language and translated key
    if head[:1] == b"\1":
        try:
            unpacking = zlib.decompressobj()
            rest = unpacking.decompress(rest, collector.most_bytes)
            if unpacking.unconsumed_tail:
                collector.leave_out("XMP (too large)")
                return None
        except zlib.error:
            collector.leave_out("XMP (damaged)")
            return None
    return rest if collector.admits("XMP", rest) else None


def _text(text: MetadataChunk, left_out: list[str]) -> list[MetadataChunk]:
    """Return the text chunk for a text; that of a comment has the key Comment."""
    if text.kind in _TEXTS:
        return [text]
    try:
        _, words = plain_text(text)
    except ValueError:
        left_out.append("comment")
        return []
    try:
        return [MetadataChunk(b"tEXt", b"Comment\0" + words.replace("\0", "").encode("latin-1"))]
    except UnicodeEncodeError:
        return [MetadataChunk(b"iTXt", b"Comment\0\0\0\0\0" + words.encode())]
