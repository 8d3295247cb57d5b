"""A store: a root, local or remote, under which files lie by relative path."""

from __future__ import annotations

import errno
import fnmatch
import os
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from genray.errors import DataError
from genray.io.files import TEMPORARY_NAME, atomic_write, storage_errors
from genray.uris import STORE_CREDENTIALS, secret_in

OWN = "_genray"
"""The folder of a bulk run's own records: listings pass it over, unless they begin in it."""

Wanted = Callable[[str, str], bool]
"""Whether a file is listed, by the path of its folder ("" or with a slash at its end) and its name."""

_FEW_BYTES = 4096  # that one call of the system reads as a whole
_OBJECT_STORES = ("s3", "gcs", "abfs")  # an object is there as a whole or not at all


@dataclass(frozen=True)
class Entry:
    """A file in a store: its path relative to the root (POSIX), its size in bytes, and when it was last
    changed, in ns since 1970; 0 if that is not known. Entries are equal whatever the last is."""

    path: str
    size: int
    modified: int = field(default=0, compare=False)


@dataclass(frozen=True)
class _FolderListing:
    """What lies in one folder: the names of its folders, and its files by name."""

    folders: list[str]
    files: Iterator[Entry]


def open_store(root: str | os.PathLike[str]) -> Store:
    """The store at `root`: a local folder, or a URI that pyarrow or fsspec opens (s3://, gs://, memory://...).

    Raises:
        DataError: no such root, nothing here opens its URI, or there is a secret in it.
    """
    location = os.fspath(root)
    if secret := secret_in(location):
        # It would be shown by every message on this store, and travel with each piece of work.
        raise DataError(
            f"credentials do not belong in a URI, and this one holds {secret}", hint=STORE_CREDENTIALS
        )
    if "://" in location:
        file_system, prefix, found_file = _connect(location)
        # Object stores know no empty folders: a prefix without an object of its own may still hold files.
        if found_file:
            raise DataError(f"the store {location} is a file, not a folder", hint="give its folder")
        return RemoteStore(location, file_system, prefix)
    folder = Path(location).expanduser()
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "missing"
        raise DataError(f"the folder {location} is {kind}", hint="check its path")
    return LocalStore(location, folder)


def is_file(location: str) -> bool:
    """Whether there is one file at `location`, not a folder.

    Raises:
        DataError: nothing here opens its URI.
    """
    if "://" not in location:
        return Path(location).expanduser().is_file()
    return _connect(location)[2]


def create_store(root: str | os.PathLike[str]) -> Store:
    """The store at `root`, made if it is a local folder; a DataError if it cannot be made or opened."""
    try:
        if "://" not in os.fspath(root):
            Path(root).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {os.fspath(root)}: {error.strerror}"
        raise DataError(message, hint="check its path and permissions") from error
    return open_store(root)


@dataclass(frozen=True, eq=False)
class Store(ABC):
    """Files under a root, see `open_store`: lists, reads, writes and deletes them.

    Paths are relative to the root and cannot leave it; what is written does not follow links out of it
    either. Any number of threads may use one. A store pickles as its root, and is opened again.
    """

    root: str

    is_local: ClassVar[bool]

    def __reduce__(self) -> tuple[Callable[[str], Store], tuple[str]]:
        return open_store, (self.root,)

    def list(self, suffixes: Iterable[str], under: str = "") -> list[Entry]:
        """All files below the folder `under` with one of `suffixes` (lower case, with dot), by path.

        Hidden files and folders are passed over. A folder that is not there has no files.

        Raises:
            DataError: a folder cannot be read.
        """
        return sorted(self.walk(suffixes, under), key=lambda entry: entry.path)

    def walk(
        self,
        suffixes: Iterable[str] | Wanted,
        under: str = "",
        on_error: Callable[[str, str], None] | None = None,
        *,
        enter: Callable[[str], bool] = lambda folder: True,
        on_hidden: Callable[[str], None] = lambda path: None,
    ) -> Iterator[Entry]:
        """What `list` lists, one by one: folder after folder, in each first the files by name, then the
        folders by name. Holds the names of one folder, and those of the folders that are still to come.

        Args:
            suffixes: of the files; or a function that says of each file whether it is listed.
            under: the folder to begin in.
            on_error: takes the path of a folder that cannot be read, and why; without it that is a DataError.
            enter: says of a folder whether it is listed too.
            on_hidden: takes the path of each hidden file and folder, which are passed over.
        """
        wanted = suffixes if callable(suffixes) else _by_suffix(tuple(suffixes))
        visited = set[tuple[int, int]]()
        pending = [self._checked(under).rstrip("/")]
        while pending:
            folder = pending.pop()
            prefix = f"{folder}/" if folder else ""
            try:
                listing = self._list_folder(folder, prefix, wanted, on_hidden, visited)
            except FileNotFoundError:
                continue
            except OSError as error:
                detail = error.strerror or str(error)
                if on_error is None:
                    raise DataError(
                        f"cannot list {self.root}/{folder or '.'}: {detail}", hint="check its permissions"
                    ) from error
                on_error(folder or ".", detail)
                continue
            folders = (prefix + name for name in sorted(listing.folders, reverse=True))
            pending += [path for path in folders if enter(path)]
            yield from listing.files

    def exists(self, path: str) -> bool:
        """Whether there is a file `path`."""
        with suppress(FileNotFoundError):
            return self.size(path) >= 0
        return False

    def read(self, path: str, limit: int | None = None) -> bytes:
        """The bytes of `path`, at most `limit` of them; an OSError if it cannot be read."""
        return self.read_range(path, 0, limit)

    def read_range(self, path: str, offset: int, length: int | None) -> bytes:
        """`length` bytes of `path` from `offset` (None: all), fewer at its end; an OSError as of `read`."""
        with self.open(path) as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data

    @abstractmethod
    def folders(self) -> set[str]:
        """The names of the folders directly below the root."""

    def size(self, path: str) -> int:
        """The bytes of the file `path`; an OSError if it is not there."""
        return self.entry(path).size

    @abstractmethod
    def entry(self, path: str) -> Entry:
        """The file `path` as a listing has it; an OSError if it is not there."""

    @abstractmethod
    def open(self, path: str) -> Any:
        """The file `path` for reading: binary, seekable, to be closed.

        Raises:
            OSError: it cannot be opened, or is no regular file.
        """

    @abstractmethod
    def write(self, path: str, data: bytes | mmap, *, durable: bool = False) -> None:
        """Write the file `path`, making its folders. A reader sees the old file or the new one, never a part.

        `durable` syncs a local file, so that it survives a power cut; objects do anyway.

        Raises:
            StorageFull, OSError: there was no room, or it cannot be written.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete the file `path`, if it is there."""

    @abstractmethod
    def remove_leftovers(self, under: str = "") -> None:
        """Delete what writers that were killed left; object stores have none. Nobody may be writing."""

    @abstractmethod
    def _list_folder(
        self,
        folder: str,
        prefix: str,
        wanted: Wanted,
        on_hidden: Callable[[str], None],
        visited: set[tuple[int, int]],
    ) -> _FolderListing:
        """What lies in `folder`, with `prefix` before the names of files. `visited` are the folders that a
        walk came to, by device and inode, so that it follows no link twice."""

    def _checked(self, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise DataError(f"{path!r} leaves the store", where=self.root, hint="give a path below the root")
        return path


@dataclass(frozen=True, eq=False)
class LocalStore(Store):
    """A store in a folder of this machine, `folder`."""

    folder: Path

    is_local = True

    def folders(self) -> set[str]:
        return {entry.name for entry in os.scandir(self.folder) if entry.is_dir()}

    def entry(self, path: str) -> Entry:
        file = self.folder / self._checked(path)
        if not file.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        status = file.stat()
        return Entry(path, status.st_size, status.st_mtime_ns)

    def read_range(self, path: str, offset: int, length: int | None) -> bytes:
        if length is None or length > _FEW_BYTES:
            return super().read_range(path, offset, length)
        # A third of the time for what a listing asks of each of many files. A pipe is not waited for.
        handle = os.open(f"{self.folder}/{self._checked(path)}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return os.pread(handle, length, offset)
        finally:
            os.close(handle)

    def open(self, path: str) -> Any:
        file = self.folder / self._checked(path)
        if not stat.S_ISREG(file.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file")  # opening a pipe would wait for ever
        return open(file, "rb")

    def write(self, path: str, data: bytes | mmap, *, durable: bool = False) -> None:
        target = self._target(path)
        # The first of its folders stands for those that there is no room for.
        with storage_errors(self.folder / path.partition("/")[0]):
            target.parent.mkdir(parents=True, exist_ok=True)
        write = atomic_write(target, durable=durable, make_folder=False)
        with write as temporary, open(temporary, "xb") as file:
            file.write(data)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            self._target(path).unlink()

    def remove_leftovers(self, under: str = "") -> None:
        for folder, _, files in os.walk(self.folder / self._checked(under)):
            for name in fnmatch.filter(files, TEMPORARY_NAME.format("*")):
                Path(folder, name).unlink(missing_ok=True)

    def _target(self, path: str) -> Path:
        """The file `path`, to be written or deleted: no link leads its folder out of the root."""
        target = self.folder / self._checked(path)
        root = os.path.realpath(self.folder)
        if os.path.commonpath([root, os.path.realpath(target.parent)]) != root:
            raise DataError(f"{path!r} leaves the store by a link", where=self.root, hint="remove the link")
        return target

    def _list_folder(
        self,
        folder: str,
        prefix: str,
        wanted: Wanted,
        on_hidden: Callable[[str], None],
        visited: set[tuple[int, int]],
    ) -> _FolderListing:
        path = str(self.folder / folder)
        status = os.stat(path)  # noqa: PTH116 (half the time of a Path's)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:  # a link to a folder that was listed, or is being
            return _FolderListing([], iter(()))
        visited.add(identity)
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name == OWN:
                    if name != OWN:
                        on_hidden(prefix + name)
                elif _is_folder(entry):
                    folders.append(name)
                elif wanted(prefix, name):
                    files.append(name)
        files.sort()
        return _FolderListing(folders, _local_entries(path, prefix, files))


@dataclass(frozen=True, eq=False)
class RemoteStore(Store):
    """A store below `prefix` in a file system of pyarrow."""

    file_system: Any
    prefix: str

    is_local = False

    def folders(self) -> set[str]:
        return {info.base_name for info in self._infos("") if not info.is_file}

    def entry(self, path: str) -> Entry:
        info = self.file_system.get_file_info(self._target(path))
        if not info.is_file:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return Entry(path, info.size or 0, info.mtime_ns or 0)

    def open(self, path: str) -> Any:
        return self.file_system.open_input_file(self._target(path))

    def write(self, path: str, data: bytes | mmap, *, durable: bool = False) -> None:
        target = self._target(path)
        if self.file_system.type_name in _OBJECT_STORES:
            self._write_stream(target, data)
            return
        folder, _, _ = target.rpartition("/")
        temporary = f"{folder}/{TEMPORARY_NAME.format(secrets.token_hex(8))}"
        self.file_system.create_dir(folder)
        self._write_stream(temporary, data)
        self.file_system.move(temporary, target)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            self.file_system.delete_file(self._target(path))

    def remove_leftovers(self, under: str = "") -> None:
        pass  # an object is there as a whole or not at all

    def _target(self, path: str) -> str:
        return f"{self.prefix}/{self._checked(path)}"

    def _write_stream(self, target: str, data: bytes | mmap) -> None:
        # A stream that an error leaves is closed, and what it has becomes the object: give it all at once.
        with self.file_system.open_output_stream(target) as stream:
            stream.write(data)

    def _list_folder(
        self,
        folder: str,
        prefix: str,
        wanted: Wanted,
        on_hidden: Callable[[str], None],
        visited: set[tuple[int, int]],
    ) -> _FolderListing:
        infos = []
        for info in self._infos(folder):
            if not _is_hidden(info.base_name):
                infos.append(info)
            elif info.base_name != OWN:
                on_hidden(prefix + info.base_name)
        files = [info for info in infos if info.is_file and wanted(prefix, info.base_name)]
        files.sort(key=lambda info: info.base_name)
        entries = (Entry(prefix + info.base_name, info.size or 0, info.mtime_ns or 0) for info in files)
        return _FolderListing([info.base_name for info in infos if not info.is_file], entries)

    def _infos(self, folder: str) -> Any:
        from pyarrow.fs import FileSelector

        base = f"{self.prefix}/{folder}".rstrip("/")
        return self.file_system.get_file_info(FileSelector(base, allow_not_found=True))


def _connect(uri: str) -> tuple[Any, str, bool]:
    """The pyarrow file system that opens `uri`, the path of its root there, and whether that is a file."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FileType, FSSpecHandler, PyFileSystem

    option = ""
    if uri.startswith("s3://"):  # so that a small object is written by one request, not three
        option = ("&" if "?" in uri else "?") + "allow_delayed_open=true"
    try:
        try:
            file_system, prefix = FileSystem.from_uri(uri + option)
        except ArrowInvalid:  # a scheme that pyarrow does not know
            import fsspec

            foreign, prefix = fsspec.core.url_to_fs(uri)
            file_system = PyFileSystem(FSSpecHandler(foreign))
        kind = file_system.get_file_info(prefix).type
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"cannot open the store {uri}: {error}", hint="check the URI, its credentials and the network"
        ) from error
    return file_system, prefix.rstrip("/"), kind == FileType.File


def _by_suffix(suffixes: tuple[str, ...]) -> Wanted:
    return lambda prefix, name: name.lower().endswith(suffixes)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == OWN


def _local_entries(folder: str, prefix: str, names: Iterable[str]) -> Iterator[Entry]:
    for name in names:
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116
        except OSError:
            yield Entry(prefix + name, 0)  # a dangling link: reading says why
        else:
            yield Entry(prefix + name, status.st_size, status.st_mtime_ns)
