"""Sources: the images that a bulk run begins with, as files, as rows of Parquet, or as members of tar shards.

All are listed one by one and read one by one, by any number of threads.

The images of one Parquet file, row by row.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

from pydantic import Field

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.store import OWN, Entry, Store, open_store
from genray.io.tar import MemberNames, tar_members
from genray.settings.base import Settings

Container = Literal["files", "parquet", "webdataset"]
OnError = Callable[[BadInput], None]  # takes a folder or shard that could not be listed

_SHARDS = {"parquet": (".parquet",), "webdataset": (".tar", ".tar.gz", ".tgz")}


@dataclass(frozen=True)
class Item:
    """An input."""

    path: str  # unique: relative, POSIX; in a shard the shard's without suffix, then its name there
    size: int  # encoded bytes; 0 if that is not known
    modified: int  # when its file or shard was last changed, in ns since 1970
    container: str = ""  # the shard that holds it
    position: int = 0  # where in it: a byte of a tar, a row of a Parquet file


class ContainerSettings(Settings):
    """Settings of where the inputs are."""

    container: Literal["auto"] | Container = Field(
        "auto",
        description="files, parquet (rows of encoded images), webdataset (tar shards); auto: what there is",
    )
    column: str | None = Field(
        None, description="of a Parquet file: the one with images; null: the first of bytes, or {bytes, path}"
    )
    suffixes: tuple[str, ...] = Field(
        (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"),
        min_length=1,
        description="of images, in folders and tar shards; lower case, with dot",
    )


class ItemSource(Protocol):
    """The inputs of a bulk run. Travels to workers as the arguments that it was made with."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        """All inputs, one by one, folder by folder and shard by shard, always in the same order."""

    def read(self, item: Item, limit: int) -> bytes:
        """The encoded bytes of `item`. Any thread may ask.

        Raises:
            BadImage: unreadable, empty, truncated, or too-large (more than `limit` bytes).
        """


def open_source(location: str, settings: ContainerSettings) -> ItemSource:
    """The inputs at `location`, a folder or URI.

    Raises:
        DataError: it is missing, or has none.
    """
    store = open_store(location)
    wanted = tuple(_SOURCES) if settings.container == "auto" else (settings.container,)
    for kind in wanted:
        suffixes = settings.suffixes if kind == "files" else _SHARDS[kind]
        if any(True for _ in store.walk(suffixes, on_error=lambda path, detail: None)):
            return _SOURCES[kind](store, settings)
    names = {"files": "image files", "parquet": "Parquet files", "webdataset": "tar shards"}
    raise DataError(
        f"there are no {' or '.join(names[kind] for kind in wanted)} below {location}",
        where="input",
        hint="give a folder or URI with images (see read.suffixes), or Parquet files or tar shards of them",
    )


class _StoreSource:
    def __init__(self, store: Store, settings: ContainerSettings) -> None:
        self.store, self.settings = store, settings

    def __reduce__(self) -> tuple[type[_StoreSource], tuple[Store, ContainerSettings]]:
        return type(self), (self.store, self.settings)

    def walk(self, suffixes: tuple[str, ...], on_error: OnError) -> Iterator[Entry]:
        return self.store.walk(
            suffixes, on_error=lambda path, why: on_error(BadInput(path, "unreadable", why))
        )

    def shards(self, suffixes: tuple[str, ...], on_error: OnError) -> Iterator[tuple[Entry, str]]:
        """Shards, and what the paths of their items begin with: their own without suffix, unless that is also
        that of another shard, or a folder of shards."""
        entries = list(self.walk(suffixes, on_error))
        plain = [str(PurePosixPath(entry.path).with_suffix("")) for entry in entries]
        taken = {str(folder) for entry in entries for folder in PurePosixPath(entry.path).parents} | {OWN}
        taken |= {name for name, count in Counter(plain).items() if count > 1}
        for entry, name in zip(entries, plain, strict=True):
            yield entry, entry.path if name in taken else name

    def bytes_of(self, path: str, offset: int, length: int) -> bytes:
        try:
            return self.store.read_range(path, offset, length)
        except Exception as error:  # fsspec's file systems have errors of their own
            raise BadImage("unreadable", _why(error)[1]) from error


class FileSource(_StoreSource):
    """Image files in folders."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry in self.walk(self.settings.suffixes, on_error):
            yield Item(entry.path, entry.size, entry.modified)

    def read(self, item: Item, limit: int) -> bytes:
        return _checked(self.bytes_of(item.path, 0, limit + 1), limit)


class TarSource(_StoreSource):
    """Members of tar shards, uncompressed (a compressed tar has no positions to read from)."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry, begin in self.shards(_SHARDS["webdataset"], on_error):
            names = MemberNames(begin)
            try:
                for member in tar_members(self.store, entry.path):
                    name = PurePosixPath(member.name)
                    if name.suffix.lower() in self.settings.suffixes and not name.name.startswith("."):
                        path = names.take(member.name, f"{member.position:012}{name.suffix.lower()}")
                        yield Item(path, member.size, entry.modified, entry.path, member.position)
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))

    def read(self, item: Item, limit: int) -> bytes:
        if item.size > limit:
            raise BadImage("too-large", f"{item.size} bytes, the limit is {limit}")
        data = self.bytes_of(item.container, item.position, item.size)
        if len(data) < item.size:
            raise BadImage("truncated", f"{item.container} ends within it")
        return _checked(data, limit)


class ParquetSource(_StoreSource):
    """Rows of Parquet files, named by a column of paths or keys if there is one, else by their number."""

    def __init__(self, store: Store, settings: ContainerSettings) -> None:
        super().__init__(store, settings)
        self._lock = threading.Lock()
        self._rows: ParquetRows | None = None

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry, begin in self.shards(_SHARDS["parquet"], on_error):
            names = MemberNames(begin)
            try:
                rows = ParquetRows(entry.path, self.store.open(entry.path), self.settings.column)
                for row, key in enumerate(rows.keys()):
                    name = "" if key is None else str(key)
                    if name and not name.lower().endswith(self.settings.suffixes):
                        name += rows.suffix
                    path = names.take(name, f"{row:08}{rows.suffix}")
                    yield Item(path, 0, entry.modified, entry.path, row)
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))
            except (OSError, ValueError, ArithmeticError, LookupError) as error:  # pyarrow's are among them
                on_error(BadInput(entry.path, *_why(error)))

    def read(self, item: Item, limit: int) -> bytes:
        with self._lock:  # neighbours are taken out of the file together
            try:
                if self._rows is None or self._rows.path != item.container:
                    self._rows = ParquetRows(
                        item.container, self.store.open(item.container), self.settings.column
                    )
                data = self._rows.read(item.position)
            except (OSError, ValueError, ArithmeticError, LookupError) as error:
                self._rows = None
                raise BadImage(*_why(error)) from error
        return _checked(data, limit)


def _checked(data: bytes | None, limit: int) -> bytes:
    if not data:
        raise BadImage("empty", "null" if data is None else "0 bytes")
    if len(data) > limit:
        raise BadImage("too-large", f"more than {limit} bytes")
    return data


def _why(error: Exception) -> tuple[str, str]:
    number, said = getattr(error, "errno", None), getattr(error, "strerror", None)
    return "truncated" if number is None else "unreadable", said or str(error).split("\n")[0]


_SOURCES: dict[str, Callable[..., ItemSource]] = {
    "files": FileSource,
    "parquet": ParquetSource,
    "webdataset": TarSource,
}


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
