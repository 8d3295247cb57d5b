"""Sources of the inputs of a bulk run: files, rows of Parquet files, members of tar shards.

Inputs are listed one by one, and read one by one by any number of threads.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts, type_of
from genray.io.kinds import kind_of_bytes
from genray.io.listing import (
    Container,
    ImageFiles,
    Place,
    choose_container,
    find_place,
    list_shards,
    nothing_to_read,
    read_head,
)
from genray.io.parquet import PARQUET_ERRORS, ParquetRows
from genray.io.store import OWN, Entry, Store
from genray.io.tar import TarMember, tar_members
from genray.settings.base import Settings

OnError = Callable[[BadInput], None]  # takes each folder or shard that could not be listed


@dataclass(frozen=True)
class Item:
    """One input of a bulk run."""

    path: str  # unique, relative, POSIX; in a shard: the shard's path without suffix, then the name there
    size: int  # encoded bytes (0: unknown)
    modified: int  # last change of its file or shard, ns since 1970
    container: str = ""  # shard that contains it
    position: int = 0  # position in the shard: byte of a tar, row of a Parquet file


class ContainerSettings(Settings):
    """Settings of the containers of inputs."""

    container: Literal["auto", "files", "parquet", "webdataset"] = Field(
        "auto",
        description="container of the inputs (files: image files, parquet: rows of encoded images, "
        "webdataset: tar "
        "shards, auto: the one that is there; several are refused)",
    )
    column: str | None = Field(
        None,
        description="Parquet column that contains the images (null: the one whose values are images; several "
        "are refused)",
    )
    suffixes: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="suffixes of image files, in folders and tar shards, lower case, with dot (null: all "
        "that "
        "can be read, and files without a suffix whose first bytes are an image's)",
    )
    max_unfolded_gb: float = Field(
        4.0,
        gt=0,
        description="gigabytes in memory above which a Parquet row group is refused, if they are also "
        "more than "
        "100 times its bytes in the file",
    )


def open_source(location: str, settings: ContainerSettings) -> ItemSource:
    """Return the source of the inputs at `location`: a folder, a pattern such as photos/**/*.png, a file,
    or a URI of one. A survey of all names there finds the container, unless `settings` give it.

    Raises:
        DataError: the location is missing, or has no inputs, or inputs in several containers.
    """
    place = find_place(location)
    container: Container = (
        choose_container(location, place, ImageFiles(settings.suffixes), _CHOICES)
        if settings.container == "auto"
        else settings.container
    )
    return _SOURCES[container](place.store, settings, place)


@dataclass(eq=False)
class ItemSource(ABC):
    """Source of the inputs of a bulk run: lists them, and reads each. Pickled without its counts for workers,
    which only read.

    Attributes:
        store: store of the inputs.
        settings: settings of their container.
        place: location of the inputs in the store (None: all files).
        counts: numbers of files by type, of the last listing.
    """

    store: Store
    settings: ContainerSettings
    place: Place | None = None
    counts: FileCounts = field(default_factory=FileCounts, init=False)

    container: ClassVar[Container]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.settings, self.place)

    @abstractmethod
    def items(self, on_error: OnError) -> Iterator[Item]:
        """Yield all inputs, folder by folder and shard by shard, always in the same order."""

    @abstractmethod
    def read(self, item: Item, limit: int) -> bytes:
        """Read the encoded bytes of `item`, from any thread.

        Raises:
            BadImage: unreadable, empty, truncated, or too-large (more than `limit` bytes).
        """

    def nothing_there(self) -> DataError:
        """Return the error that the listing is empty."""
        location = (self.place or Place(self.store)).location
        return nothing_to_read(location, [self.container], self.counts)

    @property
    def _images(self) -> ImageFiles:
        return ImageFiles(self.settings.suffixes)

    def _begin(self, on_error: OnError) -> tuple[Place, Callable[[str, str], None]]:
        """Reset the counts; returns the place to list, and the handler of folders that cannot be listed."""
        self.counts = FileCounts()
        place = self.place or Place(self.store)
        return place, lambda path, detail: on_error(BadInput(path, "unreadable", detail))

    def _shards(self, on_error: OnError) -> Iterator[tuple[Entry, str]]:
        """Yield the shards, each with the prefix of its items' paths: its own path without suffix, or with it
        if another shard or a folder of shards has the same prefix."""
        place, on_folder = self._begin(on_error)
        entries = list(list_shards(place, self.container, self.counts, on_folder))
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
    """Source of image files in folders."""

    container = "files"

    def items(self, on_error: OnError) -> Iterator[Item]:
        place, on_folder = self._begin(on_error)
        for entry in self._images.list(place, self.counts, on_folder):
            yield Item(entry.path, entry.size, entry.modified)

    def read(self, item: Item, limit: int) -> bytes:
        return _checked(self._read_range(item.path, 0, limit + 1), limit)


class TarSource(ItemSource):
    """Source of members of uncompressed tar shards (a compressed tar has no positions to read from)."""

    container = "webdataset"

    def items(self, on_error: OnError) -> Iterator[Item]:
        for entry, prefix in self._shards(on_error):
            paths = ItemPaths(prefix)
            try:
                for member in tar_members(self.store, entry.path):
                    suffix = self._image_suffix(entry.path, member)
                    if suffix is not None:
                        path = paths.assign(member.name, f"{member.position:012}{suffix}")
                        yield Item(path, member.size, entry.modified, entry.path, member.position)
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))

    def read(self, item: Item, limit: int) -> bytes:
        if item.size > limit:
            raise BadImage("too-large", f"{item.size} bytes, the limit is {limit}")
        data = self._read_range(item.container, item.position, item.size)
        if len(data) < item.size:
            raise BadImage("truncated", f"{item.container} ends inside it")
        return _checked(data, limit)

    def _image_suffix(self, shard: str, member: TarMember) -> str | None:
        """Return the suffix of a member that is an image ("": its name has none); None for others, which are
        counted."""
        name = PurePosixPath(member.name)
        suffix = name.suffix.lower()
        if name.name.startswith("."):
            self.counts.add_unread("hidden")
            return None
        if suffix in self._images.wanted_suffixes:
            return suffix
        kind = type_of(name.name)
        if not kind and self.settings.suffixes is None:
            head = read_head(self.store, shard, member.position, member.size)
            found = None if head is None else kind_of_bytes(head)
            if head is None or (found is not None and found.is_read):
                return "" if found is None else found.suffixes[0]
            kind = found.suffixes[0] if found is not None else kind
        self.counts.add_unread(kind)
        return None


@dataclass(eq=False)
class ParquetSource(ItemSource):
    """Source of rows of Parquet files, named by a column of paths or keys if there is one, else by number."""

    container = "parquet"

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _rows: ParquetRows | None = field(default=None, init=False, repr=False)  # rows of the last file read

    def items(self, on_error: OnError) -> Iterator[Item]:
        suffixes = self._images.wanted_suffixes
        for entry, prefix in self._shards(on_error):
            paths = ItemPaths(prefix)
            try:
                rows = self._open(entry.path)
                rows.check_unfolding()
                self.counts.columns.update(rows.columns.others)
                for row, key in enumerate(rows.names()):
                    name = "" if key is None else str(key)
                    if name and not name.lower().endswith(suffixes):
                        name += rows.suffix
                    path = paths.assign(name, f"{row:08}{rows.suffix}")
                    yield Item(path, 0, entry.modified, entry.path, row)
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))
            except PARQUET_ERRORS as error:
                on_error(BadInput(entry.path, *_reason_and_detail(error)))

    def read(self, item: Item, limit: int) -> bytes:
        with self._lock:  # neighbouring rows are read from the file together
            try:
                if self._rows is None or self._rows.path != item.container:
                    self._rows = self._open(item.container)
                data = self._rows.read(item.position)
            except PARQUET_ERRORS as error:
                self._rows = None
                raise BadImage(*_reason_and_detail(error)) from error
        return _checked(data, limit)

    def _open(self, path: str) -> ParquetRows:
        limit = self.settings.max_unfolded_gb * 1e9
        return ParquetRows.of_file(path, self.store.open(path), self.settings.column, limit)


_SOURCES: dict[Container, type[FileSource] | type[ParquetSource] | type[TarSource]] = {
    "files": FileSource,
    "parquet": ParquetSource,
    "webdataset": TarSource,
}
_CHOICES: dict[Container, str] = {container: f"read.container={container}" for container in _SOURCES}


class ItemPaths:
    """Assigner of paths to the inputs in a shard, whatever their names: unique, and safe below a root.

    Args:
        prefix: first part of the paths.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._assigned = set[str]()

    def assign(self, name: str, fallback: str) -> str:
        """Return the path of the input `name` of the shard, or one from `fallback` if the name is unsafe or
        taken."""
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
    # File systems allow 255 bytes a part. Object stores allow 1024 bytes a key, with the shard's own path.
    return max(sizes) <= 255 and sum(sizes) <= 700


def _checked(data: bytes | None, limit: int) -> bytes:
    if not data:
        raise BadImage("empty", "null" if data is None else "0 bytes")
    if len(data) > limit:
        raise BadImage("too-large", f"more than {limit} bytes")
    return data


def _reason_and_detail(error: Exception) -> tuple[str, str]:
    """Return the reason why an input cannot be read (unreadable if the system reports it, else truncated),
    and the detail."""
    reason = "truncated" if getattr(error, "errno", None) is None else "unreadable"
    return reason, getattr(error, "strerror", None) or str(error).split("\n")[0]
