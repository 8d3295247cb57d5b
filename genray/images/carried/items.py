"""Items that a file carries beside its pixels, in the form that all formats are read into."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Unit = Literal["inch", "cm", "metre", "none"]
_METRES = {"inch": Fraction(254, 10_000), "cm": Fraction(1, 100), "metre": Fraction(1)}
_MAX_NAMES = 40  # of what was left out, in one ledger row
_MAX_NAME = 80  # letters
_MAX_TEXT = 2**20  # bytes of one unpacked text


class Density(NamedTuple):
    """Pixels per unit of length, across and down; the unit "none" says only how wide a pixel is."""

    across: Fraction
    down: Fraction
    unit: Unit

    def per(self, unit: Literal["inch", "cm", "metre"]) -> tuple[Fraction, Fraction]:
        """Return the pixels per `unit`, across and down.

        Files that count whole pixels per metre say 11811 for 300 per inch: the whole number is returned then.

        Raises:
            KeyError: the density has no unit of length.
        """
        factor = _METRES[unit] / _METRES[self.unit]
        numbers = (self.across * factor, self.down * factor)
        if self.unit == "metre" and all(abs(number - round(number)) <= factor / 2 for number in numbers):
            return Fraction(round(numbers[0])), Fraction(round(numbers[1]))
        return numbers


def density_of(across: int | Fraction, down: int | Fraction, unit: Unit) -> Density | None:
    """Return a resolution; None if it says nothing: a side of 0, or square pixels of no size."""
    if across <= 0 or down <= 0 or (unit == "none" and across == down):
        return None
    return Density(Fraction(across), Fraction(down), unit)


class Resource(NamedTuple):
    """An image resource of Photoshop, which JPEG and TIFF files carry: IPTC is number 0x0404."""

    signature: bytes
    number: int
    name: bytes
    body: bytes


class MetadataChunk(NamedTuple):
    """A chunk of a PNG, or a comment of a JPEG: its kind (b"COM" is a comment) and its content."""

    kind: bytes
    body: bytes


@dataclass(frozen=True)
class Carried:
    """What a file carries beside its pixels, colour profile and EXIF.

    Args:
        density: resolution.
        xmp: XMP packet, as in the file, but with orientation 1 if the image was turned.
        more_xmp: segments of extended XMP of a JPEG.
        resources: image resources of Photoshop, IPTC among them, without thumbnails.
        texts: comments of a JPEG, texts of a PNG, in order.
        colours: chunks of a PNG that say what its values mean: gAMA, cHRM, sRGB, cICP, ...
        chunks: further chunks of a PNG that any editor may copy.
        palette: colours of the input's palette, (N, 3 or 4) uint8 (None: it has none).
        bits: bits in which the file stores a value, 1 to 16.
        tables: quantisation tables of a JPEG for luma and chroma, each 64 bytes in zigzag order, turned as
            the image is (empty: it has others, or stores R, G and B).
        left_out: names of what the file carries and cannot be kept.
    """

    density: Density | None = None
    xmp: bytes | None = None
    more_xmp: tuple[bytes, ...] = ()
    resources: tuple[Resource, ...] = ()
    texts: tuple[MetadataChunk, ...] = ()
    colours: tuple[MetadataChunk, ...] = ()
    chunks: tuple[MetadataChunk, ...] = ()
    palette: NDArray[np.uint8] | None = None
    bits: int = 8
    tables: tuple[bytes, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass
class ItemCollector:
    """Collects the items of one file, within a budget of bytes, and the names of what is left out.

    Args:
        most_bytes: bytes that all items may have together.
    """

    most_bytes: int
    left_out: list[str] = field(default_factory=list)

    def admits(self, name: str, *parts: bytes) -> bool:
        """Return whether an item of `parts` fits into the budget; if not, its name is recorded."""
        size = sum(map(len, parts)) + 12
        if size > self.most_bytes:
            self.leave_out(f"{name} ({size} bytes)")
            return False
        self.most_bytes -= size
        return True

    def leave_out(self, name: str) -> None:
        """Record the name of an item that is not kept."""
        self.left_out.append(name)


def names_of(left_out: Iterable[str]) -> tuple[str, ...]:
    """Return the names once each, printable and not too long; what is beyond 40 names is counted."""
    names = list(dict.fromkeys(map(_printable, dict.fromkeys(left_out))))
    if len(names) > _MAX_NAMES:
        names[_MAX_NAMES - 1 :] = [f"{len(names) - _MAX_NAMES + 1} further items"]
    return tuple(names)


def plain_text(text: MetadataChunk) -> tuple[str, str]:
    """Return the key and the text of a comment or a text chunk of a PNG; the key of a comment is "".

    Raises:
        ValueError: it is damaged, or unpacks to more than 1 MiB.
    """
    if text.kind == b"COM":
        return "", _decoded(text.body.rstrip(b"\0"))
    key, mark, rest = text.body.partition(b"\0")
    if not mark:
        raise ValueError("a text without a key")
    name = key.decode("latin-1")
    if text.kind == b"tEXt":
        return name, rest.decode("latin-1")
    if text.kind == b"zTXt":
        return name, _unpacked(rest[1:]).decode("latin-1")
    is_packed = rest[:1] == b"\1"
    _, _, rest = rest[2:].partition(b"\0")  # the language
    _, _, rest = rest.partition(b"\0")  # the key in this language
    return name, (_unpacked(rest) if is_packed else rest).decode()


def resource_bytes(resources: Sequence[Resource]) -> bytes:
    """Write image resources, as they stand in a JPEG or TIFF (Adobe Photoshop File Formats, 2019)."""
    parts = []
    for signature, number, name, body in resources:
        title = bytes([len(name)]) + name
        head = signature + struct.pack(">H", number) + title + b"\0" * (len(title) % 2)
        parts.append(head + struct.pack(">L", len(body)) + body + b"\0" * (len(body) % 2))
    return b"".join(parts)


def parse_resources(data: bytes) -> list[Resource]:
    """Read image resources.

    Raises:
        ValueError, IndexError, struct.error: damaged.
    """
    found = []
    at = 0
    while at + 4 <= len(data):
        signature = data[at : at + 4]
        if not any(data[at:]):  # padding
            break
        if signature not in (b"8BIM", b"8B64", b"MeSa", b"AgHg", b"PHUT", b"DCSR"):
            raise ValueError(f"no image resource at byte {at}")
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = data[at + 7 : at + 7 + data[at + 6]]
        at += 7 + len(name) + (1 + len(name)) % 2
        (length,) = struct.unpack_from(">L", data, at)
        body = data[at + 4 : at + 4 + length]
        if len(body) < length:
            raise ValueError("an image resource that is cut")
        found.append(Resource(signature, number, name, body))
        at += 4 + length + length % 2
    return found


IPTC = 0x0404
"""The number of the image resource that IPTC is."""
THUMBNAILS = (0x0409, 0x040C)
"""The numbers of image resources that show the pixels."""


def collect_resources(data: bytes, collector: ItemCollector) -> tuple[Resource, ...]:
    """Read image resources, which were admitted, without their thumbnails."""
    try:
        resources = parse_resources(data)
    except (ValueError, IndexError, struct.error):
        collector.leave_out("Photoshop resources (damaged)")
        return ()
    if any(resource.number in THUMBNAILS for resource in resources):
        collector.leave_out("Photoshop thumbnail")
    return tuple(resource for resource in resources if resource.number not in THUMBNAILS)


def resource_name(resource: Resource) -> str:
    """Return the name of an image resource for people."""
    return "IPTC" if resource.number == IPTC else f"Photoshop resource {resource.number}"


def text_name(text: MetadataChunk) -> str:
    """Return the name of a text for people: its key."""
    if text.kind == b"COM":
        return "comment"
    key = text.body[:80].partition(bytes(1))[0].decode("latin-1")
    return f"text {key}"


def _unpacked(packed: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(packed, _MAX_TEXT)
    except zlib.error as error:
        raise ValueError("a damaged text") from error
    if unpacking.unconsumed_tail:
        raise ValueError(f"a text of more than {_MAX_TEXT} bytes")
    return text


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _printable(name: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= _MAX_NAME else shown[: _MAX_NAME - 3] + "..."
