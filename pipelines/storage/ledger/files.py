"""Files of a ledger: Parquet files that workers write, and larger ones that were merged of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from genray.errors import DataError
from genray.io.many import delete_files, read_files
from genray.io.store import Entry, Store
from pipelines.storage.ledger.rows import SCHEMA
from pipelines.storage.ledger.summary import SUMMARY_COLUMNS, LedgerSummary

FOLDER = "_genray/ledger"

_MERGED = "merged-"
_REPLACES = b"genray.replaces"
_SUMMARY = b"genray.summary"
_FOOTERS_AT_ONCE = 16
_ADDED = (  # columns that ledgers of older versions lack
    *("not_kept", "pages", "salvaged", "noise_fine", "noise_coarse", "noise_chroma", "noise_kind"),
)


@dataclass(frozen=True)
class Footer:
    """What the end of a merged file says.

    Args:
        rows: number of rows.
        replaces: names of the files whose rows it contains.
        summary: summary of its rows; None in files of older versions.
    """

    rows: int
    replaces: Sequence[str]
    summary: LedgerSummary | None


class LedgerFiles:
    """Files of the ledger under the root of `store`.

    Responsible for: what is read of a remote store, and how often. A file that others replace does not count,
    so that no crash between a merge and the deletion of what was merged makes a row count twice.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._footers: dict[Entry, Footer] = {}
        """Footers of the merged files that were read."""

    def current(self) -> list[Entry]:
        """Return the files that no other replaces, the oldest first."""
        entries = self._all()
        replaced = self._replaced_among(entries)
        current = [entry for entry in entries if name_of(entry) not in replaced]
        return sorted(current, key=lambda entry: (not is_merged(entry), name_of(entry)))

    def remove_replaced(self) -> None:
        """Delete the files that others replace."""
        entries = self._all()
        self.delete(self._replaced_among(entries).intersection(map(name_of, entries)))

    def footer(self, entry: Entry) -> Footer:
        """Return the footer of a merged file."""
        if entry not in self._footers:
            with self._store.open(entry.path) as file, self._named_damage(name_of(entry)):
                metadata = pq.read_metadata(file)
                values = metadata.metadata or {}
                summary = json.loads(values.get(_SUMMARY, b"null"))
                self._footers[entry] = Footer(
                    metadata.num_rows,
                    [str(each) for each in json.loads(values.get(_REPLACES, b"[]"))],
                    None if summary is None else LedgerSummary.from_json(summary),
                )
        return self._footers[entry]

    def tables(self, entries: Sequence[Entry], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read the files `entries`, in this order."""
        for entry, data in zip(entries, read_files(self._store, entries), strict=True):
            yield self._decode(name_of(entry), data, columns)

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one file."""
        return self._decode(name, self._store.read(f"{FOLDER}/{name}"), columns)

    def exists(self, name: str) -> bool:
        """Return whether the file `name` exists."""
        return self._store.exists(f"{FOLDER}/{name}")

    def write(self, name: str, table: pa.Table) -> None:
        """Write a file that replaces no others."""
        self._write(name, table, {})

    def write_merged(self, name: str, table: pa.Table, replaces: Iterable[str]) -> None:
        """Write a file that contains the rows of the files `replaces`."""
        summary = LedgerSummary()
        summary.add(table.select(SUMMARY_COLUMNS))
        replaced = json.dumps(sorted(set(replaces))).encode()
        self._footers = {entry: footer for entry, footer in self._footers.items() if name_of(entry) != name}
        self._write(name, table, {_REPLACES: replaced, _SUMMARY: json.dumps(summary.as_json()).encode()})

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files `names`."""
        delete_files(self._store, [f"{FOLDER}/{name}" for name in names])

    def clear(self) -> None:
        """Delete all files."""
        self._store.clear(FOLDER)

    def _all(self) -> list[Entry]:
        return self._store.list([".parquet"], FOLDER)

    def _replaced_among(self, entries: Iterable[Entry]) -> set[str]:
        merged = [entry for entry in entries if is_merged(entry)]
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE, "footers") as threads:
            return {name for footer in threads.map(self.footer, merged) for name in footer.replaces}

    def _decode(self, name: str, data: bytes, columns: Sequence[str] | None) -> pa.Table:
        with self._named_damage(name):
            file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
            # Arrow's threads may still hold the file when the process ends, which then aborts
            # (apache/arrow#34314).
            missing = [name for name in _ADDED if name not in file.schema_arrow.names]
            wanted = None if columns is None else [name for name in columns if name not in missing]
            table = file.read(wanted, use_threads=False)
            for added in missing:
                empty = pa.nulls(len(table), SCHEMA.field(added).type)
                table = table.append_column(SCHEMA.field(added), empty)
            return table.select(SCHEMA.names if columns is None else list(columns))

    def _write(self, name: str, table: pa.Table, metadata: Mapping[bytes, bytes]) -> None:
        stream = BytesIO()
        # Dictionaries and statistics, which nobody reads, take half the time and make the files larger.
        pq.write_table(
            table.replace_schema_metadata(dict(metadata)),
            stream,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
        )
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


def name_of(entry: Entry) -> str:
    """Return the name of a file in the ledger's folder."""
    return entry.path.rpartition("/")[2]


def is_merged(entry: Entry) -> bool:
    """Return whether a file was merged of others."""
    return name_of(entry).startswith(_MERGED)


def merged_name(pass_number: int, serial: int) -> str:
    """Return the name of a merged file."""
    return f"{_MERGED}{pass_number:05}-{serial:03}.parquet"


def pass_of_key(key: str) -> int:
    """Return the number of the pass in a key, or in the name of a merged file."""
    return int(key.removeprefix(_MERGED)[:5])
