"""The images of one Parquet file, row by row."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

from genray.images.decode import BadImage

_PATHS = ("path", "file_path", "filename", "file_name", "key", "__key__")
_IMAGES = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "tif", "data", "content")
_MAGIC = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}
_BATCH = 16 * 2**20  # bytes of images that are taken out of a Parquet file at once


class ParquetRows:
    """The images of one Parquet file. Taken out a few at a time, so that row groups of any size do: quick
    forwards, and back by a few rows; further back its row group is begun again."""

    def __init__(self, path: str, opened: Any, column: str | None) -> None:
        import pyarrow.parquet as pq

        self.path, self._opened = path, opened
        # Read as it goes: pyarrow would otherwise fetch a whole row group for the first row.
        self._file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
        self._image, self._key = _columns(self._file.schema_arrow, column)
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._group, self._next = -1, 0

    def __del__(self) -> None:
        self._opened.close()

    def keys(self) -> Iterator[Any]:
        """What each row is called; None where that is not known."""
        if self._key is None:
            return iter([None] * self._starts[-1])
        batches = self._file.iter_batches(4096, columns=[self._key], use_threads=False)
        return (key for batch in batches for key in _leaf(batch, self._key).to_pylist())

    @cached_property
    def suffix(self) -> str:
        """That of the first row's format: what rows without one of their own are given."""
        with suppress(OSError, ValueError):  # damaged: reading it again says so
            data = self.read(0) or b""
            return next((end for magic, end in _MAGIC.items() if data.startswith(magic)), "")
        return ""

    def read(self, row: int) -> bytes | None:
        """The bytes of the row `row`; None for null."""
        if row >= self._starts[-1]:
            raise ValueError(f"it has only {self._starts[-1]} rows")
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._recent[0][0]:
            self._begin(group)
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError(f"it ends before its row {row}")
            self._recent.append((self._next, values := _leaf(batch, self._image)))
            self._next += len(values)
        data: bytes | None = next(v[row - at].as_py() for at, v in self._recent if at <= row < at + len(v))
        return data

    def _begin(self, group: int) -> None:
        about = self._file.metadata.row_group(group)
        chunks = [about.column(index) for index in range(about.num_columns)]
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == self._image)
        count = max(1, min(1024, _BATCH * about.num_rows // max(1, size)))
        wanted = {"row_groups": [group], "columns": [self._image]}
        self._batches = self._file.iter_batches(count, use_threads=False, **wanted)  # see apache/arrow#34314
        # Threads ask a little out of order.
        self._recent: deque[tuple[int, Any]] = deque(maxlen=2 + 8 // count)
        self._group, self._next = group, self._starts[group]


def _columns(schema: Any, column: str | None) -> tuple[str, str | None]:
    """The column of images and that of their names, as Parquet calls them."""
    import pyarrow.types as pt

    def is_image(kind: Any) -> bool:
        if pt.is_struct(kind):
            return "bytes" in kind.names and is_image(kind.field("bytes").type)
        return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))

    types = dict(zip(schema.names, schema.types, strict=True))
    images = [name for name, kind in types.items() if is_image(kind)]
    wanted = [name for name in (_IMAGES if column is None else (column,)) if name in images]
    if not images or (column is not None and not wanted):
        what = "of encoded images" if column is None else repr(column)
        raise BadImage("unreadable", f"no column {what} among: {', '.join(types)[:300]}")
    image = (wanted or images)[0]
    key = next((n for n in _PATHS if n in types and n != image and not pt.is_nested(types[n])), None)
    if pt.is_struct(types[image]):
        return f"{image}.bytes", key or (f"{image}.path" if "path" in types[image].names else None)
    return image, key


def _leaf(batch: Any, column: str) -> Any:
    name, _, inner = column.partition(".")
    return batch.column(0) if batch.schema.names == [column] else batch.column(name).field(inner)
