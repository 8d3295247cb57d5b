"""Names of output files that every file system can hold.

A part of a name may have 255 bytes, a whole name 1024 (the keys of object stores). Names that differ only in
case or in the Unicode form of their characters (A.jpg and a.jpg) are one file on many systems. Both kinds are
renamed before anything is processed: ~ and 8 hexadecimal digits of a hash of the name are added to its stem,
which is cut where it is too long. All names that would be one file are renamed, so that the result does not
depend on their order.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Container
from hashlib import blake2b

import numpy as np

_MOST_BYTES = 1024
_PART_BYTES = 255
_LONG_NAMES = "long-names"  # folder of files whose folders have too long names


class OutputNames:
    """Names of all outputs of a run, by hash: 8 bytes each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, name: str) -> None:
        """Add the name of an output."""
        self._hashes.append(folded_hash(name))

    def repeated(self) -> Container[int]:
        """Return the hashes that several names have, see `folded_hash`."""
        hashes = np.frombuffer(self._hashes, np.int64)
        hashes.sort()  # in place: a copy would double the memory
        return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def folded_hash(name: str) -> int:
    """Return a hash that is equal for names that may be one file on some system (of this process only)."""
    if name.isascii():
        return hash(name.lower())
    return hash(unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold()))


def is_too_long(name: str) -> bool:
    """Return whether some file system or object store cannot hold `name`, a relative path."""
    if len(name) <= _PART_BYTES // 4:  # at most 4 bytes each
        return False
    return _bytes(name) > _MOST_BYTES or any(_bytes(part) > _PART_BYTES for part in name.split("/"))


def short_name(name: str) -> str:
    """Return `name` if it is short enough, else its short replacement."""
    return renamed(name) if is_too_long(name) else name


def renamed(name: str) -> str:
    """Return the replacement of `name`, which no other name has."""
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    if not stem or _bytes(suffix) > 16:
        stem, dot, suffix = last, "", ""
    ending = f"~{digest}{dot}{suffix}"
    last = _cut(stem, _PART_BYTES - _bytes(ending)) + ending
    if any(_bytes(part) > _PART_BYTES for part in folder.split("/")) or _bytes(folder) + 1 > (
        _MOST_BYTES - _bytes(last)
    ):
        folder, slash = _LONG_NAMES, "/"
    return f"{folder}{slash}{last}"


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _cut(text: str, most: int) -> str:
    """Return the beginning of `text` of at most `most` bytes in UTF-8."""
    return text.encode("utf-8", "surrogateescape")[:most].decode("utf-8", "ignore")
