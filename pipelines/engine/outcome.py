"""Tables of the terminal and of the report: why images were set aside, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping

from genray.io.bad_input import REASONS
from genray.text import duration, visible
from pipelines.steps.base import SKIP_REASONS
from pipelines.storage.ledger import FAILED, SKIPPED

TextRow = tuple[str, ...]


def meaning(reason: str) -> str:
    """What a reason of the ledger means; nothing if it is not one that this genray knows."""
    return SKIP_REASONS.get(reason, REASONS.get(reason, ""))


def reasons_table(reasons: Mapping[str, int], total: int) -> list[TextRow]:
    """What was skipped and what failed, and why: headings, then a row for each reason."""
    rows: list[TextRow] = [("reason", "status", "images", "share", "meaning")]
    for reason, count in reasons.items():
        status, share = SKIPPED if reason in SKIP_REASONS else FAILED, f"{100 * count / max(1, total):.3g} %"
        rows.append((visible(reason), status, f"{count:,}", share, meaning(reason)))
    return rows


def times_table(seconds: Mapping[str, float], images: int) -> list[TextRow]:
    """Where the time of all workers went: headings, then a row for each stage."""
    whole = sum(seconds.values()) or 1.0
    rows: list[TextRow] = [("stage", "time", "share", "an image")]
    for stage, spent in seconds.items():
        each = f"{1e3 * spent / max(1, images):.3g} ms"
        time_spent = duration(spent) if spent >= 60 else f"{spent:.2g} s"
        rows.append((stage, time_spent, f"{100 * spent / whole:.1f} %", each))
    return rows
