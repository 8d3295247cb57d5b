"""The tags of TIFF files and EXIF blocks."""

from __future__ import annotations

import struct
from typing import Literal

ORIENTATION = 0x0112


# Of a TIFF's own tags those that EXIF has too: description, maker, dates, resolution, rights, EXIF, GPS.
TIFF_EXIF = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 0x8769, 0x8825)


_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1))


_INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L"}


_POINTERS = (0x8769, 0x8825, 0xA005)  # to EXIF's, GPS' and interoperability's directories


Entries = dict[int, tuple[int, int, "bytes | Entries"]]


class Tags:
    """A directory of a TIFF file or EXIF block (TIFF 6.0, section 2).

    Args:
        data: the file or block.
        at: where the directory is; the first if None.

    Raises:
        ValueError, LookupError, struct.error: damaged.
    """

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self.data = data
        self.order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
        if data[:4] not in (b"II*\0", b"MM\0*"):
            raise ValueError(f"begins with {data[:4]!r}")
        at = self._read("L", 4)[0] if at is None else at
        (count,) = self._read("H", at)
        self.next_at = at + 2 + 12 * count  # where the offset of the next directory is
        if self.next_at > len(data):
            raise ValueError(f"{count} tags at byte {at}")
        self._places: dict[int, tuple[int, int, int]] = {}
        for place in range(at + 2, self.next_at, 12):
            tag, kind, number, value = self._read("HHLL", place)
            inside = number * _TYPE_BYTES.get(kind, 1) <= 4
            self._places[tag] = (kind, number, place + 8 if inside else value)

    def _read(self, kind: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + kind, self.data, at)

    def __contains__(self, tag: int) -> bool:
        return tag in self._places

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The integers of a tag."""
        if tag not in self._places:
            return default
        kind, number, at = self._places[tag]
        if number > len(self.data):
            raise ValueError(f"tag {tag} has {number} numbers")
        return self._read(f"{number}{_INTEGERS[kind]}", at)

    def raw(self, tag: int) -> bytes:
        """The bytes of a tag."""
        kind, number, at = self._places[tag]
        if at + number * _TYPE_BYTES[kind] > len(self.data):
            raise ValueError(f"tag {tag} lies beyond the end")
        return self.data[at : at + number * _TYPE_BYTES[kind]]

    def changed(self, tag: int, number: int) -> bytes:
        """`data` with another first number of a tag that is there."""
        kind, _, at = self._places[tag]
        data = bytearray(self.data)
        struct.pack_into(self.order + _INTEGERS[kind], data, at, number)
        return bytes(data)

    def entries(self, below: int = 2) -> Entries:
        """All tags with their values, and the directories that EXIF's tags point to, `below` levels deep.
        What is damaged, or larger than an EXIF block can be, is left out."""
        found: Entries = {}
        for tag, (kind, number, _) in self._places.items():
            try:
                if tag in _POINTERS and below:
                    found[tag] = (4, 1, Tags(self.data, self.numbers(tag)[0]).entries(below - 1))
                elif number * _TYPE_BYTES[kind] < 2**16:
                    found[tag] = (kind, number, self.raw(tag))
            except (ValueError, LookupError, struct.error):
                continue
        return found


def directory(order: str, entries: Entries, at: int) -> bytes:
    """The bytes of a TIFF directory that will stand at offset `at`, its values behind it."""
    values_at, head, values = at + 6 + 12 * len(entries), b"", b""
    for tag, (kind, number, value) in sorted(entries.items()):
        place = struct.pack(order + "L", values_at + len(values))
        if isinstance(value, dict):
            values += directory(order, value, values_at + len(values))
        elif len(value) <= 4:
            place = value.ljust(4, b"\0")
        else:
            values += value + b"\0" * (len(value) % 2)
        head += struct.pack(order + "HHL", tag, kind, number) + place
    return struct.pack(order + "H", len(entries)) + head + bytes(4) + values


def without_orientation(exif: bytes) -> tuple[int, bytes | None]:
    """The orientation of an EXIF block, and the block with 1 in its place and its thumbnail unlinked; 1 and
    None if it is damaged."""
    try:
        tags = Tags(exif)
        orientation = 1
        if ORIENTATION in tags:
            (orientation,) = tags.numbers(ORIENTATION)
            exif = tags.changed(ORIENTATION, 1)
        # The second directory has a thumbnail, of pixels that are no more.
        return orientation, exif[: tags.next_at] + bytes(4) + exif[tags.next_at + 4 :]
    except (ValueError, LookupError, struct.error):
        return 1, None
