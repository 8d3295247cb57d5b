"""Parquet files of encoded images: find the column of images, and read rows one by one from row groups of any
size."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from genray.io.bad_input import BadImage
from genray.io.kinds import HEAD_BYTES, kind_of_bytes
from genray.io.parquet_pages import dictionary_use
from genray.text import amount, visible

PARQUET_ERRORS = (OSError, ValueError, ArithmeticError, LookupError)
"""Errors that damaged files raise; pyarrow's errors are subclasses of these."""

_NAME_COLUMNS = ("path", "file_path", "filename", "file_name", "key", "__key__")
_LONGEST_NAME = 4096  # characters; a longer name is ignored
_BATCH_BYTES = 16 * 2**20  # bytes of images in a batch
_MOST_BATCH_BYTES = 128 * 2**20  # bytes of a batch if each row had the size of the dictionary
_LEAST_RATIO = 100  # ratio of unpacked to packed bytes; encoded images stay far below it
_SNIFFED_VALUES = 8  # values of a row group that show the content of a column
_SNIFFED_ROWS = 1024  # rows searched for these values


@dataclass(frozen=True)
class ImageColumns:
    """Paths in the Parquet schema of the column of images and of the column of names, and the names of the
    other columns."""

    images: str
    names: str | None
    others: tuple[str, ...] = ()


class ParquetRows:
    """Reader of the images of one Parquet file, which it closes when it is deleted.

    Rows are read in small batches, so that row groups may have any size. Reading is fast forwards and back by
    a few rows; further back the row group is read from its start again.

    Args:
        path: path of the file in its store.
        opened: file, opened for reading.
        parquet: pyarrow's reader of the file.
        columns: columns to read.
        max_unfolded: most bytes that the rows of a row group may have beyond its size in the file, if a
            dictionary repeats values.
    """

    def __init__(
        self, path: str, opened: Any, parquet: Any, columns: ImageColumns, max_unfolded: float
    ) -> None:
        self.path = path
        self.columns = columns
        self._opened = opened
        self._parquet = parquet
        self._max_unfolded = max_unfolded
        self._starts = [0]
        for group in range(parquet.num_row_groups):
            self._starts.append(self._starts[-1] + parquet.metadata.row_group(group).num_rows)
        self._cursor: _Cursor | None = None

    def __del__(self) -> None:
        self._opened.close()

    @classmethod
    def of_file(
        cls, path: str, opened: Any, column: str | None, max_unfolded: float, *, setting: str = "read.column"
    ) -> ParquetRows:
        """Open the reader of a file.

        Args:
            column: column of images (None: the one whose values are images).
            setting: setting that gives the column, for errors.
            path, opened, max_unfolded: see the class.

        Raises:
            BadImage: there is no such column, or more than one (`ambiguous`).
            OSError, ValueError, ArithmeticError, LookupError: the file is damaged.
        """
        import pyarrow.parquet as pq

        try:
            # Without these options pyarrow fetches a whole row group for the first row.
            parquet = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
            return cls(path, opened, parquet, find_columns(parquet, column, setting), max_unfolded)
        except BaseException:
            opened.close()
            raise

    def names(self) -> Iterator[Any]:
        """Return the name of each row (None: unknown)."""
        if self.columns.names is None:
            return iter([None] * self._starts[-1])
        groups = range(self._parquet.num_row_groups)
        batches = (
            batch
            for group in groups
            for batch in bounded_batches(self._opened, self._parquet, group, self.columns.names, 4096)
        )
        return (name for batch in batches for name in _short_values(cells_of(batch, self.columns.names)))

    def check_unfolding(self) -> None:
        """Check that no row group unpacks to an absurd size.

        Raises:
            BadImage: `too-large`.
        """
        for group in range(self._parquet.num_row_groups):
            with suppress(*PARQUET_ERRORS):  # damaged: reading it reports that
                check_unfolding(self._opened, self._parquet, group, self.columns.images, self._max_unfolded)

    @cached_property
    def suffix(self) -> str:
        """Suffix of the format of the first row, for names without a suffix."""
        with suppress(OSError, ValueError, BadImage):  # damaged: reading it again reports that
            kind = kind_of_bytes((self.read(0) or b"")[:HEAD_BYTES])
            return kind.suffixes[0] if kind is not None else ""
        return ""

    def read(self, row: int) -> bytes | None:
        """Read the bytes of the row `row` (None: null).

        Raises:
            BadImage: `too-large`: its row group unpacks to an absurd size.
            OSError, ValueError, ArithmeticError, LookupError: the file is damaged.
        """
        if row >= self._starts[-1]:
            raise ValueError(f"it has only {self._starts[-1]} rows")
        group = bisect_right(self._starts, row) - 1
        if self._cursor is None or group != self._cursor.group or row < self._cursor.first_row:
            self._cursor = self._start(group)
        return self._cursor.read(row, self.columns.images)

    def _start(self, group: int) -> _Cursor:
        column = self.columns.images
        metadata = self._parquet.metadata.row_group(group)
        size = max(1, _chunk_of(metadata, column).total_uncompressed_size)
        rows = max(1, min(1024, _BATCH_BYTES * metadata.num_rows // size))
        batches = bounded_batches(self._opened, self._parquet, group, column, rows)
        recent = deque[tuple[int, Any]](maxlen=2 + 8 // rows)
        return _Cursor(group, batches, self._starts[group], size + self._max_unfolded, recent)


@dataclass
class _Cursor:
    """Position in a row group.

    Attributes:
        group: number of the row group.
        batches: batches that are still to be read.
        next_row: first row of these.
        most_bytes: bytes that may still be read.
        recent: last batches, each with the number of its first row: threads read slightly out of order.
    """

    group: int
    batches: Iterator[Any]
    next_row: int
    most_bytes: float
    recent: deque[tuple[int, Any]] = field(default_factory=deque)

    @property
    def first_row(self) -> int:
        """First row that can still be read."""
        return self.recent[0][0] if self.recent else self.next_row

    def read(self, row: int, column: str) -> bytes | None:
        while row >= self.next_row:
            if self.most_bytes < 0:
                raise BadImage("too-large", "its row group unpacks to more than max_unfolded_gb")
            batch = next(self.batches, None)
            if batch is None:
                raise ValueError(f"it ends before its row {row}")
            images = cells_of(batch, column)
            self.recent.append((self.next_row, images))
            self.next_row += len(images)
            self.most_bytes -= images.nbytes
        data: bytes | None = next(
            images[row - start].as_py() for start, images in self.recent if start <= row < start + len(images)
        )
        return data


def find_columns(parquet: Any, column: str | None, setting: str) -> ImageColumns:
    """Find the columns of a Parquet file that are read. The column of images is the one whose values are
    images, whatever its name.

    Args:
        parquet: pyarrow's reader of the file.
        column: column of images, if given.
        setting: setting that gives it, for errors.

    Raises:
        BadImage: no column has images (`unreadable`), or several have (`ambiguous`).
        OSError, ValueError, ArithmeticError, LookupError: the file is damaged.
    """
    import pyarrow.types as pt

    schema = parquet.schema_arrow
    types = dict(zip(schema.names, schema.types, strict=True))
    holders = {name: _bytes_path(name, kind) for name, kind in types.items() if _holds_bytes(kind)}
    listed = ", ".join(visible(name) for name in types)[:300]
    if column is not None:
        if column not in holders:
            raise BadImage("unreadable", f"no column {column!r} of bytes among: {listed}")
        image = column
    else:
        image = _image_column(parquet, holders, listed, setting)
    names = (
        name for name in _NAME_COLUMNS if name in types and name != image and not pt.is_nested(types[name])
    )
    name_column = next(names, None)
    others = tuple(name for name in types if name not in (image, name_column))
    if name_column is None and pt.is_struct(types[image]) and "path" in types[image].names:
        name_column = f"{image}.path"
    return ImageColumns(holders[image], name_column, others)


def has_bytes(opened: Any) -> bool:
    """Return whether the Parquet file `opened`, which is closed, has a column of bytes.

    Raises:
        OSError, ValueError, ArithmeticError, LookupError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with opened:
        return any(map(_holds_bytes, pq.ParquetFile(opened, pre_buffer=False).schema_arrow.types))


def bounded_batches(opened: Any, parquet: Any, group: int, column: str, rows: int) -> Iterator[Any]:
    """Yield the rows of one column of a row group in batches, with few rows in each if all of them might be
    the largest value of a dictionary.

    Args:
        opened: file, opened for reading.
        parquet: pyarrow's reader of the file.
        group: number of the row group.
        column: path of the column in the Parquet schema.
        rows: most rows of a batch.
    """
    largest = dictionary_use(opened, _chunk_of(parquet.metadata.row_group(group), column)).bytes
    rows = max(1, min(rows, _MOST_BATCH_BYTES // max(1, largest)))
    # See apache/arrow#34314.
    batches: Iterator[Any] = parquet.iter_batches(
        rows, use_threads=False, row_groups=[group], columns=[column]
    )
    return batches


def check_unfolding(opened: Any, parquet: Any, group: int, column: str, limit: float) -> None:
    """Check the unpacked size of a column in a row group: a dictionary stores a value once for any number of
    rows, and zeros compress well.

    Args:
        opened, parquet, group, column: see `bounded_batches`.
        limit: most bytes, where they are also more than 100 times the packed bytes.

    Raises:
        BadImage: `too-large`.
        OSError, ValueError, ArithmeticError, LookupError: the file is damaged.
    """
    chunk = _chunk_of(parquet.metadata.row_group(group), column)
    packed = max(1, chunk.total_compressed_size)
    most = max(limit, _LEAST_RATIO * packed)
    size = chunk.total_uncompressed_size  # can be wrong, but a page has at most 2 GiB
    use = dictionary_use(opened, chunk)
    if size <= most and use.most_repeated_bytes > most:  # possibly too large: count the bytes
        for batch in bounded_batches(opened, parquet, group, column, 1024):
            size += batch.nbytes
            if size > most:
                break
    if size > most:
        raise BadImage(
            "too-large",
            f"{amount(packed)} of the column {visible(column)} become more than {amount(most)} when they are "
            f"read ({chunk.num_values} rows, dictionary of {amount(use.bytes)}); the limit is "
            "max_unfolded_gb",
        )


def cells_of(batch: Any, column: str) -> Any:
    """Return the cells of a batch in a column, or in a field of it (image.bytes)."""
    name, _, inner = column.partition(".")
    return batch.column(0) if batch.schema.names == [column] else batch.column(name).field(inner)


def _image_column(parquet: Any, holders: dict[str, str], listed: str, setting: str) -> str:
    sniffed = {name: _Sniffed.of(parquet, path) for name, path in holders.items()}
    found = [name for name, values in sniffed.items() if values.images]
    if len(found) > 1:  # text may begin with BM, and some images may be broken
        found = [name for name in found if 2 * sniffed[name].images >= sniffed[name].count] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = [visible(name) for name in found]
        raise BadImage(
            "ambiguous",
            f"the columns {', '.join(names)} all hold images: set {setting} to one of them, such as "
            f"{setting}={names[0]}",
        )
    # Columns without values could have images. A single one is read: each row then has its own reason.
    unknown = [name for name, values in sniffed.items() if not values.count]
    if unknown and (len(unknown) == 1 or not parquet.metadata.num_rows):
        return unknown[0]
    if not holders:
        raise BadImage("unreadable", f"no column of encoded images (of bytes) among: {listed}")
    begin = ", ".join(f"{visible(name)} begins with {values.first!r}" for name, values in sniffed.items())
    raise BadImage(
        "unreadable", f"no column holds images: {begin[:300]}; the columns are {listed} (see {setting})"
    )


@dataclass
class _Sniffed:
    """Sample of the values of a column.

    Attributes:
        count: number of values in the sample, without null and empty ones.
        images: number of them that begin like images.
        first: first bytes of the first value.
    """

    count: int = 0
    images: int = 0
    first: bytes = b""

    @classmethod
    def of(cls, parquet: Any, column: str) -> _Sniffed:
        """Sample the first values of the first, the middle and the last row group."""
        sniffed = cls()
        groups = parquet.num_row_groups
        for group in sorted({0, groups // 2, groups - 1}) if groups else ():
            seen = rows = 0
            batches = parquet.iter_batches(2, row_groups=[group], columns=[column], use_threads=False)
            with suppress(*PARQUET_ERRORS):  # a damaged row group costs only its own rows
                for batch in batches:
                    for cell in cells_of(batch, column):
                        seen += sniffed._add(cell)
                    rows += len(batch)
                    if seen >= _SNIFFED_VALUES or rows >= _SNIFFED_ROWS:
                        break
        return sniffed

    def _add(self, cell: Any) -> bool:
        if not cell.is_valid:
            return False
        head = (
            bytes(cell.as_buffer()[:HEAD_BYTES]) if hasattr(cell, "as_buffer") else cell.as_py()[:HEAD_BYTES]
        )
        if not head:
            return False
        self.first = self.first or head[:8]
        self.count += 1
        self.images += kind_of_bytes(head) is not None
        return True


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as pt

    if pt.is_struct(kind):
        return "bytes" in kind.names and _holds_bytes(kind.field("bytes").type)
    if pt.is_dictionary(kind):
        kind = kind.value_type
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def _bytes_path(name: str, kind: Any) -> str:
    import pyarrow.types as pt

    return f"{name}.bytes" if pt.is_struct(kind) else name


def _chunk_of(metadata: Any, column: str) -> Any:
    chunks = (metadata.column(index) for index in range(metadata.num_columns))
    return next(chunk for chunk in chunks if chunk.path_in_schema == column)


def _short_values(cells: Any) -> list[Any]:
    """Return the values of an Arrow array, with None for text of absurd length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        cells = pc.if_else(pc.less_equal(pc.binary_length(cells), _LONGEST_NAME), cells, None)
    values: list[Any] = cells.to_pylist()
    return values
