"""Boxes, the parts that JPEG XL and JPEG 2000 files consist of (ISO/IEC 15444-1, annex I.4)."""

from __future__ import annotations

import struct
from typing import NamedTuple

MOST_BOXES = 10_000
"""Largest number of boxes of a file that are looked at."""


class Box(NamedTuple):
    """A box: its kind, and where its content begins and ends (the end may lie beyond the file)."""

    kind: bytes
    begin: int
    end: int


def box_at(data: bytes, at: int) -> Box:
    """Return the box at byte `at`; one of length 0 reaches to the end of the file.

    Raises:
        ValueError: its length is less than that of its own head.
        struct.error: its head is cut off.
    """
    length, kind = struct.unpack_from(">L4s", data, at)
    head = 8
    if length == 1:
        (length,) = struct.unpack_from(">Q", data, at + 8)
        head = 16
    end = len(data) if length == 0 else at + length
    if end < at + head:
        raise ValueError(f"a box of {length} bytes")
    return Box(kind, at + head, end)
