"""Sinks of a bulk run's results: files, rows of Parquet, or members of tar shards.

A chunk of inputs is committed as a whole under its key, and may be committed twice: the second replaces the
first. Until then, packed results are in a temporary file, which disappears if the process dies.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genray.errors import BulkError, DataError, StorageFull
from genray.io.bad_input import BadImage
from genray.io.files import storage_errors, sync_file_system
from genray.io.store import OWN, Store
from genray.io.tar import tar_members, write_member
from pipelines.settings import SinkSettings
from pipelines.storage.ledger.rows import KEY_PATTERN
from pipelines.storage.shards import PIECES

_ROW_GROUP_BYTES = 32 * 2**20  # bytes of rows in memory before they are written
_DROP_THREADS = 8  # threads that read parts, which mostly wait for a remote store
_IMAGE_SCHEMA = pa.schema([("path", pa.string()), ("image", pa.binary()), ("source", pa.string())])


class Sink(Protocol):
    """Stores the images of a bulk run. Any thread may put; one thread commits while none puts."""

    def put(self, path: str, data: bytes, source: str = "") -> str:
        """Store the encoded image `data`, made from the input `source` (default: the same path); returns its
        location: `path`, under the root or in a part.

        Raises:
            BadImage: with reason unwritable, for a path outside of the root.
            StorageFull, OSError: no space, or a write failed.
        """

    def commit(self, key: str) -> None:
        """Commit everything put since the last commit as the part `key`: all of it or nothing."""

    def discard(self) -> None:
        """Discard everything put since the last commit."""

    def drop(self, sources: Collection[str]) -> None:
        """Delete the results of these inputs, which are processed again."""

    def remove_orphans(self, keys: Collection[str]) -> None:
        """Delete parts with other keys, and leftovers of killed writers. No other process may write
        meanwhile."""


def open_sink(store: Store, settings: SinkSettings, *, joined: bool = False) -> Sink:
    """Open the sink at the root of `store`. `joined`: results are stored in pieces, which `ShardJoiner` joins
    to shards."""
    if joined:
        return TarSink(store, PIECES)
    if settings.container == "parquet":
        return ParquetSink(store)
    if settings.container == "webdataset":
        return TarSink(store)
    return FileSink(store)


class FileSink:
    """Stores each image as a file, immediately; see `Sink`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, path: str, data: bytes, source: str = "") -> str:
        try:
            self._store.write(_checked(path), data)
        except DataError as error:
            raise BadImage("unwritable", error.what) from error
        return path

    def commit(self, key: str) -> None:
        if self._store.is_local:  # the files exist, and are synced to survive a power cut, like the ledger
            sync_file_system(Path(self._store.root).expanduser())

    def discard(self) -> None:
        pass  # inputs that are processed again overwrite their files

    def drop(self, sources: Collection[str]) -> None:
        pass  # each image is its own file, which the ledger lists

    def remove_orphans(self, keys: Collection[str]) -> None:
        self._store.remove_leftovers()


class PackedSink(ABC):
    """Stores results in a temporary file until their commit; see `Sink`.

    Args:
        store, folder: location of the parts.
        prefix, suffix: prefix and suffix of a part's name, around its key.
    """

    def __init__(self, store: Store, folder: str, prefix: str, suffix: str) -> None:
        self._store = store
        self._folder = folder
        self._prefix = prefix
        self._suffix = suffix
        self._lock = threading.Lock()
        self._spool: IO[bytes] | None = None
        """The temporary file, from the first result on."""

    def commit(self, key: str) -> None:
        self._write_part(self._path(key))

    def discard(self) -> None:
        with self._lock:
            with suppress(OSError, StorageFull):
                self._finish_spool()
            self._close_spool()

    def drop(self, sources: Collection[str]) -> None:
        dropped = frozenset(sources)
        if dropped:
            with ThreadPoolExecutor(_DROP_THREADS) as threads:
                list(threads.map(lambda path: self._drop_from(path, dropped), self._paths()))

    def remove_orphans(self, keys: Collection[str]) -> None:
        for path in set(self._paths()) - {self._path(key) for key in keys}:
            self._store.delete(path)
        self._store.remove_leftovers(self._folder)

    @abstractmethod
    def _finish_spool(self) -> None:
        """Write the end of the temporary file."""

    @abstractmethod
    def _sources_of(self, path: str) -> Iterable[str]:
        """Return the inputs of the part `path`."""

    @abstractmethod
    def _copy_without(self, path: str, dropped: Collection[str]) -> PackedSink:
        """Return a new sink with the other results of the part `path`."""

    def _drop_from(self, path: str, dropped: frozenset[str]) -> None:
        try:
            if not dropped.isdisjoint(self._sources_of(path)):
                self._copy_without(path, dropped)._write_part(path)
        except (BadImage, pa.ArrowException) as error:
            raise BulkError(
                f"a part of the output is damaged and cannot be read ({error})",
                where=f"{self._store.root}/{path}",
                hint="delete the file, and process all images again with --retry all",
            ) from error

    def _write_part(self, path: str) -> None:
        with self._lock:
            self._finish_spool()
            if self._spool is None:
                self._store.delete(path)  # left by an attempt at the chunk that made results
                return
            self._spool.flush()
            self._store.write(path, mmap(self._spool.fileno(), 0, access=ACCESS_READ), durable=True)
            self._close_spool()

    def _open_spool(self) -> IO[bytes]:
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115
        return self._spool

    def _close_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _path(self, key: str) -> str:
        return f"{self._folder}/{self._prefix}{key}{self._suffix}"

    def _paths(self) -> list[str]:
        name = re.escape(f"{self._folder}/{self._prefix}") + KEY_PATTERN + re.escape(self._suffix)
        entries = self._store.list([self._suffix], self._folder)
        return [entry.path for entry in entries if re.fullmatch(name, entry.path)]


class TableSink(PackedSink):
    """Stores rows as `FOLDER/part-KEY.parquet`; see `Sink`.

    Args:
        store, folder: location of the parts.
        schema: columns; `path` is added first if it is missing. Vectors are fixed_size_list, given as
            arrays.
        source: column with the names of the inputs.
        compression: compression of Parquet.
    """

    def __init__(
        self, store: Store, folder: str, schema: pa.Schema, *, source: str = "path", compression: str = "zstd"
    ) -> None:
        super().__init__(store, folder, "part-", ".parquet")
        self._schema = schema if "path" in schema.names else schema.insert(0, pa.field("path", pa.string()))
        self._source = source
        self._compression = compression
        self._rows: list[Mapping[str, Any]] = []
        self._held_bytes = 0
        self._writer: Any = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row, from any thread; raises a ValueError if it does not fit the schema."""
        if unknown := set(row) - set(self._schema.names):
            raise ValueError(f"the table has no columns {', '.join(sorted(unknown))}")
        size = sum(_held_size(value) for value in row.values())
        with self._lock:
            self._rows.append(row)
            self._held_bytes += size
            if self._held_bytes >= _ROW_GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        rows = self._rows
        self._rows = []
        self._held_bytes = 0
        columns = [_column([row.get(field.name) for row in rows], field.type) for field in self._schema]
        with _spooling():
            if self._writer is None:
                self._writer = self._open_writer()
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _open_writer(self) -> Any:
        # Dictionaries and statistics are useless for images and vectors.
        texts = [field.name for field in self._schema if pa.types.is_string(field.type)]
        return pq.ParquetWriter(
            self._open_spool(),
            self._schema,
            compression=self._compression,
            use_dictionary=texts,
            write_statistics=texts,
        )

    def _finish_spool(self) -> None:
        if self._rows:
            self._flush()
        writer = self._writer
        self._writer = None
        if writer is not None:
            with _spooling():
                writer.close()

    def _sources_of(self, path: str) -> Iterable[str]:
        with self._store.open(path) as file:
            names = pq.ParquetFile(file).read([self._source], use_threads=False)[self._source]
            return set(names.to_pylist())

    def _copy_without(self, path: str, dropped: Collection[str]) -> PackedSink:
        copy = TableSink(
            self._store, self._folder, self._schema, source=self._source, compression=self._compression
        )
        with self._store.open(path) as file:
            part = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
            for batch in part.iter_batches(64, use_threads=False):
                for row in batch.to_pylist():
                    if row[self._source] not in dropped:
                        copy.add(row)
        return copy


class ParquetSink(TableSink):
    """Stores images as rows of `data/part-KEY.parquet`; see `Sink`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "data", _IMAGE_SCHEMA, source="source", compression="none")

    def put(self, path: str, data: bytes, source: str = "") -> str:
        self.add({"path": _checked(path), "image": data, "source": source or path})
        return path


class TarSink(PackedSink):
    """Stores images as members of `FOLDER/KEY.tar`; see `Sink`. The comment of a member's header names its
    input, if the names differ."""

    def __init__(self, store: Store, folder: str = "shards") -> None:
        super().__init__(store, folder, "", ".tar")
        self._tar: tarfile.TarFile | None = None

    def put(self, path: str, data: bytes, source: str = "") -> str:
        name = _checked(path)
        with self._lock, _spooling():
            if self._tar is None:
                self._tar = tarfile.open(fileobj=self._open_spool(), mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            write_member(self._tar, name, data, "" if source in ("", name) else source)
        return path

    def _finish_spool(self) -> None:
        tar = self._tar
        self._tar = None
        if tar is not None:
            with _spooling():
                tar.close()

    def _sources_of(self, path: str) -> Iterable[str]:
        return {member.comment or member.name for member in tar_members(self._store, path)}

    def _copy_without(self, path: str, dropped: Collection[str]) -> PackedSink:
        copy = TarSink(self._store, self._folder)
        for member in tar_members(self._store, path):
            if (member.comment or member.name) not in dropped:
                data = self._store.read_range(path, member.position, member.size)
                copy.put(member.name, data, member.comment)
        return copy


def _checked(path: str) -> str:
    """Return `path` if it is a place for a result under the root of an output; else raise."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or parts[0] == OWN or ".." in parts:
        raise BadImage("unwritable", f"{path!r} leads outside of the output, or into its {OWN}/")
    return path


def _spooling() -> AbstractContextManager[None]:
    """Turn a full disk, while writing to a temporary file, into a `StorageFull`."""
    return storage_errors(Path(tempfile.gettempdir(), "a part of the output"))


def _held_size(value: Any) -> int:
    return len(value) if isinstance(value, bytes | str) else int(getattr(value, "nbytes", 16))


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind) or any(value is None for value in values):
        return pa.array(values, kind)
    vectors = np.asarray(values, kind.value_type.to_pandas_dtype())
    if vectors.shape != (len(values), kind.list_size):
        raise ValueError(f"vectors have {vectors.shape[1:]} numbers, but the column has {kind.list_size}")
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)
