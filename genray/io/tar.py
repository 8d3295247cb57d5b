"""Tar files: positions of members, so that each can be read separately; writing members.

The format is POSIX.1-2001 pax, which WebDataset uses: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genray.io.bad_input import BadImage
from genray.io.store import Store

# Most bytes of an extended header; tarfile would read the size that the file claims, even gigabytes.
_MAX_HEADER = 2**20
_BLOCK = 512
_BUFFER = 2**20  # bytes of one request to a remote store: one request reads the headers of small members
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGED = (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError)


@dataclass(frozen=True)
class TarMember:
    """Regular file in a tar: name as written there (it may be hostile), first byte, number of bytes, and
    comment of its extended header."""

    name: str
    position: int
    size: int
    comment: str = ""


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
