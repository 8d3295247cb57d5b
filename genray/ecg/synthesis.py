"""Synthetic ECG: patients with a rhythm, ectopic beats, noise, and the episodes of a script.

A patient has a rhythm (times of beats), a heart (shape of a beat in each lead) and disturbances of the
recording. The rhythm varies with breathing and with Mayer waves of 0.1 Hz, and each wave of a beat is a
Gaussian in time, as in McSharry, Clifford, Tarassenko and Smith (2003), "A dynamical model for generating
synthetic electrocardiogram signals". The height of a wave is a vector, as in the dipole model of Sameni et
al. (2007), of which each lead sees the projection on its own direction, so that leads are consistent.

The same seed gives the same samples, however many are taken at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.wfdb import write_wfdb

__all__ = ["Episode", "EpisodeKind", "GeneratedEcg", "Patient", "generate", "write_records"]

Array = NDArray[np.float32]
EpisodeKind = Literal["pvc", "bradycardia", "tachycardia", "asystole", "lead-off", "noise", "gap"]

_BLOCK = 8.0  # seconds that are generated at once
_AHEAD = 4.0  # seconds after a block within which an episode may affect it
_RAIL = 5.1  # mV of a lead whose electrode is off
_MAINS = 50.0
_DISTURBANCES: tuple[EpisodeKind, ...] = ("noise", "lead-off", "gap")  # the later hides the earlier

_RATES = {"bradycardia": 33.0, "tachycardia": 158.0}
_MAYER = 0.1  # Hz, Mayer waves of the blood pressure
_SHORTEST_WITH_ECTOPY = 0.5  # seconds between beats

_BEFORE, _AFTER = 0.35, 0.75  # seconds of a beat before and after its R peak
_STEP = 0.06  # seconds to which RR intervals are rounded, as shapes are cached by them
_LIMB = {"I": (0.632, -0.235, 0.059), "II": (0.235, 1.066, -0.132)}
_CHEST = {
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}


@dataclass(frozen=True)
class Episode:
    """An event of a patient or of the recording.

    Attributes:
        kind: kind of the event.
        start: seconds after the patient's first sample.
        seconds: duration.
        share: share of ventricular beats for "pvc", 0 to 0.5 (every other beat).
        leads: leads that are off for "lead-off"; empty: all.
    """

    kind: EpisodeKind
    start: float
    seconds: float
    share: float = 0.4
    leads: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """End in seconds after the patient's first sample."""
        return self.start + self.seconds


@dataclass(frozen=True)
class GeneratedEcg:
    """A section of a synthetic ECG.

    Attributes:
        millivolts: (samples, leads) in mV, NaN where a sample is missing.
        peaks: (beats,) sample indices of the R peaks that are visible in at least one lead.
        symbols: symbol of each beat: N, V or S.
    """

    millivolts: Array
    peaks: NDArray[np.int64]
    symbols: list[str]


class Patient:
    """Synthetic patient, who generates samples without end.

    Args:
        seed: seed of the patient; another seed gives another patient.
        rate: sampling rate, Hz.
        leads: leads of the standard twelve, or MLII.
        script: episodes by increasing start; may be endless.

    Raises:
        ValueError: unknown lead.
    """

    def __init__(
        self,
        seed: int,
        rate: float = 360.0,
        leads: tuple[str, ...] = ("II", "V1"),
        script: Iterable[Episode] = (),
    ) -> None:
        self.rate = rate
        self.leads = leads
        self._heart = Heart(seed, rate, leads)
        self._rhythm = RhythmGenerator(seed)
        self._seed = seed
        self._script: Iterator[Episode] = iter(script)
        self._next_episode: Episode | None = next(self._script, None)
        self._episodes: list[Episode] = []
        self._late_beats: list[Beat] = []
        self._size = round(_BLOCK * rate)
        self._blocks = 0
        self._tail = np.zeros((self._heart.length, len(leads)), np.float32)
        self._ready = GeneratedEcg(np.empty((0, len(leads)), np.float32), np.empty(0, np.int64), [])
        rng = np.random.default_rng([seed, 2])
        self._waves = np.array([self._rhythm.breath, 0.07, 0.19, 0.31, _MAINS]) * rng.uniform(0.97, 1.03, 5)
        self._waves[-1] = _MAINS
        self._phases = rng.uniform(0, 2 * math.pi, 5)
        heights = np.array([0.06, 0.05, 0.03, 0.015, 0.006])[:, None]
        self._heights = (heights * rng.uniform(-1, 1, (5, len(leads)))).astype(np.float32)
        self._muscle = rng.uniform(0.006, 0.018)

    def next(self, samples: int) -> GeneratedEcg:
        """Generate the next `samples` of all leads."""
        parts = [self._ready]
        while sum(len(part.millivolts) for part in parts) < samples:
            parts.append(self._next_block())
        whole = _join(parts)
        self._ready = _cut(whole, samples, len(whole.millivolts))
        return _cut(whole, 0, samples)

    def _next_block(self) -> GeneratedEcg:
        rate = self.rate
        first = self._blocks * self._size
        end = (first + self._size) / rate
        self._look_ahead(first / rate, end + _AHEAD)
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
        visible = self._visible(beats, volts, first)
        peaks = np.array([round(beat.time * rate) - first for beat in visible], np.int64)
        return GeneratedEcg(volts, peaks, [beat.symbol for beat in visible])

    def _look_ahead(self, begin: float, until: float) -> None:
        self._episodes = [episode for episode in self._episodes if episode.end > begin]
        while self._next_episode is not None and self._next_episode.start < until:
            self._episodes.append(self._next_episode)
            self._next_episode = next(self._script, None)

    def _disturb(self, volts: Array, first: int) -> None:
        """Add baseline wander, mains, muscle noise and the episodes of disturbance to a block, in place."""
        rng = np.random.default_rng([self._seed, 3, self._blocks])
        times = (first + np.arange(len(volts))) / self.rate
        sines = np.sin(2 * math.pi * times[:, None] * self._waves + self._phases).astype(np.float32)
        volts += sines @ self._heights
        volts += rng.standard_normal(volts.shape, np.float32) * np.float32(self._muscle)
        disturbances = [e for e in self._episodes if e.kind in _DISTURBANCES]
        for episode in sorted(disturbances, key=lambda e: _DISTURBANCES.index(e.kind)):
            start = max(round(episode.start * self.rate) - first, 0)
            part = volts[start : max(round(episode.end * self.rate) - first, start)]
            if episode.kind == "noise":
                part += _motion(rng, len(part), len(self.leads), self.rate)
            elif episode.kind == "gap":
                part[:] = np.nan
            else:
                off = [n for n, lead in enumerate(self.leads) if not episode.leads or lead in episode.leads]
                part[:, off] = _RAIL

    def _visible(self, beats: list[Beat], volts: Array, first: int) -> list[Beat]:
        """Return the beats whose R peak lies in a block and is visible in a lead; later ones are stored."""
        visible: list[Beat] = []
        late: list[Beat] = []
        for beat in [*self._late_beats, *beats]:
            at = round(beat.time * self.rate) - first
            if at >= len(volts):
                late.append(beat)
            elif (np.isfinite(volts[at]) & (volts[at] != np.float32(_RAIL))).any():
                visible.append(beat)
        self._late_beats = late
        return visible


def generate(
    seconds: float,
    rate: float = 360.0,
    leads: tuple[str, ...] = ("II", "V1"),
    *,
    seed: int = 0,
    script: Iterable[Episode] = (),
) -> GeneratedEcg:
    """Generate the first `seconds` of a `Patient`; `rate` in Hz."""
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
    """Write WFDB records of `count` patients with beat annotations: mostly normal beats, in the last third of
    every second record many ventricular ones.

    Returns:
        Paths of the header files.

    Raises:
        StorageFull: the disk is full.
    """
    headers = []
    for number in range(count):
        script = [Episode("pvc", seconds * 2 / 3, seconds / 3, share=0.3)] if number % 2 else []
        ecg = generate(seconds, rate, leads, seed=seed * 1_000_003 + number, script=script)
        path = folder / f"patient-{number + 1:03d}.hea"
        write_wfdb(path, ecg.millivolts, rate, leads, ecg.peaks, ecg.symbols)
        headers.append(path)
    return headers


@dataclass(frozen=True)
class Beat:
    """One beat.

    Attributes:
        time: time of its R peak, seconds after the patient's first sample.
        symbol: N (normal), V (ventricular) or S (supraventricular).
        interval: seconds since the beat before.
        strength: factor of all of its waves, as breathing turns the heart.
    """

    time: float
    symbol: str
    interval: float
    strength: float


class RhythmGenerator:
    """Generates the beats of one patient, in order and without end.

    Attributes:
        breath: breaths per second.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 0])
        self._rate = self._rng.uniform(56, 92)
        self.breath = self._rng.uniform(0.2, 0.33)
        self._with_breath, self._with_mayer = self._rng.uniform(0.01, 0.05, 2)
        self._phase = self._rng.uniform(0, 2 * math.pi)
        # Most people have few ectopic beats, some have many.
        self._ventricular = min(0.08, self._rng.exponential(0.012))
        self._supraventricular = min(0.06, self._rng.exponential(0.012))
        self._next = Beat(self._rng.uniform(0.1, 0.8), "N", 60 / self._rate, 1.0)
        self._pause = 0.0

    def until(self, time: float, episodes: Sequence[Episode]) -> list[Beat]:
        """Return the beats up to `time` that were not returned yet; `episodes` must reach a few seconds
        further."""
        beats = []
        while self._next.time < time:
            beats.append(self._next)
            self._next = self._beat_after(self._next, episodes)
        return beats

    def _beat_after(self, last: Beat, episodes: Sequence[Episode]) -> Beat:
        current = {episode.kind: episode for episode in episodes if episode.start <= last.time < episode.end}
        slow = 2 * math.pi * _MAYER * last.time + self._phase
        breath = math.sin(2 * math.pi * self.breath * last.time)
        jitter = self._rng.normal(0, 0.008)
        coupling = self._rng.uniform(0.58, 0.72)
        self._rng.random()  # unused; without it every seed would give another patient than before
        rate = next((_RATES[kind] for kind in current if kind in _RATES), self._rate)
        normal = 60 / rate * (1 + self._with_breath * breath + self._with_mayer * math.sin(slow) + jitter)
        interval = normal
        symbol = "N"
        if last.symbol == "V":
            interval += self._pause  # compensatory pause: as long as the ectopic beat was early
        elif normal > _SHORTEST_WITH_ECTOPY:
            share = min(max(self._ventricular, current["pvc"].share if "pvc" in current else 0), 0.5)
            draw = self._rng.random()
            chance = share / (1 - share)  # an ectopic beat never follows another
            if draw < chance:
                interval = coupling * normal
                symbol = "V"
                self._pause = normal - interval
            elif draw < chance + self._supraventricular:
                interval = (coupling + 0.08) * normal
                symbol = "S"
        time = last.time + interval
        for episode in episodes:
            if episode.kind == "asystole" and episode.start <= time < episode.end:
                time = episode.end + normal / 2
                symbol = "N"
        return Beat(time, symbol, interval, 1 + 0.06 * breath)


@dataclass(frozen=True)
class _Wave:
    at: float  # seconds after the R peak; for a wave that follows the rhythm, at an RR interval of 1 s
    width: float  # standard deviation, seconds
    height: tuple[float, float, float]  # mV to the left, down and back
    follows: bool = False  # whether it is later in slower rhythms


_NORMAL = (
    _Wave(-0.165, 0.022, (0.07, 0.11, -0.02)),
    _Wave(-0.032, 0.009, (-0.08, -0.05, -0.12)),
    _Wave(0.000, 0.011, (0.85, 0.85, 0.15)),
    _Wave(0.030, 0.012, (-0.12, -0.08, 0.45)),
    _Wave(0.230, 0.060, (0.08, 0.08, -0.06), follows=True),
    _Wave(0.285, 0.038, (0.14, 0.15, -0.12), follows=True),
)
_VENTRICULAR = (
    _Wave(-0.040, 0.028, (0.30, 0.35, 0.20)),
    _Wave(0.000, 0.030, (1.00, 1.00, 0.50)),
    _Wave(0.075, 0.030, (-0.35, -0.30, -0.30)),
    _Wave(0.310, 0.060, (-0.40, -0.40, -0.20), follows=True),
)


class Heart:
    """Generates the shapes of one patient's beats, from waves with random heights, widths and directions.

    Args:
        seed: seed of the patient.
        rate: sampling rate, Hz.
        leads: leads of the standard twelve, or MLII.
    """

    def __init__(self, seed: int, rate: float, leads: tuple[str, ...]) -> None:
        rng = np.random.default_rng([seed, 1])
        self._vectors = _lead_vectors(leads)
        self._rate = rate
        size = rng.uniform(0.75, 1.3)
        normal = [_vary(wave, rng, size, 0.15) for wave in _NORMAL]
        focus = _draw_focus(rng)
        ectopic = [_vary(wave, rng, 1.2 * size, 0.1, focus) for wave in _VENTRICULAR]
        early = _Wave(normal[0].at + 0.03, 0.018, (-0.05, -0.09, 0.02))
        self._waves = {"N": normal, "V": ectopic, "S": [early, *normal[1:]]}
        self._shapes: dict[tuple[str, int], Array] = {}
        self.before = round(_BEFORE * rate)
        self.length = self.before + round(_AFTER * rate)

    def beat(self, symbol: str, interval: float) -> Array:
        """Return a beat (samples, leads) in mV with its R peak at sample `before`, for an RR interval in
        seconds before it."""
        key = symbol, round(min(max(interval, 0.3), 1.5) / _STEP)
        if key not in self._shapes:
            self._shapes[key] = self._shape(symbol, key[1] * _STEP)
        return self._shapes[key]

    def _shape(self, symbol: str, interval: float) -> Array:
        times = (np.arange(self.length) - self.before) / self._rate
        shape = np.zeros((self.length, 3))
        later = interval**0.5  # the QT interval, by Bazett
        for wave in self._waves[symbol]:
            at, width = (wave.at * later, wave.width * later) if wave.follows else (wave.at, wave.width)
            shape += np.exp(-(((times - at) / width) ** 2) / 2)[:, None] * wave.height
        return (shape @ self._vectors).astype(np.float32)


def _lead_vectors(leads: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the projection of a dipole (left, down, back) on each lead, (3, leads): Dower et al., 1980.

    Raises:
        ValueError: a lead that is not one of the standard twelve or MLII, which equals II here.
    """
    one = np.array(_LIMB["I"])
    two = np.array(_LIMB["II"])
    vectors = {name: np.array(vector) for name, vector in (_LIMB | _CHEST).items()}
    vectors |= {
        "MLII": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }
    if unknown := set(leads) - set(vectors):
        raise ValueError(
            f"cannot generate the leads {', '.join(sorted(unknown))}; known leads are {', '.join(vectors)}"
        )
    return np.stack([vectors[lead] for lead in leads], axis=1)


def _draw_focus(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random rotation for ventricular beats, with which they are clearly visible in lead II, as most
    are."""
    main = np.array(_VENTRICULAR[1].height)
    while True:
        turned: NDArray[np.float64] = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        if abs(turned @ main @ _LIMB["II"]) > 0.7 * np.linalg.norm(main):
            return turned


def _vary(
    wave: _Wave,
    rng: np.random.Generator,
    size: float,
    spread: float,
    turned: NDArray[np.float64] | None = None,
) -> _Wave:
    height = size * np.array(wave.height) * rng.normal(1, spread, 3)
    if turned is not None:
        height = turned @ height
    x, y, z = height.tolist()
    at = wave.at * rng.normal(1, 0.06)
    return _Wave(at, wave.width * rng.uniform(0.85, 1.2), (x, y, z), wave.follows)


def _motion(rng: np.random.Generator, samples: int, leads: int, rate: float) -> Array:
    """Return motion artefacts (samples, leads) in mV, as fast and as high as QRS complexes."""
    knots = rng.normal(0, 1.2, (int(samples / rate * 24) + 2, leads))
    at = np.arange(samples) * (24 / rate)
    columns = [np.interp(at, np.arange(len(knots)), knots[:, lead]) for lead in range(leads)]
    return (np.stack(columns, axis=1) + rng.normal(0, 0.25, (samples, leads))).astype(np.float32)


def _join(parts: list[GeneratedEcg]) -> GeneratedEcg:
    before = np.cumsum([0, *(len(part.millivolts) for part in parts)])
    return GeneratedEcg(
        np.concatenate([part.millivolts for part in parts]),
        np.concatenate([part.peaks + at for part, at in zip(parts, before, strict=False)]),
        [symbol for part in parts for symbol in part.symbols],
    )


def _cut(whole: GeneratedEcg, start: int, stop: int) -> GeneratedEcg:
    first, last = np.searchsorted(whole.peaks, [start, stop])
    return GeneratedEcg(
        whole.millivolts[start:stop], whole.peaks[first:last] - start, whole.symbols[first:last]
    )
