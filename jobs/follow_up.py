"""What a recipe may use for work of its own between the last epoch and the bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from genray.errors import Interrupted
from genray.progress import Display, Tick
from jobs.device import Device
from jobs.run import Run

_EVERY = 0.3  # seconds between updates of the progress line


@dataclass
class FollowUp:
    """Attributes:
    run: that it belongs to.
    device: to work on.
    display: where progress is shown.
    epoch: how many epochs made the weights that go into the bundle.
    """

    run: Run
    device: Device
    display: Display
    epoch: int
    _began: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    @property
    def where(self) -> torch.device:
        """The device."""
        return self.device.where

    def step(self, done: int, steps: int, samples: int, unit: str) -> None:
        """Say that `done` of `steps` are done, `samples` each; call it after each step.

        Raises:
            Interrupted: a stop was requested. What was done so far is lost, which is why it has to be short.
        """
        if self.run.stop_requested():
            raise Interrupted(
                f"stopped after the last epoch, {unit} {done} of {steps}",
                where=str(self.run.folder),
                hint=f"the same command with --name {self.run.name} goes on from the end of the training",
            )
        now = time.monotonic()
        if now - self._shown > _EVERY or done == steps:
            self._shown, passed = now, max(now - self._began, 1e-9)
            left = passed / done * (steps - done)
            self.display.tick(Tick(0, 0, done, steps, done * samples / passed, left, unit=unit))
