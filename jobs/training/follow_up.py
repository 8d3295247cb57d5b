"""What a recipe may use for work of its own between the last epoch and the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from genray.errors import Interrupted
from genray.progress import Display, Tick
from jobs.runs.run import Run
from jobs.training.device import Device
from jobs.training.workers import Worker

_EVERY = 0.3  # seconds between updates of the progress line
_OVER, _WORKING = 0, 1
_ALIVE = 20.0  # seconds between signs of life; who waits for one gives up after half an hour


@dataclass
class FollowUp:
    """Attributes:
    run: that it belongs to.
    device: to work on.
    display: where progress is shown.
    epoch: how many epochs made the weights that go into the bundle.
    samples: what they are called.
    """

    run: Run
    device: Device
    display: Display
    epoch: int
    samples: str = "images"
    _began: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _said: float = field(default_factory=time.monotonic)
    _worker: Worker | None = None

    @property
    def where(self) -> torch.device:
        """The device."""
        return self.device.where

    def lead(self, worker: Worker, work: Callable[[FollowUp], None]) -> None:
        """Do `work` on rank 0 of the group of `worker`, however long, while the others wait: as
        `Worker.on_leader`, but with signs of life, for a group gives up on a rank that is silent."""

        def led() -> None:
            self._worker = worker
            try:
                work(self)
            finally:
                worker.max(_OVER)

        while not worker.leads and worker.max(_OVER) == [_WORKING]:
            pass
        worker.on_leader(led)

    def step(self, done: int, steps: int, samples: int, unit: str) -> None:
        """Say that `done` of `steps` are done, `samples` each; call it after each step.

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
        if self._worker is not None and now - self._said >= _ALIVE:
            self._said = now
            self._worker.max(_WORKING)
        if now - self._shown > _EVERY or done == steps:
            self._shown, passed = now, max(now - self._began, 1e-9)
            left = passed / done * (steps - done)
            speed = done * samples / passed
            self.display.tick(Tick(0, 0, done, steps, speed, left, unit=unit, samples=self.samples))
