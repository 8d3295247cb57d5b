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

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genray.io.bad_input import BadInput
from genray.io.store import Store
from pipelines.storage.ledger.files import LedgerFiles, is_merged, merged_name, name_of, pass_of_key
from pipelines.storage.ledger.index import STATE_COLUMNS, LedgerIndex, path_hashes
from pipelines.storage.ledger.rows import FAILED, KEY_PATTERN, SCHEMA, UNLISTED, LedgerRow
from pipelines.storage.ledger.summary import SUMMARY_COLUMNS, LedgerSummary

_SUFFIX = ".parquet"
_LISTING = f"-listing{_SUFFIX}"
"""End of the names of the files with what could not be listed, which are never merged."""


class Ledger:
    """Ledger under the root of `store`. Any process may read it; one run at a time may change it.

    Responsible for: the rows of chunks, by key; the state of each input, and the summary; removing rows of
    inputs that are processed again; merging small files. It leaves the results themselves to the sinks, and
    who may write to `Output`.
    """

    def __init__(self, store: Store) -> None:
        self._files = LedgerFiles(store)

    def add(self, key: str, rows: Sequence[LedgerRow]) -> None:
        """Write the rows of the chunk `key`; they replace earlier rows of the same key."""
        assert re.fullmatch(KEY_PATTERN, key), key
        table = pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)
        self._files.write(f"{key}{_SUFFIX}", table)

    def has(self, key: str) -> bool:
        """Return whether the rows of the chunk `key` are in a file of their own."""
        return self._files.exists(f"{key}{_SUFFIX}")

    def paths_of(self, key: str) -> list[str]:
        """Return the inputs of the chunk `key`, whose rows must be in a file of their own."""
        paths: list[str] = self._files.read(f"{key}{_SUFFIX}", ["path"])["path"].to_pylist()
        return paths

    def remove(self, keys: Collection[str]) -> None:
        """Delete the rows of the chunks `keys`, those that are in a file of their own."""
        self._files.delete(f"{key}{_SUFFIX}" for key in keys)

    def keys(self) -> set[str]:
        """Return the keys of all chunks with rows, merged or not."""
        keys: set[str] = set()
        for entry in self._files.current():
            names = self._files.footer(entry).replaces if is_merged(entry) else ()
            keys |= {name.removesuffix(_SUFFIX) for name in names or [name_of(entry)]}
        return keys

    def tables(self, columns: Sequence[str] | None = None, from_pass: int = 0) -> Iterator[pa.Table]:
        """Yield all rows, file by file, the oldest first; without files of passes before `from_pass`."""
        entries = [entry for entry in self._files.current() if pass_of_key(name_of(entry)) >= from_pass]
        return self._files.tables(entries, columns)

    def index(self) -> LedgerIndex:
        """Read the state of all inputs."""
        return LedgerIndex.build(self.tables(STATE_COLUMNS))

    def summary(self) -> LedgerSummary:
        """Compute counts and sums; merged files contain theirs."""
        summary = LedgerSummary()
        others = []
        for entry in self._files.current():
            known = self._files.footer(entry).summary if is_merged(entry) else None
            if known is None:
                others.append(entry)
            else:
                summary.join(known)
        for table in self._files.tables(others, SUMMARY_COLUMNS):
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
            self._keep_rows(lambda names: pc.invert(pc.is_in(names, value_set=dropped)))

    def drop_older(self, repeated: NDArray[np.uint64]) -> None:
        """Delete all rows but the newest of the inputs with the hashes `repeated`, see `LedgerIndex`."""
        if not len(repeated):
            return
        left = dict.fromkeys(repeated.tolist(), 0)
        for table in self.tables(["path"]):
            for key in path_hashes(table["path"]).tolist():
                if key in left:
                    left[key] += 1

        def is_newest(names: pa.ChunkedArray) -> pa.Array:
            keep = np.ones(len(names), bool)
            for row, key in enumerate(path_hashes(names).tolist()):
                if key in left:
                    left[key] -= 1
                    keep[row] = left[key] == 0
            return pa.array(keep)

        self._keep_rows(is_newest)

    def add_problems(self, pass_number: int, problems: Sequence[BadInput]) -> int:
        """Record the folders and shards that could not be listed in a pass; returns the number of rows."""
        rows = {
            bad.path: LedgerRow(
                path=bad.path,
                status=FAILED,
                reason=bad.reason,
                detail=bad.detail,
                format=UNLISTED,
                bytes_in=0,
                bytes_out=0,
                modified=0,
            )
            for bad in problems
        }
        if rows:
            self.add(f"{pass_number:05}{_LISTING.removesuffix(_SUFFIX)}", list(rows.values()))
        return len(rows)

    def drop_problems(self) -> None:
        """Delete the records of folders and shards that could not be listed, which are listed again."""
        entries = self._files.current()
        self._files.delete(name_of(entry) for entry in entries if name_of(entry).endswith(_LISTING))
        # Earlier versions merged them.
        merged = [entry for entry in entries if is_merged(entry) and not self._files.footer(entry).summary]
        for entry, table in zip(merged, self._files.tables(merged), strict=True):
            kept = table.filter(pc.not_equal(pc.fill_null(table["format"], ""), UNLISTED))
            if len(kept) < len(table):
                self._files.write_merged(name_of(entry), kept, self._files.footer(entry).replaces)

    def clear(self) -> None:
        """Delete all rows."""
        self._files.clear()

    def compact(self, pass_number: int, *, small_rows: int = 100_000, most_rows: int = 500_000) -> None:
        """Merge small files into large ones: of merged files those that are small, and all others. Of a chunk
        with several attempts only the newest row of an input is kept.

        Args:
            pass_number: number of the pass that ends, for the names of merged files.
            small_rows: number of rows below which a merged file is merged again.
            most_rows: most rows of a merged file.
        """
        self._files.remove_replaced()
        entries = self._files.current()
        small = [
            entry
            for entry in entries
            if not name_of(entry).endswith(_LISTING)
            and (not is_merged(entry) or self._files.footer(entry).rows < small_rows)
        ]
        if len(small) < 2:
            return
        taken = set(map(name_of, entries))
        free = (merged_name(pass_number, serial) for serial in count())
        group = _Group()
        for entry, table in zip(small, self._files.tables(small), strict=True):
            if group.rows + len(table) > most_rows and not group.ends_with_chunk_of(name_of(entry)):
                self._merge(next(name for name in free if name not in taken), group)
                group = _Group()
            replaces = self._files.footer(entry).replaces if is_merged(entry) else ()
            group.add(name_of(entry), table, replaces)
        self._merge(next(name for name in free if name not in taken), group)
        self._files.remove_replaced()

    def _merge(self, into: str, group: _Group) -> None:
        if group.names:
            self._files.write_merged(into, pa.concat_tables(group.tables), group.names)

    def _keep_rows(self, is_kept: Callable[[pa.ChunkedArray], Any]) -> None:
        """Delete the rows whose paths are not kept: the files with some are written again."""
        entries = self._files.current()
        for entry, table in zip(entries, self._files.tables(entries, ["path"]), strict=True):
            kept = is_kept(table["path"])
            if pc.all(kept).as_py() is False:
                rows = self._files.read(name_of(entry)).filter(kept)
                if is_merged(entry):
                    self._files.write_merged(name_of(entry), rows, self._files.footer(entry).replaces)
                else:
                    self._files.write(name_of(entry), rows)


class _Group:
    """Files that become one, the oldest first."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.names: list[str] = []
        """Names of the files, and of those that they replace."""
        self.rows = 0
        self._chunk = ""
        self._chunk_at = 0
        """Position in `tables` where the last chunk begins."""

    def ends_with_chunk_of(self, name: str) -> bool:
        """Return whether the last file is of the same chunk as the file `name`."""
        return self._chunk != "" and _chunk_of(name) == self._chunk

    def add(self, name: str, table: pa.Table, replaces: Sequence[str]) -> None:
        """Add a file; an earlier attempt at the same chunk may have recorded some of its inputs."""
        if self.ends_with_chunk_of(name):
            for at in range(self._chunk_at, len(self.tables)):
                older = self.tables[at]
                newer = pc.is_in(older["path"], value_set=table["path"].combine_chunks())
                self.tables[at] = older.filter(pc.invert(newer))
        else:
            self._chunk, self._chunk_at = _chunk_of(name), len(self.tables)
        self.tables.append(table)
        self.names += [name, *replaces]
        self.rows += len(table)


def _chunk_of(name: str) -> str:
    """Return the name of the chunk whose rows the file `name` contains; "" for a merged file."""
    found = re.match(r"\d{5}-\d+", name)
    return found[0] if found else ""
