"""Tar files: positions of members, so that each can be read separately; writing members.

A compressed tar has no positions to read from. It is unpacked to a temporary file, as a whole.

The format is POSIX.1-2001 pax, which WebDataset uses: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from genray.io.bad_input import BadImage
from genray.io.files import storage_errors
from genray.io.store import Store
from genray.text import amount

# Most bytes of an extended header; tarfile would read the size that the file claims, even gigabytes.
_MAX_HEADER = 2**20
_BLOCK = 512
_BUFFER = 2**20  # bytes of one request to a remote store: one request reads the headers of small members
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UNPACKED_TARS = 2  # that are kept: neighbouring inputs may be in two
_LEAST_RATIO = 100  # images are compressed already: an honest tar unpacks to less than this times its size
_DAMAGED_PACKING = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError)
_DAMAGED = (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError)


@dataclass(frozen=True)
class TarMember:
    """Regular file in a tar: name as written there (it may be hostile), first byte, number of bytes, and
    comment of its extended header."""

    name: str
    position: int
    size: int
    comment: str = ""


@dataclass
class TarFiles:
    """Reader of the tars of a store, compressed or not. Any number of threads may use it.

    Args:
        store: store of the tars.
        max_unpacked: bytes above which a compressed tar is refused, if they are also more than 100 times its
            size.
    """

    store: Store
    max_unpacked: float
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _spools: OrderedDict[str, _Spool | None] = field(default_factory=OrderedDict, init=False, repr=False)
    """The unpacked tars that were read last; None: not compressed."""

    def members(self, path: str) -> Iterator[TarMember]:
        """Yield the regular files in the tar `path`, see `tar_members`."""
        spool = self._spool(path)
        if spool is None:
            yield from tar_members(self.store, path)
        else:
            with spool.open() as file:
                yield from _members(_BoundedFile(file), spool.size)

    def read_range(self, path: str, position: int, size: int) -> bytes:
        """Read `size` bytes at `position` of the tar `path`, unpacked; fewer at its end."""
        spool = self._spool(path)
        return self.store.read_range(path, position, size) if spool is None else spool.read(position, size)

    @contextmanager
    def open(self, path: str) -> Iterator[Any]:
        """Open the tar `path`, unpacked, for reading: binary, seekable."""
        spool = self._spool(path)
        with self.store.open(path) if spool is None else spool.open() as file:
            yield file

    def _spool(self, path: str) -> _Spool | None:
        with self._lock:
            if path not in self._spools:
                self._spools[path] = self._unpack(path)
                spools = [name for name, spool in self._spools.items() if spool is not None]
                for name in spools[:-_UNPACKED_TARS]:
                    del self._spools[name]  # closed when its last reader is done
            return self._spools[path]

    def _unpack(self, path: str) -> _Spool | None:
        try:
            with self.store.open(path) as opened:
                start = opened.read(8)
                kind = next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), "")
                if not kind:
                    return None
                opened.seek(0)
                most = max(self.max_unpacked, _LEAST_RATIO * self.store.size(path))
                return _Spool.of_stream(_unpacking(opened, kind), most)
        except OSError as error:
            raise BadImage("unreadable", error.strerror or str(error)) from error


@dataclass
class _Spool:
    """An unpacked tar in a temporary file, which is deleted with this object."""

    file: IO[bytes]
    size: int = 0

    def __del__(self) -> None:
        self.file.close()

    @classmethod
    def of_stream(cls, stream: Any, most: float) -> _Spool:
        """Unpack `stream`, as far as it is not damaged: what lies before the damage can be read.

        Raises:
            BadImage: `too-large`: it has more than `most` bytes.
            StorageFull: no space for the temporary file.
        """
        spool = cls(tempfile.TemporaryFile())  # noqa: SIM115
        with storage_errors(Path(tempfile.gettempdir(), "an unpacked tar")):
            try:
                while part := stream.read1(_BUFFER):  # which gives what lies before a damage
                    spool.size += spool.file.write(part)
                    if spool.size > most:
                        raise BadImage(
                            "too-large",
                            f"it unpacks to more than {amount(most)}; the limit is max_unfolded_gb",
                        )
            except _DAMAGED_PACKING:
                pass  # the tar then lacks its end mark, which is reported
            spool.file.flush()
        return spool

    def open(self) -> IO[bytes]:
        """Return a reader of the file with a position of its own."""
        return io.BufferedReader(_SpoolReader(self))

    def read(self, position: int, size: int) -> bytes:
        """Read `size` bytes at `position`."""
        return os.pread(self.file.fileno(), size, position)


class _SpoolReader(io.RawIOBase):
    """Reader of a spool, which it keeps."""

    def __init__(self, spool: _Spool) -> None:
        self._spool = spool
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._spool.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._spool.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _unpacking(opened: Any, kind: str) -> Any:
    if kind == "zstd":
        import pyarrow as pa

        return pa.CompressedInputStream(opened, "zstd")
    file = io.BufferedReader(opened, _BUFFER) if not isinstance(opened, io.BufferedReader) else opened
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if kind == "bzip2" else lzma.LZMAFile(file)


def tar_members(store: Store, path: str) -> Iterator[TarMember]:
    """Yield the regular files in the tar `path`. Only headers are read, and none is kept in memory.

    Raises:
        BadImage: the tar cannot be read, is compressed or damaged. Members before the damage are yielded
            first.
    """
    try:
        size = store.size(path)
        opened = store.open(path)
        # tarfile reads 512 bytes at a time.
        with opened if store.is_local else io.BufferedReader(opened, _BUFFER) as file:
            yield from _members(_BoundedFile(file), size)
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error


def write_member(tar: tarfile.TarFile, name: str, data: bytes, comment: str = "") -> None:
    """Append a file to `tar`, which was opened for writing in the pax format."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = int(time.time())
    if comment:
        info.pax_headers = {"comment": comment}  # the only keyword that readers ignore silently
    tar.addfile(info, io.BytesIO(data))


def _members(file: _BoundedFile, size: int) -> Iterator[TarMember]:
    tar = _open(file, size)
    position = -1  # end of the last header
    while (info := _next_member(tar, size)) is not None:
        # Python before 3.11.14 loops forever at a negative size.
        if tar.offset <= position or info.size < 0:
            raise BadImage("truncated", f"damaged at byte {info.offset} of {size}: impossible member size")
        position = tar.offset
        if info.offset_data + (info.size if info.isreg() else 0) > size:
            raise BadImage("truncated", f"it ends at byte {size}, inside {info.name[:100]!r}")
        if info.isreg() and info.sparse is None:
            yield TarMember(info.name, info.offset_data, info.size, info.pax_headers.get("comment", ""))
    _check_end_mark(file, tar.offset, size)


def _open(file: _BoundedFile, size: int) -> tarfile.TarFile:
    start = file.read(8)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise BadImage(
                "unreadable", f"a tar compressed by {name} has no positions to read from: unpack it"
            )
    file.seek(0)
    try:
        return tarfile.open(fileobj=file, mode="r:")  # type: ignore[call-overload, no-any-return]
    except _DAMAGED as error:
        raise BadImage("truncated", f"damaged at byte 0 of {size}: {error}") from error


def _next_member(tar: tarfile.TarFile, size: int) -> tarfile.TarInfo | None:
    try:
        info = tar.next()
    except _DAMAGED as error:
        raise BadImage("truncated", f"damaged at byte {tar.offset} of {size}: {error}") from error
    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
    return info


def _check_end_mark(file: _BoundedFile, position: int, size: int) -> None:
    file.seek(position)
    block = file.read(_BLOCK)
    if not block:
        raise BadImage(
            "truncated", f"it ends at byte {size} without an end mark; its last members may be missing"
        )
    if block.count(0) != _BLOCK:
        raise BadImage("truncated", f"damaged at byte {position} of {size}: no header of a member")


class _BoundedFile:
    """File that refuses reads of more than an extended header."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data: bytes = self._file.read(size)
        return data
