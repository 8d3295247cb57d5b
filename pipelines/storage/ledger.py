"""The ledger: what became of every input, as Parquet under the output's root, one row for each input.

Workers write small files, each by one rename and under a key of its own, so that a part that is written twice
is there once. `Ledger.compact` merges them; until the merged ones are deleted the file that holds their rows
names them, so that no crash makes a row count twice.

Why not Ray Data's own checkpoints (`DataContext.checkpoint_config`)? Tried with Ray 2.60 on 200 images, two
damaged, in blocks of 10 with `write_images`. They keep one column, the id of each row written, a file for
each block. Killed after 89 outputs, the run was resumed to 198, each once; but it opened all 200 files again,
and so did the next run, with nothing left to do: ids are compared after reading. A damaged image that the map
drops has no record; with `max_errored_blocks` it takes its block along (180 written, exit code 0). Outputs
have generated names. Here the two are rows with their reason, and the next run finds from the listing 0 to
do.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genray.errors import DataError
from genray.io.bad_input import BadInput
from genray.io.store import Store

FOLDER = "_genray/ledger"
DONE = "done"
SKIPPED = "skipped"
FAILED = "failed"
STATUSES = (DONE, SKIPPED, FAILED)
TIMES = ("read_ms", "decode_ms", "model_ms", "encode_ms", "write_ms")

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("depth", pa.int8()),
        ("pages", pa.int32()),
        ("salvaged", pa.string()),
        ("bytes_in", pa.int64()),
        ("bytes_out", pa.int64()),
        ("modified", pa.int64()),
        ("container", pa.string()),
        ("position", pa.int64()),
        ("noise", pa.float32()),
        ("change", pa.float32()),
        ("error", pa.float32()),
        ("score", pa.float32()),
        ("read_ms", pa.float32()),
        ("decode_ms", pa.float32()),
        ("model_ms", pa.float32()),
        ("encode_ms", pa.float32()),
        ("write_ms", pa.float32()),
        ("output", pa.string()),
        ("also", pa.list_(pa.string())),
        ("sha256", pa.string()),
        ("finished", pa.timestamp("ms", tz="UTC")),
        ("not_kept", pa.list_(pa.string())),
    ]
)
"""The columns of the files: the fields of `LedgerRow`."""

KEY_PATTERN = r"\d{5}-[\w-]+"
"""A key: the pass, five digits; then the chunk, the attempt at it and the piece, or `listing`."""

InputState = Literal["new", "changed", "failed", "done"]
"""What a ledger has of an input; "changed": since its row was written."""

_UNLISTED = "unlisted"  # stands for the format of what is a folder or a shard
_MERGED = "merged-"
_REPLACES = b"genray.replaces"
_ADDED = ("not_kept", "pages", "salvaged")  # columns that ledgers of older versions lack
_STATE_COLUMNS = ("path", "status", "bytes_in", "modified")
_SUMMARY_COLUMNS = (
    "status",
    "reason",
    "salvaged",
    "score",
    "bytes_in",
    "bytes_out",
    "not_kept",
    *TIMES,
)


@dataclass
class LedgerRow:
    """What became of an input; None where it does not apply, or was not read.

    A dataclass, because a row is filled in and counted for every image: `vars(row)` is what Arrow takes.
    """

    path: str
    status: str = ""
    """`DONE`, `SKIPPED` (copied untouched) or `FAILED`."""
    reason: str | None = None
    """Of what was skipped or failed: a key of `steps.base.SKIP_REASONS` or `bad_input.REASONS`."""
    detail: str | None = None
    """Of what failed: more of the reason. Else what was odd in the input, or is left out of the output."""
    format: str | None = None
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    depth: int | None = None
    """Bits."""
    pages: int | None = None
    """Pages that were read."""
    salvaged: str | None = None
    """Damage of the input that cost no pixel."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    modified: int | None = None
    """When the input was last changed, in ns since 1970."""
    container: str | None = None
    """The shard that holds the input."""
    position: int | None = None
    """Where in the shard."""
    noise: float | None = None
    """Estimated standard deviation, of 255."""
    change: float | None = None
    """Mean absolute difference of output and input, of 255."""
    error: float | None = None
    """Of the reconstruction."""
    score: float | None = None
    """Of an anomaly: error / threshold."""
    read_ms: float | None = None
    decode_ms: float | None = None
    model_ms: float | None = None
    encode_ms: float | None = None
    write_ms: float | None = None
    output: str | None = None
    """Path under the output's root."""
    also: Sequence[str] | None = None
    """Further outputs."""
    sha256: str | None = None
    """Of the output file."""
    finished: datetime | None = None
    not_kept: Sequence[str] | None = None
    """Names of what the input carries and the output does not, such as "XMP"."""


def chunk_name(pass_number: int, index: int) -> str:
    """How a chunk of a pass is called in keys and in the markers of attempts."""
    return f"{pass_number:05}-{index:06}"


def piece_key(chunk: str, attempt: int, piece: int) -> str:
    """The key of a piece of what an attempt at `chunk` did."""
    return f"{chunk}-{attempt}-{piece}"


def pass_of_key(key: str) -> int:
    """The number of the pass that a key, or the name of a merged file, is of."""
    return int(key.removeprefix(_MERGED)[:5])


class Ledger:
    """The rows under the root of `store`. Anyone may read it; one run at a time may change it.

    Responsible for: the rows of chunks, by key; what is known of inputs and of all of them together; rows
    that are to be made again; merging small files.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, key: str, rows: Sequence[LedgerRow]) -> None:
        """Write the rows of the chunk `key`; a second time they take the place of the first."""
        assert re.fullmatch(KEY_PATTERN, key), key
        table = pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)
        self._write(f"{key}.parquet", table)

    def has(self, key: str) -> bool:
        """Whether the chunk `key` has rows in a file of its own."""
        return self._store.exists(f"{FOLDER}/{key}.parquet")

    def paths_of(self, key: str) -> list[str]:
        """The inputs of the chunk `key`, while its rows are in a file of their own."""
        paths: list[str] = self._read(f"{key}.parquet", ["path"])["path"].to_pylist()
        return paths

    def remove(self, key: str) -> None:
        """Forget the rows of the chunk `key`, while they are in a file of their own."""
        self._store.delete(f"{FOLDER}/{key}.parquet")

    def keys(self) -> set[str]:
        """The chunks whose rows it has, merged or not."""
        keys: set[str] = set()
        for name in self._current_files():
            keys |= {each.removesuffix(".parquet") for each in self._replaced_by(name) or [name]}
        return keys

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows, file by file."""
        for name in self._current_files():
            yield self._read(name, columns)

    def index(self) -> LedgerIndex:
        """What inputs it has."""
        return LedgerIndex.build(self.tables(_STATE_COLUMNS))

    def summary(self) -> LedgerSummary:
        """Counts and sums, in one pass over the files."""
        summary = LedgerSummary()
        for table in self.tables(_SUMMARY_COLUMNS):
            summary.add(table)
        return summary

    def outputs(self, paths: Collection[str] | None = None) -> Iterator[str]:
        """Where the outputs are, of all inputs or of `paths`."""
        if paths is not None and not paths:
            return
        wanted = None if paths is None else pa.array(list(paths), pa.string())
        for table in self.tables(["path", "output", "also"]):
            if wanted is not None:
                table = table.filter(pc.is_in(table["path"], value_set=wanted))
            for row in table.select(["output", "also"]).to_pylist():
                yield from filter(None, [row["output"], *(row["also"] or ())])

    def drop(self, paths: Collection[str]) -> None:
        """Forget the rows of `paths`: they are about to be done again."""
        if paths:
            dropped = pa.array(list(paths), pa.string())
            self._keep_rows(lambda table: pc.invert(pc.is_in(table["path"], value_set=dropped)))

    def add_problems(self, pass_number: int, problems: Sequence[BadInput]) -> None:
        """Record what could not be listed in a pass: folders and shards."""
        rows = {
            bad.path: LedgerRow(
                path=bad.path,
                status=FAILED,
                reason=bad.reason,
                detail=bad.detail,
                format=_UNLISTED,
                bytes_in=0,
                bytes_out=0,
                modified=0,
            )
            for bad in problems
        }
        self.add(f"{pass_number:05}-listing", list(rows.values()))

    def drop_problems(self) -> None:
        """Forget what could not be listed: it is about to be tried again."""
        self._keep_rows(lambda table: pc.not_equal(pc.fill_null(table["format"], ""), _UNLISTED))

    def clear(self) -> None:
        """Forget everything."""
        for entry in self._store.list([".parquet"], FOLDER):
            self._store.delete(entry.path)

    def compact(self, pass_number: int, *, small_rows: int = 100_000, most_rows: int = 500_000) -> None:
        """Merge small files into large ones; rows of an input that is there twice are left out but for one.

        Args:
            pass_number: of the pass that ends; names the merged files.
            small_rows: a file of fewer is merged.
            most_rows: of a merged file.
        """
        self._remove_replaced()
        names = self._current_files()
        rows = {name: self._metadata(name).num_rows for name in names}
        small = [name for name in names if rows[name] < small_rows]
        if len(small) < 2:
            return
        duplicates = self._count_duplicates(names)
        serial = 0
        for group in _groups(small, rows, most_rows):
            while _merged_name(pass_number, serial) in rows:
                serial += 1
            self._merge(_merged_name(pass_number, serial), group, duplicates)
            serial += 1

    def _merge(self, into: str, names: Sequence[str], duplicates: dict[int, int]) -> None:
        """Merge the files `names`; `duplicates` is counted down, so that the last row of an input stays."""
        tables = []
        for name in names:
            table = self._read(name)
            if duplicates:
                table = table.filter(pa.array(_last_of_duplicates(table, duplicates)))
            tables.append(table)
        replaced = [each for name in names for each in self._replaced_by(name) or [name]]
        self._write(into, pa.concat_tables(tables), [*replaced, *names])
        self._remove_replaced()

    def _count_duplicates(self, names: Sequence[str]) -> dict[int, int]:
        """Inputs with more than one row, by hash, and how many."""
        hashes = [path_hashes(self._read(name, ["path"])["path"]) for name in names]
        keys, counts = np.unique(np.concatenate(hashes), return_counts=True)
        several = counts > 1
        return {int(key): int(count) for key, count in zip(keys[several], counts[several], strict=True)}

    def _keep_rows(self, is_kept: Callable[[Any], Any]) -> None:
        for name in self._current_files():
            table = self._read(name)
            kept = table.filter(is_kept(table))
            if len(kept) < len(table):
                self._write(name, kept, self._replaced_by(name))

    def _all_files(self) -> list[str]:
        return [entry.path.rpartition("/")[2] for entry in self._store.list([".parquet"], FOLDER)]

    def _current_files(self) -> list[str]:
        """The names of the files that count, by age."""
        names = self._all_files()
        replaced = self._replaced_among(names)
        return sorted(
            (name for name in names if name not in replaced),
            key=lambda name: (not name.startswith(_MERGED), name),
        )

    def _remove_replaced(self) -> None:
        names = self._all_files()
        for name in self._replaced_among(names).intersection(names):
            self._store.delete(f"{FOLDER}/{name}")

    def _replaced_among(self, names: Sequence[str]) -> set[str]:
        return {replaced for name in names for replaced in self._replaced_by(name)}

    def _replaced_by(self, name: str) -> list[str]:
        """The files that a merged file stands for."""
        if not name.startswith(_MERGED):
            return []
        replaced = json.loads((self._metadata(name).metadata or {}).get(_REPLACES, b"[]"))
        return [str(each) for each in replaced]

    def _metadata(self, name: str) -> Any:
        with self._store.open(f"{FOLDER}/{name}") as file, self._named_damage(name):
            return pq.read_metadata(file)

    def _read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self._named_damage(name):
            data = pa.BufferReader(self._store.read(f"{FOLDER}/{name}"))
            file = pq.ParquetFile(data, pre_buffer=False)
            # Arrow's threads may still hold the file when the process ends, which then aborts
            # (apache/arrow#34314).
            missing = [name for name in _ADDED if name not in file.schema_arrow.names]
            wanted = None if columns is None else [name for name in columns if name not in missing]
            table = file.read(wanted, use_threads=False)
            for added in missing:
                empty = pa.nulls(len(table), SCHEMA.field(added).type)
                table = table.append_column(SCHEMA.field(added), empty)
            return table.select(SCHEMA.names if columns is None else list(columns))

    def _write(self, name: str, table: pa.Table, replaces: Sequence[str] = ()) -> None:
        if replaces:
            table = table.replace_schema_metadata({_REPLACES: json.dumps(sorted(set(replaces))).encode()})
        stream = BytesIO()
        pq.write_table(table, stream, compression="zstd")
        self._store.write(f"{FOLDER}/{name}", stream.getvalue(), durable=True)

    @contextmanager
    def _named_damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
            raise DataError(
                f"the ledger's file {name} is damaged: {error}",
                where=f"{self._store.root}/{FOLDER}",
                hint="delete it: the inputs that it spoke of are then done again",
            ) from error


@dataclass(frozen=True)
class LedgerIndex:
    """The inputs that a ledger has: 25 bytes each, however long their paths are, ordered by hash."""

    hashes: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    modified: NDArray[np.int64]
    failed: NDArray[np.bool_]

    @classmethod
    def build(cls, tables: Iterable[pa.Table]) -> LedgerIndex:
        """Of tables with the columns path, status, bytes_in and modified."""
        schema = pa.schema(
            [("hash", pa.uint64()), ("size", pa.int64()), ("modified", pa.int64()), ("failed", pa.bool_())]
        )
        parts = [schema.empty_table()]
        for table in tables:
            hashes = pa.array(path_hashes(table["path"]))
            failed = pc.equal(table["status"], FAILED)
            columns = [hashes, table["bytes_in"], table["modified"], failed]
            parts.append(pa.table(columns, schema=schema))
        joined = pa.concat_tables(parts)
        order = np.argsort(joined["hash"].to_numpy(), kind="stable")
        return cls(*(column.to_numpy()[order] for column in joined.columns))

    @classmethod
    def empty(cls) -> LedgerIndex:
        """Of a ledger without rows."""
        return cls.build(())

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, path: str, size: int, modified: int) -> InputState:
        """What it has of an input. A `size` of 0 is not known."""
        key = path_hash(path)
        at = int(np.searchsorted(self.hashes, key))
        if at == len(self.hashes) or self.hashes[at] != key:
            return "new"
        if self.modified[at] != modified or (size and self.sizes[at] != size):
            return "changed"
        return "failed" if self.failed[at] else "done"


@dataclass
class LedgerSummary:
    """What a ledger says altogether."""

    total: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    not_kept: Counter[str] = field(default_factory=Counter)
    """Images, by the name of what their outputs lack."""
    anomalies: int = 0
    salvaged: int = 0
    """Inputs with damage that cost no pixel."""
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Of work, by stage."""

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table with the columns that are counted and summed."""
        self.total += len(table)
        _count_values(table["status"], self.status)
        _count_values(table["reason"], self.reasons)
        for chunk in table["not_kept"].chunks:
            _count_values(chunk.flatten(), self.not_kept)
        self.anomalies += _sum(pc.greater(table["score"], 1))
        self.salvaged += _sum(pc.not_equal(table["salvaged"], ""))
        self.bytes_in += _sum(table["bytes_in"])
        self.bytes_out += _sum(table["bytes_out"])
        for name in TIMES:
            stage = name.removesuffix("_ms")
            self.seconds[stage] = self.seconds.get(stage, 0.0) + _sum(table[name]) / 1e3

    def as_json(self) -> dict[str, Any]:
        """Return plain values: total, done, skipped, failed, reasons, not kept, anomalies, salvaged, bytes,
        seconds of work by stage."""
        return {
            "total": self.total,
            **{name: self.status[name] for name in STATUSES},
            "reasons": dict(self.reasons.most_common()),
            "not_kept": dict(self.not_kept.most_common()),
            "anomalies": self.anomalies,
            "salvaged": self.salvaged,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "stage_seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def path_hash(path: str) -> np.uint64:
    """64 bits that stand for `path`: among 100 million the odds of two alike are 1 in 3,700."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def path_hashes(paths: Any) -> NDArray[np.uint64]:
    """`path_hash` of each of an Arrow array of texts."""
    return np.fromiter((path_hash(path) for path in paths.to_pylist()), np.uint64, len(paths))


def _merged_name(pass_number: int, serial: int) -> str:
    return f"{_MERGED}{pass_number:05}-{serial:03}.parquet"


def _groups(names: Sequence[str], rows: Mapping[str, int], most_rows: int) -> Iterator[list[str]]:
    """Neighbours that have at most so many rows together; a file that has more is a group of its own."""
    group: list[str] = []
    for name in names:
        if group and sum(rows[each] for each in [*group, name]) > most_rows:
            yield group
            group = []
        group.append(name)
    yield group


def _last_of_duplicates(table: pa.Table, duplicates: dict[int, int]) -> NDArray[np.bool_]:
    """Which rows to keep; counts `duplicates` down: the last of an input is the newest."""
    keep = np.ones(len(table), bool)
    for row, key in enumerate(path_hashes(table["path"])):
        if int(key) in duplicates:
            duplicates[int(key)] -= 1
            keep[row] = duplicates[int(key)] == 0
    return keep


def _count_values(column: Any, counter: Counter[str]) -> None:
    for entry in pc.value_counts(column).to_pylist():
        if entry["values"]:
            counter[entry["values"]] += entry["counts"]


def _sum(column: Any) -> Any:
    return pc.sum(column).as_py() or 0
