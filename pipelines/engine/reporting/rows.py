"""Rows of the ledger that the report of a bulk run shows, found in one pass over all of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genray.text import visible
from pipelines.settings import BulkSettings
from pipelines.storage.ledger.index import path_hashes
from pipelines.storage.ledger.rows import FAILED, SCHEMA, STATUSES, LedgerRow
from pipelines.storage.output import Output

SCORES = ("noise", "change", "error", "score")
_ROW_COLUMNS = (
    *("path", "status", "reason", "detail", "format", "width", "height", "channels", "depth", "bytes_in"),
    *("bytes_out", "modified", "container", "position", "output", "noise_kind", *SCORES),
)
_NOT_KEPT = "not_kept"
_SALVAGED = "salvaged"
_COLUMNS = (*_ROW_COLUMNS, *(name for name in (_NOT_KEPT, _SALVAGED) if name in SCHEMA.names))
_BATCH_ROWS = 2**16  # ledger rows converted to Python objects at once
_MOST_FAILED = 20  # most rows of each reason
_MOST_LEVELS = 100_000  # levels of noise that the histogram is drawn from
_MOST_NAMES = 50  # most names of what was not kept or was salvaged


@dataclass(frozen=True)
class RankedRow:
    """A row, and its rank."""

    rank: float
    row: LedgerRow


class TopRows:
    """The `count` rows of highest rank among those above `least`, and the number of those."""

    def __init__(self, count: int, least: float = 0.0) -> None:
        self._count = count
        self._least = least
        self.ranked: list[RankedRow] = []
        self.number_above = 0

    def add(self, ranks: NDArray[np.float64], batch: pa.RecordBatch) -> None:
        """Consider the rows of `batch`; rows with rank NaN are ignored."""
        places = np.flatnonzero(ranks > self._least)
        self.number_above += len(places)
        if self.ranked and len(self.ranked) == self._count:
            places = places[ranks[places] > self.ranked[-1].rank]
        if not self._count or not len(places):
            return
        if len(places) > self._count:
            places = places[np.argpartition(ranks[places], -self._count)[-self._count :]]
        rows = batch.take(pa.array(places)).to_pylist()
        for rank, row in zip(ranks[places].tolist(), rows, strict=True):
            self.ranked.append(RankedRow(rank, LedgerRow(**row)))
        self.ranked = sorted(self.ranked, key=lambda each: (-each.rank, each.row.path))[: self._count]


class TypeCounts:
    """Counts of inputs by type and status."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of `batch`."""
        known = pc.is_valid(batch.column("format"))
        table = pa.Table.from_batches([batch.filter(known)])
        keys = ["format", "channels", "depth", "status"]
        for row in table.group_by(keys).aggregate([([], "count_all")]).to_pylist():
            self._count(
                _type_name(row["format"], row["channels"], row["depth"]), row["status"], row["count_all"]
            )
        unknown = batch.filter(pc.invert(known))
        for path, status in zip(unknown["path"].to_pylist(), unknown["status"].to_pylist(), strict=True):
            suffix = PurePosixPath(path).suffix.lower()
            self._count(f"not decoded ({visible(suffix) or 'no suffix'})", status, 1)

    def cells(self) -> list[list[str]]:
        """Return a row of texts for each type, the most frequent first."""
        ranked = sorted(self.counts.items(), key=lambda each: (-each[1].total(), each[0]))
        return [
            [name, f"{each.total():,}", *(f"{each[status]:,}" for status in STATUSES)]
            for name, each in ranked
        ]

    def _count(self, name: str, status: str, count: int) -> None:
        self.counts.setdefault(name, Counter())[status] += count


class Mentions:
    """Counts of what a column of the ledger names, and an input for each: a list of texts, or a text with
    semicolons."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, paths: pa.Array, column: pa.Array) -> None:
        """Count what `column` names of the inputs `paths`."""
        named = pc.is_valid(column)
        for path, names in zip(
            paths.filter(named).to_pylist(), column.filter(named).to_pylist(), strict=True
        ):
            for name in names.split("; ") if isinstance(names, str) else names:
                if name:
                    self.counts[name] += 1
                    self._examples.setdefault(name, path)

    def cells(self) -> list[list[str]]:
        """Return a row of texts for each name, the most frequent first."""
        return [
            [visible(name), f"{count:,}", visible(self._examples[name])]
            for name, count in self.counts.most_common(_MOST_NAMES)
        ]


class NoiseLevels:
    """Levels of noise by what became of the images: all, or of many a regular sample."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[np.float32]]] = {}
        self._step = 1

    def add(self, levels: NDArray[np.float32], groups: NDArray[np.object_]) -> None:
        """Add the levels of some images; NaN: not measured."""
        for group in sorted(set(groups)):
            here = levels[groups == group]
            self._parts.setdefault(group, []).append(here[np.isfinite(here)][:: self._step])
        while sum(len(part) for parts in self._parts.values() for part in parts) > _MOST_LEVELS:
            self._step *= 2
            self._parts = {
                group: [np.concatenate(parts)[::2]] for group, parts in self._parts.items() if parts
            }

    def by_group(self) -> dict[str, NDArray[np.float32]]:
        """Return the levels of each group that has some."""
        joined = {group: np.concatenate(parts) for group, parts in self._parts.items()}
        return {group: levels for group, levels in joined.items() if len(levels)}


class ReportRows:
    """The parts of the ledger that the page shows."""

    def __init__(self, samples: int, seed: int, error_limit: float | None) -> None:
        self.error_limit = error_limit
        self.random = TopRows(samples)
        self.extremes = {name: TopRows(samples) for name in SCORES}
        self.extremes["error"] = TopRows(samples, math.inf if error_limit is None else error_limit)
        self.nearly_noisy = TopRows(samples)
        """Images that were copied as clean, those with the most noise."""
        self.noise = NoiseLevels()
        self.failed: dict[str, list[LedgerRow]] = {}
        """First rows of each reason."""
        self.types = TypeCounts()
        self.not_kept = Mentions()
        self.salvaged = Mentions()
        self._mask = np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)

    @classmethod
    def find(cls, output: Output, settings: BulkSettings, error_limit: float | None) -> ReportRows:
        """Read the ledger of `output`."""
        rows = cls(settings.report.samples, settings.report.seed, error_limit)
        for table in output.ledger.tables(_COLUMNS):
            for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                rows.add(batch)
        return rows

    def add(self, batch: pa.RecordBatch) -> None:
        """Consider some rows."""
        self.types.add(batch)
        for name, mentions in ((_NOT_KEPT, self.not_kept), (_SALVAGED, self.salvaged)):
            if name in batch.schema.names:
                mentions.add(batch.column("path"), batch.column(name))
        batch = batch.select(_ROW_COLUMNS)
        failed = pc.equal(batch.column("status"), FAILED)
        self._add_failed(batch.filter(failed))
        batch = batch.filter(pc.invert(failed))
        # The choice depends only on seed and path: runs over the same images show the same ones.
        self.random.add((path_hashes(batch.column("path")) ^ self._mask).astype(np.float64), batch)
        self._add_noise(batch)
        for name, top in self.extremes.items():
            top.add(batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64), batch)

    def _add_noise(self, batch: pa.RecordBatch) -> None:
        levels = batch.column("noise").to_numpy(zero_copy_only=False).astype(np.float32)
        reasons = pc.fill_null(batch.column("reason"), "").to_numpy(zero_copy_only=False)
        self.noise.add(levels, np.where(reasons == "", "processed", reasons))
        self.nearly_noisy.add(np.where(reasons == "clean", levels, np.nan).astype(np.float64), batch)

    def _add_failed(self, batch: pa.RecordBatch) -> None:
        for reason in pc.unique(batch.column("reason")).to_pylist():
            rows = self.failed.setdefault(reason, [])
            if len(rows) < _MOST_FAILED:
                matching = batch.filter(pc.equal(batch.column("reason"), reason))
                first = matching.slice(0, _MOST_FAILED - len(rows))
                rows += [LedgerRow(**row) for row in first.to_pylist()]


def _type_name(format: str, channels: int | None, depth: int | None) -> str:
    parts = [format.upper() if format != "unlisted" else "folder or shard"]
    if channels is not None:
        parts.append("gray" if channels == 1 else "colour")
    if depth is not None:
        parts.append(f"{depth} bits")
    return ", ".join(parts)
