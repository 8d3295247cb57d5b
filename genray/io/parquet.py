"""Parquet files of encoded images: read row by row, whatever the size of their row groups."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from genray.io.bad_input import BadImage

_NAME_COLUMNS = ("path", "file_path", "filename", "file_name", "key", "__key__")
_IMAGE_COLUMNS = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "tif", "data", "content")
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}
_BATCH_BYTES = 16 * 2**20  # of images that are taken out of a file at once


class ParquetRows:
    """The images of one Parquet file. Taken out a few at a time, so that row groups of any size do: quick
    forwards, and back by a few rows; further back its row group is begun again. Closes the file at the end.

    Args:
        path: of the file in its store.
        opened: the file.
        parquet: pyarrow's reader of it.
        image_column: the column of images, as Parquet calls it.
        name_column: that of their names, if there is one.
    """

    def __init__(
        self, path: str, opened: Any, parquet: Any, image_column: str, name_column: str | None
    ) -> None:
        self.path = path
        self._opened = opened
        self._parquet = parquet
        self._image_column = image_column
        self._name_column = name_column
        self._starts = [0]
        for group in range(parquet.num_row_groups):
            self._starts.append(self._starts[-1] + parquet.metadata.row_group(group).num_rows)
        self._cursor: _Cursor | None = None

    def __del__(self) -> None:
        self._opened.close()

    @classmethod
    def of_file(cls, path: str, opened: Any, column: str | None) -> ParquetRows:
        """Those of the file `path`, which was opened. `column` is the one of images; None: the first that
        can be.

        Raises:
            BadImage: there is no such column.
            OSError, ValueError, ArithmeticError, LookupError: it is damaged; pyarrow's errors are of these.
        """
        import pyarrow.parquet as pq

        try:
            # Read as it goes: pyarrow would otherwise fetch a whole row group for the first row.
            parquet = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
            return cls(path, opened, parquet, *_find_columns(parquet.schema_arrow, column))
        except BaseException:
            opened.close()
            raise

    def names(self) -> Iterator[Any]:
        """What each row is called; None where that is not known."""
        if self._name_column is None:
            return iter([None] * self._starts[-1])
        batches = self._parquet.iter_batches(4096, columns=[self._name_column], use_threads=False)
        return (name for batch in batches for name in _cells(batch, self._name_column).to_pylist())

    @cached_property
    def suffix(self) -> str:
        """That of the first row's format: what rows without one of their own are given."""
        with suppress(OSError, ValueError):  # damaged: reading it again says so
            data = self.read(0) or b""
            return next((suffix for magic, suffix in _SUFFIXES.items() if data.startswith(magic)), "")
        return ""

    def read(self, row: int) -> bytes | None:
        """The bytes of the row `row`; None for null."""
        if row >= self._starts[-1]:
            raise ValueError(f"it has only {self._starts[-1]} rows")
        group = bisect_right(self._starts, row) - 1
        if self._cursor is None or group != self._cursor.group or row < self._cursor.first_row:
            self._cursor = self._start(group)
        return self._cursor.read(row, self._image_column)

    def _start(self, group: int) -> _Cursor:
        metadata = self._parquet.metadata.row_group(group)
        chunks = [metadata.column(index) for index in range(metadata.num_columns)]
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == self._image_column)
        rows = max(1, min(1024, _BATCH_BYTES * metadata.num_rows // max(1, size)))
        batches = self._parquet.iter_batches(  # see apache/arrow#34314
            rows, use_threads=False, row_groups=[group], columns=[self._image_column]
        )
        return _Cursor(group, batches, self._starts[group], deque(maxlen=2 + 8 // rows))


@dataclass
class _Cursor:
    """Where the reading of a row group is.

    Attributes:
        group: its number.
        batches: what is still to be read of it.
        next_row: the first row of these.
        recent: the last batches that were read, each with its first row: threads ask a little out of order.
    """

    group: int
    batches: Iterator[Any]
    next_row: int
    recent: deque[tuple[int, Any]] = field(default_factory=deque)

    @property
    def first_row(self) -> int:
        """The first row that it can still give."""
        return self.recent[0][0]

    def read(self, row: int, column: str) -> bytes | None:
        while row >= self.next_row:
            batch = next(self.batches, None)
            if batch is None:
                raise ValueError(f"it ends before its row {row}")
            images = _cells(batch, column)
            self.recent.append((self.next_row, images))
            self.next_row += len(images)
        data: bytes | None = next(
            images[row - start].as_py() for start, images in self.recent if start <= row < start + len(images)
        )
        return data


def _find_columns(schema: Any, column: str | None) -> tuple[str, str | None]:
    """The column of images and that of their names, as Parquet calls them."""
    import pyarrow.types as pt

    types = dict(zip(schema.names, schema.types, strict=True))
    images = [name for name, kind in types.items() if _holds_images(kind)]
    candidates = _IMAGE_COLUMNS if column is None else (column,)
    wanted = [name for name in candidates if name in images]
    if not images or (column is not None and not wanted):
        missing = "of encoded images" if column is None else repr(column)
        raise BadImage("unreadable", f"no column {missing} among: {', '.join(types)[:300]}")
    image = wanted[0] if wanted else images[0]
    names = (
        name for name in _NAME_COLUMNS if name in types and name != image and not pt.is_nested(types[name])
    )
    name_column = next(names, None)
    if not pt.is_struct(types[image]):
        return image, name_column
    if name_column is None and "path" in types[image].names:
        name_column = f"{image}.path"
    return f"{image}.bytes", name_column


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as pt

    if pt.is_struct(kind):
        return "bytes" in kind.names and _holds_images(kind.field("bytes").type)
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def _cells(batch: Any, column: str) -> Any:
    """The cells of a batch in `column`, or in a field of it: image.bytes."""
    name, _, inner = column.partition(".")
    return batch.column(0) if batch.schema.names == [column] else batch.column(name).field(inner)
