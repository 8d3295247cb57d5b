"""Outcome of a bulk run, and the tables of reasons and times that terminal and report share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genray.io.bad_input import REASONS
from genray.io.file_types import FileCounts
from genray.text import duration, visible
from pipelines.steps.base import SKIP_REASONS
from pipelines.storage.ledger.rows import FAILED, SKIPPED, STATUSES
from pipelines.storage.ledger.summary import LedgerSummary

TextRow = tuple[str, ...]

_NAMED = 5  # names in the summary of what outputs lack
_NAMED_IN_TABLES = 40


@dataclass(frozen=True)
class PassRates:
    """Speed of a pass: images and megabytes per second, without the start-up."""

    images_per_second: float
    mb_per_second: float
    start_seconds: float


@dataclass(frozen=True)
class PassOutcome:
    """Outcome of one pass.

    Args:
        images: number of images to process.
        changed: images among them that changed since they were processed.
        retried: images among them that had failed.
        gone: inputs of the ledger that the store no longer contains.
        counts: files at the input, by type.
        notes: the workers' notes on how they run.
        rates: speed of the pass.
    """

    images: int
    changed: int
    retried: int
    gone: int
    counts: FileCounts
    notes: Sequence[str]
    rates: PassRates

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
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
    """Outcome of a bulk run.

    Args:
        target: name of the target.
        run: location of the output.
        summary: summary of the ledger.
        this_pass: outcome of this pass.
        seconds: duration.
        report: location of the report.
    """

    target: str
    run: str
    summary: LedgerSummary
    this_pass: PassOutcome
    seconds: float
    report: str

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "target": self.target,
            "run": self.run,
            **self.summary.as_json(),
            "this_pass": self.this_pass.as_json(),
            "seconds": self.seconds,
            "report": self.report,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Return names and values for the terminal."""
        summary = self.summary
        rates = self.this_pass.rates
        counts = [("total", summary.total), *((name, summary.status[name]) for name in STATUSES)]
        yield "images", "  ".join(f"{name} {count}" for name, count in counts)
        if summary.anomalies:
            yield "anomalies", str(summary.anomalies)
        if summary.salvaged:
            yield "salvaged", f"{summary.salvaged} (damage that cost no pixel; see the ledger)"
        for reason, count in summary.reasons.most_common():
            yield f"  {reason}", str(count)
        if summary.mostly_clean:
            nearest = ", ".join(f"{level:.2f}" for level in summary.nearest_clean)
            yield (
                "mostly clean",
                f"{summary.reasons['clean']} images were copied, as their noise is below the limit (nearest: "
                f"{nearest}); if it shows, set a lower denoise.clean_below and give --retry all",
            )
        if summary.not_kept:
            yield "not kept", not_kept_text(summary.not_kept)
        if self.this_pass.counts.unread_text:
            yield "not read", self.this_pass.counts.unread_text
        yield (
            "this pass",
            f"{self.this_pass.images} images, {rates.images_per_second:.3g}/s, "
            f"{rates.mb_per_second:.3g} MB/s",
        )
        yield "output", self.run
        yield "report", self.report
        yield "time", duration(self.seconds)
        if summary.status[FAILED]:
            yield "failed", f"genray ledger {self.run} --list failed"


def not_kept_text(not_kept: Counter[str]) -> str:
    """Return the most frequent names of what outputs lack, each with its images."""
    first = [f"{visible(name)} ({count:,})" for name, count in not_kept.most_common(_NAMED)]
    more = len(not_kept) - len(first)
    return ", ".join(first) + (f", and {more:,} more" if more else "")


def not_kept_table(not_kept: Counter[str], total: int) -> list[TextRow]:
    """Return the table of what outputs lack: headings, then a row for each name."""
    rows: list[TextRow] = [("not kept", "images", "share")]
    for name, count in not_kept.most_common(_NAMED_IN_TABLES):
        rows.append((visible(name), f"{count:,}", f"{100 * count / max(1, total):.3g} %"))
    return rows


def explain_reason(reason: str) -> str:
    """Return the meaning of a reason of the ledger; empty if this version of genray does not know it."""
    return SKIP_REASONS.get(reason, REASONS.get(reason, ""))


def reasons_table(reasons: Mapping[str, int], total: int) -> list[TextRow]:
    """Return the table of skipped and failed images: headings, then a row for each reason."""
    rows: list[TextRow] = [("reason", "status", "images", "share", "meaning")]
    for reason, count in reasons.items():
        status = SKIPPED if reason in SKIP_REASONS else FAILED
        share = f"{100 * count / max(1, total):.3g} %"
        rows.append((visible(reason), status, f"{count:,}", share, explain_reason(reason)))
    return rows


def times_table(seconds: Mapping[str, float], images: int) -> list[TextRow]:
    """Return the table of the workers' time: headings, then a row for each stage."""
    whole = sum(seconds.values()) or 1.0
    rows: list[TextRow] = [("stage", "time", "share", "per image")]
    for stage, spent in seconds.items():
        spent_text = duration(spent) if spent >= 60 else f"{spent:.2g} s"
        of_an_image = f"{1e3 * spent / max(1, images):.3g} ms"
        rows.append((stage, spent_text, f"{100 * spent / whole:.1f} %", of_an_image))
    return rows
