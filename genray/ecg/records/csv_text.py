"""Text files by the line: their encoding, and where lines begin, so that any stretch of a long one can be
read.

UTF-8, UTF-16 (with or without a byte order mark) and, where it is no UTF-8, Latin-1. Lines end with LF, CR LF
or CR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import unusable

STRIDE = 1024
"""Number of lines after which the place of one is remembered."""

LARGEST_HEAD = 1 << 18
"""Bytes at the beginning of a file that the header is looked for in."""

_LARGEST = 64 << 30  # bytes of a file
_BLOCK = 4 << 20
_LONGEST_LINE = 1 << 16  # bytes
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_NO_TEXT = (
    (b"PK\x03\x04", "it is a spreadsheet (XLSX, ODS) or a ZIP", "open it, and save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "it is a spreadsheet (XLS)", "open it in LibreOffice or Excel, and save it as CSV"),
    (b"\x1f\x8b", "it is compressed", "unpack it first, with gunzip"),
    (b"\xff\xfe\0\0", "its text is UTF-32", "save it as UTF-8, for example with iconv -f UTF-32 -t UTF-8"),
)


@dataclass(frozen=True)
class TextFile:
    """A text file.

    Attributes:
        encoding: as Python calls it.
        begin: bytes before the text.
        newline: code that ends a line.
    """

    path: Path
    encoding: str
    begin: int
    newline: int

    @classmethod
    def open(cls, path: Path) -> TextFile:
        """Look at the beginning of `path`.

        Raises:
            DataError: there is no such file, it is too large, or no text.
        """
        if not path.is_file():
            raise unusable(path, "there is no such file", "check its path")
        if (size := path.stat().st_size) > _LARGEST:
            raise unusable(
                path, f"it has {size >> 30} GB; {_LARGEST >> 30} are read at most", "cut it with split"
            )
        with path.open("rb") as file:
            head = file.read(LARGEST_HEAD)
        for first, problem, hint in _NO_TEXT:
            if head.startswith(first):
                raise unusable(path, problem, hint)
        encoding, begin = _encoding(head)
        if encoding in ("utf-8", "latin-1") and b"\0" in head:
            raise unusable(path, "it is no text", "export it again as CSV")
        text = head[begin:].decode(encoding, "ignore")
        return cls(path, encoding, begin, ord("\r") if "\n" not in text and "\r" in text else ord("\n"))

    @property
    def width(self) -> int:
        """Bytes of a code."""
        return 2 if self.encoding.startswith("utf-16") else 1

    def head(self) -> list[str]:
        """The lines at the beginning that are whole."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            raw = file.read(LARGEST_HEAD)
        lines = raw.decode(self.encoding, "ignore").split(chr(self.newline))
        return lines[:-1] if len(raw) == LARGEST_HEAD and len(lines) > 1 else lines

    def size_of(self, lines: Sequence[str]) -> int:
        """The bytes of lines and of what ends them."""
        return sum(len((line + chr(self.newline)).encode(self.encoding)) for line in lines)

    def find_lines(self, first: int) -> Lines:
        """Where lines lie, from byte `first` on.

        Raises:
            DataError: a line is too long to be one.
        """
        end = self._find_end(first)
        if end <= first:
            return Lines([], 0, end)
        marks = [first]
        count = 1
        for places in self._line_ends(first, end):
            # The line with number n begins after the n-th end.
            numbers = np.arange(count, count + len(places))
            marks += (places[numbers % STRIDE == 0] + self.width).tolist()
            count += len(places)
        return Lines(marks, count, end)

    def read(self, begin: int, end: int) -> bytes:
        """The text between two bytes, as UTF-8 with LF."""
        with self.path.open("rb") as file:
            file.seek(begin)
            raw = file.read(end - begin)
        if self.width == 2:
            raw = raw.decode(self.encoding, "replace").encode()
        return raw if self.newline == ord("\n") else raw.replace(b"\r", b"\n")

    def _find_end(self, first: int) -> int:
        """Where the text ends, without the empty lines after it."""
        size = self.path.stat().st_size
        size -= (size - self.begin) % self.width
        at = max(first, size - _LONGEST_LINE)
        with self.path.open("rb") as file:
            file.seek(at)
            codes = np.frombuffer(file.read(size - at), self._codes)
        text = np.flatnonzero(~np.isin(codes, [0, 10, 13, 32]))  # no tabs: these end empty cells
        return at + (int(text[-1]) + 1 if len(text) else 0) * self.width

    def _line_ends(self, first: int, end: int) -> Iterator[NDArray[np.int64]]:
        """Where lines end, block by block."""
        with self.path.open("rb") as file:
            file.seek(first)
            at = last = first
            while at < end and (block := file.read(min(_BLOCK, end - at))):
                codes = np.frombuffer(block[: len(block) // self.width * self.width], self._codes)
                places = np.flatnonzero(codes == self.newline) * self.width + at
                at += len(block)
                if np.diff(np.concatenate([[last], places, [at]])).max() > _LONGEST_LINE:
                    raise unusable(self.path, "it has lines of absurd length")
                last = int(places[-1]) if len(places) else last
                yield places

    @property
    def _codes(self) -> str:
        return {"utf-16-le": "<u2", "utf-16-be": ">u2"}.get(self.encoding, "u1")


@dataclass(frozen=True)
class Lines:
    """Where lines lie: every `STRIDE`th begins at one of `marks`, and the text ends at `end`."""

    marks: Sequence[int]
    count: int
    end: int

    def bounds(self, start: int, stop: int) -> tuple[int, int, int]:
        """The bytes that hold the lines from `start` up to `stop`, and the line that they begin with."""
        first, last = start // STRIDE, -(-stop // STRIDE)
        return self.marks[first], self.marks[last] if last < len(self.marks) else self.end, first * STRIDE


def _encoding(head: bytes) -> tuple[str, int]:
    """The encoding of a text, and the bytes of its mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    start = head[:4096]
    zeros = [start[side::2].count(0) for side in (0, 1)]
    if max(zeros) > len(start) // 4:  # half of the bytes of Latin letters and digits
        return ("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"), 0
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) < LARGEST_HEAD or error.start < len(head) - 4:
            return "latin-1", 0
    return "utf-8", 0
