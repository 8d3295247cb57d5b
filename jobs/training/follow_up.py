"""Work of a recipe's own between the last epoch and the bundle: where it runs, and how it shows that it goes
on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from genray.errors import Interrupted
from genray.progress import Display, Tick
from jobs.runs.run import Run
from jobs.training.device import Device
from jobs.training.settings import TICK_SECONDS
from jobs.training.workers import TrainingWorker

_OVER = 0
_WORKING = 1


@dataclass
class FollowUp:
    """What a recipe's `follow_up` works with.

    Attributes:
        run: that it belongs to.
        device: to work on.
        display: where progress is shown.
        epoch: how many epochs made the weights that go into the bundle.
        samples: what they are called.
        tick_seconds: between updates of the progress line.
        alive_seconds: between signs of life to the other workers; who waits for one gives up after half an
            hour.
    """

    run: Run
    device: Device
    display: Display
    epoch: int
    samples: str = "images"
    tick_seconds: float = TICK_SECONDS
    alive_seconds: float = 20.0
    _worker: TrainingWorker | None = None
    _began: float = field(default_factory=time.monotonic)
    _last_tick: float = 0.0
    _last_sign: float = field(default_factory=time.monotonic)

    def run_on_leader(self, worker: TrainingWorker, work: Callable[[FollowUp], None]) -> None:
        """Do `work` on rank 0 of the group of `worker`, however long, while the others wait: as
        `TrainingWorker.on_leader`, but with signs of life, for a group gives up on a rank that is silent."""

        def work_and_end() -> None:
            self._worker = worker
            try:
                work(self)
            finally:
                worker.max(_OVER)

        while not worker.is_leader and worker.max(_OVER) == [_WORKING]:
            pass
        worker.on_leader(work_and_end)

    def report_step(self, done: int, steps: int, samples: int, unit: str) -> None:
        """Show that `done` of `steps` are done, `samples` each; call it after each step.

        Raises:
            Interrupted: a stop was requested. What was done so far is lost, unless the work keeps it.
        """
        if self.run.stop_requested():
            raise Interrupted(
                f"stopped after the last epoch, {unit} {done} of {steps}",
                where=str(self.run.folder),
                hint=f"the same command with --name {self.run.name} goes on from the end of the training",
            )
        now = time.monotonic()
        if self._worker is not None and now - self._last_sign >= self.alive_seconds:
            self._last_sign = now
            self._worker.max(_WORKING)
        if now - self._last_tick > self.tick_seconds or done == steps:
            self._last_tick = now
            passed = max(now - self._began, 1e-9)
            left = passed / done * (steps - done)
            speed = done * samples / passed
            self.display.tick(Tick(0, 0, done, steps, speed, left, unit=unit, samples=self.samples))
