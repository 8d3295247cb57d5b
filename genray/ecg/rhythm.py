"""When a generated patient's heart beats, and what happens to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

EpisodeKind = Literal["pvc", "bradycardia", "tachycardia", "asystole", "lead-off", "noise", "gap"]

_RATES = {"bradycardia": 33.0, "tachycardia": 158.0}
_MAYER = 0.1  # Hz, waves of the blood pressure
_SHORTEST_WITH_ECTOPY = 0.5  # seconds between beats


@dataclass(frozen=True)
class Episode:
    """Something that happens to a patient.

    Attributes:
        kind: what.
        start: seconds after the patient's first sample.
        seconds: how long it lasts.
        share: of ventricular beats, for "pvc"; at most 0.5 (every other beat).
        leads: those that are off, for "lead-off"; none named: all.
    """

    kind: EpisodeKind
    start: float
    seconds: float
    share: float = 0.4
    leads: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """Seconds after the patient's first sample."""
        return self.start + self.seconds


@dataclass(frozen=True)
class Beat:
    """One beat.

    Attributes:
        time: of its R peak, seconds after the patient's first sample.
        symbol: N, V (ventricular) or S (supraventricular).
        interval: seconds since the beat before.
        strength: that all its waves are multiplied with: the breath turns the heart.
    """

    time: float
    symbol: str
    interval: float
    strength: float


class Rhythm:
    """The beats of one patient, in order and without end.

    Attributes:
        breath: breaths a second.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 0])
        self._rate = self._rng.uniform(56, 92)
        self.breath = self._rng.uniform(0.2, 0.33)
        self._with_breath, self._with_mayer = self._rng.uniform(0.01, 0.05, 2)
        self._phase = self._rng.uniform(0, 2 * math.pi)
        # Most people have few extra beats, some have many.
        self._ventricular = min(0.08, self._rng.exponential(0.012))
        self._supraventricular = min(0.06, self._rng.exponential(0.012))
        self._next = Beat(self._rng.uniform(0.1, 0.8), "N", 60 / self._rate, 1.0)
        self._pause = 0.0

    def until(self, time: float, episodes: Sequence[Episode]) -> list[Beat]:
        """The beats up to `time` that were not given yet; `episodes` are all up to a few seconds later."""
        beats = []
        while self._next.time < time:
            beats.append(self._next)
            self._next = self._after(self._next, episodes)
        return beats

    def _after(self, last: Beat, episodes: Sequence[Episode]) -> Beat:
        now = {episode.kind: episode for episode in episodes if episode.start <= last.time < episode.end}
        slow = 2 * math.pi * _MAYER * last.time + self._phase
        breath = math.sin(2 * math.pi * self.breath * last.time)
        jitter, coupling, which = (
            self._rng.normal(0, 0.008),
            self._rng.uniform(0.58, 0.72),
            self._rng.random(),
        )
        rate = next((_RATES[kind] for kind in now if kind in _RATES), self._rate)
        normal = 60 / rate * (1 + self._with_breath * breath + self._with_mayer * math.sin(slow) + jitter)
        interval, symbol = normal, "N"
        if last.symbol == "V":
            interval += self._pause  # as long as the extra beat was early
        elif normal > _SHORTEST_WITH_ECTOPY:
            share = min(max(self._ventricular, now["pvc"].share if "pvc" in now else 0), 0.5)
            which = self._rng.random()
            chance = share / (1 - share)  # an extra beat never follows another
            if which < chance:
                interval, symbol = coupling * normal, "V"
                self._pause = normal - interval
            elif which < chance + self._supraventricular:
                interval, symbol = (coupling + 0.08) * normal, "S"
        time = last.time + interval
        for episode in episodes:
            if episode.kind == "asystole" and episode.start <= time < episode.end:
                time, symbol = episode.end + normal / 2, "N"
        return Beat(time, symbol, interval, 1 + 0.06 * breath)
