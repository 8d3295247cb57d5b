"""Unpacked size of the pages of a Parquet column, computed before they are unpacked.

A dictionary page stores each value once, and rows only their indices: 121 kB may become 61 GB of rows. The
file's metadata does not show it, but the headers of the pages do, in Thrift's compact protocol:
https://parquet.apache.org/docs/file-format/data-pages/,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_HEADER_BYTES = 2**16  # most bytes of a page's header, which may contain statistics
_MOST_PAGES = 100_000
_DICTIONARY_PAGE = 2
_DICTIONARY_ENCODINGS = (2, 8)  # PLAIN_DICTIONARY, RLE_DICTIONARY
_BYTES, _LIST, _SET, _STRUCT = 8, 9, 10, 12
_MOST_NESTED = 8


@dataclass(frozen=True)
class DictionaryUse:
    """Dictionary of a column chunk: its unpacked bytes, its number of values, and the number of rows that use
    it (the first rows of the chunk)."""

    bytes: int = 0
    values: int = 0
    rows: int = 0

    @property
    def most_repeated_bytes(self) -> int:
        """Most bytes that rows can add to the dictionary, whose values each belong to one row at least."""
        return max(0, self.rows - self.values) * self.bytes


def dictionary_use(file: Any, chunk: Any) -> DictionaryUse:
    """Return the use of the dictionary by `chunk`, from the headers of its pages.

    Args:
        file: Parquet file, opened for reading, seekable.
        chunk: metadata of the column chunk, as pyarrow returns it.

    Raises:
        ValueError: a header is damaged.
    """
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < position:
        position = chunk.dictionary_page_offset
    largest = values = rows = 0
    # After the first page without the dictionary no page uses it: writers do not return to it.
    for _ in range(_MOST_PAGES):
        if rows >= chunk.num_values:
            break
        file.seek(position)
        header = _ThriftReader(file.read(_HEADER_BYTES))
        fields = header.struct()
        position += header.position + _number(fields, 3)
        if fields.get(1) == _DICTIONARY_PAGE:
            largest = max(largest, _number(fields, 2))
            values = _number(fields.get(7) or {}, 1)
            continue
        data = fields.get(5) or fields.get(8) or {}
        encoding = data.get(2 if 5 in fields else 4)
        if encoding not in _DICTIONARY_ENCODINGS:
            break
        rows += _number(data, 1)
    return DictionaryUse(largest, values, rows)


def _number(fields: dict[int, Any], key: int) -> int:
    value = fields.get(key, 0)
    if not isinstance(value, int) or value < 0:
        raise ValueError("the header of a page is damaged")
    return value


class _ThriftReader:
    """Reader of a struct in Thrift's compact protocol. Only numbers and structs are kept."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct; returns its fields by number."""
        if depth > _MOST_NESTED:
            raise ValueError("the header of a page is damaged")
        fields: dict[int, Any] = {}
        number = 0
        while (mark := self._byte()) != 0:
            number = number + (mark >> 4) if mark >> 4 else self._signed()
            fields[number] = self._value(mark & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._skip(8)
        if kind == _BYTES:
            return self._skip(self._unsigned())
        if kind in (_LIST, _SET):
            size = self._byte()
            count = size >> 4 if size >> 4 != 15 else self._unsigned()
            for _ in range(min(count, len(self._data))):
                self._value(size & 15, depth + 1)
            return None
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError("the header of a page is damaged")

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError("the header of a page is damaged")
        self.position += 1
        return self._data[self.position - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise ValueError("the header of a page is damaged")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self.position += count
