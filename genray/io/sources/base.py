"""What all sources of inputs share: the inputs, their settings, and their paths."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts
from genray.io.listing import Container, ImageFiles, Place, list_shards, nothing_to_read, shard_stem
from genray.io.patterns import PathFilter
from genray.io.sources.fetch import FetchSettings
from genray.io.store import OWN, Entry, LocalStore, Store
from genray.settings.base import Location, Settings

OnError = Callable[[BadInput], None]  # takes each folder or shard that could not be listed


class Item(NamedTuple):
    """One input of a bulk run; a tuple, because one is made for every input of a listing."""

    path: str  # unique, relative, POSIX; in a shard: the shard's path without suffix, then the name there
    size: int  # encoded bytes (0: unknown)
    modified: int  # last change of its file or shard, ns since 1970 (0: unknown)
    container: str = ""  # shard that contains it
    position: int = 0  # position in the shard: byte of a tar, row of a Parquet file


class ContainerSettings(Settings):
    """Settings of the containers of inputs."""

    container: Literal["auto", "files", "parquet", "webdataset", "list"] = Field(
        "auto",
        description="container of the inputs (files: image files, parquet: rows of encoded images, "
        "webdataset: tar shards, list: files that name the inputs, auto: the one that is there; several are "
        "refused)",
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
        "that can be read, and files without a suffix whose first bytes are an image's)",
    )
    max_unfolded_gb: float = Field(
        4.0,
        gt=0,
        description="gigabytes in memory above which a Parquet row group is refused, if they are also "
        "more than 100 times its bytes in the file; likewise on disk for a compressed tar",
    )
    include: tuple[str, ...] = Field(
        (),
        description="patterns of the inputs that are read ([]: all): *.jpg is a pattern of names, "
        "2024/**/*.jpg of whole paths; case matters",
    )
    exclude: tuple[str, ...] = Field(
        (), description="patterns of the inputs that are left out, as in `include`"
    )
    path_column: str | None = Field(
        None,
        description="column of a CSV or Parquet list that contains the paths or URLs (null: known by its "
        "name, such as path or url; bucket and key make an inventory)",
    )
    root: Location | None = Field(
        None,
        description="folder or URI that relative paths of a list start from; all its files must be below it "
        "(null: the folder of the list)",
    )
    fetch: FetchSettings = Field(FetchSettings(), description="reading of listed http(s) URLs")


@dataclass(eq=False)
class ItemSource(ABC):
    """Source of the inputs of a bulk run: lists them, and reads each. Pickled without its counts for workers,
    which only read.

    Attributes:
        store: store of the inputs.
        settings: settings of their container.
        place: location of the inputs in the store (None: all files).
        counts: numbers of files by type, of the last listing.
        carries: whether the output has the other members or columns of the inputs' samples, too.
    """

    store: Store
    settings: ContainerSettings
    place: Place | None = None
    counts: FileCounts = field(default_factory=FileCounts, init=False)
    carries: bool = field(default=False, init=False)

    container: ClassVar[Container]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.settings, self.place)

    @abstractmethod
    def items(self, on_error: OnError) -> Iterator[Item]:
        """Yield all inputs, folder by folder and shard by shard, always in the same order. Local files are
        listed by their names only, see `completed`."""

    def completed(self, item: Item) -> Item:
        """Return `item` with size and time of change, which listings of local files leave out: to look them
        up costs more than all else of a listing. 0 if the file is missing."""
        root = self._file_root
        if item.modified or item.container or not isinstance(root, LocalStore):
            return item
        try:
            status = os.stat(f"{root.folder}/{item.path}")  # noqa: PTH116 (half the time of a Path's)
        except (OSError, ValueError):  # reading it gives the reason
            return item
        return item._replace(size=status.st_size, modified=status.st_mtime_ns)

    def witness(self, item: Item) -> Item | None:
        """Return `item` with the size of the local file that contains it, by which another process finds out
        whether it sees the same inputs; None if there is no such file, as in a remote store."""
        root = self.store if item.container else self._file_root
        if not root.is_local:
            return None
        with suppress(OSError, ValueError, DataError):
            return item._replace(size=root.size(item.container or item.path), modified=0)
        return None

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
    def _file_root(self) -> Store:
        """Root of the inputs that are files of their own."""
        return self.store

    @property
    def _images(self) -> ImageFiles:
        settings = self.settings
        return ImageFiles(settings.suffixes, PathFilter(settings.include, settings.exclude))

    def _begin(self, on_error: OnError) -> tuple[Place, Callable[[str, str], None]]:
        """Reset the counts; returns the place to list, and the handler of folders that cannot be listed."""
        self.counts = FileCounts()
        place = self.place or Place(self.store)
        return place, lambda path, detail: on_error(BadInput(path, "unreadable", detail))

    def _shards(self, on_error: OnError) -> Iterator[tuple[Entry, str]]:
        """Yield the shards, each with the prefix of its items' paths: its own path without suffix, or with it
        if another shard or a folder of shards has the same prefix."""
        place, on_folder = self._begin(on_error)
        allows = self._images.paths.allows
        entries = list(list_shards(place, self.container, self.counts, on_folder, allows))
        stems = [shard_stem(entry.path) for entry in entries]
        taken = {str(folder) for entry in entries for folder in PurePosixPath(entry.path).parents} | {OWN}
        taken |= {stem for stem, count in Counter(stems).items() if count > 1}
        for entry, stem in zip(entries, stems, strict=True):
            yield entry, entry.path if stem in taken else stem

    def _read_range(self, path: str, offset: int, length: int) -> bytes:
        try:
            return self.store.read_range(path, offset, length)
        except Exception as error:  # fsspec's file systems have errors of their own
            raise BadImage("unreadable", reason_and_detail(error)[1]) from error


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
        if not is_safe(name, path) or path in self._assigned:
            path = fallback
            while path in self._assigned:
                path = f"_{path}"
        self._assigned.add(path)
        return f"{self._prefix}/{path}"


def is_safe(name: str, path: str) -> bool:
    """Return whether the input `name` of a shard or host can have this `path`: relative, below its root, not
    hidden, and short enough."""
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


def checked(data: bytes | None, limit: int) -> bytes:
    """Return the bytes of an input; raises a BadImage if there are none (empty), or too many (too-large)."""
    if not data:
        raise BadImage("empty", "null" if data is None else "0 bytes")
    if len(data) > limit:
        raise BadImage("too-large", f"more than {limit} bytes")
    return data


def reason_and_detail(error: Exception) -> tuple[str, str]:
    """Return the reason why an input cannot be read (unreadable if the system reports it, else truncated),
    and the detail."""
    reason = "truncated" if getattr(error, "errno", None) is None else "unreadable"
    return reason, getattr(error, "strerror", None) or str(error).split("\n")[0]
