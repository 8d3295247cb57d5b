"""Index of a ledger: what became of each input, in 14 bytes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.storage.ledger.rows import FAILED

InputState = Literal["new", "changed", "failed", "done"]
"""State of an input by the ledger; "changed": since its row was written."""

STATE_COLUMNS = ("path", "status", "bytes_in", "modified")

_BUCKETS = 256  # by the highest byte of the hash: each is sorted by itself, so that no copy of all is made
_BATCH_ROWS = 2**17
_SPREAD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiplicative hashing (Knuth 1973, section 6.4)
_ALL_BITS = 2**64 - 1


@dataclass(frozen=True)
class LedgerIndex:
    """State of all inputs of a ledger, by the hash of the path. Of sizes and times of change it keeps 15 and
    32 bits of a hash, which is enough to see that one changed.

    Args:
        buckets: parts of the index, by the highest byte of the hash.
        repeated: hashes of inputs with several rows, of which the newest counts.
    """

    buckets: Sequence[_Bucket]
    repeated: NDArray[np.uint64]

    @classmethod
    def build(cls, tables: Iterable[pa.Table]) -> LedgerIndex:
        """Build the index of tables with the `STATE_COLUMNS`, the oldest first."""
        parts = [_BucketRows() for _ in range(_BUCKETS)]
        waiting: list[pa.Table] = []
        rows = 0
        for table in tables:
            waiting.append(table.select(STATE_COLUMNS))
            rows += len(table)
            if rows >= _BATCH_ROWS:
                _distribute(pa.concat_tables(waiting), parts)
                waiting, rows = [], 0
        if waiting:
            _distribute(pa.concat_tables(waiting), parts)
        buckets = []
        repeated = [np.empty(0, np.uint64)]
        for index, part in enumerate(parts):
            bucket, several = part.sorted()
            parts[index] = _BucketRows()  # frees it
            buckets.append(bucket)
            repeated.append(several)
        return cls(buckets, np.concatenate(repeated))

    @classmethod
    def empty(cls) -> LedgerIndex:
        """Build the index of an empty ledger."""
        return cls.build(())

    def __len__(self) -> int:
        return sum(len(bucket.hashes) for bucket in self.buckets)

    def has(self, paths: Sequence[str]) -> list[bool]:
        """Return for each of `paths` whether the ledger contains it, with any status."""
        keys = np.fromiter(map(path_hash, paths), np.uint64, len(paths))
        numbers = keys >> np.uint64(56)
        found = np.zeros(len(paths), bool)
        for number in np.unique(numbers):
            hashes = self.buckets[int(number)].hashes
            if len(hashes):
                here = np.flatnonzero(numbers == number)
                at = np.searchsorted(hashes, keys[here]).clip(max=len(hashes) - 1)
                found[here] = hashes[at] == keys[here]
        answers: list[bool] = found.tolist()
        return answers

    def find(self, path: str, size: int, modified: int) -> InputState:
        """Return the state of an input by its path, size in bytes (0: unknown) and time of change."""
        key = path_hash(path)
        bucket = self.buckets[int(key) >> 56]
        at = int(np.searchsorted(bucket.hashes, key))
        if at == len(bucket.hashes) or bucket.hashes[at] != key:
            return "new"
        state = int(bucket.states[at])
        if bucket.times[at] != _spread(modified) >> 32 or (size and state >> 1 != _spread(size) >> 49):
            return "changed"
        return "failed" if state & 1 else "done"


@dataclass(frozen=True)
class _Bucket:
    """Rows of an index in the order of their hashes: 32 bits of the time of change; 15 bits of the size, and
    whether the input failed."""

    hashes: NDArray[np.uint64]
    times: NDArray[np.uint32]
    states: NDArray[np.uint16]


class _BucketRows:
    """Rows of a bucket that grows."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._times = array("I")
        self._states = array("H")

    def add(self, hashes: NDArray[np.uint64], times: NDArray[np.uint32], states: NDArray[np.uint16]) -> None:
        self._hashes.frombytes(hashes.tobytes())
        self._times.frombytes(times.tobytes())
        self._states.frombytes(states.tobytes())

    def sorted(self) -> tuple[_Bucket, NDArray[np.uint64]]:
        """Return the bucket with the last row of each hash, and the hashes with several rows."""
        hashes = np.frombuffer(self._hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        is_last = np.ones(len(hashes), bool)
        is_last[:-1] = hashes[1:] != hashes[:-1]
        order = order[is_last]
        times = np.frombuffer(self._times, np.uint32)[order]
        states = np.frombuffer(self._states, np.uint16)[order]
        return _Bucket(hashes[is_last], times, states), np.unique(hashes[~is_last])


def path_hash(path: str) -> np.uint64:
    """Return a 64-bit hash of `path`. Among 100 million paths the odds of a collision are 1 in 3,700."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def path_hashes(paths: Any) -> NDArray[np.uint64]:
    """Return the `path_hash` of each text of an Arrow array."""
    return np.fromiter((path_hash(path) for path in paths.to_pylist()), np.uint64, len(paths))


def _distribute(table: pa.Table, parts: Sequence[_BucketRows]) -> None:
    """Add the rows of `table` to the buckets of their hashes."""
    hashes = path_hashes(table["path"])
    numbers = (hashes >> np.uint64(56)).astype(np.uint8)
    order = np.argsort(numbers, kind="stable")
    failed = pc.equal(table["status"], FAILED).to_numpy()
    times = (_spread_all(table["modified"]) >> np.uint64(32)).astype(np.uint32)
    states = (_spread_all(table["bytes_in"]) >> np.uint64(49) << np.uint64(1)).astype(np.uint16) | failed
    bounds = np.searchsorted(numbers[order], np.arange(_BUCKETS + 1))
    for part, start, end in zip(parts, bounds[:-1], bounds[1:], strict=True):
        if start < end:
            rows = order[start:end]
            part.add(hashes[rows], times[rows], states[rows])


def _spread(number: int) -> int:
    return (number & _ALL_BITS) * _SPREAD & _ALL_BITS


def _spread_all(numbers: pa.ChunkedArray) -> NDArray[np.uint64]:
    values: NDArray[np.int64] = pc.fill_null(numbers, 0).to_numpy()
    return values.view(np.uint64) * np.uint64(_SPREAD)
