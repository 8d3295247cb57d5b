"""Tables of image pairs: CSV, TSV or Parquet files with two columns of paths."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from genray.datasets.finding.names import rank_of
from genray.datasets.finding.split_words import split_word
from genray.errors import DataError
from genray.io.file_types import type_of
from genray.io.kinds import ARRAY_SUFFIXES, READ_SUFFIXES
from genray.io.store import Store
from genray.text import visible

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_SEPARATORS = ",;\t|"
_SPLIT_COLUMNS = ("split", "set", "subset", "partition")
_MAX_BYTES = 256 * 2**20
_MAX_ROWS = 5_000_000
_LOOKED_AT = 200  # cells of a column
_LEAST_SHARE = 0.9  # of the cells that name an image


@dataclass(frozen=True)
class PathTable:
    """Table with columns of image paths.

    Attributes:
        path: path of the table.
        columns: columns of paths by name, relative to the table's folder.
        splits: split of each row: train, val, test or "".
    """

    path: str
    columns: dict[str, list[str]]
    splits: list[str]

    @property
    def usual_order(self) -> tuple[str, str] | None:
        """Columns of input and target by their names; None if there are not two, or the names do not say."""
        if len(self.columns) != 2:
            return None
        first, second = self.columns
        ranks = rank_of(first), rank_of(second)
        if ranks[0] is None or ranks[1] is None or ranks[0] == ranks[1]:
            return None
        return (first, second) if ranks[0] < ranks[1] else (second, first)


def list_tables(store: Store, max_bytes: int = _MAX_BYTES) -> list[str]:
    """Return the paths of the tables of at most `max_bytes` directly below the root."""
    found = store.walk(lambda folder, name: is_table(name), enter=lambda folder: False)
    return sorted(entry.path for entry in found if entry.size <= max_bytes)


def is_table(name: str) -> bool:
    """Return whether a file is a table, by its name."""
    return name.lower().endswith(TABLE_SUFFIXES)


def open_table(store: Store, path: str) -> PathTable:
    """Read the columns of image paths in a table.

    Raises:
        DataError: the table cannot be read, or is larger than 256 MiB or 5 million rows.
    """
    try:
        data = store.read(path, _MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DataError(f"the table is larger than {_MAX_BYTES // 2**20} MiB", where=path)
        names, rows = _parquet(data) if path.lower().endswith(".parquet") else _text(data)
    except (OSError, ValueError, csv.Error) as error:  # Arrow's errors are of these
        raise DataError(
            f"the table {path} cannot be read: {visible(str(error))}",
            where=store.root,
            hint="give a CSV or TSV file in UTF-8, or a Parquet file",
        ) from error
    if len(rows) > _MAX_ROWS:
        raise DataError(f"the table has more than {_MAX_ROWS:,} rows", where=path)
    columns = {
        name: [_relative(row[i]) if i < len(row) else "" for row in rows]
        for i, name in enumerate(names)
        if _names_images(row[i] for row in rows if i < len(row))
    }
    return PathTable(path, columns, _splits(path, names, rows))


def _text(data: bytes) -> tuple[list[str], list[list[str]]]:
    text = data.decode("utf-8-sig")
    line = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = [row for row in islice(reader, _MAX_ROWS + 2) if any(row)]
    if rows and sum(map(_names_image, rows[0])) >= 2:  # no line of names
        return [str(i + 1) for i in range(len(rows[0]))], rows
    return [name.strip() for name in rows[0]] if rows else [], rows[1:]


def _parquet(data: bytes) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    if file.metadata.num_rows > _MAX_ROWS:
        return [], [[]] * (_MAX_ROWS + 1)
    names = [
        field.name
        for field in file.schema_arrow
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    table = file.read(columns=names)
    values = [[value or "" for value in table[name].to_pylist()] for name in names]
    return names, [list(row) for row in zip(*values, strict=True)]


def _names_image(cell: str) -> bool:
    return type_of(PurePosixPath(cell.strip()).name) in (*READ_SUFFIXES, *ARRAY_SUFFIXES)


def _names_images(cells: Iterator[str]) -> bool:
    looked_at = [cell for cell in islice(cells, _LOOKED_AT) if cell.strip()]
    return bool(looked_at) and sum(map(_names_image, looked_at)) >= _LEAST_SHARE * len(looked_at)


def _relative(cell: str) -> str:
    return cell.strip().replace("\\", "/").removeprefix("./")


def _splits(path: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the split of each row, by a column of splits, or else by the name of the table."""
    column = next((i for i, name in enumerate(names) if name.lower() in _SPLIT_COLUMNS), None)
    if column is not None:
        return [split_word(row[column].strip()) if column < len(row) else "" for row in rows]
    words = PurePosixPath(path).stem.replace("-", "_").split("_")
    return [next(filter(None, map(split_word, words)), "")] * len(rows)
