"""What came of a bulk run, and the tables of reasons and times that the terminal and the report share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genray.io.bad_input import REASONS
from genray.io.file_types import FileCounts
from genray.text import duration, visible
from pipelines.steps.base import SKIP_REASONS
from pipelines.storage.ledger import FAILED, SKIPPED, STATUSES, LedgerSummary

TextRow = tuple[str, ...]


@dataclass(frozen=True)
class PassRates:
    """How fast a pass was: images and megabytes a second, without the seconds that the start-up took."""

    images_per_second: float
    mb_per_second: float
    start_seconds: float


@dataclass(frozen=True)
class PassOutcome:
    """What came of one pass.

    Args:
        images: that it had to do.
        changed: of these, since they were done.
        retried: of these, because they had failed.
        gone: inputs that the ledger has, and the store no more.
        counts: files at the input, by type.
        notes: what the workers said of how they run.
        rates: how fast it was.
    """

    images: int
    changed: int
    retried: int
    gone: int
    counts: FileCounts
    notes: Sequence[str]
    rates: PassRates

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.images,
            "changed": self.changed,
            "retried": self.retried,
            "gone": self.gone,
            "not_read": self.counts.as_json(),
            "notes": list(self.notes),
            **asdict(self.rates),
        }


@dataclass(frozen=True)
class BulkOutcome:
    """What came of a bulk run.

    Args:
        target: of the command.
        run: the output.
        summary: what the ledger says altogether.
        this_pass: what was done this time.
        seconds: that it took.
        report: where the page is.
    """

    target: str
    run: str
    summary: LedgerSummary
    this_pass: PassOutcome
    seconds: float
    report: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "run": self.run,
            **self.summary.as_json(),
            "this_pass": self.this_pass.as_json(),
            "seconds": self.seconds,
            "report": self.report,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values for the terminal."""
        summary = self.summary
        rates = self.this_pass.rates
        counts = [("total", summary.total), *((name, summary.status[name]) for name in STATUSES)]
        yield "images", "  ".join(f"{name} {count}" for name, count in counts)
        if summary.anomalies:
            yield "anomalies", str(summary.anomalies)
        for reason, count in summary.reasons.most_common():
            yield f"  {reason}", str(count)
        if self.this_pass.counts.unread_text:
            yield "not read", self.this_pass.counts.unread_text
        yield (
            "this time",
            f"{self.this_pass.images} images, {rates.images_per_second:.3g}/s, "
            f"{rates.mb_per_second:.3g} MB/s",
        )
        yield "output", self.run
        yield "report", self.report
        yield "time", duration(self.seconds)
        if summary.status[FAILED]:
            yield "failed", f"genray ledger {self.run} --list failed"


def explain_reason(reason: str) -> str:
    """What a reason of the ledger means; nothing if it is not one that this genray knows."""
    return SKIP_REASONS.get(reason, REASONS.get(reason, ""))


def reasons_table(reasons: Mapping[str, int], total: int) -> list[TextRow]:
    """What was skipped and what failed, and why: headings, then a row for each reason."""
    rows: list[TextRow] = [("reason", "status", "images", "share", "meaning")]
    for reason, count in reasons.items():
        status = SKIPPED if reason in SKIP_REASONS else FAILED
        share = f"{100 * count / max(1, total):.3g} %"
        rows.append((visible(reason), status, f"{count:,}", share, explain_reason(reason)))
    return rows


def times_table(seconds: Mapping[str, float], images: int) -> list[TextRow]:
    """Where the time of all workers went: headings, then a row for each stage."""
    whole = sum(seconds.values()) or 1.0
    rows: list[TextRow] = [("stage", "time", "share", "an image")]
    for stage, spent in seconds.items():
        spent_text = duration(spent) if spent >= 60 else f"{spent:.2g} s"
        of_an_image = f"{1e3 * spent / max(1, images):.3g} ms"
        rows.append((stage, spent_text, f"{100 * spent / whole:.1f} %", of_an_image))
    return rows
