"""Sources: the inputs of a bulk run, as files, as rows of Parquet files, or as members of tar shards.

All are listed one by one and read one by one, by any number of threads.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.parquet import ParquetRows
from genray.io.store import OWN, Entry, Store, open_store
from genray.io.tar import tar_members
from genray.settings.base import Settings

Container = Literal["files", "parquet", "webdataset"]
OnError = Callable[[BadInput], None]  # takes a folder or shard that could not be listed

_SHARD_SUFFIXES = {"parquet": (".parquet",), "webdataset": (".tar", ".tar.gz", ".tgz")}
_PARQUET_ERRORS = (OSError, ValueError, ArithmeticError, LookupError)  # pyarrow's are among them


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


def open_source(location: str, settings: ContainerSettings) -> ItemSource:
    """The inputs at `location`, a folder or URI.

    Raises:
        DataError: it is missing, or has none.
    """
    store = open_store(location)
    containers = tuple(_SOURCES) if settings.container == "auto" else (settings.container,)
    for container in containers:
        suffixes = settings.suffixes if container == "files" else _SHARD_SUFFIXES[container]
        if any(True for _ in store.walk(suffixes, on_error=lambda path, detail: None)):
            return _SOURCES[container](store, settings)
    names = {"files": "image files", "parquet": "Parquet files", "webdataset": "tar shards"}
    raise DataError(
        f"there are no {' or '.join(names[container] for container in containers)} below {location}",
        where="input",
        hint="give a folder or URI with images (see read.suffixes), or Parquet files or tar shards of them",
    )


@dataclass(eq=False)
class ItemSource(ABC):
    """The inputs of a bulk run: lists them, and reads each. Travels to workers as its store and settings."""

    store: Store
    settings: ContainerSettings

    def __reduce__(self) -> tuple[type[ItemSource], tuple[Store, ContainerSettings]]:
        return type(self), (self.store, self.settings)

    @abstractmethod
    def items(self, on_error: OnError) -> Iterator[Item]:
        """All inputs, one by one, folder by folder and shard by shard, always in the same order."""

    @abstractmethod
    def read(self, item: Item, limit: int) -> bytes:
        """The encoded bytes of `item`. Any thread may ask.

        Raises:
            BadImage: unreadable, empty, truncated, or too-large (more than `limit` bytes).
        """

    def _walk(self, suffixes: tuple[str, ...], on_error: OnError) -> Iterator[Entry]:
        return self.store.walk(
            suffixes, on_error=lambda path, detail: on_error(BadInput(path, "unreadable", detail))
        )

    def _shards(self, suffixes: tuple[str, ...], on_error: OnError) -> Iterator[tuple[Entry, str]]:
        """Shards, and what the paths of their items begin with: their own without suffix, unless that is also
        that of another shard, or a folder of shards."""
        entries = list(self._walk(suffixes, on_error))
        stems = [str(PurePosixPath(entry.path).with_suffix("")) for entry in entries]
        taken = {str(folder) for entry in entries for folder in PurePosixPath(entry.path).parents} | {OWN}
        taken |= {stem for stem, count in Counter(stems).items() if count > 1}
        for entry, stem in zip(entries, stems, strict=True):
            yield entry, entry.path if stem in taken else stem

    def _read_range(self, path: str, offset: int, length: int) -> bytes:
        try:
            return self.store.read_range(path, offset, length)
        except Exception as error:  # fsspec's file systems have errors of their own
            raise BadImage("unreadable", _reason_and_detail(error)[1]) from error


class FileSource(ItemSource):
    """Image files in folders."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry in self._walk(self.settings.suffixes, on_error):
            yield Item(entry.path, entry.size, entry.modified)

    def read(self, item: Item, limit: int) -> bytes:
        return _checked(self._read_range(item.path, 0, limit + 1), limit)


class TarSource(ItemSource):
    """Members of tar shards, uncompressed (a compressed tar has no positions to read from)."""

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry, prefix in self._shards(_SHARD_SUFFIXES["webdataset"], on_error):
            paths = ItemPaths(prefix)
            try:
                for member in tar_members(self.store, entry.path):
                    name = PurePosixPath(member.name)
                    suffix = name.suffix.lower()
                    if suffix in self.settings.suffixes and not name.name.startswith("."):
                        path = paths.assign(member.name, f"{member.position:012}{suffix}")
                        yield Item(path, member.size, entry.modified, entry.path, member.position)
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))

    def read(self, item: Item, limit: int) -> bytes:
        if item.size > limit:
            raise BadImage("too-large", f"{item.size} bytes, the limit is {limit}")
        data = self._read_range(item.container, item.position, item.size)
        if len(data) < item.size:
            raise BadImage("truncated", f"{item.container} ends within it")
        return _checked(data, limit)


@dataclass(eq=False)
class ParquetSource(ItemSource):
    """Rows of Parquet files, named by a column of paths or keys if there is one, else by their number."""

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _rows: ParquetRows | None = field(default=None, init=False, repr=False)  # of the file that was read last

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry, prefix in self._shards(_SHARD_SUFFIXES["parquet"], on_error):
            paths = ItemPaths(prefix)
            try:
                rows = self._open(entry.path)
                for row, key in enumerate(rows.names()):
                    name = "" if key is None else str(key)
                    if name and not name.lower().endswith(self.settings.suffixes):
                        name += rows.suffix
                    path = paths.assign(name, f"{row:08}{rows.suffix}")
                    yield Item(path, 0, entry.modified, entry.path, row)
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))
            except _PARQUET_ERRORS as error:
                on_error(BadInput(entry.path, *_reason_and_detail(error)))

    def read(self, item: Item, limit: int) -> bytes:
        with self._lock:  # neighbours are taken out of the file together
            try:
                if self._rows is None or self._rows.path != item.container:
                    self._rows = self._open(item.container)
                data = self._rows.read(item.position)
            except _PARQUET_ERRORS as error:
                self._rows = None
                raise BadImage(*_reason_and_detail(error)) from error
        return _checked(data, limit)

    def _open(self, path: str) -> ParquetRows:
        return ParquetRows.of_file(path, self.store.open(path), self.settings.column)


_SOURCES: dict[Container, type[FileSource] | type[ParquetSource] | type[TarSource]] = {
    "files": FileSource,
    "parquet": ParquetSource,
    "webdataset": TarSource,
}


class ItemPaths:
    """Paths for what lies in a shard, whatever it is called there: each another, and safe below a root.

    Args:
        prefix: what they begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._assigned = set[str]()

    def assign(self, name: str, fallback: str) -> str:
        """The path of what is called `name` in the shard, or one of `fallback` if that will not do."""
        path = "/".join(part for part in name.split("/") if part not in ("", "."))
        if not _is_safe(name, path) or path in self._assigned:
            path = fallback
            while path in self._assigned:
                path = f"_{path}"
        self._assigned.add(path)
        return f"{self._prefix}/{path}"


def _is_safe(name: str, path: str) -> bool:
    try:
        sizes = [len(part.encode()) for part in path.split("/")]
    except UnicodeEncodeError:
        return False
    if not path or name.startswith("/") or "\0" in name:
        return False
    if any(part.startswith(".") for part in path.split("/")):  # hidden, or above the root
        return False
    # 255 is the limit of file systems; 1024, with the shard's own path, that of keys in object stores.
    return max(sizes) <= 255 and sum(sizes) <= 700


def _checked(data: bytes | None, limit: int) -> bytes:
    if not data:
        raise BadImage("empty", "null" if data is None else "0 bytes")
    if len(data) > limit:
        raise BadImage("too-large", f"more than {limit} bytes")
    return data


def _reason_and_detail(error: Exception) -> tuple[str, str]:
    """Why an input cannot be read: unreadable if the system says so, else damaged."""
    reason = "truncated" if getattr(error, "errno", None) is None else "unreadable"
    return reason, getattr(error, "strerror", None) or str(error).split("\n")[0]
