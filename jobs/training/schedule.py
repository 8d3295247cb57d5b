"""The learning rate over a training."""

from __future__ import annotations

import math

from jobs.training.settings import LoopSettings


def rate_factor(done: float, settings: LoopSettings) -> float:
    """What the learning rate is multiplied with when the share `done` (0 to 1) of the training is over.

    Rises linearly over `warmup`, stays 1 until `decay_start`, then falls to 0 at the end; linear from
    one half on is the schedule of pix2pix (100 epochs constant, 100 falling).
    """
    if done < settings.warmup:
        return done / settings.warmup
    if settings.decay == "constant" or done <= settings.decay_start:
        return 1.0
    rest = min(1.0, (done - settings.decay_start) / (1.0 - settings.decay_start))
    return 1.0 - rest if settings.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * rest))
