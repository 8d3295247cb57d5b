"""Generated ECG: patients with a rhythm, ectopic beats, noise, and whatever a script lets happen to them.

The rhythm varies with the breath and with Mayer waves of 0.1 Hz, as in McSharry et al. (2003). The same seed
gives the same samples, however many are taken at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.heartbeat import Heart
from genray.ecg.records.wfdb_writer import write_wfdb
from genray.ecg.rhythm import Beat, Episode, EpisodeKind, Rhythm

__all__ = ["Episode", "EpisodeKind", "Generated", "Patient", "generate", "write_records"]

_BLOCK = 8.0  # seconds that are generated at once
_RAIL = 5.1  # mV at which a lead without its electrode stays
_MAINS = 50.0
_AHEAD = 4.0  # seconds after a block in which an episode may already matter to it
_ORDER: tuple[EpisodeKind, ...] = ("noise", "lead-off", "gap")  # the later hides the earlier


@dataclass(frozen=True)
class Generated:
    """A stretch of a generated ECG.

    Attributes:
        millivolts: (samples, leads), NaN where a sample is missing.
        peaks: sample of each R peak, counted from the first of `millivolts`; none where no lead shows it.
        symbols: of each beat: N, V or S.
    """

    millivolts: NDArray[np.float32]
    peaks: NDArray[np.int64]
    symbols: list[str]


class Patient:
    """A generated patient, whose samples never end.

    Args:
        seed: other numbers are other people.
        rate: samples a second.
        leads: of the standard twelve.
        script: episodes by increasing start; may be endless.

    Raises:
        ValueError: a lead that is not known.
    """

    def __init__(
        self,
        seed: int,
        rate: float = 360.0,
        leads: tuple[str, ...] = ("II", "V1"),
        script: Iterable[Episode] = (),
    ) -> None:
        self.rate, self.leads = rate, leads
        self._heart = Heart(seed, rate, leads)
        self._rhythm = Rhythm(seed)
        self._seed = seed
        self._script: Iterator[Episode] = iter(script)
        self._coming: Episode | None = next(self._script, None)
        self._episodes: list[Episode] = []
        self._late: list[Beat] = []
        self._size = round(_BLOCK * rate)
        self._blocks = 0
        self._tail = np.zeros((self._heart.length, len(leads)), np.float32)
        self._ready = Generated(np.empty((0, len(leads)), np.float32), np.empty(0, np.int64), [])
        rng = np.random.default_rng([seed, 2])
        self._waves = np.array([self._rhythm.breath, 0.07, 0.19, 0.31, _MAINS]) * rng.uniform(0.97, 1.03, 5)
        self._waves[-1] = _MAINS
        self._phases = rng.uniform(0, 2 * math.pi, 5)
        heights = np.array([0.06, 0.05, 0.03, 0.015, 0.006])[:, None]
        self._heights = (heights * rng.uniform(-1, 1, (5, len(leads)))).astype(np.float32)
        self._muscle = rng.uniform(0.006, 0.018)

    def next(self, samples: int) -> Generated:
        """The next `samples` of all leads."""
        parts = [self._ready]
        while sum(len(part.millivolts) for part in parts) < samples:
            parts.append(self._block())
        whole = _joined(parts)
        self._ready = _cut(whole, samples, len(whole.millivolts))
        return _cut(whole, 0, samples)

    def _block(self) -> Generated:
        first, rate = self._blocks * self._size, self.rate
        begin, end = first / rate, (first + self._size) / rate
        self._look_ahead(begin, end + _AHEAD)
        volts = np.zeros((self._size + self._heart.length, len(self.leads)), np.float32)
        volts[: self._heart.length] += self._tail
        beats = self._rhythm.until(end + self._heart.before / rate, self._episodes)
        for beat in beats:
            at = round(beat.time * rate) - first - self._heart.before
            shape = self._heart.beat(beat.symbol, beat.interval) * np.float32(beat.strength)
            volts[max(at, 0) : at + self._heart.length] += shape[max(-at, 0) :]
        self._tail = volts[self._size :].copy()
        volts = volts[: self._size]
        self._blocks += 1
        self._disturb(volts, first)
        return Generated(volts, *self._visible(beats, volts, first))

    def _look_ahead(self, begin: float, until: float) -> None:
        self._episodes = [episode for episode in self._episodes if episode.end > begin]
        while self._coming is not None and self._coming.start < until:
            self._episodes.append(self._coming)
            self._coming = next(self._script, None)

    def _disturb(self, volts: NDArray[np.float32], first: int) -> None:
        rng = np.random.default_rng([self._seed, 3, self._blocks])
        times = (first + np.arange(len(volts))) / self.rate
        sines = np.sin(2 * math.pi * times[:, None] * self._waves + self._phases).astype(np.float32)
        volts += sines @ self._heights
        volts += rng.standard_normal(volts.shape, np.float32) * np.float32(self._muscle)
        motion = [e for e in self._episodes if e.kind in _ORDER]
        for episode in sorted(motion, key=lambda e: _ORDER.index(e.kind)):
            part = volts[max(round(episode.start * self.rate) - first, 0) :][
                : max(round(episode.end * self.rate) - max(round(episode.start * self.rate), first), 0)
            ]
            if episode.kind == "noise":
                part += _motion(rng, len(part), len(self.leads), self.rate)
            elif episode.kind == "gap":
                part[:] = np.nan
            else:
                off = [n for n, lead in enumerate(self.leads) if not episode.leads or lead in episode.leads]
                part[:, off] = _RAIL

    def _visible(
        self, beats: list[Beat], volts: NDArray[np.float32], first: int
    ) -> tuple[NDArray[np.int64], list[str]]:
        peaks, symbols, late = [], [], []
        for beat in [*self._late, *beats]:
            at = round(beat.time * self.rate) - first
            if at >= len(volts):
                late.append(beat)
            elif (np.isfinite(volts[at]) & (volts[at] != np.float32(_RAIL))).any():
                peaks.append(at)
                symbols.append(beat.symbol)
        self._late = late
        return np.array(peaks, np.int64), symbols


def generate(
    seconds: float,
    rate: float = 360.0,
    leads: tuple[str, ...] = ("II", "V1"),
    *,
    seed: int = 0,
    script: Iterable[Episode] = (),
) -> Generated:
    """The first `seconds` of a `Patient`."""
    return Patient(seed, rate, leads, script).next(round(seconds * rate))


def write_records(
    folder: Path,
    count: int = 8,
    seconds: float = 300.0,
    *,
    seed: int = 0,
    rate: float = 360.0,
    leads: tuple[str, ...] = ("II", "V1"),
) -> list[Path]:
    """Write WFDB records of `count` patients with their beats as annotations: mostly normal ones, in the
    last third of every second patient many ventricular ones.

    Returns:
        Their headers.

    Raises:
        StorageFull: there was no room.
    """
    headers = []
    for number in range(count):
        script = [Episode("pvc", seconds * 2 / 3, seconds / 3, share=0.3)] if number % 2 else []
        made = generate(seconds, rate, leads, seed=seed * 1_000_003 + number, script=script)
        path = folder / f"patient-{number + 1:03d}.hea"
        write_wfdb(path, made.millivolts, rate, leads, made.peaks, made.symbols)
        headers.append(path)
    return headers


def _motion(rng: np.random.Generator, samples: int, leads: int, rate: float) -> NDArray[np.float32]:
    """What a moving electrode adds, (samples, leads) in mV: as fast and as high as QRS complexes."""
    knots = rng.normal(0, 1.2, (int(samples / rate * 24) + 2, leads))
    at = np.arange(samples) * (24 / rate)
    columns = [np.interp(at, np.arange(len(knots)), knots[:, lead]) for lead in range(leads)]
    return (np.stack(columns, axis=1) + rng.normal(0, 0.25, (samples, leads))).astype(np.float32)


def _joined(parts: list[Generated]) -> Generated:
    before = np.cumsum([0, *(len(part.millivolts) for part in parts)])
    return Generated(
        np.concatenate([part.millivolts for part in parts]),
        np.concatenate([part.peaks + at for part, at in zip(parts, before, strict=False)]),
        [symbol for part in parts for symbol in part.symbols],
    )


def _cut(whole: Generated, start: int, stop: int) -> Generated:
    first, last = np.searchsorted(whole.peaks, [start, stop])
    return Generated(whole.millivolts[start:stop], whole.peaks[first:last] - start, whole.symbols[first:last])
