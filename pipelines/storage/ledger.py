"""The ledger: outcome of every input, one row each, as Parquet under the output's root.

Workers write small files, each by one rename and under a key of its own, so that a part that is written twice
exists once. `Ledger.compact` merges them. Until the merged files are deleted, the file with their rows lists
them, so that no crash makes a row count twice.

Why not Ray Data's own checkpoints (`DataContext.checkpoint_config`)? Tried with Ray 2.60 on 200 images, two
damaged, in blocks of 10 with `write_images`: they record one column, the id of each row written, with a file
for each block. Killed after 89 outputs, the run resumed to 198, each once; but it opened all 200 files again,
and so did the next run, with nothing left to do, because ids are compared after reading. A damaged image that
the map drops has no record; with `max_errored_blocks` its whole block is lost (180 written, exit code 0).
Outputs have generated names. Here the two damaged images are rows with their reason, and the next run finds
nothing to do from the listing.
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
        ("noise_fine", pa.float32()),
        ("noise_coarse", pa.float32()),
        ("noise_chroma", pa.float32()),
        ("noise_kind", pa.string()),
    ]
)
"""Columns of the files: the fields of `LedgerRow`."""

KEY_PATTERN = r"\d{5}-[\w-]+"
"""Pattern of keys: number of the pass (five digits), then chunk, attempt and piece, or `listing`."""

InputState = Literal["new", "changed", "failed", "done"]
"""State of an input by the ledger; "changed": since its row was written."""

_UNLISTED = "unlisted"  # format in the rows of folders and shards that could not be listed
_CLEAN = "clean"  # reason of images that were copied because they have less noise than the limit
_NEAREST = 3  # levels of noise in the summary
_MERGED = "merged-"
_REPLACES = b"genray.replaces"
_ADDED = (  # columns that ledgers of older versions lack
    *("not_kept", "pages", "salvaged", "noise_fine", "noise_coarse", "noise_chroma", "noise_kind"),
)
_STATE_COLUMNS = ("path", "status", "bytes_in", "modified")
_SUMMARY_COLUMNS = (
    "status",
    "reason",
    "salvaged",
    "score",
    "bytes_in",
    "bytes_out",
    "not_kept",
    "noise",
    *TIMES,
)


@dataclass
class LedgerRow:
    """Outcome of an input; None where a value does not apply or was not read.

    A dataclass, because a row is filled in for every image: Arrow takes `vars(row)`.
    """

    path: str
    status: str = ""
    """`DONE`, `SKIPPED` (copied untouched) or `FAILED`."""
    reason: str | None = None
    """Reason of skipped and failed inputs: a key of `steps.base.SKIP_REASONS` or `bad_input.REASONS`."""
    detail: str | None = None
    """Failed: details of the reason. Otherwise: oddities of the input, or its parts that the output lacks."""
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
    """Last change of the input, ns since 1970."""
    container: str | None = None
    """Shard that contains the input."""
    position: int | None = None
    """Position in the shard: byte of a tar, row of a Parquet file."""
    noise: float | None = None
    """Estimated standard deviation of the noise, grey levels of 255."""
    change: float | None = None
    """Mean absolute difference of output and input, grey levels of 255."""
    error: float | None = None
    """Error of the reconstruction."""
    score: float | None = None
    """Anomaly score: error / threshold."""
    read_ms: float | None = None
    decode_ms: float | None = None
    model_ms: float | None = None
    encode_ms: float | None = None
    write_ms: float | None = None
    output: str | None = None
    """Path of the output under the root."""
    also: Sequence[str] | None = None
    """Paths of further outputs."""
    sha256: str | None = None
    """SHA-256 of the output file."""
    finished: datetime | None = None
    not_kept: Sequence[str] | None = None
    """Names of what the input carries and the output does not, such as "XMP"."""
    noise_fine: float | None = None
    """Noise of the brightness in details of two pixels, grey levels of 255."""
    noise_coarse: float | None = None
    """Noise of the brightness in larger details, grey levels of 255."""
    noise_chroma: float | None = None
    """Noise of the colours, grey levels of 255."""
    noise_kind: str | None = None
    """What most of the noise is: white, coarse, chroma, blocks (of JPEG), or none."""


def chunk_name(pass_number: int, index: int) -> str:
    """Return the name of a chunk of a pass, in keys and in markers of attempts."""
    return f"{pass_number:05}-{index:06}"


def piece_key(chunk: str, attempt: int, piece: int) -> str:
    """Return the key of a piece of the results of an attempt at `chunk`."""
    return f"{chunk}-{attempt}-{piece}"


def pass_of_key(key: str) -> int:
    """Return the number of the pass in a key, or in the name of a merged file."""
    return int(key.removeprefix(_MERGED)[:5])


class Ledger:
    """Ledger under the root of `store`. Any process may read it; one run at a time may change it.

    Responsible for: the rows of chunks, by key; the state of each input, and the summary; removing rows of
    inputs that are processed again; merging small files. It leaves the results themselves to the sinks, and
    who may write to `Output`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, key: str, rows: Sequence[LedgerRow]) -> None:
        """Write the rows of the chunk `key`; they replace earlier rows of the same key."""
        assert re.fullmatch(KEY_PATTERN, key), key
        table = pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)
        self._write(f"{key}.parquet", table)

    def has(self, key: str) -> bool:
        """Return whether the rows of the chunk `key` are in a file of their own."""
        return self._store.exists(f"{FOLDER}/{key}.parquet")

    def paths_of(self, key: str) -> list[str]:
        """Return the inputs of the chunk `key`, whose rows must be in a file of their own."""
        paths: list[str] = self._read(f"{key}.parquet", ["path"])["path"].to_pylist()
        return paths

    def remove(self, key: str) -> None:
        """Delete the rows of the chunk `key`, if they are in a file of their own."""
        self._store.delete(f"{FOLDER}/{key}.parquet")

    def keys(self) -> set[str]:
        """Return the keys of all chunks with rows, merged or not."""
        keys: set[str] = set()
        for name in self._current_files():
            keys |= {each.removesuffix(".parquet") for each in self._replaced_by(name) or [name]}
        return keys

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows, file by file."""
        for name in self._current_files():
            yield self._read(name, columns)

    def index(self) -> LedgerIndex:
        """Read the state of all inputs."""
        return LedgerIndex.build(self.tables(_STATE_COLUMNS))

    def summary(self) -> LedgerSummary:
        """Compute counts and sums, in one pass over the files."""
        summary = LedgerSummary()
        for table in self.tables(_SUMMARY_COLUMNS):
            summary.add(table)
        return summary

    def outputs(self, paths: Collection[str] | None = None) -> Iterator[str]:
        """Yield the paths of the outputs of all inputs, or of the inputs `paths`."""
        if paths is not None and not paths:
            return
        wanted = None if paths is None else pa.array(list(paths), pa.string())
        for table in self.tables(["path", "output", "also"]):
            if wanted is not None:
                table = table.filter(pc.is_in(table["path"], value_set=wanted))
            for row in table.select(["output", "also"]).to_pylist():
                yield from filter(None, [row["output"], *(row["also"] or ())])

    def drop(self, paths: Collection[str]) -> None:
        """Delete the rows of the inputs `paths`, which are processed again."""
        if paths:
            dropped = pa.array(list(paths), pa.string())
            self._keep_rows(lambda table: pc.invert(pc.is_in(table["path"], value_set=dropped)))

    def add_problems(self, pass_number: int, problems: Sequence[BadInput]) -> None:
        """Record the folders and shards that could not be listed in a pass."""
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
        """Delete the records of folders and shards that could not be listed, which are listed again."""
        self._keep_rows(lambda table: pc.not_equal(pc.fill_null(table["format"], ""), _UNLISTED))

    def clear(self) -> None:
        """Delete all rows."""
        for entry in self._store.list([".parquet"], FOLDER):
            self._store.delete(entry.path)

    def compact(self, pass_number: int, *, small_rows: int = 100_000, most_rows: int = 500_000) -> None:
        """Merge small files into large ones. Only the newest row of an input is kept.

        Args:
            pass_number: number of the pass that ends, for the names of merged files.
            small_rows: number of rows below which a file is merged.
            most_rows: most rows of a merged file.
        """
        self._remove_replaced()
        names = self._current_files()
        rows = {name: self._metadata(name).num_rows for name in names}
        if len(names) < 2 or min(rows.values()) >= small_rows:
            return
        duplicates, holders = self._find_duplicates(names)
        # A large file is written again if it has an older row of an input, or a newer one.
        merged = [name for name in names if rows[name] < small_rows or name in holders]
        if len(merged) < 2:
            return
        serial = 0
        for group in _groups(merged, rows, most_rows):
            while _merged_name(pass_number, serial) in rows:
                serial += 1
            self._merge(_merged_name(pass_number, serial), group, duplicates)
            serial += 1

    def _merge(self, into: str, names: Sequence[str], duplicates: dict[int, int]) -> None:
        """Merge the files `names`; counts `duplicates` down, so that the last row of an input is kept."""
        tables = []
        for name in names:
            table = self._read(name)
            if duplicates:
                table = table.filter(pa.array(_last_of_duplicates(table, duplicates)))
            tables.append(table)
        replaced = [each for name in names for each in self._replaced_by(name) or [name]]
        self._write(into, pa.concat_tables(tables), [*replaced, *names])
        self._remove_replaced()

    def _find_duplicates(self, names: Sequence[str]) -> tuple[dict[int, int], set[str]]:
        """Return the numbers of rows of inputs with several, by the hash of the path, and the files with
        these rows."""
        hashes = [path_hashes(self._read(name, ["path"])["path"]) for name in names]
        keys, counts = np.unique(np.concatenate(hashes), return_counts=True)
        several = counts > 1
        duplicates = {int(key): int(count) for key, count in zip(keys[several], counts[several], strict=True)}
        if not duplicates:
            return {}, set()
        holders = {
            name for name, each in zip(names, hashes, strict=True) if np.isin(each, keys[several]).any()
        }
        return duplicates, holders

    def _keep_rows(self, is_kept: Callable[[Any], Any]) -> None:
        for name in self._current_files():
            table = self._read(name)
            kept = table.filter(is_kept(table))
            if len(kept) < len(table):
                self._write(name, kept, self._replaced_by(name))

    def _all_files(self) -> list[str]:
        return [entry.path.rpartition("/")[2] for entry in self._store.list([".parquet"], FOLDER)]

    def _current_files(self) -> list[str]:
        """Return the names of the files that no other file replaces, the oldest first."""
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
        """Return the names of the files whose rows a merged file contains."""
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
        # Dictionaries and statistics, which nobody reads, take half the time and make the files larger.
        pq.write_table(table, stream, compression="zstd", use_dictionary=False, write_statistics=False)
        self._store.write(f"{FOLDER}/{name}", stream.getvalue(), durable=True)

    @contextmanager
    def _named_damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
            raise DataError(
                f"the ledger's file {name} is damaged: {error}",
                where=f"{self._store.root}/{FOLDER}",
                hint="delete it; the inputs recorded in it are then processed again",
            ) from error


@dataclass(frozen=True)
class LedgerIndex:
    """State of all inputs of a ledger, ordered by the hash of the path: 25 bytes each, whatever the length of
    the path."""

    hashes: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    modified: NDArray[np.int64]
    failed: NDArray[np.bool_]

    @classmethod
    def build(cls, tables: Iterable[pa.Table]) -> LedgerIndex:
        """Build the index of tables with the columns path, status, bytes_in and modified."""
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
        """Build the index of an empty ledger."""
        return cls.build(())

    def __len__(self) -> int:
        return len(self.hashes)

    def has(self, paths: Sequence[str]) -> list[bool]:
        """Return for each of `paths` whether the ledger contains it, with any status."""
        if not len(self.hashes):
            return [False] * len(paths)
        keys = np.fromiter(map(path_hash, paths), np.uint64, len(paths))
        at = np.searchsorted(self.hashes, keys).clip(max=len(self.hashes) - 1)
        found: list[bool] = (self.hashes[at] == keys).tolist()
        return found

    def find(self, path: str, size: int, modified: int) -> InputState:
        """Return the state of an input by its path, size in bytes (0: unknown) and time of change."""
        if not len(self.hashes):
            return "new"
        key = path_hash(path)
        at = int(np.searchsorted(self.hashes, key))
        if at == len(self.hashes) or self.hashes[at] != key:
            return "new"
        if self.modified[at] != modified or (size and self.sizes[at] != size):
            return "changed"
        return "failed" if self.failed[at] else "done"


@dataclass
class LedgerSummary:
    """Counts and sums over all rows of a ledger."""

    total: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    not_kept: Counter[str] = field(default_factory=Counter)
    """Images, by the name of what their outputs lack."""
    anomalies: int = 0
    salvaged: int = 0
    """Inputs with damage that cost no pixel."""
    nearest_clean: list[float] = field(default_factory=list)
    """Largest levels of noise of images that were copied as clean, the largest first."""
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of work by stage, summed over images."""

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table, which has all columns that are counted or summed."""
        self.total += len(table)
        _count_values(table["status"], self.status)
        _count_values(table["reason"], self.reasons)
        for chunk in table["not_kept"].chunks:
            _count_values(chunk.flatten(), self.not_kept)
        self.anomalies += _sum(pc.greater(table["score"], 1))
        self.salvaged += _sum(pc.not_equal(table["salvaged"], ""))
        clean = pc.fill_null(pc.equal(table["reason"], _CLEAN), False)
        self._add_nearest(pc.drop_null(table["noise"].filter(clean)).to_numpy())
        self.bytes_in += _sum(table["bytes_in"])
        self.bytes_out += _sum(table["bytes_out"])
        for name in TIMES:
            stage = name.removesuffix("_ms")
            self.seconds[stage] = self.seconds.get(stage, 0.0) + _sum(table[name]) / 1e3

    def join(self, other: LedgerSummary) -> None:
        """Add the counts and sums of another ledger."""
        self.total += other.total
        self.status.update(other.status)
        self.reasons.update(other.reasons)
        self.not_kept.update(other.not_kept)
        self.anomalies += other.anomalies
        self.salvaged += other.salvaged
        self._add_nearest(np.array(other.nearest_clean))
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @property
    def mostly_clean(self) -> bool:
        """Return whether more than half of the images were copied as clean."""
        return 2 * self.reasons[_CLEAN] > self.total

    def _add_nearest(self, levels: NDArray[Any]) -> None:
        if len(levels) > _NEAREST:
            levels = np.partition(levels, -_NEAREST)[-_NEAREST:]
        self.nearest_clean = sorted([*self.nearest_clean, *levels.tolist()], reverse=True)[:_NEAREST]

    def as_json(self) -> dict[str, Any]:
        """Return total, done, skipped, failed, reasons, not kept, anomalies, salvaged, bytes, and seconds of
        work by stage, as plain JSON values; where images were copied as clean the levels of noise nearest to
        the limit."""
        return {
            "total": self.total,
            **{name: self.status[name] for name in STATUSES},
            "reasons": dict(self.reasons.most_common()),
            "not_kept": dict(self.not_kept.most_common()),
            "anomalies": self.anomalies,
            "salvaged": self.salvaged,
            **({"nearest_clean": self.nearest_clean} if self.nearest_clean else {}),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "stage_seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def path_hash(path: str) -> np.uint64:
    """Return a 64-bit hash of `path`. Among 100 million paths the odds of a collision are 1 in 3,700."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def path_hashes(paths: Any) -> NDArray[np.uint64]:
    """Return the `path_hash` of each text of an Arrow array."""
    return np.fromiter((path_hash(path) for path in paths.to_pylist()), np.uint64, len(paths))


def _merged_name(pass_number: int, serial: int) -> str:
    return f"{_MERGED}{pass_number:05}-{serial:03}.parquet"


def _groups(names: Sequence[str], rows: Mapping[str, int], most_rows: int) -> Iterator[list[str]]:
    """Yield groups of neighbouring files with at most `most_rows` rows together; a larger file is a group of
    its own."""
    group: list[str] = []
    for name in names:
        if group and sum(rows[each] for each in [*group, name]) > most_rows:
            yield group
            group = []
        group.append(name)
    yield group


def _last_of_duplicates(table: pa.Table, duplicates: dict[int, int]) -> NDArray[np.bool_]:
    """Return which rows to keep, and count `duplicates` down: the last row of an input is the newest."""
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
