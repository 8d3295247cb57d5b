"""Which inputs a ledger knows, in a few bytes each."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Known:
    """The inputs that a ledger has: 25 bytes each, however long their paths are."""

    def __init__(
        self,
        paths: NDArray[np.uint64],
        sizes: NDArray[np.int64],
        modified: NDArray[np.int64],
        failed: NDArray[np.bool_],
    ) -> None:
        order = np.argsort(paths, kind="stable")
        self._paths, self._failed = paths[order], failed[order]
        self._sizes, self._modified = sizes[order], modified[order]

    @classmethod
    def empty(cls) -> Known:
        """Of a ledger without rows."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, path: str, size: int, modified: int) -> str:
        """ "new", "changed" (since its row was written), "failed" or "done". A `size` of 0 is not known."""
        key = path_hash(path)
        at = int(np.searchsorted(self._paths, key))
        if at == len(self._paths) or self._paths[at] != key:
            return "new"
        if self._modified[at] != modified or (size and self._sizes[at] != size):
            return "changed"
        return "failed" if self._failed[at] else "done"


def path_hash(path: str) -> np.uint64:
    """64 bits that stand for `path`: among 100 million the odds of two alike are 1 in 3,700."""
    return np.uint64(
        int.from_bytes(
            hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little"
        )
    )


def path_hashes(paths: Any) -> NDArray[np.uint64]:
    """`path_hash` of each of an Arrow array of texts."""
    return np.fromiter((path_hash(path) for path in paths.to_pylist()), np.uint64, len(paths))
