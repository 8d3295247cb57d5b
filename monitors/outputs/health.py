"""Health of a running monitor, for service managers and load balancers: is it alive, and does it watch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIVE_SECONDS = 15.0
"""Seconds after the last beat within which a monitor is alive; it beats every few seconds."""


@dataclass(frozen=True, slots=True)
class _Beat:
    at: float
    problems: tuple[str, ...]


class Health:
    """Health that the monitor reports, and that is asked for from another thread.

    Args:
        clock: monotonic time, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: _Beat | None = None

    def beat(self, problems: Sequence[str]) -> None:
        """Report that the monitor is alive, and what keeps it from watching; none: it watches."""
        self._last = _Beat(self._clock(), tuple(problems))

    def not_alive(self) -> list[str]:
        """Return why the monitor is not alive; empty if it is, also while it starts."""
        last = self._last
        silent = 0.0 if last is None else self._clock() - last.at
        return [f"the monitor has not responded for {silent:.0f} s"] if silent > ALIVE_SECONDS else []

    def not_ready(self) -> list[str]:
        """Return why the monitor does not watch its patients; empty if it does."""
        if self._last is None:
            return ["the monitor is starting"]
        return self.not_alive() or list(self._last.problems)
