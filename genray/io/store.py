"""Stores: local or remote roots with files at relative paths."""

from __future__ import annotations

import errno
import fnmatch
import os
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from mmap import mmap
from pathlib import Path
from typing import Any, ClassVar

from genray.errors import DataError
from genray.io.files import TEMPORARY_NAME, atomic_write, storage_errors, write_bytes
from genray.uris import STORE_CREDENTIALS, secret_in

OWN = "_genray"
"""Folder of a bulk run's own records. Listings leave it out, unless they start in it."""

Wanted = Callable[[str, str], bool]
"""Function that returns whether a file is listed. Args: path of its folder ("", or with a slash at
its end), name."""

_BLOCK = 8 * 2**20  # bytes of a file that are copied at once
_FEW_BYTES = 4096  # most bytes that one system call reads as a whole
_OBJECT_STORES = ("s3", "gcs", "abfs")  # they never show a part of an object


@dataclass(frozen=True)
class Entry:
    """File in a store: path relative to the root (POSIX), size in bytes, and time of the last change in ns
    since 1970 (0: unknown). Equality ignores the time."""

    path: str
    size: int
    modified: int = field(default=0, compare=False)


@dataclass(frozen=True)
class _FolderListing:
    """Content of one folder: names of its folders, and its files in the order of their names."""

    folders: list[str]
    files: Iterator[Entry]


def open_store(root: str | os.PathLike[str]) -> Store:
    """Open the store at `root`: a local folder, or a URI of pyarrow or fsspec (s3://, gs://, memory://, ...).

    Raises:
        DataError: the root is missing, no library opens its URI, or the URI contains a secret.
    """
    location = os.fspath(root)
    if secret := secret_in(location):
        # Every message about this store would show it, and every piece of work would carry it.
        raise DataError(
            f"credentials do not belong in a URI, and this one holds {secret}", hint=STORE_CREDENTIALS
        )
    if "://" in location:
        file_system, prefix, found_file = _connect(location)
        # A prefix of an object store may contain files although it has no object of its own.
        if found_file:
            raise DataError(f"the store {location} is a file, not a folder", hint="give its folder")
        return RemoteStore(location, file_system, prefix)
    folder = Path(location).expanduser()
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "missing"
        raise DataError(f"the folder {location} is {kind}", hint="check its path")
    return LocalStore(location, folder)


def is_file(location: str) -> bool:
    """Return whether `location` is a file, not a folder.

    Raises:
        DataError: no library opens its URI.
    """
    if "://" not in location:
        return Path(location).expanduser().is_file()
    return _connect(location)[2]


def create_store(root: str | os.PathLike[str]) -> Store:
    """Open the store at `root`, and make it if it is a local folder.

    Raises:
        DataError: the root cannot be made or opened.
    """
    try:
        if "://" not in os.fspath(root):
            Path(root).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {os.fspath(root)}: {error.strerror}"
        raise DataError(message, hint="check its path and permissions") from error
    return open_store(root)


@dataclass(frozen=True, eq=False)
class Store(ABC):
    """Files under a root (see `open_store`): lists, reads, writes and deletes them.

    Paths are relative to the root and cannot leave it; writes do not follow links out of it either. Any
    number of threads may use a store. It is pickled as its root, and opened again.
    """

    root: str

    is_local: ClassVar[bool]

    def __reduce__(self) -> tuple[Callable[[str], Store], tuple[str]]:
        return open_store, (self.root,)

    def list(self, suffixes: Iterable[str], under: str = "") -> list[Entry]:
        """Return all files below the folder `under` with one of `suffixes` (lower case, with dot), sorted by
        path.

        Hidden files and folders are left out. A missing folder has no files.

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
        sizes: bool = True,
    ) -> Iterator[Entry]:
        """Yield the files of `list`: folder by folder, in each first the files by name, then the folders by
        name. Keeps in memory the names of one folder, and of the folders that are still to be listed.

        Args:
            suffixes: suffixes of the files; or a function that returns whether a file is listed.
            under: folder to start in.
            on_error: takes the path of a folder that cannot be read, and the reason (default: raise a
                DataError).
            enter: returns whether a folder is listed too.
            on_hidden: takes the path of each hidden file and folder, which are left out.
            sizes: look up the size and time of each local file, which costs more than to list it (False:
                they are 0). Remote stores list them.
        """
        wanted = suffixes if callable(suffixes) else _by_suffix(tuple(suffixes))
        visited = set[tuple[int, int]]()
        pending = [self._checked(under).rstrip("/")]
        while pending:
            folder = pending.pop()
            prefix = f"{folder}/" if folder else ""
            try:
                listing = self._list_folder(folder, prefix, wanted, on_hidden, visited, sizes=sizes)
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
        """Return whether the file `path` exists."""
        with suppress(FileNotFoundError):
            return self.size(path) >= 0
        return False

    def read(self, path: str, limit: int | None = None) -> bytes:
        """Read the file `path`, at most `limit` bytes; an OSError if it cannot be read."""
        return self.read_range(path, 0, limit)

    def read_range(self, path: str, offset: int, length: int | None) -> bytes:
        """Read `length` bytes of `path` from `offset` (None: all), fewer at its end; an OSError if it cannot
        be read."""
        with self.open(path) as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data

    def download(self, path: str, file: Path) -> None:
        """Copy the file `path` to the local `file`, atomically; an OSError if it cannot be read."""
        with (
            self.open(path) as source,
            atomic_write(file, durable=False) as temporary,
            temporary.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy, _BLOCK)

    @abstractmethod
    def folders(self) -> set[str]:
        """Return the names of the folders directly below the root."""

    def size(self, path: str) -> int:
        """Return the size of the file `path` in bytes; an OSError if it is missing."""
        return self.entry(path).size

    @abstractmethod
    def entry(self, path: str) -> Entry:
        """Return the entry of the file `path`; an OSError if it is missing."""

    @abstractmethod
    def open(self, path: str) -> Any:
        """Open the file `path` for reading (binary, seekable). The caller closes it.

        Raises:
            OSError: it cannot be opened, or is no regular file.
        """

    @abstractmethod
    def write(self, path: str, data: bytes | mmap, *, durable: bool = False) -> None:
        """Write the file `path`, and make its folders. A reader sees the old or the new file, never a part.

        Args:
            path: path of the file.
            data: its content.
            durable: sync a local file, so that it survives a power cut (objects always do).

        Raises:
            StorageFull: no space.
            OSError: the file cannot be written.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete the file `path` if it exists."""

    @abstractmethod
    def clear(self, folder: str) -> None:
        """Delete all files below the folder `folder`, if it exists."""

    @abstractmethod
    def remove_leftovers(self, under: str = "") -> None:
        """Delete temporary files of killed writers below the folder `under`. No process may write there
        meanwhile."""

    @abstractmethod
    def _list_folder(
        self,
        folder: str,
        prefix: str,
        wanted: Wanted,
        on_hidden: Callable[[str], None],
        visited: set[tuple[int, int]],
        *,
        sizes: bool,
    ) -> _FolderListing:
        """Return the content of `folder`.

        Args:
            folder: path of the folder.
            prefix: prefix of the paths of its files.
            wanted, on_hidden, sizes: see `walk`.
            visited: device and inode of the folders listed before, so that no link is followed twice.
        """

    def _checked(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise DataError(f"{path!r} leaves the store", where=self.root, hint="give a path below the root")
        return path


@dataclass(frozen=True, eq=False)
class LocalStore(Store):
    """Store in the local folder `folder`."""

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
        # Three times as fast as `open`, for listings that read each file's head. Does not wait for pipes.
        handle = os.open(f"{self.folder}/{self._checked(path)}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return os.pread(handle, length, offset)
        finally:
            os.close(handle)

    def open(self, path: str) -> Any:
        file = f"{self.folder}/{self._checked(path)}"  # a Path costs more than to open the file
        if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116
            raise OSError(errno.EINVAL, "not a regular file")  # opening a pipe would wait forever
        return open(file, "rb")

    def write(self, path: str, data: bytes | mmap, *, durable: bool = False) -> None:
        target = self._target(path)
        try:
            write_bytes(target, data, durable=durable)
        except FileNotFoundError:
            # A full disk is reported for the first folder of the path.
            with storage_errors(self.folder / path.partition("/")[0]):
                os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            write_bytes(target, data, durable=durable)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._target(path))  # noqa: PTH108

    def clear(self, folder: str) -> None:
        assert folder
        # The folders stay: a worker that has lost its chunk may still write there.
        for parent, _, files in os.walk(self._target(folder)):
            for name in files:
                Path(parent, name).unlink(missing_ok=True)

    def remove_leftovers(self, under: str = "") -> None:
        for folder, _, files in os.walk(self.folder / self._checked(under)):
            for name in fnmatch.filter(files, TEMPORARY_NAME.format("*")):
                Path(folder, name).unlink(missing_ok=True)

    def _target(self, path: str) -> str:
        """Return the file `path`, to be written or deleted; refuses links that lead out of the root."""
        target = f"{self.folder}/{self._checked(path)}"
        folder = os.path.realpath(os.path.dirname(target))  # noqa: PTH120
        if not f"{folder}/".startswith(f"{self._real_root}/"):
            root = os.path.realpath(self.folder)  # it may be a link that was changed
            if os.path.commonpath([root, folder]) != root:
                raise DataError(
                    f"{path!r} leaves the store by a link", where=self.root, hint="remove the link"
                )
        return target

    @cached_property
    def _real_root(self) -> str:
        return os.path.realpath(self.folder)

    def _list_folder(
        self,
        folder: str,
        prefix: str,
        wanted: Wanted,
        on_hidden: Callable[[str], None],
        visited: set[tuple[int, int]],
        *,
        sizes: bool,
    ) -> _FolderListing:
        path = str(self.folder / folder)
        status = os.stat(path)  # noqa: PTH116 (half the time of a Path's)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:  # a link to a folder that is listed already
            return _FolderListing([], iter(()))
        visited.add(identity)
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name == OWN:
                    if name != OWN:
                        on_hidden(prefix + name)
                    continue
                try:
                    is_folder = entry.is_dir()
                except OSError:  # a link to itself
                    is_folder = False
                if is_folder:
                    folders.append(name)
                elif wanted(prefix, name):
                    files.append(name)
        files.sort()
        if not sizes:
            return _FolderListing(folders, (Entry(prefix + name, 0) for name in files))
        return _FolderListing(folders, _local_entries(path, prefix, files))


@dataclass(frozen=True, eq=False)
class RemoteStore(Store):
    """Store below `prefix` in a file system of pyarrow."""

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

    def clear(self, folder: str) -> None:
        assert folder
        # Object stores delete a thousand at once by it.
        self.file_system.delete_dir_contents(self._target(folder), missing_dir_ok=True)

    def remove_leftovers(self, under: str = "") -> None:
        if self.file_system.type_name in _OBJECT_STORES:
            return  # an object is there as a whole or not at all
        for info in self._infos(self._checked(under), recursive=True):
            if info.is_file and fnmatch.fnmatch(info.base_name, TEMPORARY_NAME.format("*")):
                self.file_system.delete_file(info.path)

    def _target(self, path: str) -> str:
        return f"{self.prefix}/{self._checked(path)}"

    def _write_stream(self, target: str, data: bytes | mmap) -> None:
        # An error closes the stream, and the bytes so far become the object: write all bytes at once.
        # pyarrow would compress what is called x.gz.
        with self.file_system.open_output_stream(target, compression=None) as stream:
            stream.write(data)

    def _list_folder(
        self,
        folder: str,
        prefix: str,
        wanted: Wanted,
        on_hidden: Callable[[str], None],
        visited: set[tuple[int, int]],
        *,
        sizes: bool,
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

    def _infos(self, folder: str, *, recursive: bool = False) -> Any:
        from pyarrow.fs import FileSelector

        base = f"{self.prefix}/{folder}".rstrip("/")
        return self.file_system.get_file_info(FileSelector(base, allow_not_found=True, recursive=recursive))


def _connect(uri: str) -> tuple[Any, str, bool]:
    """Return the pyarrow file system of `uri`, the path of the root there, and whether that is a file."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FileType, FSSpecHandler, PyFileSystem

    option = ""
    if uri.startswith("s3://"):  # a small object is then written by one request, not three
        option = ("&" if "?" in uri else "?") + "allow_delayed_open=true"
    try:
        try:
            file_system, prefix = FileSystem.from_uri(uri + option)
        except ArrowInvalid:  # a scheme of fsspec
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


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == OWN


def _local_entries(folder: str, prefix: str, names: Iterable[str]) -> Iterator[Entry]:
    for name in names:
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116
        except OSError:
            yield Entry(prefix + name, 0)  # a dangling link: reading gives the reason
        else:
            yield Entry(prefix + name, status.st_size, status.st_mtime_ns)
