"""The ledger: what became of every input, as Parquet under the output's root, one row for each input.

Workers write small files, each by one rename and under a name of its own, so that a part that is written
twice is there once. `compact` merges them; until the merged ones are deleted the file that holds their rows
names them, so that no crash makes a row count twice.

Which inputs a ledger knows, in a few bytes each.

What a ledger says altogether.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genray.errors import DataError
from genray.io.bad_input import BadInput
from genray.io.store import Store

FOLDER = "_genray/ledger"
DONE, SKIPPED, FAILED = "done", "skipped", "failed"

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("status", pa.string()),  # done, skipped (copied untouched), failed
        (
            "reason",
            pa.string(),
        ),  # of what was skipped or failed: a key of bad_input.REASONS or steps.base.SKIP_REASONS
        ("detail", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("depth", pa.int8()),  # bits
        ("bytes_in", pa.int64()),
        ("bytes_out", pa.int64()),
        ("modified", pa.int64()),  # of the input, ns
        ("container", pa.string()),  # the shard that holds the input, and
        ("position", pa.int64()),  # where in it
        ("noise", pa.float32()),  # estimated standard deviation, of 255
        ("change", pa.float32()),  # mean absolute difference of output and input, of 255
        ("error", pa.float32()),  # of the reconstruction
        ("score", pa.float32()),  # of an anomaly: error / threshold
        ("read_ms", pa.float32()),
        ("decode_ms", pa.float32()),
        ("model_ms", pa.float32()),
        ("encode_ms", pa.float32()),
        ("write_ms", pa.float32()),
        ("output", pa.string()),  # path under the output's root
        ("also", pa.list_(pa.string())),  # further outputs
        ("sha256", pa.string()),  # of the output file
        ("finished", pa.timestamp("ms", tz="UTC")),
    ]
)
TIMES = ("read_ms", "decode_ms", "model_ms", "encode_ms", "write_ms")
_UNLISTED = "unlisted"  # stands for the format of what is a folder or a shard
_LARGE = 100_000  # rows of a file that is left alone
_LARGEST = 500_000
_REPLACES = b"genray.replaces"
_KEY = re.compile(r"^\d{5}-[\w-]+$")


class Ledger:
    """The rows under the root of `store`. Anyone may read it; one run at a time may change it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of the chunk `key`; a second time they take the place of the first."""
        assert _KEY.match(key), key
        self._write(f"{FOLDER}/{key}.parquet", pa.Table.from_pylist(list(rows), schema=SCHEMA))

    def has(self, key: str) -> bool:
        """Whether the chunk `key` has rows in a file of its own."""
        return self._store.exists(f"{FOLDER}/{key}.parquet")

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows, file by file."""
        for name in self._files():
            yield self._read(name, columns)

    def rows_of(self, key: str) -> list[dict[str, Any]]:
        """The rows of the chunk `key`, while they are in a file of their own."""
        rows: list[dict[str, Any]] = self._read(f"{key}.parquet").to_pylist()
        return rows

    def known(self) -> LedgerIndex:
        """What inputs it has."""
        paths, failed = [np.empty(0, np.uint64)], [np.empty(0, bool)]
        sizes, modified = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for table in self.tables(["path", "status", "bytes_in", "modified"]):
            paths.append(path_hashes(table["path"]))
            sizes.append(table["bytes_in"].to_numpy())
            modified.append(table["modified"].to_numpy())
            failed.append(pc.equal(table["status"], FAILED).to_numpy())
        return LedgerIndex(
            np.concatenate(paths), np.concatenate(sizes), np.concatenate(modified), np.concatenate(failed)
        )

    def keys(self) -> set[str]:
        """The chunks whose rows it has, merged or not."""
        found: set[str] = set()
        for name in self._files():
            found |= {each.removesuffix(".parquet") for each in self._replaced(name) or [name]}
        return found

    def summary(self) -> LedgerSummary:
        """Counts and sums, in one pass over the files."""
        result = LedgerSummary()
        for table in self.tables(["status", "reason", "score", "bytes_in", "bytes_out", *TIMES]):
            result.total += len(table)
            for column, counter in (("status", result.status), ("reason", result.reasons)):
                for entry in pc.value_counts(table[column]).to_pylist():
                    if entry["values"]:
                        counter[entry["values"]] += entry["counts"]
            result.anomalies += pc.sum(pc.greater(table["score"], 1)).as_py() or 0
            result.bytes_in += pc.sum(table["bytes_in"]).as_py() or 0
            result.bytes_out += pc.sum(table["bytes_out"]).as_py() or 0
            for name in TIMES:
                stage = name.removesuffix("_ms")
                result.seconds[stage] = (
                    result.seconds.get(stage, 0.0) + (pc.sum(table[name]).as_py() or 0) / 1e3
                )
        return result

    def drop(self, paths: Collection[str]) -> None:
        """Forget the rows of `paths`: they are about to be done again."""
        if not paths:
            return
        gone = pa.array(list(paths), pa.string())
        self._keep(lambda table: pc.invert(pc.is_in(table["path"], value_set=gone)))

    def outputs(self, paths: Collection[str] | None = None) -> Iterator[str]:
        """Where the outputs are, of all inputs or of `paths`."""
        wanted = None if paths is None else pa.array(list(paths), pa.string())
        for table in () if paths is not None and not paths else self.tables(["path", "output", "also"]):
            if wanted is not None:
                table = table.filter(pc.is_in(table["path"], value_set=wanted))
            for row in table.select(["output", "also"]).to_pylist():
                yield from filter(None, [row["output"], *(row["also"] or ())])

    def remove(self, key: str) -> None:
        """Forget the rows of the chunk `key`, while they are in a file of their own."""
        self._store.delete(f"{FOLDER}/{key}.parquet")

    def add_problems(self, number: int, problems: Sequence[BadInput]) -> None:
        """Record what could not be listed in the pass `number`: folders and shards."""
        row = {"status": FAILED, "format": _UNLISTED, "bytes_in": 0, "bytes_out": 0, "modified": 0}
        rows = {
            bad.path: row | {"path": bad.path, "reason": bad.reason, "detail": bad.detail} for bad in problems
        }
        self.add(f"{number:05}-listing", list(rows.values()))

    def drop_problems(self) -> None:
        """Forget what could not be listed: it is about to be tried again."""
        self._keep(lambda table: pc.not_equal(pc.fill_null(table["format"], ""), _UNLISTED))

    def clear(self) -> None:
        """Forget everything."""
        for entry in self._store.list([".parquet"], FOLDER):
            self._store.delete(entry.path)

    def _keep(self, wanted: Callable[[Any], Any]) -> None:
        for name in self._files():
            table = self._read(name)
            left = table.filter(wanted(table))
            if len(left) < len(table):
                self._write(f"{FOLDER}/{name}", left, self._replaced(name))

    def compact(self, number: int) -> None:
        """Merge small files into large ones; rows of an input that is there twice are left out but for one.

        Args:
            number: of the pass that ends; names the merged files.
        """
        self._remove_replaced()
        names = self._files()
        rows = {name: self._metadata(name).num_rows for name in names}
        small = [name for name in names if rows[name] < _LARGE]
        if len(small) < 2:
            return
        twice = self._twice(names)
        batch: list[str] = []
        serial = 0
        for name in [*small, None]:
            if name is None or (batch and sum(rows[each] for each in [*batch, name]) > _LARGEST):
                while f"merged-{number:05}-{serial:03}.parquet" in rows:
                    serial += 1
                self._merge(f"merged-{number:05}-{serial:03}.parquet", batch, twice)
                serial, batch = serial + 1, []
            if name is not None:
                batch.append(name)

    def _merge(self, into: str, names: Sequence[str], twice: dict[int, int]) -> None:
        tables = []
        for name in names:
            table = self._read(name)
            if twice:
                keep = np.ones(len(table), bool)
                for row, key in enumerate(path_hashes(table["path"])):
                    if int(key) in twice:
                        twice[int(key)] -= 1
                        keep[row] = twice[int(key)] == 0  # the last is the newest
                table = table.filter(pa.array(keep))
            tables.append(table)
        replaced = [each for name in names for each in self._replaced(name) or [name]]
        self._write(f"{FOLDER}/{into}", pa.concat_tables(tables), [*replaced, *names])
        self._remove_replaced()

    def _twice(self, names: Sequence[str]) -> dict[int, int]:
        """Inputs with more than one row, by hash, and how many."""
        hashes = [path_hashes(self._read(name, ["path"])["path"]) for name in names]
        keys, counts = np.unique(np.concatenate(hashes), return_counts=True)
        return {int(k): int(c) for k, c in zip(keys[counts > 1], counts[counts > 1], strict=True)}

    def _files(self) -> list[str]:
        """The names of the files that count, by age."""
        names = [entry.path.rpartition("/")[2] for entry in self._store.list([".parquet"], FOLDER)]
        merged = [name for name in names if name.startswith("merged-")]
        gone = {each for name in merged for each in self._replaced(name)}
        return sorted((n for n in names if n not in gone), key=lambda n: (not n.startswith("merged-"), n))

    def _remove_replaced(self) -> None:
        names = {entry.path.rpartition("/")[2] for entry in self._store.list([".parquet"], FOLDER)}
        merged = [name for name in names if name.startswith("merged-")]
        for name in {each for m in merged for each in self._replaced(m)} & names:
            self._store.delete(f"{FOLDER}/{name}")

    def _replaced(self, name: str) -> list[str]:
        if not name.startswith("merged-"):
            return []
        said = (self._metadata(name).metadata or {}).get(_REPLACES, b"[]")
        return [str(each) for each in json.loads(said)]

    def _metadata(self, name: str) -> Any:
        with self._store.open(f"{FOLDER}/{name}") as file, self._damage(name):
            return pq.read_metadata(file)

    @contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
            raise DataError(
                f"the ledger's file {name} is damaged: {error}",
                where=f"{self._store.root}/{FOLDER}",
                hint="delete it: the inputs that it spoke of are then done again",
            ) from error

    def _read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self._damage(name):
            file = pq.ParquetFile(self._open(name), pre_buffer=False)
            # Arrow's threads may still hold the file when the process ends, which then aborts
            # (apache/arrow#34314).
            return file.read(None if columns is None else list(columns), use_threads=False)

    def _open(self, name: str) -> pa.BufferReader:
        return pa.BufferReader(self._store.read(f"{FOLDER}/{name}"))

    def _write(self, path: str, table: pa.Table, replaces: Sequence[str] = ()) -> None:
        if replaces:
            table = table.replace_schema_metadata({_REPLACES: json.dumps(sorted(set(replaces))).encode()})
        stream = BytesIO()
        pq.write_table(table, stream, compression="zstd")
        self._store.write(path, stream.getvalue(), durable=True)


class LedgerIndex:
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
    def empty(cls) -> LedgerIndex:
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


@dataclass
class LedgerSummary:
    """What a ledger says altogether."""

    total: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    anomalies: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values: total, done, skipped, failed, reasons, anomalies, bytes, seconds of work by stage."""
        return {
            "total": self.total,
            **{name: self.status[name] for name in ("done", "skipped", "failed")},
            "reasons": dict(self.reasons.most_common()),
            "anomalies": self.anomalies,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "stage_seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
