"""A store: a root, local or remote, under which files lie by relative path."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from genray.errors import DataError


@dataclass(frozen=True)
class Entry:
    """A file in a store: its path relative to the root (POSIX), and its size in bytes."""

    path: str
    size: int


class Store:
    """Files under a root: a local path, or a URI that pyarrow or fsspec opens (s3://, gs://, memory://...).

    Paths are relative to the root and cannot leave it. A store pickles as its root.

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
                raise DataError(f"the folder {self.root} is {kind}", hint="check data.path")
        else:
            self._remote, self._prefix = _open_uri(self.root)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    def list(self, suffixes: Iterable[str], under: str = "") -> list[Entry]:
        """All files below the folder `under` with one of `suffixes` (lower case, with dot), by path.

        Hidden files and folders are passed over. A folder that is not there has no files.
        """
        wanted = tuple(suffixes)
        found = self._walk(self._safe(under)) if self.is_local else self._select(self._safe(under))
        listed = [entry for entry in found if entry.path.lower().endswith(wanted)]
        return sorted(listed, key=lambda entry: entry.path)

    def folders(self) -> set[str]:
        """The names of the folders directly below the root."""
        if self.is_local:
            return {entry.name for entry in os.scandir(self._base) if entry.is_dir()}
        from pyarrow.fs import FileSelector, FileType

        infos = self._remote.get_file_info(FileSelector(self._prefix, allow_not_found=True))
        return {info.base_name for info in infos if info.type == FileType.Directory}

    def read(self, path: str, limit: int | None = None) -> bytes:
        """The bytes of `path`, at most `limit` of them.

        Raises:
            OSError: it cannot be read.
        """
        safe = self._safe(path)
        if self.is_local:
            if not stat.S_ISREG((self._base / safe).stat().st_mode):
                raise OSError(errno.EINVAL, "not a regular file")  # opening a pipe would wait for ever
            with open(self._base / safe, "rb") as file:
                return file.read(-1 if limit is None else limit)
        with self._remote.open_input_file(f"{self._prefix}/{safe}") as file:
            data: bytes = file.read(limit)
            return data

    def _safe(self, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError(f"{path!r} leaves the store", where=self.root, hint="give a path below the root")
        return path

    def _walk(self, under: str) -> Iterable[Entry]:
        top, seen = self._base / under, set()
        for folder, names, files in os.walk(top, followlinks=True, onerror=_refuse_unreadable):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was listed, or is being
                names.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            names[:] = [name for name in names if not name.startswith(".")]
            below = os.path.relpath(folder, self._base)
            for name in files:
                if not name.startswith("."):
                    path = name if below == "." else f"{below}/{name}"
                    try:
                        yield Entry(path.replace(os.sep, "/"), Path(folder, name).stat().st_size)
                    except OSError:
                        yield Entry(path.replace(os.sep, "/"), 0)  # a dangling link: reading says why

    def _select(self, under: str) -> Iterable[Entry]:
        from pyarrow.fs import FileSelector, FileType

        base = f"{self._prefix}/{under}".rstrip("/")
        for info in self._remote.get_file_info(FileSelector(base, allow_not_found=True, recursive=True)):
            if info.type == FileType.File:
                path = info.path.removeprefix(self._prefix).lstrip("/")
                if not any(part.startswith(".") for part in path.split("/")):
                    yield Entry(path, info.size or 0)


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise DataError(
            f"cannot list {error.filename}: {error.strerror}", hint="check its permissions"
        ) from error


def _open_uri(uri: str) -> tuple[Any, str]:
    """The pyarrow file system that opens `uri`, and the path of its root there."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FileType, FSSpecHandler, PyFileSystem

    try:
        try:
            system, prefix = FileSystem.from_uri(uri)
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
        raise DataError(f"the store {uri} is a file, not a folder", hint="check data.path")
    return system, prefix.rstrip("/")
