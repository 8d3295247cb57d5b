"""A store: a root, local or remote, under which files lie by relative path."""

from __future__ import annotations

import errno
import fnmatch
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from genray.errors import DataError
from genray.io.files import _sync_folder, storage_errors

OWN = "_genray"
"""The folder of a bulk run's own records: listings pass it over, unless they begin in it."""

_OBJECT_STORES = ("s3", "gcs", "abfs")  # an object is there as a whole or not at all
_TEMPORARY = ".genray-{}.tmp"
_Found = tuple[list[str], Iterator["Entry"]]  # the folders and the files of a folder


@dataclass(frozen=True)
class Entry:
    """A file in a store: its path relative to the root (POSIX), its size in bytes, and when it was last
    changed, in ns since 1970; 0 if that is not known. Entries are equal whatever the last is."""

    path: str
    size: int
    modified: int = field(default=0, compare=False)


class Store:
    """Files under a root: a local path, or a URI that pyarrow or fsspec opens (s3://, gs://, memory://...).

    Paths are relative to the root and cannot leave it; what is written does not follow links out of it
    either. Any number of threads may use one. A store pickles as its root.

    Raises:
        DataError: no such root, or nothing here opens its URI.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        self.is_local = "://" not in self.root
        if self.is_local:
            self._base = Path(self.root).expanduser()
            if not self._base.is_dir():
                kind = "a file, not a folder" if self._base.exists() else "missing"
                raise DataError(f"the folder {self.root} is {kind}", hint="check its path")
        else:
            self._remote, self._prefix = _open_uri(self.root)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    @classmethod
    def create(cls, root: str | os.PathLike[str]) -> Store:
        """The store at `root`, made if it is a local folder; a DataError if it cannot be made or opened."""
        try:
            if "://" not in os.fspath(root):
                Path(root).expanduser().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make the folder {os.fspath(root)}: {error.strerror}"
            raise DataError(what, hint="check its path and permissions") from error
        return cls(root)

    def list(self, suffixes: Iterable[str], under: str = "") -> list[Entry]:
        """All files below the folder `under` with one of `suffixes` (lower case, with dot), by path.

        Hidden files and folders are passed over. A folder that is not there has no files.

        Raises:
            DataError: a folder cannot be read.
        """
        return sorted(self.walk(suffixes, under), key=lambda entry: entry.path)

    def walk(
        self, suffixes: Iterable[str], under: str = "", on_error: Callable[[str, str], None] | None = None
    ) -> Iterator[Entry]:
        """What `list` lists, one by one: folder after folder, in each first the files by name, then the
        folders by name. Holds the names of one folder, and those of the folders that are still to come.

        `on_error` takes the path of a folder that cannot be read, and why; without it that is a DataError.
        """
        wanted, seen = tuple(suffixes), set[object]()
        pending = [self._safe(under).rstrip("/")]
        while pending:
            folder = pending.pop()
            below = f"{folder}/" if folder else ""
            try:
                folders, files = (self._scan if self.is_local else self._select)(folder, below, wanted, seen)
            except FileNotFoundError:
                continue
            except OSError as error:
                (on_error or self._refuse)(folder or ".", error.strerror or str(error))
                continue
            pending += [below + name for name in sorted(folders, reverse=True)]
            yield from files

    def folders(self) -> set[str]:
        """The names of the folders directly below the root."""
        if self.is_local:
            return {entry.name for entry in os.scandir(self._base) if entry.is_dir()}
        return {info.base_name for info in self._infos("") if not info.is_file}

    def exists(self, path: str) -> bool:
        """Whether there is a file `path`."""
        with suppress(FileNotFoundError):
            return self.size(path) >= 0
        return False

    def size(self, path: str) -> int:
        """The bytes of the file `path`; an OSError if it is not there."""
        safe = self._safe(path)
        if self.is_local:
            if (self._base / safe).is_file():
                return (self._base / safe).stat().st_size
        elif (info := self._remote.get_file_info(f"{self._prefix}/{safe}")).is_file:
            return int(info.size)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def open(self, path: str) -> Any:
        """The file `path` for reading: binary, seekable, to be closed.

        Raises:
            OSError: it cannot be opened, or is no regular file.
        """
        safe = self._safe(path)
        if not self.is_local:
            return self._remote.open_input_file(f"{self._prefix}/{safe}")
        if not stat.S_ISREG((self._base / safe).stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file")  # opening a pipe would wait for ever
        return open(self._base / safe, "rb")

    def read(self, path: str, limit: int | None = None) -> bytes:
        """The bytes of `path`, at most `limit` of them; an OSError if it cannot be read."""
        return self.read_range(path, 0, limit)

    def read_range(self, path: str, offset: int, length: int | None) -> bytes:
        """`length` bytes of `path` from `offset` (None: all), fewer at its end; an OSError as of `read`."""
        with self.open(path) as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data

    def write(self, path: str, data: bytes | mmap, *, durable: bool = False) -> None:
        """Write the file `path`, making its folders. A reader sees the old file or the new one, never a part.

        `durable` syncs a local file, so that it survives a power cut; objects do anyway.

        Raises:
            StorageFull, OSError: there was no room, or it cannot be written.
        """
        if not self.is_local:
            return self._put(path, data)
        target = self._inside(path)
        temporary = target.with_name(_TEMPORARY.format(secrets.token_hex(8)))
        with storage_errors(self._base / path.partition("/")[0]):
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with storage_errors(target):
                with open(temporary, "xb") as file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                os.replace(temporary, target)
                if durable:
                    _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """Delete the file `path`, if it is there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.is_local:
                self._inside(path).unlink()
            else:
                self._remote.delete_file(f"{self._prefix}/{self._safe(path)}")

    def remove_leftovers(self, under: str = "") -> None:
        """Delete what writers that were killed left; object stores have none. Nobody may be writing."""
        for folder, _, files in os.walk(self._base / self._safe(under)) if self.is_local else ():
            for name in fnmatch.filter(files, _TEMPORARY.format("*")):
                Path(folder, name).unlink(missing_ok=True)

    def _safe(self, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise DataError(f"{path!r} leaves the store", where=self.root, hint="give a path below the root")
        return path

    def _inside(self, path: str) -> Path:
        """The local file `path`, whose folder no link leads out of the root."""
        target = self._base / self._safe(path)
        base, folder = os.path.realpath(self._base), os.path.realpath(target.parent)
        if os.path.commonpath([base, folder]) != base:
            raise DataError(f"{path!r} leaves the store by a link", where=self.root, hint="remove the link")
        return target

    def _refuse(self, folder: str, detail: str) -> NoReturn:
        raise DataError(f"cannot list {self.root}/{folder}: {detail}", hint="check its permissions")

    def _scan(self, folder: str, below: str, wanted: tuple[str, ...], seen: set[object]) -> _Found:
        top = str(self._base / folder)
        status = os.stat(top)  # noqa: PTH116 (half the time of a Path's)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was listed, or is being
            return [], iter(())
        seen.add((status.st_dev, status.st_ino))
        folders, files = [], []
        with os.scandir(top) as found:
            for each in found:
                name = each.name
                if _is_hidden(name):
                    continue
                if _is_folder(each):
                    folders.append(name)
                elif name.lower().endswith(wanted):
                    files.append(name)
        files.sort()
        return folders, _entries(top, below, files)

    def _select(self, folder: str, below: str, wanted: tuple[str, ...], _: object) -> _Found:
        infos = [info for info in self._infos(folder) if not _is_hidden(info.base_name)]
        files = [info for info in infos if info.is_file and info.base_name.lower().endswith(wanted)]
        files.sort(key=lambda info: info.base_name)
        entries = (Entry(below + i.base_name, i.size or 0, i.mtime_ns or 0) for i in files)
        return [info.base_name for info in infos if not info.is_file], entries

    def _infos(self, folder: str) -> Any:
        from pyarrow.fs import FileSelector

        base = f"{self._prefix}/{folder}".rstrip("/")
        return self._remote.get_file_info(FileSelector(base, allow_not_found=True))

    def _put(self, path: str, data: bytes | mmap) -> None:
        target = f"{self._prefix}/{self._safe(path)}"
        folder, _, _ = target.rpartition("/")
        whole = self._remote.type_name in _OBJECT_STORES
        if not whole:
            self._remote.create_dir(folder)
        under = target if whole else f"{folder}/{_TEMPORARY.format(secrets.token_hex(8))}"
        # A stream that an error leaves is closed, and what it has becomes the object: give it all at once.
        with self._remote.open_output_stream(under) as stream:
            stream.write(data)
        if not whole:
            self._remote.move(under, target)


def _open_uri(uri: str) -> tuple[Any, str]:
    """The pyarrow file system that opens `uri`, and the path of its root there."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FileType, FSSpecHandler, PyFileSystem

    # So that a small object is written by one request, not three.
    option = ("&" if "?" in uri else "?") + "allow_delayed_open=true" if uri.startswith("s3://") else ""
    try:
        try:
            system, prefix = FileSystem.from_uri(uri + option)
        except ArrowInvalid:  # a scheme that pyarrow does not know
            import fsspec

            plain, prefix = fsspec.core.url_to_fs(uri)
            system = PyFileSystem(FSSpecHandler(plain))
        kind = system.get_file_info(prefix).type
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"cannot open the store {uri}: {error}", hint="check the URI, its credentials and the network"
        ) from error
    # Object stores know no empty folders: a prefix without an object of its own may still hold files.
    if kind == FileType.File:
        raise DataError(f"the store {uri} is a file, not a folder", hint="give its folder")
    return system, prefix.rstrip("/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == OWN


def _entries(top: str, below: str, names: Iterable[str]) -> Iterator[Entry]:
    for name in names:
        try:
            status = os.stat(f"{top}/{name}")  # noqa: PTH116
        except OSError:
            yield Entry(below + name, 0)  # a dangling link: reading says why
        else:
            yield Entry(below + name, status.st_size, status.st_mtime_ns)
