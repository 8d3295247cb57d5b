"""Packed sinks: results that wait in a temporary file until their chunk is committed."""

from __future__ import annotations

import re
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa

from genray.errors import BulkError, StorageFull
from genray.images.decode import BadImage
from genray.io.files import storage_errors
from genray.io.store import OWN, Store

_KEY = r"\d{5}-[\w-]+"
_THREADS = 8  # that look into parts: most of it is waiting for a remote store


class PackedSink(ABC):
    """Results that wait in a temporary file for their name: see `Sink`."""

    def __init__(self, store: Store, folder: str, begin: str, suffix: str) -> None:
        self._store, self._folder = store, folder
        self._begin, self._suffix = f"{folder}/{begin}", suffix
        self._lock = threading.Lock()
        self._spool: IO[bytes] | None = None

    def commit(self, key: str) -> None:
        self._commit_as(self._path(key))

    def discard(self) -> None:
        with self._lock:
            with suppress(OSError, StorageFull):
                self._end()
            if self._spool is not None:
                self._spool.close()
                self._spool = None

    def drop(self, sources: Collection[str]) -> None:
        gone = frozenset(sources)
        if gone:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(lambda path: self._drop_from(path, gone), self._paths()))

    def remove_orphans(self, keys: Collection[str]) -> None:
        for path in set(self._paths()) - {self._path(key) for key in keys}:
            self._store.delete(path)
        self._store.remove_leftovers(self._folder)

    @abstractmethod
    def _end(self) -> None: ...  # write the end of what is in the temporary file

    @abstractmethod
    def _sources_of(self, path: str) -> Iterable[str]: ...  # the inputs that the part `path` is of

    @abstractmethod
    def _without(
        self, path: str, gone: Collection[str]
    ) -> PackedSink: ...  # a new sink with the rest of a part

    def _drop_from(self, path: str, gone: frozenset[str]) -> None:
        try:
            if not gone.isdisjoint(self._sources_of(path)):
                self._without(path, gone)._commit_as(path)
        except (BadImage, pa.ArrowException) as error:
            hint = "delete it, and make everything again with --retry all"
            what = f"a part of the output is damaged: {error}"
            raise BulkError(what, where=f"{self._store.root}/{path}", hint=hint) from error

    def _commit_as(self, path: str) -> None:
        with self._lock:
            self._end()
            if self._spool is None:
                return self._store.delete(path)  # of an attempt at the chunk that made something
            self._spool.flush()
            self._store.write(path, mmap(self._spool.fileno(), 0, access=ACCESS_READ), durable=True)
            self._spool.close()
            self._spool = None

    def _path(self, key: str) -> str:
        return f"{self._begin}{key}{self._suffix}"

    def _paths(self) -> list[str]:
        part = re.compile(re.escape(self._begin) + _KEY + re.escape(self._suffix))
        return [e.path for e in self._store.list([self._suffix], self._folder) if part.fullmatch(e.path)]


def below(path: str) -> str:
    """`path`, if it may be under the root of an output."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] in ("/", OWN) or ".." in parts:
        raise BadImage("unwritable", f"{path!r} is no path for an output")
    return path


def spooling() -> AbstractContextManager[None]:
    """Writing to a temporary file: a full disk is a `StorageFull`."""
    return storage_errors(Path(tempfile.gettempdir(), "a part of the output"))
