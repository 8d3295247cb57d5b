"""Progress of a run from the process that trains to the one that shows it, by files of the run."""

from __future__ import annotations

import time

from genray.progress import Display, FileDisplay, FileFollower, Tick
from jobs.runs.run import Run

_PERIOD_S = 2.0  # seconds between transfers of the newest tick to or from a store


class RunDisplay(FileDisplay):
    """Display for another process, which shows it by a `RunFollower`.

    Args:
        run: the run that the progress is of.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run.folder)
        self._run = run
        self._sent = float("-inf")

    def tick(self, tick: Tick) -> None:
        super().tick(tick)
        now = time.monotonic()
        if now - self._sent >= _PERIOD_S or tick.step == tick.steps:
            self._sent = now
            self._run.send(self._run.progress)

    def note(self, text: str) -> None:
        super().note(text)
        self._run.send(self._run.notes)


class RunFollower:
    """Shows the progress that another process writes by a `RunDisplay`; `begin` makes one.

    Args:
        run: the run that the progress is of.
        files: reader of its files.
        period_s: seconds between looks at a store.
    """

    def __init__(self, run: Run, files: FileFollower, period_s: float) -> None:
        self._run = run
        self._files = files
        self._period_s = period_s
        self._looked = time.monotonic()

    @classmethod
    def begin(cls, run: Run, display: Display, *, period_s: float = _PERIOD_S) -> RunFollower:
        """Return a follower that skips what earlier attempts wrote."""
        run.remove(run.progress)
        run.fetch(run.notes)
        return cls(run, FileFollower.from_now(run.folder, display), period_s)

    def poll(self, *, at_once: bool = False) -> None:
        """Show what is new since the last call; a store is looked at every few seconds, or `at_once`."""
        now = time.monotonic()
        if at_once or now - self._looked >= self._period_s:
            self._looked = now
            self._run.fetch(self._run.notes, self._run.progress)
        self._files.poll()
