"""Counts and sums over the rows of a ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.storage.ledger.rows import CLEAN, STATUSES, TIMES

SUMMARY_COLUMNS = (
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
_NEAREST = 3  # levels of noise that are kept


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
        clean = pc.fill_null(pc.equal(table["reason"], CLEAN), False)
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
        return 2 * self.reasons[CLEAN] > self.total

    def _add_nearest(self, levels: NDArray[Any]) -> None:
        if len(levels) > _NEAREST:
            levels = np.partition(levels, -_NEAREST)[-_NEAREST:]
        self.nearest_clean = sorted([*self.nearest_clean, *levels.tolist()], reverse=True)[:_NEAREST]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LedgerSummary:
        """Return the summary of `as_json`."""
        return cls(
            total=values["total"],
            status=Counter({name: values[name] for name in STATUSES}),
            reasons=Counter(values["reasons"]),
            not_kept=Counter(values["not_kept"]),
            anomalies=values["anomalies"],
            salvaged=values["salvaged"],
            nearest_clean=list(values.get("nearest_clean", ())),
            bytes_in=values["bytes_in"],
            bytes_out=values["bytes_out"],
            seconds=dict(values["stage_seconds"]),
        )

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


def _count_values(column: Any, counter: Counter[str]) -> None:
    for entry in pc.value_counts(column).to_pylist():
        if entry["values"]:
            counter[entry["values"]] += entry["counts"]


def _sum(column: Any) -> Any:
    return pc.sum(column).as_py() or 0
