"""Schedule of the learning rate over a training, and over the epochs that are added to a finished one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jobs.training.settings import LoopSettings

_END = 0.95  # share of a schedule whose rate further epochs continue with: at its very end a decay reaches 0


@dataclass(frozen=True)
class Schedule:
    """Schedule of the learning rate over epochs `begin` to `end`.

    Attributes:
        begin: epoch at which it begins, 0 unless epochs were added to a finished training.
        end: epoch at which it ends.
        constant: factor of the learning rate in all of it; None: warm-up and decay of the settings.
    """

    begin: int
    end: int
    constant: float | None = None

    def factor(self, epoch: float, settings: LoopSettings) -> float:
        """Return the factor of the learning rate at a point of the training, in epochs."""
        if self.constant is not None:
            return self.constant
        return learning_rate_factor((epoch - self.begin) / (self.end - self.begin), settings)

    def progress(self, epoch: float) -> float:
        """Return the share of the training that is done, 0 to 1; 1 in added epochs."""
        return epoch / self.end if self.begin == 0 and self.constant is None else 1.0

    def text(self, settings: LoopSettings) -> str:
        """Return a line on the learning rate of added epochs, for a person."""
        if self.constant is None:
            how = "stretched to the new length" if self.begin == 0 else "as at the beginning"
            return (
                f"learning rate of the added epochs: warm-up and decay {how} (loop.extend={settings.extend})"
            )
        return (
            f"learning rate of the added epochs: {self.constant:.3g} of the first, as at the end of the "
            "finished ones (loop.extend=restart begins the schedule again)"
        )

    def until(self, epochs: int, finished: int, settings: LoopSettings) -> Schedule:
        """Return the schedule of a training that now has `epochs` epochs, `finished` of them done: as long as
        it is unfinished it is stretched, afterwards the added epochs follow `settings.extend`."""
        if finished < self.end:
            return replace(self, end=max(epochs, self.begin + 1))
        if epochs <= self.end:
            return self
        if settings.extend == "stretch":
            return Schedule(0, epochs)
        if settings.extend == "restart":
            return Schedule(self.end, epochs)
        return Schedule(self.end, epochs, self.factor(self.begin + _END * (self.end - self.begin), settings))


def learning_rate_factor(progress: float, settings: LoopSettings) -> float:
    """Return the factor of the learning rate after the share `progress` (0 to 1) of the schedule.

    It rises linearly over `warmup`, stays 1 until `decay_start` if that is later, then falls to 0 at the end.
    A linear decay from one half on is the schedule of pix2pix (100 epochs constant, 100 falling).
    """
    if progress < settings.warmup:
        return progress / settings.warmup
    start = max(settings.warmup, settings.decay_start)
    if settings.decay == "constant" or progress <= start:
        return 1.0
    rest = min(1.0, (progress - start) / (1.0 - start))
    return 1.0 - rest if settings.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * rest))
