"""What sources deliver: some samples of all leads of one stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = -32768
"""A sample that the device says it does not have (as in WFDB's format 16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One message: usually a second of all leads of a stream.

    Attributes:
        stream: what the source calls the stream. After a feed has taken it in: its pseudonym.
        sequence: counts the messages of the stream, from any number.
        start: unix time of the first sample, in seconds.
        rate: samples a second.
        leads: their names.
        gains: units per millivolt of each lead.
        samples: (samples, leads); MISSING where there is none.
        received: `time.monotonic()` when it arrived, for measuring latency.
    """

    stream: str
    sequence: int
    start: float
    rate: float
    leads: tuple[str, ...]
    gains: tuple[float, ...]
    samples: NDArray[np.int16]
    received: float = 0.0

    @property
    def end(self) -> float:
        """Unix time just after the last sample."""
        return self.start + len(self.samples) / self.rate
