"""Sources in containers: image files in folders, members of tar shards, rows of Parquet files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import type_of
from genray.io.kinds import kind_of_bytes
from genray.io.listing import read_head
from genray.io.parquet import PARQUET_ERRORS, ParquetRows
from genray.io.sources.base import Item, ItemPaths, ItemSource, OnError, checked, reason_and_detail
from genray.io.tar import TarFiles, TarMember


class FileSource(ItemSource):
    """Source of image files in folders."""

    container = "files"

    def items(self, on_error: OnError) -> Iterator[Item]:
        place, on_folder = self._begin(on_error)
        for entry in self._images.list(place, self.counts, on_folder, sizes=False):
            yield Item(entry.path, entry.size, entry.modified)

    def read(self, item: Item, limit: int) -> bytes:
        return checked(self._read_range(item.path, 0, limit + 1), limit)


class TarSource(ItemSource):
    """Source of members of tar shards. Compressed ones are unpacked to temporary files."""

    container = "webdataset"

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.tars = TarFiles(self.store, self.settings.max_unfolded_gb * 1e9)

    def items(self, on_error: OnError) -> Iterator[Item]:
        keeps = self._images.paths.keeps
        for entry, prefix in self._shards(on_error):
            paths = ItemPaths(prefix)
            try:
                for member in self.tars.members(entry.path):
                    suffix = self._image_suffix(entry.path, member)
                    if suffix is not None:
                        path = paths.assign(member.name, f"{member.position:012}{suffix}")
                        if keeps(path, entry.path):
                            yield Item(path, member.size, entry.modified, entry.path, member.position)
                        else:
                            self.counts.add_filtered()
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))

    def read(self, item: Item, limit: int) -> bytes:
        if item.size > limit:
            raise BadImage("too-large", f"{item.size} bytes, the limit is {limit}")
        try:
            data = self.tars.read_range(item.container, item.position, item.size)
        except BadImage:
            raise
        except Exception as error:  # fsspec's file systems have errors of their own
            raise BadImage("unreadable", reason_and_detail(error)[1]) from error
        if len(data) < item.size:
            raise BadImage("truncated", f"{item.container} ends inside it")
        return checked(data, limit)

    def _image_suffix(self, shard: str, member: TarMember) -> str | None:
        """Return the suffix of a member that is an image ("": its name has none); None for others, which are
        counted."""
        name = PurePosixPath(member.name)
        suffix = name.suffix.lower()
        if name.name.startswith("."):
            self._pass_over("hidden")
            return None
        if suffix in self._images.wanted_suffixes:
            return suffix
        kind = type_of(name.name)
        if not kind and self.settings.suffixes is None:
            head = read_head(self.tars, shard, member.position, member.size)
            found = None if head is None else kind_of_bytes(head)
            if head is None or (found is not None and found.is_read):
                return "" if found is None else found.suffixes[0]
            kind = found.suffixes[0] if found is not None else kind
        self._pass_over(kind)
        return None

    def _pass_over(self, kind: str) -> None:
        """Count a member that is no input."""
        if self.carries:
            self.counts.add_carried(kind)
        else:
            self.counts.add_unread(kind)


@dataclass(eq=False)
class ParquetSource(ItemSource):
    """Source of rows of Parquet files, named by a column of paths or keys if there is one, else by number."""

    container = "parquet"

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _rows: ParquetRows | None = field(default=None, init=False, repr=False)  # rows of the last file read

    def items(self, on_error: OnError) -> Iterator[Item]:
        suffixes = self._images.wanted_suffixes
        keeps = self._images.paths.keeps
        for entry, prefix in self._shards(on_error):
            paths = ItemPaths(prefix)
            try:
                rows = self._open(entry.path)
                rows.check_unfolding()
                if not self.carries:
                    self.counts.columns.update(rows.columns.others)
                for row, key in enumerate(rows.names()):
                    name = "" if key is None else str(key)
                    if name and not name.lower().endswith(suffixes):
                        name += rows.suffix
                    path = paths.assign(name, f"{row:08}{rows.suffix}")
                    if keeps(path, entry.path):
                        yield Item(path, 0, entry.modified, entry.path, row)
                    else:
                        self.counts.add_filtered()
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))
            except PARQUET_ERRORS as error:
                on_error(BadInput(entry.path, *reason_and_detail(error)))

    def read(self, item: Item, limit: int) -> bytes:
        with self._lock:  # neighbouring rows are read from the file together
            try:
                if self._rows is None or self._rows.path != item.container:
                    self._rows = self._open(item.container)
                data = self._rows.read(item.position)
            except PARQUET_ERRORS as error:
                self._rows = None
                raise BadImage(*reason_and_detail(error)) from error
        return checked(data, limit)

    def _open(self, path: str) -> ParquetRows:
        limit = self.settings.max_unfolded_gb * 1e9
        return ParquetRows.of_file(path, self.store.open(path), self.settings.column, limit)
