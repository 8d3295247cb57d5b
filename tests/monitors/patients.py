"""Generated patients at a ward: their chunks go in, and all that comes out is gathered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.ecg.synthesis import GeneratedEcg, Heart
from monitors.alarms.events import AlarmKind, Transition
from monitors.patient.output import ScoredBeat, WardOutput
from monitors.patient.reference import ReferenceSettings
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from monitors.sources.message import MISSING, Chunk

START = 1_700_000_000.0
GAIN = 1000.0


def settings(**more: Any) -> WardSettings:
    """A ward that learns in half a minute, so that tests are short."""
    return WardSettings(reference=ReferenceSettings(minutes=0.5, beats=10), **more)


def chunks(
    stream: str,
    millivolts: NDArray[np.floating],
    rate: float = 360.0,
    leads: tuple[str, ...] = ("II", "V1"),
    *,
    sizes: tuple[float, ...] = (1.0,),
    start: float = START,
    sequence: int = 0,
) -> Iterator[Chunk]:
    """`millivolts` (samples, leads) as messages of `sizes` seconds in turn; NaN becomes MISSING."""
    units = np.clip(np.rint(np.nan_to_num(millivolts) * GAIN), -32767, 32767)
    units = np.where(np.isfinite(millivolts), units, MISSING).astype(np.int16)
    at = number = 0
    while at < len(units):
        count = max(1, round(sizes[number % len(sizes)] * rate))
        yield Chunk(
            stream=stream,
            sequence=sequence + number,
            start=start + at / rate,
            rate=rate,
            leads=leads,
            gains=(GAIN,) * len(leads),
            samples=units[at : at + count],
        )
        at, number = at + count, number + 1


def rhythm_of(
    length: float,
    rate: float,
    seed: int,
    heart_rate: Callable[[float], float],
    symbol: Callable[[float], str] = lambda time: "N",
) -> NDArray[np.float32]:
    """`length` seconds of II and V1 (samples, leads) of a regular rhythm: the heart rate (beats/min) and the
    symbol of a beat are functions of its time."""
    rng = np.random.default_rng([seed, 9])
    heart = Heart(seed, rate, ("II", "V1"))
    volts = rng.normal(0, 0.012, (round(length * rate) + heart.length, 2)).astype(np.float32)
    breath = rng.uniform(0.01, 0.04)
    time, interval = 0.5, 0.8
    while time < length:
        at = round(time * rate) - heart.before
        if at >= 0:
            volts[at : at + heart.length] += heart.beat(symbol(time), interval)
        interval = 60 / heart_rate(time) * (1 + breath * math.sin(1.6 * time) + rng.normal(0, 0.008))
        time += interval
    return volts[: round(length * rate)]


class LiveWard:
    """A ward whose clock is that of its samples: what is pushed has just arrived.

    Attributes:
        output: all that came out of it.
    """

    def __init__(self, ward: Ward) -> None:
        self.ward = ward
        self.output = WardOutput()
        self.now = 0.0

    def feed(self, *streams: Iterator[Chunk]) -> WardOutput:
        """Push the next chunk of each of `streams`, look, and so on until they end."""
        rest = list(streams)
        while rest:
            for stream in list(rest):
                chunk = next(stream, None)
                if chunk is None:
                    rest.remove(stream)
                    continue
                self.now = max(self.now, chunk.end - START)
                assert self.ward.push(replace(chunk, received=self.now), self.now)
            self.step()
        return self.output

    def step(self) -> WardOutput:
        """Look until nothing waits."""
        while (output := self.ward.step(self.now)).readings or output.faults:
            self.output.extend(output)
        return output

    def pass_time(self, seconds: float) -> None:
        """So long nothing comes."""
        for _ in range(round(seconds)):
            self.now += 1
            self.output.extend(self.ward.tick(self.now))

    def changes(self, kind: AlarmKind | None = None, stream: str | None = None) -> list[Transition]:
        """Changes of alarms of a kind, of a stream."""
        return [t for t in self.output.transitions if kind in (None, t.kind) and stream in (None, t.stream)]


def hits(found: NDArray[np.floating], truth: NDArray[np.floating], tolerance: float) -> tuple[int, int, int]:
    """Of two sorted arrays of times, detected and true: how many are both, missed, and invented."""
    near = (
        np.abs(found[:, None] - truth[None]) <= tolerance if len(found) and len(truth) else np.zeros((0, 0))
    )
    both = int(near.any(axis=0).sum()) if near.size else 0
    return both, len(truth) - both, len(found) - (int(near.any(axis=1).sum()) if near.size else 0)


def times_of(ecg: GeneratedEcg, symbols: str = "NVS") -> NDArray[np.float64]:
    """Seconds of the beats of `symbols`."""
    keep = [symbol in symbols for symbol in ecg.symbols]
    return ecg.peaks[keep] / 360.0


def live_ward(beat_model: BeatModel, *, watched: Iterable[str] = (), **more: float) -> LiveWard:
    """An empty ward with `more` settings, that gives traces and beats of the streams `watched`."""
    ward = Ward(settings(**more), beat_model)
    ward.watched = frozenset(watched)
    return LiveWard(ward)


def seconds(beats: list[ScoredBeat]) -> NDArray[np.float64]:
    """When beats of a watched stream were, counted from `START`."""
    return np.array([beat.time for beat in beats]) - START
