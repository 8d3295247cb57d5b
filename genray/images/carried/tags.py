"""Reader and writer of the tags of TIFF files and EXIF blocks (TIFF 6.0, section 2; BigTIFF)."""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

ByteOrder = Literal["<", ">"]


class Tag:
    """Numbers of the tags that define how the pixels of a TIFF are stored."""

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


EXIF_TAGS = (
    frozenset((270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 0x8769, 0x8825))
    | frozenset(
        (
            269,
            285,
            316,
            318,
            319,
            18246,
            18249,
            33550,
            33922,
            34264,
            *range(34735, 34738),
            *range(40091, 40096),
        )
    )
    | {42112, 42113}
)
"""Tags of a TIFF that EXIF has too (description, maker, dates, resolution, copyright, EXIF, GPS), and others
that say nothing of how the pixels are stored: names of document, page and computer, colours of the primaries,
place on the map (GeoTIFF, GDAL), rating and words of Windows."""
_EXIF, _EXIF_WIDTH, _EXIF_HEIGHT = 0x8769, 0xA002, 0xA003
_THUMBNAILS = ((513, 514), (Tag.STRIP_OFFSETS, Tag.STRIP_BYTES))  # offset and bytes of a thumbnail
_RATIONALS = (282, 283)  # resolution across and down
_RATIONAL = 5  # type of a tag: an unsigned rational number
_POINTERS = (0x8769, 0x8825, 0xA005)  # offsets of the directories EXIF, GPS and interoperability
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {16: 8, 17: 8, 18: 8}
_LAST_OF_TIFF = 13  # highest type of a plain TIFF; higher ones are BigTIFF's
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}


class TagValue(NamedTuple):
    """Type of a tag, number of its values, and their bytes; for a pointer the directory instead of bytes."""

    kind: int
    length: int
    value: bytes | Entries


Entries = dict[int, TagValue]
"""Tags of a directory, by number."""


@dataclass(frozen=True)
class TagDirectory:
    """Reader of a directory of tags, in either byte order.

    Attributes:
        data: the file or block that contains the directory.
        order: byte order.
        is_wide: whether offsets and counts have 64 bits (BigTIFF).
        at: offset of the directory.
        next_at: offset of the field with the next directory's offset; beyond the end of `data` if the
            directory is cut off.
        places: type, number of values and offset of the values of each tag.
    """

    data: bytes
    order: ByteOrder
    is_wide: bool
    at: int
    next_at: int
    places: Mapping[int, tuple[int, int, int]]

    @classmethod
    def parse(cls, data: bytes, at: int | None = None, *, whole: bool = True) -> TagDirectory:
        """Read the directory of a file or block.

        Args:
            data: the file or block.
            at: offset of the directory (None: the first one).
            whole: fail if the directory is cut off; else read the tags before the cut.

        Raises:
            ValueError, LookupError, struct.error: the directory is damaged.
        """
        order: ByteOrder = "<" if data[:2] == b"II" else ">"
        if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise ValueError(f"it begins with {data[:4]!r}, which is no TIFF header")
        is_wide = b"+" in data[2:4]
        if at is None:
            (at,) = (
                struct.unpack_from(order + "Q", data, 8)
                if is_wide
                else struct.unpack_from(order + "L", data, 4)
            )
        head = struct.Struct(order + ("Q" if is_wide else "H"))
        entry = struct.Struct(order + ("HHQQ" if is_wide else "HHLL"))
        inside = 8 if is_wide else 4  # most bytes of a value that is stored in its entry
        (count,) = head.unpack_from(data, at)
        next_at = at + head.size + entry.size * count
        if next_at > len(data) and whole:
            raise ValueError(f"the directory of {count} tags at byte {at} is cut off")
        places: dict[int, tuple[int, int, int]] = {}
        for entry_at in range(at + head.size, min(next_at, len(data) - entry.size + 1), entry.size):
            tag, kind, number, offset = entry.unpack_from(data, entry_at)
            is_inside = number * _TYPE_BYTES.get(kind, 1) <= inside
            places[tag] = (kind, number, entry_at + entry.size - inside if is_inside else offset)
        return cls(data, order, is_wide, at, next_at, places)

    def __contains__(self, tag: int) -> bool:
        return tag in self.places

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the integers of a tag; `default` if the tag is missing."""
        if tag not in self.places:
            return default
        kind, count, at = self.places[tag]
        if count > len(self.data):
            raise ValueError(f"tag {tag} has {count} values, more than the file has bytes")
        return struct.unpack_from(f"{self.order}{count}{_INTEGERS[kind]}", self.data, at)

    def number(self, tag: int, default: int | None = None) -> int:
        """Return the first integer of a tag; `default` if the tag is missing."""
        numbers = self.numbers(tag, () if default is None else (default,))
        if not numbers:
            raise LookupError(f"tag {tag} is missing")
        return numbers[0]

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a tag's values."""
        kind, count, at = self.places[tag]
        end = at + count * _TYPE_BYTES[kind]
        if end > len(self.data):
            raise ValueError(f"the values of tag {tag} lie beyond the end of the file")
        return self.data[at:end]

    def with_number(self, tag: int, number: int) -> bytes:
        """Return a copy of `data` in which the first integer of an existing tag is `number`."""
        kind, _, at = self.places[tag]
        data = bytearray(self.data)
        struct.pack_into(self.order + _INTEGERS[kind], data, at, number)
        return bytes(data)

    def next_directory(self) -> int:
        """Return the offset of the next directory; 0 if there is none."""
        place = struct.Struct(self.order + ("Q" if self.is_wide else "L"))
        if self.next_at + place.size > len(self.data):
            return 0
        at: int = place.unpack_from(self.data, self.next_at)[0]
        return at

    def entries(self, most_bytes: int, only: Container[int] | None = None) -> Entries:
        """Return the tags with their values, and those of the directories that EXIF's tags point to.

        Leaves out values that are damaged.

        Args:
            most_bytes: limit of all values together; further values are left out. Without it a small file
                could name the same bytes 65,535 times.
            only: tags to read of this directory (None: all).
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
        """Return the entries of a TIFF that EXIF has too, see `entries`. A resolution that is no rational
        number is left out: readers refuse an EXIF block that has one."""
        entries = self.entries(most_bytes, EXIF_TAGS)
        return {
            tag: value for tag, value in entries.items() if tag not in _RATIONALS or value.kind == _RATIONAL
        }


@dataclass
class _Budget:
    """Counter of the bytes that may still be read."""

    left: int

    def take(self, count: int) -> bool:
        """Return whether `count` bytes may be read; if so, subtract them."""
        if count >= self.left:
            return False
        self.left -= count
        return True


def encode_block(order: ByteOrder, entries: Entries) -> bytes:
    """Return an EXIF block with one directory."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "L", 8) + encode_directory(order, entries, 8)


def encode_directory(order: ByteOrder, entries: Entries, at: int) -> bytes:
    """Return the bytes of a directory for offset `at`, followed by its values."""
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


def join_pages(files: Sequence[bytes]) -> bytes:
    """Return a TIFF with the pages of TIFFs of one page each, which have the same byte order.

    Raises:
        ValueError: the file would be larger than offsets of 32 bits allow.
    """
    order = TagDirectory.parse(files[0]).order
    joined = bytearray(files[0])
    next_at = TagDirectory.parse(files[0]).next_at
    for file in files[1:]:
        joined += bytes(len(joined) % 2)
        shift = len(joined) - 8
        first = TagDirectory.parse(file)
        joined += _shifted(first, shift)[8:]
        if len(joined) >= 2**32:
            raise ValueError("the pages have more than 4 GiB together")
        struct.pack_into(order + "L", joined, next_at, first.at + shift)
        next_at = first.next_at + shift
    return bytes(joined)


def _shifted(first: TagDirectory, shift: int) -> bytes:
    """Return a TIFF whose offsets are larger by `shift`."""
    data = bytearray(first.data)
    directories = [first]
    while directories:
        tags = directories.pop()
        entry_at = tags.at + 2
        for tag, (kind, count, at) in tags.places.items():
            if at != entry_at + 8:  # the values stand elsewhere, and their entry has the offset
                struct.pack_into(tags.order + "L", data, entry_at + 8, at + shift)
            entry_at += 12
            if tag in _POINTERS:
                directories.append(TagDirectory.parse(first.data, tags.number(tag), whole=False))
            if tag in (*_POINTERS, Tag.STRIP_OFFSETS, Tag.TILE_OFFSETS):
                form = f"{tags.order}{count}{_INTEGERS[kind]}"
                struct.pack_into(form, data, at, *(number + shift for number in tags.numbers(tag)))
    return bytes(data)


class UprightExif(NamedTuple):
    """EXIF of an image that was turned by its orientation.

    Attributes:
        orientation: the block's orientation, by which the image was turned (1: none).
        block: the block with orientation 1 and without a link to its thumbnail. A block that is cut off is
            rebuilt from its readable tags; None if there are none.
        is_whole: whether nothing of the block was lost.
        had_thumbnail: whether the block had a thumbnail, which is removed: it shows the previous pixels.
    """

    orientation: int
    block: bytes | None
    is_whole: bool
    had_thumbnail: bool = False


def without_orientation(exif: bytes) -> UprightExif:
    """Split an EXIF block, which begins with "II" or "MM", into its orientation and an upright block."""
    try:
        tags = TagDirectory.parse(exif, whole=False)
        if tags.is_wide:
            raise ValueError("EXIF cannot be a BigTIFF")
        orientation = 1
        if Tag.ORIENTATION in tags:
            orientation = tags.number(Tag.ORIENTATION)
            tags = replace(tags, data=tags.with_number(Tag.ORIENTATION, 1))
        if tags.next_at <= len(exif):
            return UprightExif(orientation, _without_thumbnail(tags), True, tags.next_directory() > 0)
        entries = tags.entries(len(exif))
        return UprightExif(orientation, encode_block(tags.order, entries) if entries else None, False)
    except (ValueError, LookupError, struct.error):
        return UprightExif(1, None, False)


def with_size(exif: bytes, width: int, height: int) -> bytes:
    """Return an EXIF block whose tags of the image's size, where it has them, are those of the pixels."""
    try:
        exif = _with_numbers(TagDirectory.parse(exif, whole=False), {Tag.WIDTH: width, Tag.HEIGHT: height})
        inner = TagDirectory.parse(exif, whole=False).number(_EXIF)
        sizes = {_EXIF_WIDTH: width, _EXIF_HEIGHT: height}
        return _with_numbers(TagDirectory.parse(exif, inner, whole=False), sizes)
    except (ValueError, LookupError, struct.error):
        return exif


def _with_numbers(directory: TagDirectory, numbers: Mapping[int, int]) -> bytes:
    """Return the data of a directory with other numbers for those of the tags that it has."""
    for tag, number in numbers.items():
        if tag in directory and directory.number(tag) != number:
            directory = replace(directory, data=directory.with_number(tag, number))
    return directory.data


def _without_thumbnail(tags: TagDirectory) -> bytes:
    """Return an EXIF block without its second directory, whose thumbnail shows the previous pixels.

    The thumbnail is cut off where it ends the block, as it usually does, and overwritten elsewhere: to move
    what lies behind it would break the offsets in maker notes.
    """
    at = tags.next_directory()
    block = bytearray(tags.data)
    block[tags.next_at : tags.next_at + 4] = bytes(4)
    if not at:
        return bytes(block)
    try:
        second = TagDirectory.parse(tags.data, at, whole=False)
        for offset, length in _THUMBNAILS:
            if offset in second and length in second:
                start, count = second.number(offset), second.number(length)
                if start > tags.next_at and start + count >= len(block):
                    del block[start:]
                elif start > tags.next_at:
                    block[start : start + count] = bytes(count)
    except (ValueError, LookupError, struct.error):
        pass
    return bytes(block)
