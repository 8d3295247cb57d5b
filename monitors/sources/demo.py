"""Generated patients to whom things happen, for seeing the monitor at work without a hospital."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genray.ecg.synthesis import Episode, EpisodeKind, Patient
from genray.settings.base import Settings
from monitors.sources.message import MISSING, Chunk
from monitors.sources.pace import Pace

LEADS = ("II", "V1")
RATE = 360.0
_GAIN = 1000.0
_CHUNK = 1.0  # seconds

# What happens at first, of which nothing needs a reference: beds take turns.
_FIRST: tuple[tuple[Episode, ...], ...] = (
    (Episode("asystole", 20, 9), Episode("noise", 90, 15)),
    (Episode("tachycardia", 15, 30), Episode("gap", 100, 6)),
    (Episode("lead-off", 20, 15, leads=("V1",)), Episode("lead-off", 80, 12)),
    (Episode("gap", 15, 5), Episode("bradycardia", 35, 30)),
)
_LATER: dict[EpisodeKind, tuple[float, float, float]] = {  # weight; shortest and longest, seconds
    "pvc": (0.4, 30, 90),
    "tachycardia": (0.12, 20, 60),
    "bradycardia": (0.12, 20, 60),
    "asystole": (0.08, 6, 12),
    "lead-off": (0.1, 10, 40),
    "noise": (0.1, 10, 40),
    "gap": (0.08, 2, 10),
}


class DemoSettings(Settings):
    """Settings of generated patients."""

    kind: Literal["demo"] = Field("demo", description="generated patients with a bit of everything")
    beds: int = Field(4, ge=1, le=1000, description="patients")
    speed: float = Field(
        1.0, ge=0, le=10_000, description="seconds of samples in a second; 0: as fast as they are taken"
    )
    seed: int = Field(0, ge=0, le=2**31, description="other numbers are other patients")
    calm_seconds: float = Field(
        360.0,
        ge=120,
        le=7200,
        description="before many ventricular beats come: as long as references are learned",
    )
    start: float | None = Field(
        None, ge=0, le=4e9, description="unix time of the first sample; null: when it is opened"
    )


class DemoSource:
    """Streams `bed-1` to `bed-n`, for ever. Opened again, it begins again: there is nothing to resume."""

    name = "demo"
    left_out: Sequence[str] = ()

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._beds: list[Patient] = []
        self._pace = Pace(1, _CHUNK, 0)
        self._start = 0.0

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Make the patients."""
        seed, calm = self._settings.seed * 1009, self._settings.calm_seconds
        self._beds = [
            Patient(seed + bed, RATE, LEADS, script(seed + bed, bed, calm))
            for bed in range(self._settings.beds)
        ]
        self._start = time.time() if self._settings.start is None else self._settings.start
        self._pace = Pace(len(self._beds), _CHUNK, self._settings.speed)

    async def next(self) -> list[Chunk]:
        """The chunks that are due."""
        places = await self._pace.due()
        self._pace.passed(len(places))
        return [self._chunk(number, bed) for number, bed in places]

    def snapshot(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    async def close(self) -> None:
        """Let go of the patients."""
        self._beds = []

    def _chunk(self, number: int, bed: int) -> Chunk:
        volts = self._beds[bed].next(round(_CHUNK * RATE)).millivolts
        units = np.clip(np.rint(np.nan_to_num(volts) * _GAIN), MISSING + 1, -MISSING - 1)
        return Chunk(
            stream=f"bed-{bed + 1}",
            sequence=number,
            start=self._start + number * _CHUNK,
            rate=RATE,
            leads=LEADS,
            gains=(_GAIN,) * len(LEADS),
            samples=np.where(np.isfinite(volts), units, MISSING).astype(np.int16),
        )


def script(seed: int, bed: int, calm: float) -> Iterator[Episode]:
    """What happens in a bed, without end: something within the first minute, many ventricular beats after
    `calm` seconds, then anything, with rest between."""
    rng = np.random.default_rng([seed, 4])
    yield from _FIRST[bed % len(_FIRST)]
    at = calm + 20 * (bed % len(_FIRST))
    yield Episode("pvc", at, 60, share=0.45)
    at += 60
    kinds = list(_LATER)
    weights = np.array([_LATER[kind][0] for kind in kinds])
    while True:
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        _, shortest, longest = _LATER[kind]
        at += float(rng.uniform(40, 150))
        seconds = float(rng.uniform(shortest, longest))
        off = LEADS[: int(rng.integers(0, len(LEADS)))]
        yield Episode(kind, at, seconds, share=float(rng.uniform(0.3, 0.5)), leads=off)
        at += seconds
