"""The tags of TIFF files and EXIF blocks (TIFF 6.0, section 2; BigTIFF): read, and written again."""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

ByteOrder = Literal["<", ">"]


class Tag:
    """The tags that say how the pixels of a TIFF are stored."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    PALETTE = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    ICC = 34675


# Of a TIFF's own tags those that EXIF has too: description, maker, dates, resolution, rights, EXIF, GPS.
_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 0x8769, 0x8825)
_POINTERS = (0x8769, 0x8825, 0xA005)  # to EXIF's, GPS' and interoperability's directories
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {16: 8, 17: 8, 18: 8}
_LAST_OF_TIFF = 13  # type; the others are of BigTIFF alone
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
_MOST_OF_AN_ENTRY = 2**16  # bytes: an EXIF block can hold no more


class TagValue(NamedTuple):
    """A tag's type, the number of its values, and these; the value of a pointer is the directory there."""

    kind: int
    length: int
    value: bytes | Entries


Entries = dict[int, TagValue]
"""The tags of a directory."""


@dataclass(frozen=True)
class TagDirectory:
    """A directory of tags: gives the values of each, whatever the order of bytes.

    Attributes:
        data: the file or block that it is in.
        order: of bytes.
        is_wide: whether its offsets and counts are of 64 bits, as in a BigTIFF.
        next_at: where the offset of the next directory is; beyond the end if the directory is cut.
        places: of each tag its type, the number of its values, and where these are.
    """

    data: bytes
    order: ByteOrder
    is_wide: bool
    next_at: int
    places: Mapping[int, tuple[int, int, int]]

    @classmethod
    def parse(cls, data: bytes, at: int | None = None, *, whole: bool = True) -> TagDirectory:
        """The directory at byte `at` of a file or block; the first if None. If it need not be `whole`, the
        tags before its cut are enough.

        Raises:
            ValueError, LookupError, struct.error: damaged.
        """
        order: ByteOrder = "<" if data[:2] == b"II" else ">"
        if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise ValueError(f"begins with {data[:4]!r}")
        is_wide = b"+" in data[2:4]
        if at is None:
            (at,) = (
                struct.unpack_from(order + "Q", data, 8)
                if is_wide
                else struct.unpack_from(order + "L", data, 4)
            )
        head = struct.Struct(order + ("Q" if is_wide else "H"))
        entry = struct.Struct(order + ("HHQQ" if is_wide else "HHLL"))
        inside = 8 if is_wide else 4  # bytes of a value that stands in its entry
        (count,) = head.unpack_from(data, at)
        next_at = at + head.size + entry.size * count
        if next_at > len(data) and whole:
            raise ValueError(f"{count} tags at byte {at}")
        places: dict[int, tuple[int, int, int]] = {}
        for entry_at in range(at + head.size, min(next_at, len(data) - entry.size + 1), entry.size):
            tag, kind, number, offset = entry.unpack_from(data, entry_at)
            is_inside = number * _TYPE_BYTES.get(kind, 1) <= inside
            places[tag] = (kind, number, entry_at + entry.size - inside if is_inside else offset)
        return cls(data, order, is_wide, next_at, places)

    def __contains__(self, tag: int) -> bool:
        return tag in self.places

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The integers of a tag."""
        if tag not in self.places:
            return default
        kind, count, at = self.places[tag]
        if count > len(self.data):
            raise ValueError(f"tag {tag} has {count} numbers")
        return struct.unpack_from(f"{self.order}{count}{_INTEGERS[kind]}", self.data, at)

    def number(self, tag: int, default: int | None = None) -> int:
        """The first integer of a tag."""
        return self.numbers(tag, () if default is None else (default,))[0]

    def raw(self, tag: int) -> bytes:
        """The bytes of a tag."""
        kind, count, at = self.places[tag]
        end = at + count * _TYPE_BYTES[kind]
        if end > len(self.data):
            raise ValueError(f"tag {tag} lies beyond the end")
        return self.data[at:end]

    def with_number(self, tag: int, number: int) -> bytes:
        """`data` with another first number of a tag that is there."""
        kind, _, at = self.places[tag]
        data = bytearray(self.data)
        struct.pack_into(self.order + _INTEGERS[kind], data, at, number)
        return bytes(data)

    def next_directory(self) -> int:
        """Where the next directory begins; 0 if there is none."""
        place = struct.Struct(self.order + ("Q" if self.is_wide else "L"))
        if self.next_at + place.size > len(self.data):
            return 0
        at: int = place.unpack_from(self.data, self.next_at)[0]
        return at

    def entries(self, most_bytes: int, only: Container[int] | None = None) -> Entries:
        """The tags with their values, and those of the directories that EXIF's tags point to. What is
        damaged, or larger than an EXIF block can be, is left out; and all that comes after `most_bytes`: a
        small file can name the same bytes 65,535 times.

        Args:
            most_bytes: of all values together.
            only: the tags that are wanted of this directory; None: all.
        """
        return self._entries(_Budget(most_bytes), 2, only)

    def _entries(self, budget: _Budget, depth: int, only: Container[int] | None = None) -> Entries:
        entries: Entries = {}
        for tag, (kind, count, _) in self.places.items():
            if only is not None and tag not in only:
                continue
            try:
                if tag in _POINTERS and depth:
                    inner = TagDirectory.parse(self.data, self.number(tag), whole=False)
                    entries[tag] = TagValue(4, 1, inner._entries(budget, depth - 1))
                elif kind <= _LAST_OF_TIFF and budget.take(12 + count * _TYPE_BYTES[kind]):
                    entries[tag] = TagValue(kind, count, self.raw(tag))
            except (ValueError, LookupError, struct.error):
                continue
        return entries

    def exif_entries(self, most_bytes: int) -> Entries:
        """Those of a TIFF's entries that EXIF has too, see `entries`."""
        return self.entries(most_bytes, _EXIF_TAGS)


@dataclass
class _Budget:
    """Bytes that may still be taken."""

    left: int

    def take(self, count: int) -> bool:
        """Whether `count` may be taken; takes them."""
        if count >= min(self.left, _MOST_OF_AN_ENTRY):
            return False
        self.left -= count
        return True


def encode_block(order: ByteOrder, entries: Entries) -> bytes:
    """An EXIF block of one directory."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "L", 8) + encode_directory(order, entries, 8)


def encode_directory(order: ByteOrder, entries: Entries, at: int) -> bytes:
    """The bytes of a directory that will stand at offset `at`, its values behind it."""
    values_at = at + 6 + 12 * len(entries)
    head = b""
    values = b""
    for tag, (kind, count, value) in sorted(entries.items()):
        place = struct.pack(order + "L", values_at + len(values))
        if isinstance(value, dict):
            values += encode_directory(order, value, values_at + len(values))
        elif len(value) <= 4:
            place = value.ljust(4, b"\0")
        else:
            values += value + b"\0" * (len(value) % 2)
        head += struct.pack(order + "HHL", tag, kind, count) + place
    return struct.pack(order + "H", len(entries)) + head + bytes(4) + values


class UprightExif(NamedTuple):
    """The orientation of an EXIF block, and the block of the image that was turned by it: with orientation 1,
    the thumbnail unlinked. Of one that is cut what can be read is put together anew; None if that is nothing.
    """

    orientation: int
    block: bytes | None
    is_whole: bool


def without_orientation(exif: bytes) -> UprightExif:
    """Take the orientation out of an EXIF block, from its "II" or "MM" on."""
    try:
        tags = TagDirectory.parse(exif, whole=False)
        if tags.is_wide:
            raise ValueError("a BigTIFF")
        orientation = 1
        if Tag.ORIENTATION in tags:
            orientation = tags.number(Tag.ORIENTATION)
            tags = replace(tags, data=tags.with_number(Tag.ORIENTATION, 1))
        if tags.next_at <= len(exif):
            # The second directory has a thumbnail, of pixels that are no more.
            block = tags.data[: tags.next_at] + bytes(4) + tags.data[tags.next_at + 4 :]
            return UprightExif(orientation, block, True)
        entries = tags.entries(len(exif))
        return UprightExif(orientation, encode_block(tags.order, entries) if entries else None, False)
    except (ValueError, LookupError, struct.error):
        return UprightExif(1, None, False)
