"""Lists of inputs: rows of text, CSV and Parquet files, read forwards from any row.

A list names one input in each row: a path, a URL, or a bucket and a key, as an inventory of S3 does
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html). Queries of URLs may be
secrets, so that no error of this module shows the text of a row.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from genray.io.bad_input import BadImage
from genray.io.parquet import PARQUET_ERRORS, bounded_batches, cells_of
from genray.io.store import Store
from genray.text import visible

TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".txt.gz", ".csv.gz", ".tsv.gz")
"""Suffixes of lists in text."""
LIST_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
PATH_COLUMNS = (
    *("path", "file_path", "filepath", "filename", "file_name", "file", "image_path", "image_file"),
    *("url", "image_url", "uri", "href"),
)
"""Names of the column of paths or URLs, in any case."""

_LONGEST_LINE = 2**16  # characters
_MARK_ROWS = 1024  # rows between two marks, from which reading can start
_BATCH_ROWS = 4096
_BUFFER = 2**20
_DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_INVENTORY = ("bucket", "key", "size", "last_modified", "is_latest", "is_delete_marker")
_CURRENT = ("bucket", "key", "size", "last_modified")  # columns of an inventory without header
_VERSIONS = ("bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "last_modified")


class ListRow(NamedTuple):
    """Row of a list: a path or URL (`text`), or a bucket and a key (`text`); "" if the row has none. Size in
    bytes and last change in ns since 1970 (0: unknown). `is_object`: False for versions that were replaced or
    deleted, and for folders."""

    text: str
    bucket: str = ""
    size: int = 0
    modified: int = 0
    is_object: bool = True


@dataclass
class ListFile:
    """Reader of the list `path`. Any row can be read; rows in order are fast.

    Args:
        store: store of the list.
        path: its path there.
        column: column of paths or URLs (None: known by its name).
        columns: columns of a CSV file without header, if they are known.
    """

    store: Store
    path: str
    column: str | None = None
    columns: Sequence[str] = ()
    _marks: list[int] = field(default_factory=lambda: [0], init=False)
    """First byte of every `_MARK_ROWS`-th row that was reached so far, for lists in plain text."""
    _header: list[str] | None = field(default=None, init=False)

    def rows(self, first: int = 0) -> Iterator[ListRow]:
        """Yield the rows from the row `first` on.

        Raises:
            BadImage: the list cannot be read, or nothing shows which column has the paths.
        """
        try:
            if self.path.lower().endswith(".parquet"):
                yield from self._parquet_rows(first)
            elif self.path.lower().endswith((".txt", ".txt.gz")):
                yield from (ListRow(cells[0]) for cells in self._records(first, header=False))
            else:
                yield from self._table_rows(first)
        except (OSError, EOFError, csv.Error) as error:
            raise BadImage("unreadable", getattr(error, "strerror", None) or str(error)) from error

    def _table_rows(self, first: int) -> Iterator[ListRow]:
        start = next(self._records(0, header=False), None)
        if start is None:
            return
        columns, has_header = (self.columns, False) if self.columns else _find_header(start, self.column)
        encoded = not has_header and "bucket" in columns  # S3 writes them so
        for cells in self._records(first, header=has_header):
            yield _row_of(dict(zip(columns, cells, strict=False)), encoded=encoded)

    def _records(self, first: int, *, header: bool) -> Iterator[list[str]]:
        """Yield the cells of each line or record that is not empty, from the row `first` on."""
        can_seek = not self.path.lower().endswith(".gz")
        mark = min(first // _MARK_ROWS, len(self._marks) - 1) if can_seek else 0
        with _opened(self.store, self.path) as file:
            lines = _Lines(file, self._marks[mark])
            records: Iterator[list[str]] = self._split(lines)
            if header and not mark:
                next(filter(None, records), None)
            row = mark * _MARK_ROWS
            for cells in records:
                if not any(cells):
                    continue
                if row >= first:
                    yield cells
                row += 1
                if can_seek and row == len(self._marks) * _MARK_ROWS:
                    self._marks.append(lines.position)

    def _split(self, lines: _Lines) -> Iterator[list[str]]:
        if self.path.lower().endswith((".txt", ".txt.gz")):
            return ([line.strip("\r\n")] for line in lines)
        return csv.reader(lines, delimiter="\t" if ".tsv" in self.path.lower()[-7:] else ",")

    def _parquet_rows(self, first: int) -> Iterator[ListRow]:
        import pyarrow.parquet as pq

        with self.store.open(self.path) as opened:
            try:
                parquet = pq.ParquetFile(opened, pre_buffer=False, buffer_size=_BUFFER)
                columns = _find_columns(_leaf_names(parquet), self.column)
                ends = _row_ends(parquet)
                group = bisect_right(ends, first)
                skip = first - (ends[group - 1] if group else 0)
                for number in range(group, len(ends)):
                    rows = zip(
                        *(_values(opened, parquet, number, name) for name in columns.values()), strict=True
                    )
                    for values in islice(rows, skip if number == group else 0, None):
                        yield _row_of(dict(zip(columns, values, strict=True)))
            except PARQUET_ERRORS as error:
                raise BadImage("truncated", str(error).split("\n")[0]) from error


class _Lines:
    """Lines of a text file from the byte `start` on, and the first byte after the last line."""

    def __init__(self, file: Any, start: int) -> None:
        self._file = file
        self._number = 0
        self.position = start
        if start:
            file.seek(start)

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(_LONGEST_LINE + 1):
            self._number += 1
            if len(line) > _LONGEST_LINE:
                raise BadImage("too-large", f"a line has more than {_LONGEST_LINE} bytes")
            if b"\0" in line:
                raise BadImage("unreadable", "it has NUL characters: a list is text in UTF-8")
            text = line if self.position else line.removeprefix(b"\xef\xbb\xbf")
            self.position += len(line)
            yield text.decode("utf-8", "surrogateescape")


@contextmanager
def _opened(store: Store, path: str) -> Iterator[Any]:
    with store.open(path) as opened:
        buffered = opened if store.is_local else io.BufferedReader(opened, _BUFFER)
        if path.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=buffered) as unpacked:
                yield unpacked
        else:
            yield buffered


def _find_header(start: Sequence[str], column: str | None) -> tuple[list[str], bool]:
    """Return the columns of a CSV list, and whether its first row names them."""
    names = [name.strip() for name in start]
    known = {name.lower() for name in names}
    if column in names or known & {*PATH_COLUMNS, "key"}:
        found = _find_columns(names, column)
        keys = {name: key for key, name in found.items()}
        return [keys.get(name, f"other {index}") for index, name in enumerate(names)], True
    if column is None and len(start) > 2 and any(map(_DATE.match, start)):
        return list(_CURRENT if start[2].isdigit() else _VERSIONS), False
    if column is None and len(start) == 1 and re.search(r"[./]", start[0]):
        return ["text"], False
    raise _no_column(names if all(map(_is_name, names)) else [], column)


def _find_columns(names: Sequence[str], column: str | None) -> dict[str, str]:
    """Return the columns that are read: {"text": "url"}, or {"bucket": "Bucket", "key": "Key", ...}."""
    if column is not None:
        if column not in names:
            raise _no_column(names, column)
        return {"text": column}
    lower = {name.lower().replace("lastmodifieddate", "last_modified"): name for name in names}
    lower.setdefault("last_modified", lower.get("last_modified_date", ""))
    if {"bucket", "key"} <= lower.keys():
        return {key: lower[key] for key in _INVENTORY if lower.get(key)}
    found = [lower[key] for key in PATH_COLUMNS if key in lower]
    if len(found) == 1:
        return {"text": found[0]}
    if found:
        shown = ", ".join(map(visible, found))
        raise BadImage("ambiguous", f"the columns {shown} could all be the paths: set read.path_column")
    raise _no_column(names, column)


def _no_column(names: Sequence[str], column: str | None) -> BadImage:
    among = f" among: {', '.join(map(visible, names))[:300]}" if names else ""
    wanted = f"no column {column!r}" if column else "no column is known to contain paths or URLs"
    return BadImage("unreadable", f"{wanted}{among}; set read.path_column to the column's name")


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[\w .-]{1,64}", text))


def _row_of(values: dict[str, Any], *, encoded: bool = False) -> ListRow:
    text = values.get("text")
    if text is not None:
        return ListRow(str(text).strip())
    bucket, key = str(values.get("bucket") or ""), str(values.get("key") or "")
    if encoded:
        key = unquote_plus(key)
    is_object = (
        not key.endswith("/")
        and str(values.get("is_latest", "true")).lower() != "false"
        and str(values.get("is_delete_marker", "false")).lower() != "true"
    )
    size = str(values.get("size") or "0")
    return ListRow(
        key if bucket else "",
        bucket,
        int(size) if size.isdigit() else 0,
        _nanoseconds(values.get("last_modified")),
        is_object,
    )


def _nanoseconds(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0
    return int(value.timestamp() * 1000) * 1_000_000 if isinstance(value, datetime) else 0


def _leaf_names(parquet: Any) -> list[str]:
    schema = parquet.schema
    return [schema.column(index).path for index in range(len(schema.names))]


def _row_ends(parquet: Any) -> list[int]:
    ends, rows = [], 0
    for group in range(parquet.num_row_groups):
        rows += parquet.metadata.row_group(group).num_rows
        ends.append(rows)
    return ends


def _values(opened: Any, parquet: Any, group: int, column: str) -> Iterator[Any]:
    """Yield the values of a column in a row group; "" for text of absurd length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in bounded_batches(opened, parquet, group, column, _BATCH_ROWS):
        cells = cells_of(batch, column)
        if pa.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
            cells = pc.if_else(pc.less_equal(pc.binary_length(cells), _LONGEST_LINE), cells, "")
        yield from cells.to_pylist()
