"""Sources: the images that a bulk run begins with, as files, as rows of Parquet, or as members of tar shards.

All are listed one by one and read one by one, by any number of threads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from pydantic import Field

from genray.errors import DataError
from genray.images.decode import BadImage, BadInput
from genray.io.parquet_rows import ParquetRows
from genray.io.store import OWN, Entry, Store
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


class SourceSettings(Settings):
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


class Source(Protocol):
    """The inputs of a bulk run. Travels to workers as the arguments that it was made with."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        """All inputs, one by one, folder by folder and shard by shard, always in the same order."""

    def read(self, item: Item, limit: int) -> bytes:
        """The encoded bytes of `item`. Any thread may ask.

        Raises:
            BadImage: unreadable, empty, truncated, or too-large (more than `limit` bytes).
        """


def open_source(location: str, settings: SourceSettings) -> Source:
    """The inputs at `location`, a folder or URI.

    Raises:
        DataError: it is missing, or has none.
    """
    store = Store(location)
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


class _Source:
    def __init__(self, store: Store, settings: SourceSettings) -> None:
        self.store, self.settings = store, settings

    def __reduce__(self) -> tuple[type[_Source], tuple[Store, SourceSettings]]:
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


class FileSource(_Source):
    """Image files in folders."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry in self.walk(self.settings.suffixes, on_error):
            yield Item(entry.path, entry.size, entry.modified)

    def read(self, item: Item, limit: int) -> bytes:
        return _checked(self.bytes_of(item.path, 0, limit + 1), limit)


class TarSource(_Source):
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


class ParquetSource(_Source):
    """Rows of Parquet files, named by a column of paths or keys if there is one, else by their number."""

    def __init__(self, store: Store, settings: SourceSettings) -> None:
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


_SOURCES: dict[str, Callable[..., Source]] = {
    "files": FileSource,
    "parquet": ParquetSource,
    "webdataset": TarSource,
}
