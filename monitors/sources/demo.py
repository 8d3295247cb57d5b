"""Demo source: generated patients with alarms of every kind, to try the monitor without a hospital."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from genray.ecg.synthesis import Episode, EpisodeKind, Patient
from genray.settings.base import Settings
from monitors.sources.message import MISSING, Chunk
from monitors.sources.pace import ChunkPlace, Pace

LEADS = ("II", "V1")
RATE = 360.0
_GAIN = 1000.0
_CHUNK = 1.0  # seconds

# First episodes, which need no reference; bed 1 gets the first row, bed 2 the second, and so on.
_FIRST: tuple[tuple[Episode, ...], ...] = (
    (Episode("asystole", 20, 9), Episode("noise", 90, 15)),
    (Episode("tachycardia", 15, 30), Episode("gap", 100, 6)),
    (Episode("lead-off", 20, 15, leads=("V1",)), Episode("lead-off", 80, 12)),
    (Episode("gap", 15, 5), Episode("bradycardia", 35, 30)),
)


class _Odds(NamedTuple):
    """Weight of a kind among all, and the range of its duration in seconds."""

    weight: float
    shortest: float
    longest: float


_LATER: dict[EpisodeKind, _Odds] = {
    "pvc": _Odds(0.4, 30, 90),
    "tachycardia": _Odds(0.12, 20, 60),
    "bradycardia": _Odds(0.12, 20, 60),
    "asystole": _Odds(0.08, 6, 12),
    "lead-off": _Odds(0.1, 10, 40),
    "noise": _Odds(0.1, 10, 40),
    "gap": _Odds(0.08, 2, 10),
}


class DemoSettings(Settings):
    """Settings of generated patients."""

    kind: Literal["demo"] = Field("demo", description="generated patients with alarms of every kind")
    beds: int = Field(4, ge=1, le=1000, description="number of generated patients")
    speed: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="seconds of samples sent per second (0: as fast as they are analysed)",
    )
    seed: int = Field(
        0, ge=0, le=2**31, description="seed of the generator (another seed gives other patients)"
    )
    calm_seconds: float = Field(
        360.0,
        ge=120,
        le=7200,
        description="seconds before frequent ventricular beats start: as long as references are learned",
    )
    start: float | None = Field(
        None, ge=0, le=4e9, description="unix time in seconds of the first sample (null: now)"
    )


class DemoSource:
    """Generates the streams `bed-1` to `bed-n` without end. Reopened, it starts again: it has no place."""

    name = "demo"
    left_out: Sequence[str] = ()

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._generation: _Generation | None = None

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Create the patients."""
        settings = self._settings
        seed = settings.seed * 1009
        self._generation = _Generation(
            patients=[
                Patient(seed + bed, RATE, LEADS, script(seed + bed, bed, settings.calm_seconds))
                for bed in range(settings.beds)
            ],
            start=time.time() if settings.start is None else settings.start,
            pace=Pace.begin(settings.beds, _CHUNK, settings.speed),
        )

    async def next(self) -> list[Chunk]:
        """Wait until chunks are due, and return them."""
        generation = self._generation
        assert generation is not None
        places = await generation.pace.due()
        generation.pace.advance(len(places))
        return [generation.chunk(place) for place in places]

    def snapshot(self) -> Mapping[str, Any]:
        """Return an empty place: generated samples cannot be repeated."""
        return {}

    async def close(self) -> None:
        """Delete the patients."""
        self._generation = None


@dataclass(frozen=True)
class _Generation:
    """Patients of an open source, and the pace at which their chunks are due."""

    patients: list[Patient]
    start: float
    pace: Pace

    def chunk(self, place: ChunkPlace) -> Chunk:
        volts = self.patients[place.stream].next(round(_CHUNK * RATE)).millivolts
        units = np.clip(np.rint(np.nan_to_num(volts) * _GAIN), MISSING + 1, -MISSING - 1)
        return Chunk(
            stream=f"bed-{place.stream + 1}",
            sequence=place.chunk,
            start=self.start + place.chunk * _CHUNK,
            rate=RATE,
            leads=LEADS,
            gains=(_GAIN,) * len(LEADS),
            samples=np.where(np.isfinite(volts), units, MISSING).astype(np.int16),
        )


def script(seed: int, bed: int, calm: float) -> Iterator[Episode]:
    """Yield the episodes of a bed without end: one within the first minute, frequent ventricular beats after
    `calm` seconds, then random ones with pauses between them."""
    rng = np.random.default_rng([seed, 4])
    yield from _FIRST[bed % len(_FIRST)]
    at = calm + 20 * (bed % len(_FIRST))
    yield Episode("pvc", at, 60, share=0.45)
    at += 60
    kinds = list(_LATER)
    weights = np.array([_LATER[kind].weight for kind in kinds])
    while True:
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        at += float(rng.uniform(40, 150))
        seconds = float(rng.uniform(_LATER[kind].shortest, _LATER[kind].longest))
        off = LEADS[: int(rng.integers(0, len(LEADS)))]
        yield Episode(kind, at, seconds, share=float(rng.uniform(0.3, 0.5)), leads=off)
        at += seconds
