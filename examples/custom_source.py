"""Watch streams from a source of your own: here an array of samples, cut into messages of a second.

    python examples/custom_source.py runs/ecg/bundle samples.npy 250

The array is (samples, leads) in millivolts; the number is its sampling rate in Hz.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genray.bundle import load_bundle
from monitors.alarms.limits import Limits
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from monitors.sources.base import EndOfSource
from monitors.sources.feed import Feed, FeedSettings
from monitors.sources.message import Chunk
from monitors.sources.pseudonyms import Pseudonyms

GAIN = 200.0  # units per mV


class ArraySource:
    """The contract of `monitors/sources/base.py`, for an array (samples, leads) in millivolts."""

    name = "array"
    left_out: Sequence[str] = ()

    def __init__(self, millivolts: np.ndarray, rate: int, begin: float) -> None:
        self._samples = (millivolts * GAIN).round().astype(np.int16)
        self._rate = rate
        self._begin = begin
        self._second = 0

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Continue where `snapshot` was."""
        self._second = resume["second"] if resume else 0

    async def next(self) -> list[Chunk]:
        """Return the next second, as fast as it is asked for."""
        samples = self._samples[self._second * self._rate : (self._second + 1) * self._rate]
        if not len(samples):
            raise EndOfSource
        leads = samples.shape[1]
        chunk = Chunk(
            stream="bed-7",
            sequence=self._second,
            start=self._begin + self._second,
            rate=float(self._rate),
            leads=tuple(f"lead {number + 1}" for number in range(leads)),
            gains=(GAIN,) * leads,
            samples=samples,
        )
        self._second += 1
        return [chunk]

    def snapshot(self) -> Mapping[str, Any]:
        """Return the place to continue from."""
        return {"second": self._second}

    async def close(self) -> None:
        """There is nothing to close."""


async def watch(bundle: Path, millivolts: np.ndarray, rate: int) -> None:
    """Print the heart rate every ten seconds, and each change of an alarm."""
    limits = Limits()
    model = BeatModel.from_bundle(load_bundle(bundle))
    ward = Ward(WardSettings(), model, lambda stream: limits)

    async def deliver(chunk: Chunk) -> None:
        ward.push(chunk, time.monotonic())
        output = ward.step(time.monotonic())
        for reading in output.readings:
            if int(reading.time) % 10 == 0:
                print(f"{reading.time:.0f}: heart rate {reading.heart_rate}")
        for change in output.transitions:
            print(f"{change.time:.0f}: {change.kind}, {change.priority} priority: {change.change}")

    source = ArraySource(millivolts, rate, time.time())
    pseudonyms = Pseudonyms(secrets.token_bytes(32))
    await Feed(source, deliver, lambda reason, count: print(reason, count), FeedSettings(), pseudonyms).run()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    asyncio.run(watch(Path(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3])))
