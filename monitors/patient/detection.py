"""QRS detection in many streams at once, with the leads of a stream weighted by their signal-to-noise
ratio."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from genray.ecg.pacing import PacePulseFilter
from genray.ecg.qrs import (
    REFRACTORY,
    EnergyPeak,
    QrsFilter,
    QrsThresholds,
    find_clear,
    find_energy_peaks,
    find_steepest,
)

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

_FLOOR = 0.6  # mV/s of energy, that of a complex of about 0.1 mV; lower ones are not detected
_LEARNED = 3  # seconds (or hops, if they are longer) from which the initial level of a lead is learned
_SILENT = 8.0  # s without a complex after which levels are learned again, as an electrode may have been moved
_RECENT = 2.0  # s whose largest deflection tells whether a lead can have complexes now
# Least deflection of a complex between 5 and 20 Hz, in mV. The band leaves about half of it; a monitor
# must not count complexes below 0.15 mV (ANSI/AAMI EC13), and the energy of a tone of 0.1 mV is that of one.
_LOWEST = 0.05
_CLEARLY_HIGH = 2.5  # mV/s of energy, more than the noise of a good lead
_HIGH = 0.12  # mV of deflection of complexes that need no contrast to the noise
_CONTRAST = 3.5  # ratio to the least energy above which lower peaks are complexes too; in noise it is 2 to 3
_LOW = 0.3  # share of a lead's usual deflection below which peaks need this contrast, too
_FALLEN = 0.5  # lowest ratio of a new level to the last one: lower peaks would be P waves
_TRACK = 0.1  # weight of a new complex in the moving level


class QrsDetector:
    """Detects QRS complexes in all leads of one sampling rate. A lead is a row; the leads of a stream are
    consecutive rows.

    It is responsible for removing pace pulses, for filtering, for the level of complexes and noise of each
    lead, and for fusing the leads of a stream. It leaves the decision which peaks are complexes to
    `QrsThresholds`, one for each stream.

    Args:
        rate: sampling rate, Hz.
        hop: samples of each call.
    """

    def __init__(self, rate: float, hop: int) -> None:
        self._rate = rate
        self._hop = hop
        self._apart = round(REFRACTORY * rate)
        self._thin = max(1, round(rate / 100))  # energy is smooth, so 100 values per second give its median
        self._pulses = PacePulseFilter(rate, 0)
        self._filter = QrsFilter(rate, 0)
        self._lag = self._pulses.delay + self._filter.delay
        self.delay = self._lag + self._apart
        """Delay of the detection: samples from a complex to its decision."""
        self._context = 2 * self._apart
        self._energy: Floats32 = np.zeros((0, self._context), np.float32)
        # Squares of the slopes that the energy is made of.
        self._squares: Floats32 = np.zeros((0, self._context), np.float32)
        self._level: Floats = np.zeros(0)  # energy of a complex; 0: not learned yet
        self._noise: Floats = np.zeros(0)  # energy between complexes
        self._proven: Floats = np.zeros(0)  # level at the last detected complex
        self._usual: Floats = np.zeros(0)  # deflection around complexes, in mV
        self._in_doubt: NDArray[np.bool_] = np.zeros(0, np.bool_)  # whether to learn the level again
        self._waited: NDArray[np.intp] = np.zeros(0, np.intp)  # samples with a level that no complex reached
        self._hops_a_second = max(1, round(rate / hop))
        hops = math.ceil(_RECENT * self._hops_a_second)
        self._deflection: Floats = np.zeros((0, hops))  # of the last hops, in mV
        self._highest: Floats = np.zeros((0, _LEARNED * self._hops_a_second))  # of the last hops

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads."""
        self._pulses.grow(leads)
        self._filter.grow(leads)
        more = leads - len(self._level)
        self._energy = np.pad(self._energy, ((0, more), (0, 0)))
        self._squares = np.pad(self._squares, ((0, more), (0, 0)))
        self._level = np.pad(self._level, (0, more))
        self._noise = np.pad(self._noise, (0, more))
        self._proven = np.pad(self._proven, (0, more))
        self._usual = np.pad(self._usual, (0, more))
        self._in_doubt = np.pad(self._in_doubt, (0, more))
        self._waited = np.pad(self._waited, (0, more))
        self._highest = np.pad(self._highest, ((0, more), (0, 0)))
        self._deflection = np.pad(self._deflection, ((0, more), (0, 0)))

    def begin(self, rows: Rows, first: NDArray[np.floating], *, forget: bool) -> None:
        """Restart the filters of leads whose next samples, from `first` (leads,) on, do not continue the last
        ones; `forget`: also delete the levels, for another patient."""
        self._pulses.begin(rows, first)
        self._filter.begin(rows, first)
        self._energy[rows] = 0.0
        self._squares[rows] = 0.0
        self._deflection[rows] = 0.0
        self._in_doubt[rows] = False
        self._waited[rows] = 0
        if forget:
            self._level[rows] = 0.0
            self._noise[rows] = 0.0
            self._proven[rows] = 0.0
            self._usual[rows] = 0.0
            self._highest[rows] = 0.0

    def contrast(self, rows: Rows) -> Floats:
        """Return the ratio of the highest energy of the last seconds to the usual one, (leads,)."""
        ratio: Floats = self._highest[rows].max(axis=1) / np.maximum(self._noise[rows], 1e-3)
        return ratio

    def detect(
        self,
        rows: Rows,
        starts: Rows,
        samples: NDArray[np.floating],
        usable: NDArray[np.bool_],
        preferred: NDArray[np.bool_],
        decisions: list[QrsThresholds],
        ends: list[int],
    ) -> list[list[int]]:
        """Detect the complexes of one more hop of each stream.

        Args:
            rows: rows of the leads, stream after stream.
            starts: index in `rows` at which each stream begins.
            samples: (leads, hop) in mV, without NaN.
            usable: (leads,) whether complexes can be detected in a lead.
            preferred: (leads,) whether a lead is good: while a stream has such leads, the others do not vote.
            decisions: thresholds of each stream.
            ends: number of samples of each stream so far, including this hop.

        Returns:
            For each stream, the sample numbers of its new complexes, counted like `ends`.
        """
        filtered = self._filter(rows, self._pulses(rows, samples))
        new = filtered.energy * np.float32(self._rate)
        deflection = np.roll(self._deflection[rows], 1, axis=1)
        deflection[:, 0] = filtered.deflection
        self._deflection[rows] = deflection
        energy = np.concatenate([self._energy[rows], new], axis=1)
        self._energy[rows] = energy[:, -self._context :]
        squares = np.concatenate([self._squares[rows], filtered.squares], axis=1)
        self._squares[rows] = squares[:, -self._context :]
        self._learn(rows, new, energy, usable)
        recent = deflection.max(axis=1)
        voting = usable & (self._level[rows] > 0) & self._stands_out(rows, recent, energy)
        some = np.logical_or.reduceat(voting & preferred, starts)
        voting &= preferred | ~np.repeat(some, _counts(starts, len(rows)))
        share = self._shares(rows, starts, voting)
        fused = self._fuse(starts, energy, share)
        streams, columns = find_energy_peaks(fused, self._apart)
        heights = fused[streams, columns]
        steepness = self._steepness(starts, squares, share, streams, columns)
        clear = np.where(
            find_clear(fused, streams, columns, self._apart),
            self._energies(rows, starts, energy, share, streams, columns),
            0.0,
        )
        # Column 0 is `context` samples before this hop's first, and energy lags behind the samples.
        offset = -self._hop - self._context - self._lag
        peaks: list[list[EnergyPeak]] = [[] for _ in decisions]
        for stream, column, *sizes in zip(
            streams.tolist(),
            columns.tolist(),
            heights.tolist(),
            steepness.tolist(),
            clear.tolist(),
            strict=True,
        ):
            peaks[stream].append(EnergyPeak(ends[stream] + offset + column, *sizes))
        complexes = [
            state.push(candidates, end - self.delay)
            for state, candidates, end in zip(decisions, peaks, ends, strict=True)
        ]
        self._doubt(rows, starts, decisions, ends)
        self._track(rows, starts, energy, recent, complexes, ends, offset)
        return complexes

    def _doubt(self, rows: Rows, starts: Rows, decisions: list[QrsThresholds], ends: list[int]) -> None:
        """Doubt the levels of streams without a complex for long."""
        # A level that no complex ever reached is doubted too: it may come from an electrode that was off.
        waited = np.where(self._level[rows] > 0, self._waited[rows] + self._hop, 0)
        self._waited[rows] = waited
        last = np.array([state.last for state in decisions])
        since = np.where(last >= 0, np.array(ends) - self.delay - last, np.maximum.reduceat(waited, starts))
        silent = since > _SILENT * self._rate
        self._in_doubt[rows[np.repeat(silent, _counts(starts, len(rows)))]] = True

    def _learn(self, rows: Rows, new: Floats32, energy: Floats32, usable: NDArray[np.bool_]) -> None:
        """Learn the levels of leads that have none, and update the noise."""
        highest = np.roll(self._highest[rows], 1, axis=1)
        highest[:, 0] = new.max(axis=1)
        self._highest[rows] = highest
        noise = np.median(new[:, :: self._thin], axis=1)
        before = self._noise[rows]
        self._noise[rows] = np.where(before > 0, before + 0.2 * (noise - before), noise)
        unlearned = (self._level[rows] == 0) | self._in_doubt[rows]
        begin = np.flatnonzero(unlearned & usable & highest.all(axis=1))
        if len(begin):
            seconds = highest[begin].reshape(len(begin), _LEARNED, self._hops_a_second).max(axis=2)
            height = np.median(seconds, axis=1)
            least = np.quantile(energy[begin], 0.1, axis=1)
            # In asystole the peaks of the noise must not become the level of complexes.
            high = (height > _CLEARLY_HIGH) & (np.median(self._deflection[rows[begin]], axis=1) > _HIGH)
            clear = high | (height > _CONTRAST * least)
            begin, height = begin[clear], height[clear]
            lowest = np.maximum(_FALLEN * self._proven[rows[begin]], _FLOOR)
            self._level[rows[begin]] = np.maximum(height, lowest)
            self._in_doubt[rows[begin]] = False
            self._waited[rows[begin]] = 0

    def _stands_out(self, rows: Rows, recent: Floats, energy: Floats32) -> NDArray[np.bool_]:
        """Return whether leads can have complexes, by the largest deflection of the last seconds, `recent`
        (leads,). One that is low, in mV or for this lead, must stand out from what lies between: the energy
        of a tone of the mains or of muscles is that of complexes, but steady."""
        stands_out = recent > _LOWEST
        low = np.flatnonzero(stands_out & (recent < np.maximum(_HIGH, _LOW * self._usual[rows])))
        if len(low):
            least = np.quantile(energy[low], 0.1, axis=1)
            stands_out[low] = self._highest[rows[low]].max(axis=1) > _CONTRAST * least
        return stands_out

    def _shares(self, rows: Rows, starts: Rows, voting: NDArray[np.bool_]) -> Floats:
        """Return the weight of each lead in its stream, (leads,), divided by the square of its level."""
        level, noise = self._level[rows], self._noise[rows]
        clear = np.clip(level / np.maximum(noise, 1e-3), 1.0, 30.0)
        weights = np.where(voting, (clear - 1.0) ** 2 + 1e-3, 0.0)
        total = np.add.reduceat(weights, starts)
        share = weights / np.repeat(np.maximum(total, 1e-9), _counts(starts, len(rows)))
        return np.asarray(share / np.maximum(level, _FLOOR) ** 2, np.float64)

    def _fuse(self, starts: Rows, energy: Floats32, share: Floats) -> Floats32:
        """Return the fused energy (streams, columns), in which a complex has a height of about 1."""
        counts = _counts(starts, len(energy))
        weighted = energy * energy * share[:, None].astype(np.float32)
        fused: Floats32 = weighted[starts]
        for lead in range(1, counts.max()):  # `add.reduceat` over rows takes three times as long
            streams = np.flatnonzero(counts > lead)
            fused[streams] += weighted[starts[streams] + lead]
        np.sqrt(fused, out=fused)
        return fused

    def _steepness(
        self, starts: Rows, squares: Floats32, share: Floats, streams: Rows, columns: Rows
    ) -> Floats:
        """Return the fused steepest slope of each peak at `columns` of `streams`, (peaks,)."""
        leads, number, first = _leads_of(starts, len(share), streams)
        steepest = find_steepest(squares, leads, np.repeat(columns, number), self._filter.width)
        if not len(steepest):
            return np.zeros(0)
        return np.sqrt(np.add.reduceat(steepest * share[leads], first)) * self._rate

    def _energies(
        self, rows: Rows, starts: Rows, energy: Floats32, share: Floats, streams: Rows, columns: Rows
    ) -> Floats:
        """Return the energy of each peak in mV/s, (peaks,): the weighted mean of its leads."""
        leads, number, first = _leads_of(starts, len(share), streams)
        if not len(leads):
            return np.zeros(0)
        weights = share[leads] * np.maximum(self._level[rows[leads]], _FLOOR) ** 2
        of_leads = energy[leads, np.repeat(columns, number)]
        return np.sqrt(np.add.reduceat(of_leads**2 * weights, first))

    def _track(
        self,
        rows: Rows,
        starts: Rows,
        energy: Floats32,
        recent: Floats,
        complexes: list[list[int]],
        ends: list[int],
        offset: int,
    ) -> None:
        """Update the levels with the complexes that were detected."""
        half = self._apart // 2
        for turn in range(max(map(len, complexes))):  # levels move from complex to complex of a stream
            streams = np.array([n for n, samples in enumerate(complexes) if len(samples) > turn])
            columns = np.array([complexes[n][turn] - ends[n] - offset for n in streams.tolist()])
            inside = (columns >= 0) & (columns < energy.shape[1])
            streams, columns = streams[inside], columns[inside]
            leads, number, _ = _leads_of(starts, len(rows), streams)
            around = np.repeat(columns, number)[:, None] + np.arange(-half, half + 1)
            height = energy[leads[:, None], np.clip(around, 0, energy.shape[1] - 1)].max(axis=1)
            level = self._level[rows[leads]]
            new = np.clip(height, _FLOOR, 2 * np.maximum(level, _FLOOR))
            level = np.where(level > 0, level + _TRACK * (new - level), level)
            self._level[rows[leads]] = level
            self._proven[rows[leads]] = level
            usual = self._usual[rows[leads]]
            self._usual[rows[leads]] = usual + _TRACK * (recent[leads] - usual)
            self._in_doubt[rows[leads]] = False
            self._waited[rows[leads]] = 0


def _counts(starts: Rows, leads: int) -> Rows:
    """Return the number of leads of each stream."""
    return np.diff(np.append(starts, leads))


def _leads_of(starts: Rows, count: int, streams: Rows) -> tuple[Rows, Rows, Rows]:
    """Return the leads of each of `streams`, one after the other; their number, and where those of each
    begin."""
    number = _counts(starts, count)[streams]
    first = np.cumsum(number) - number
    leads = np.arange(number.sum()) - np.repeat(first - starts[streams], number)
    return leads, number, first
