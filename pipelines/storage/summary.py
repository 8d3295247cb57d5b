"""What a ledger says altogether."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Summary:
    """What a ledger says altogether."""

    total: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    anomalies: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values: total, done, skipped, failed, reasons, anomalies, bytes, seconds of work by stage."""
        return {
            "total": self.total,
            **{name: self.status[name] for name in ("done", "skipped", "failed")},
            "reasons": dict(self.reasons.most_common()),
            "anomalies": self.anomalies,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "stage_seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
