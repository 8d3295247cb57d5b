"""Generated patients at a ward: their chunks go in, and all that comes out is gathered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.ecg.synthesis import GeneratedEcg
from monitors.alarms.events import AlarmKind, Transition
from monitors.patient.bed import Round
from monitors.patient.reference import ReferenceSettings
from monitors.patient.scoring import Scorer
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


class Watch:
    """A ward whose clock is that of its samples: what is pushed has just arrived."""

    def __init__(self, ward: Ward) -> None:
        self.ward, self.all = ward, Round()
        self.now = 0.0
        self.beats: dict[str, list[dict[str, Any]]] = {}

    def feed(self, *streams: Iterator[Chunk]) -> Round:
        """Push the next chunk of each of `streams`, look, and so on until they end."""
        rest = list(streams)
        while rest:
            for each in list(rest):
                chunk = next(each, None)
                if chunk is None:
                    rest.remove(each)
                    continue
                self.now = max(self.now, chunk.end - START)
                assert self.ward.push(replace(chunk, received=self.now), self.now)
            self.step()
        return self.all

    def step(self) -> Round:
        """Look until nothing waits."""
        while (made := self.ward.step(self.now)).readings or made.faults:
            self._gather(made)
        return made

    def pass_time(self, seconds: float) -> None:
        """So long nothing comes."""
        for _ in range(round(seconds)):
            self.now += 1
            self._gather(self.ward.tick(self.now))

    def changes(self, kind: AlarmKind | None = None, stream: str | None = None) -> list[Transition]:
        """Changes of alarms of a kind."""
        return [t for t in self.all.transitions if kind in (None, t.kind) and stream in (None, t.stream)]

    def _gather(self, made: Round) -> None:
        mine: Mapping[str, Any] = vars(self.all)
        for name in ("readings", "transitions", "traces", "scores", "delays", "discharged"):
            mine[name].extend(getattr(made, name))
        for stream, beats in made.beats.items():
            self.beats.setdefault(stream, []).extend(beats)
        self.all.references.update(made.references)
        self.all.faults.update(made.faults)
        self.all.behind = max(self.all.behind, made.behind)


def hits(found: NDArray[np.floating], truth: NDArray[np.floating], tolerance: float) -> tuple[int, int, int]:
    """Of two sorted lists of times: found that are true, missed, and invented."""
    near = (
        np.abs(found[:, None] - truth[None]) <= tolerance if len(found) and len(truth) else np.zeros((0, 0))
    )
    both = int(near.any(axis=0).sum()) if near.size else 0
    return both, len(truth) - both, len(found) - (int(near.any(axis=1).sum()) if near.size else 0)


def times_of(made: GeneratedEcg, symbols: str = "NVS") -> NDArray[np.float64]:
    """Seconds of the beats of `symbols`."""
    keep = [symbol in symbols for symbol in made.symbols]
    return made.peaks[keep] / 360.0


def watch(scorer: Scorer, **more: float) -> Watch:
    """An empty ward, with `more` settings."""
    return Watch(Ward(settings(**more), scorer))


def seconds(beats: list[dict[str, Any]]) -> NDArray[np.float64]:
    """When beats of a watched stream were, counted from `START`."""
    return np.array([beat["time"] for beat in beats]) - START
