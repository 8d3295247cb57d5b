"""Generated pulse waves: of an oximeter, and of an arterial pressure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pulse_wave(
    times: Sequence[float], seconds: float, rate: float, *, height: float = 1.0, notch: float = 0.4
) -> Floats:
    """A wave that rises at each of `times`, (samples,): a fast rise, a slow fall and a dicrotic wave."""
    t = np.arange(round(seconds * rate)) / rate
    wave = np.zeros_like(t)
    for at in times:
        since = t - at
        for delay, size, rise in ((0.0, 1.0, 0.05), (0.32, notch, 0.06)):
            up = 0.5 + 0.5 * np.tanh((since - delay - 0.1) / rise)
            wave += size * up * np.exp(-np.maximum(since - delay, 0) / 0.25)
    return height * wave


def regular(per_minute: float, seconds: float, begin: float = 0.0) -> list[float]:
    """Times of regular pulses."""
    return np.arange(begin, seconds, 60 / per_minute).tolist()
