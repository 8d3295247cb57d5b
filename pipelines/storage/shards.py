"""Data sets of shards stay data sets: results take the place of their inputs in copies of the input's shards.

Workers store results in pieces, in the order in which they are finished. When all inputs of a pass are
recorded, each shard of the input is written again under its own name, with the order of its samples, all
their other members (captions, masks, labels) or columns, and, in Parquet, its row groups and metadata. Only
then are the pieces deleted, so that a kill at any moment costs only the time of joining.

A sample is left out if one of its images failed, or was not selected: no sample lacks its image. Once the
image is processed, the shard is written again, with the results that it has already.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genray.errors import BulkError
from genray.io.bad_input import BadImage
from genray.io.files import storage_errors
from genray.io.listing import shard_stem
from genray.io.parquet import PARQUET_ERRORS, ParquetRows, find_columns
from genray.io.sources import Item, ItemSource, TarSource
from genray.io.store import Store
from genray.io.tar import TarMember, tar_members
from genray.text import visible
from pipelines.storage.ledger.index import LedgerIndex, path_hash
from pipelines.storage.ledger.rows import DONE

PIECES = "_genray/pieces"
"""Folder of results that are not in a shard yet."""

_LEFT_OUT = (
    b"genray.left_out"  # numbers of the input's rows that an output lacks, in the metadata of its file
)
_COPY_BYTES = 2**20


@dataclass
class ShardJoiner:
    """Writer of the shards of an output; see the module.

    Args:
        source: the inputs, in tar or Parquet shards.
        store: store of the output.
        pieces: paths of the pieces.
        index: state of all inputs by the ledger.
        output_of: returns the name of an input's output, which has its suffix.
        column: column of the images (None: found by its values).
        note: takes lines for a person.
    """

    source: ItemSource
    store: Store
    pieces: Sequence[str]
    index: LedgerIndex
    output_of: Callable[[str], str]
    column: str | None
    note: Callable[[str], None]
    written: int = field(default=0, init=False)
    left_out: int = field(default=0, init=False)
    """Number of samples that the written shards lack."""

    def join(self) -> None:
        """Write all shards that lack results.

        Raises:
            BulkError: a result is missing, or a piece or shard cannot be read.
        """
        results = _Results.of_pieces(self.store, self.pieces)
        items = self.source.items(lambda bad: None)  # the pass has recorded them
        for shard, group in groupby(items, lambda item: item.container):
            inputs = list(group)
            if self._is_due(shard, inputs, results):
                self._write(shard, inputs, results)
                self.written += 1
        if self.written:
            lacking = f"; {self.left_out} samples are left out, whose image failed or was not selected"
            self.note(f"{self.written} shards written" + lacking * bool(self.left_out))

    def _is_due(self, shard: str, inputs: Sequence[Item], results: _Results) -> bool:
        states = [self._state(item) for item in inputs]
        if DONE not in states:
            return self.store.exists(self._output_path(shard))
        if any(results.has(item.path) for item in inputs):
            return True
        return "failed" in states or not self.store.exists(self._output_path(shard))

    def _state(self, item: Item) -> str:
        return self.index.find(item.path, item.size, item.modified)

    def _write(self, shard: str, inputs: Sequence[Item], results: _Results) -> None:
        write = self._write_parquet if self.source.container == "parquet" else self._write_tar
        with tempfile.TemporaryFile() as spool:
            try:
                with storage_errors(Path(tempfile.gettempdir(), "a shard of the output")):
                    write(shard, {item.position: item for item in inputs}, results, spool)
                    spool.flush()
            except (BadImage, *PARQUET_ERRORS) as error:
                raise BulkError(
                    f"the results cannot be joined to the shard: {error}",
                    where=f"{self.store.root}/{self._output_path(shard)}",
                    hint="check the input's shard, then give the same command again",
                ) from error
            data = mmap(spool.fileno(), 0, access=ACCESS_READ)
            self.store.write(self._output_path(shard), data, durable=True)

    def _output_path(self, shard: str) -> str:
        """Return the path of an output shard: that of the input, without compression."""
        if self.source.container == "parquet" or shard.lower().endswith(".tar"):
            return shard
        plain = f"{shard_stem(shard)}.tar"
        return f"{shard}.tar" if self.source.store.exists(plain) else plain

    def _missing(self, item: Item) -> BulkError:
        return BulkError(
            f"the result of {visible(item.path)} is missing",
            where=self.store.root,
            hint="process all images again with --retry all",
        )

    # Tar

    def _write_tar(self, shard: str, inputs: Mapping[int, Item], results: _Results, spool: IO[bytes]) -> None:
        path = self._output_path(shard)
        before: dict[str, TarMember] = {}
        if self.store.exists(path):
            with suppress(BadImage):  # of another program: pieces have what is needed, or it is missing
                before = {member.name: member for member in tar_members(self.store, path)}
        assert isinstance(self.source, TarSource)
        tars = self.source.tars
        seen = set[int]()
        with (
            tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar,
            tars.open(shard) as opened,
        ):
            for _, group in groupby(_until_damage(tars.members(shard)), _sample_key):
                members = list(group)
                seen.update(member.position for member in members)
                self._add_sample(tar, opened, members, inputs, results, before, path)
        if not inputs.keys() <= seen:
            raise BadImage("unreadable", f"{shard} has changed, or cannot be read any more")

    def _add_sample(
        self,
        tar: tarfile.TarFile,
        opened: Any,
        members: Sequence[TarMember],
        inputs: Mapping[int, Item],
        results: _Results,
        before: Mapping[str, TarMember],
        path: str,
    ) -> None:
        if any(self._state(inputs[each.position]) != DONE for each in members if each.position in inputs):
            self.left_out += 1
            return
        names = {member.name for member in members}
        for member in members:
            item = inputs.get(member.position)
            if item is None:
                opened.seek(member.position)
                _add_member(tar, member.name, member.size, opened)
                continue
            name = _member_name(member.name, self.output_of(item.path), names)
            data = results.read(item.path)
            if data is None and name in before:
                data = self.store.read_range(path, before[name].position, before[name].size)
            if data is None:
                raise self._missing(item)
            _add_member(tar, name, len(data), io.BytesIO(data))

    # Parquet

    def _write_parquet(
        self, shard: str, inputs: Mapping[int, Item], results: _Results, spool: IO[bytes]
    ) -> None:
        before = _OldRows.open(self.store, self._output_path(shard), self.column)
        with self.source.store.open(shard) as opened:
            parquet = pq.ParquetFile(opened, pre_buffer=False)
            images = find_columns(parquet, self.column, "read.column").images
            compression = _compression_of(parquet.metadata)
            left_out: list[int] = []
            first = 0
            with pq.ParquetWriter(
                spool, parquet.schema_arrow, compression=compression, use_dictionary=_texts(parquet)
            ) as writer:
                for group in range(parquet.num_row_groups):
                    table = parquet.read_row_group(group, use_threads=False)
                    rows = range(first, first + len(table))
                    first += len(table)
                    kept = [row for row in rows if row not in inputs or self._state(inputs[row]) == DONE]
                    if len(kept) < len(table):
                        left_out += sorted(set(rows).difference(kept))
                        table = table.take(pa.array([row - rows.start for row in kept], pa.int64()))
                    if not kept:
                        continue
                    values = [
                        self._row_result(inputs[row], results, before) if row in inputs else None
                        for row in kept
                    ]
                    writer.write_table(_with_images(table, images, values))
                writer.add_key_value_metadata({_LEFT_OUT: json.dumps(left_out).encode()})
            self.left_out += len(left_out)

    def _row_result(self, item: Item, results: _Results, before: _OldRows | None) -> bytes:
        data = results.read(item.path)
        if data is None and before is not None:
            data = before.read(item.position)
        if data is None:
            raise self._missing(item)
        return data


@dataclass
class _Results:
    """Positions of results in pieces, by the hash of the input's path: 28 bytes each."""

    store: Store
    pieces: Sequence[str]
    hashes: Any
    numbers: Any
    positions: Any
    sizes: Any

    @classmethod
    def of_pieces(cls, store: Store, pieces: Sequence[str]) -> _Results:
        """Read the headers of all pieces."""
        hashes, numbers, positions, sizes = array("Q"), array("L"), array("Q"), array("Q")
        for number, piece in enumerate(pieces):
            for member in tar_members(store, piece):
                hashes.append(int(path_hash(member.comment or member.name)))
                numbers.append(number)
                positions.append(member.position)
                sizes.append(member.size)
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        columns = (np.array(each, np.uint64)[order] for each in (hashes, numbers, positions, sizes))
        return cls(store, pieces, *columns)

    def has(self, path: str) -> bool:
        """Return whether a piece has the result of the input `path`."""
        return self._find(path) is not None

    def read(self, path: str) -> bytes | None:
        """Read the result of the input `path`, of the newest piece with one; None if there is none."""
        at = self._find(path)
        if at is None:
            return None
        piece = self.pieces[int(self.numbers[at])]
        return self.store.read_range(piece, int(self.positions[at]), int(self.sizes[at]))

    def _find(self, path: str) -> int | None:
        key = path_hash(path)
        at = int(np.searchsorted(self.hashes, key, side="right")) - 1
        return at if at >= 0 and self.hashes[at] == key else None


@dataclass
class _OldRows:
    """Images of a Parquet shard that was written before, by the number of the input's row."""

    rows: ParquetRows
    left_out: Any

    @classmethod
    def open(cls, store: Store, path: str, column: str | None) -> _OldRows | None:
        """Open the shard `path`; None if there is none, or it is of another program."""
        if not store.exists(path):
            return None
        with suppress(BadImage, *PARQUET_ERRORS):
            with store.open(path) as opened:
                metadata = pq.read_metadata(opened).metadata or {}
            if _LEFT_OUT in metadata:
                rows = ParquetRows.of_file(path, store.open(path), column, float("inf"))
                return cls(rows, np.array(json.loads(metadata[_LEFT_OUT]), np.int64))
        return None

    def read(self, row: int) -> bytes | None:
        """Read the image of the input's row `row`; None if the shard lacks it."""
        at = int(np.searchsorted(self.left_out, row))
        if at < len(self.left_out) and self.left_out[at] == row:
            return None
        return self.rows.read(row - at)


def piece_paths(store: Store) -> list[str]:
    """Return the paths of the pieces of an output, the oldest first."""
    return [entry.path for entry in store.list([".tar"], PIECES)]


def _until_damage(members: Iterator[TarMember]) -> Iterator[TarMember]:
    """Yield the members before a damage, which was recorded when the shard was listed."""
    try:
        yield from members
    except BadImage as bad:
        if bad.reason != "truncated":
            raise


def _sample_key(member: TarMember) -> str:
    """Return the key of the sample of a member: its name up to the first dot, as in WebDataset."""
    folder, slash, name = member.name.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _member_name(name: str, output: str, taken: set[str]) -> str:
    """Return the name of a result in the shard: that of the input, with the suffix of the output's format."""
    suffix = PurePosixPath(output).suffix
    if PurePosixPath(name).suffix.lower() == suffix.lower() or not suffix:
        return name
    changed = str(PurePosixPath(name).with_suffix(suffix))
    return changed if changed not in taken else f"{name}{suffix}"


def _add_member(tar: tarfile.TarFile, name: str, size: int, content: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, content)


def _compression_of(metadata: Any) -> str:
    if not metadata.num_row_groups or not metadata.num_columns:
        return "snappy"
    name = metadata.row_group(0).column(0).compression.lower()
    return "none" if name == "uncompressed" else str(name)


def _texts(parquet: Any) -> list[str]:
    """Return the columns of text, which may have a dictionary; images should not."""
    schema = parquet.schema
    leaves = (schema.column(index) for index in range(len(schema.names)))
    return [leaf.path for leaf in leaves if str(leaf.logical_type.type) == "STRING"]


def _with_images(table: Any, column: str, values: Sequence[bytes | None]) -> Any:
    """Return `table` with `values` in the place of its images; None keeps an image."""
    name, _, inner = column.partition(".")
    place = table.schema.names.index(name)
    kind = table.schema.field(place).type
    old = table.column(place).combine_chunks()
    old = old if isinstance(old, pa.Array) else pa.concat_arrays(old.chunks)
    cells = old.field(inner) if inner else old
    new = [cells[row].as_py() if value is None else value for row, value in enumerate(values)]
    flat = kind.field(inner).type if inner else kind
    if pa.types.is_dictionary(flat):
        images = pa.array(new, flat.value_type).dictionary_encode().cast(flat)
    else:
        images = pa.array(new, flat)
    if inner:
        fields = [kind.field(index) for index in range(kind.num_fields)]
        arrays = [images if each.name == inner else old.field(each.name) for each in fields]
        images = pa.StructArray.from_arrays(arrays, fields=fields, mask=old.is_null())
    return table.set_column(place, table.schema.field(place), images)
