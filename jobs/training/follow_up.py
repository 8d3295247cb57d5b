"""A recipe's own work between the last epoch and the bundle: it runs on rank 0 and shows its progress."""

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
    """Context of a recipe's `follow_up`.

    Attributes:
        run: the run that it belongs to.
        device: device to compute on.
        display: where progress is shown.
        epoch: epoch of the weights that go into the bundle.
        samples: name of the samples in progress lines.
        tick_seconds: seconds between updates of the progress line.
        alive_seconds: seconds between signs of life to the other workers, which give up after half an hour
            without one.
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
        """Do long `work` on rank 0 of the group of `worker` while the others wait: like
        `TrainingWorker.on_leader`, but with signs of life, as a group gives up on a silent rank."""

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
        """Show that `done` of `steps` are done, of `samples` each; call it after each step.

        Raises:
            Interrupted: a stop was requested. The work done so far is lost, unless the recipe stored it.
        """
        if self.run.stop_requested():
            raise Interrupted(
                f"stopped after the last epoch, {unit} {done} of {steps}",
                where=self.run.location,
                hint=f"the same command with --name {self.run.name} resumes at the end of the training",
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
