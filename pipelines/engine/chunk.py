"""The record of a chunk: the rows of what is through, written to the ledger in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from genray.images.photo import Photo
from genray.io.bad_input import BadImage
from pipelines.engine.plan import Planned
from pipelines.steps.base import StepResult
from pipelines.storage.ledger import DONE, FAILED, SKIPPED

LedgerRow = dict[str, Any]
ReportCounts = Callable[[Mapping[str, float]], bool]
"""Takes counts of what was done since the last call; returns whether to stop."""

_REPORT_S = 0.5


@dataclass
class ImageTask:
    """An input on its way: what is known of it so far."""

    planned: Planned
    data: bytes = b""
    photo: Photo | None = None
    decoded: bool = False
    bad: BadImage | None = None
    made: StepResult | None = None
    times: dict[str, float] = field(default_factory=dict)
    bytes_out: int = 0
    output: str = ""
    also: list[str] = field(default_factory=list)
    sha256: str = ""
    weight: int = 0


class ChunkRecord:
    """The rows of an attempt at a chunk that are not in the ledger yet, and counts that were not reported.

    Args:
        every: seconds between two pieces.
        write: writes a piece, by its number.
        holds: whether the chunk is still this attempt's.
        report: see `ReportCounts`.
    """

    def __init__(
        self,
        every: float,
        write: Callable[[int, Sequence[LedgerRow]], None],
        holds: Callable[[], bool],
        report: ReportCounts,
    ) -> None:
        self._every, self._write, self._holds, self._report = every, write, holds, report
        self._rows: list[LedgerRow] = []
        self._counts: dict[str, float] = {}
        self._piece = 0
        self._committed = self._reported = time.monotonic()
        self.stopped = False

    @property
    def due(self) -> bool:
        """Whether it is time to write what is there."""
        return bool(self._rows) and time.monotonic() - self._committed > self._every

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Take the rows of inputs that are through."""
        self._rows += rows
        for row in rows:
            for name, count in _counts(row).items():
                self._counts[name] = self._counts.get(name, 0.0) + count
        if time.monotonic() - self._reported > _REPORT_S:
            self._tell()

    def commit(self) -> None:
        """Write the rows, unless the chunk was given to another worker meanwhile."""
        self._tell()
        if self._rows:
            if not self._holds():
                self.stopped = True
                return
            self._write(self._piece, self._rows)
            self._rows, self._piece = [], self._piece + 1
        self._committed = time.monotonic()

    def _tell(self) -> None:
        self.stopped = self._report(self._counts) or self.stopped
        self._counts, self._reported = {}, time.monotonic()


def row_of(job: ImageTask) -> LedgerRow:
    """The ledger's row of an input that is through."""
    item, made = job.planned.item, job.made
    skipped = made.skipped if made is not None else ""
    row: dict[str, Any] = {
        "path": item.path,
        "status": FAILED if job.bad else SKIPPED if skipped else DONE,
        "reason": job.bad.reason if job.bad else skipped,
        "detail": job.bad.detail[:500] if job.bad else "",
        "bytes_in": item.size or len(job.data),
        "bytes_out": job.bytes_out,
        "modified": item.modified,
        "container": item.container,
        "position": item.position,
        "output": job.output,
        "also": job.also,
        "sha256": job.sha256,
        "finished": datetime.now(UTC),
        **job.times,
    }
    if job.photo is not None:
        height, width, channels = job.photo.pixels.shape
        row |= {"format": job.photo.format, "width": width, "height": height, "channels": channels}
        row["depth"] = job.photo.depth
    return row | dict(vars(made.scores) if made is not None else {})


def _counts(row: Mapping[str, Any]) -> dict[str, float]:
    counts = {str(row["status"]): 1.0, "bytes_in": row["bytes_in"], "bytes_out": row["bytes_out"]}
    if row["reason"] == "step-error":
        counts["errors"] = 1.0
    return counts | {name: value for name, value in row.items() if name.endswith("_ms")}
