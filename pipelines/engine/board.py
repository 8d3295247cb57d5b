"""The board: what all workers have done so far, and whether they are to stop."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

READY = "ready"
"""Counts workers that have loaded their model."""


class Board:
    """Adds up what workers report. Thread-safe; with Ray it lives in an actor of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._stop = False

    def report(self, counts: Mapping[str, float]) -> bool:
        """Add `counts`; returns whether the worker is to stop after what it has in hand."""
        with self._lock:
            self._counts.update(counts)
            return self._stop

    def stop(self) -> None:
        """Ask all workers to stop."""
        with self._lock:
            self._stop = True

    def counts(self) -> dict[str, float]:
        """The sums so far."""
        with self._lock:
            return dict(self._counts)
