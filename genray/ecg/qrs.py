"""QRS detection in streams: energy of the slopes, then adaptive thresholds.

After Pan & Tompkins 1985 (band-pass, derivative, square, moving window, adaptive thresholds, T-wave check,
search-back), with three changes: filters keep their state, so that every sample is filtered once; the leads
of a stream are weighted by their signal-to-noise ratio; and thresholds use medians of the last eight
complexes and noise peaks, so that one artefact does not change them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.signal when it is needed, which takes a second
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BAND = (5.0, 20.0)  # Hz: most of a QRS complex, little of P and T waves, mains and muscles
_WINDOW = 0.12  # s of the moving window: about a broad QRS complex
REFRACTORY = 0.2  # s: complexes are never closer, as the myocardium is refractory
_T_WAVE = 0.36  # s after a complex within which a much lower or less steep peak is its T wave
_LATEST = 1.25  # times as long as this at the longest, where beats are slow
_SMOOTH = 0.5  # share of the steepness of the last complex below which a peak may be a T wave
_MOST_REFUSED = 64  # peaks stored for search-back; limited, as asystole contains any number of noise peaks
_LONGEST_SEARCH = (
    4  # s without a complex after which there is no search-back: in asystole it would find P waves
)
# Complexes of another shape than before, as in a ventricular tachycardia, may be far below the level of the
# last ones. They come alike and regularly.
_SERIES = 3  # such peaks in a row that are complexes
_SERIES_ENERGY = 4.0  # mV/s, least energy of these: that of P waves of 0.25 mV
_SERIES_CONTRAST = 2.5  # least ratio of their energy to the lowest beside them; that of a tone is 1.3
_SERIES_HEIGHTS = 1.6  # largest ratio of their heights
_SERIES_INTERVALS = 1.3  # largest ratio of their intervals
_SERIES_RANGE = (0.24, 1.5)  # s, of their intervals: 40 to 250/min
_LEARNING = 8  # s from whose highest peaks the height of a lead's complexes is learned


class FilteredSamples(NamedTuple):
    """Output of a `QrsFilter`.

    Attributes:
        energy: (leads, samples), in the unit of the samples per sample.
        squares: (leads, samples) squares of the slopes, whose mean over the last 120 ms the energy is the
            root of.
        deflection: (leads,) largest deflection in the frequency band of QRS complexes, in the unit of the
            samples.
    """

    energy: Floats
    squares: Floats
    deflection: Floats


class EnergyPeak(NamedTuple):
    """A peak of the energy, which may be a QRS complex.

    Attributes:
        sample: its sample.
        height: energy, relative to the expected one of a complex.
        steepness: steepest slope, relative to the same.
        clear: energy in mV/s; 0: unknown, or it does not stand out from the signal beside it.
    """

    sample: int
    height: float
    steepness: float
    clear: float = 0.0


class QrsFilter:
    """Filter from samples to the energy of their slopes, for many leads at once and pieces of any length.

    Args:
        rate: sampling rate of all leads, Hz.
        leads: number of leads.
    """

    def __init__(self, rate: float, leads: int) -> None:
        high = min(_BAND[1], 0.45 * rate)
        self._sos = scipy.signal.butter(2, (_BAND[0], high), btype="bandpass", output="sos", fs=rate)
        self.width = max(1, round(_WINDOW * rate))
        """Samples of the moving window of the energy."""
        slowness = scipy.signal.group_delay(scipy.signal.sos2tf(self._sos), w=[12.0], fs=rate)[1][0]
        self.delay = round(float(slowness) + self.width / 2)
        """Delay of the energy behind the signal, in samples."""
        self._state = np.zeros((len(self._sos), leads, 2))
        self._last = np.zeros((leads, 1))
        self._tail = np.zeros((leads, self.width))

    def __call__(self, rows: NDArray[np.intp], samples: NDArray[np.floating]) -> FilteredSamples:
        """Return the energy of new samples (leads, samples) of the leads `rows`, which must not contain
        NaN."""
        filtered, self._state[:, rows] = scipy.signal.sosfilt(
            self._sos, samples, axis=-1, zi=self._state[:, rows]
        )
        slopes = np.diff(filtered, axis=-1, prepend=self._last[rows])
        self._last[rows] = filtered[:, -1:]
        squares = np.concatenate([self._tail[rows], slopes * slopes], axis=-1)
        self._tail[rows] = squares[:, -self.width :]
        sums = np.cumsum(squares, axis=-1)
        energy: Floats = np.sqrt(np.maximum(sums[:, self.width :] - sums[:, : -self.width], 0.0) / self.width)
        return FilteredSamples(energy, squares[:, self.width :], np.abs(filtered).max(axis=-1))

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads; `begin` must be called for the new ones."""
        more = leads - len(self._last)
        self._state = np.pad(self._state, ((0, 0), (0, more), (0, 0)))
        self._last = np.pad(self._last, ((0, more), (0, 0)))
        self._tail = np.pad(self._tail, ((0, more), (0, 0)))

    def begin(self, rows: NDArray[np.intp], first: NDArray[np.floating]) -> None:
        """Restart leads whose next samples, from `first` (leads,) on, do not continue the last ones."""
        # The state after a constant signal of this value, so that there is no step and no ringing. The output
        # of a band-pass for a constant is 0, so only its internal state is not.
        steady: Floats = scipy.signal.sosfilt_zi(self._sos)
        self._state[:, rows] = steady[:, None, :] * np.asarray(first, np.float64)[None, :, None]
        self._last[rows] = 0.0
        self._tail[rows] = 0.0


@dataclass(slots=True)
class QrsThresholds:
    """Adaptive thresholds that decide which energy peaks of a stream are QRS complexes.

    Heights are relative to the expected height of a complex, which is 1.

    Attributes:
        rate: sampling rate, Hz.
        last: sample of the last complex; -1: none yet.
        rr: last intervals between complexes, in samples.
    """

    rate: float
    last: int = -1
    rr: deque[int] = field(default_factory=lambda: deque(maxlen=8))
    _signal: deque[float] = field(default_factory=lambda: deque([1.0] * 8, maxlen=8))
    _noise: deque[float] = field(default_factory=lambda: deque([0.2] * 8, maxlen=8))
    _refused: deque[EnergyPeak] = field(default_factory=lambda: deque(maxlen=_MOST_REFUSED))
    _height: float = 1.0
    _steepness: float = 0.0

    def push(self, peaks: list[EnergyPeak], until: int) -> list[int]:
        """Return the samples of the complexes among new peaks, which are in order; `until` is the last sample
        that was analysed. Search-back may also return a peak that an earlier call refused."""
        complexes: list[int] = []
        for peak in peaks:
            if series := self._changed_complexes(peak):
                complexes += series
                continue
            complexes += self._search_back(peak.sample)
            since = peak.sample - self.last if self.last >= 0 else self.rate
            if since < REFRACTORY * self.rate:
                continue
            signal, threshold = self._levels()
            if peak.height > threshold and not self._is_t_wave(peak, since):
                self._accept(peak, signal)
                complexes.append(peak.sample)
            else:
                self._refused.append(peak)
                self._noise.append(min(peak.height, signal))
        return complexes + self._search_back(until)

    def restart(self) -> None:
        """Restart the intervals for samples that do not continue the last ones; heights are kept."""
        self.last = -1
        self._refused.clear()

    def _is_t_wave(self, peak: EnergyPeak, since: float) -> bool:
        """Whether a peak is the T wave of the last complex, `since` samples after it: it is much lower, or,
        as T waves may be higher than R waves, much less steep. T waves of slow beats are later (Bazett)."""
        if since < _T_WAVE * self.rate and peak.height < 0.5 * self._height:
            return True
        later = min(max((self._usual() / self.rate) ** 0.5, 1.0), _LATEST)
        return since < later * _T_WAVE * self.rate and peak.steepness < _SMOOTH * self._steepness

    def _usual(self) -> float:
        """Return the usual interval, in samples; a second, until there are three."""
        return _median(self.rr) if len(self.rr) >= 3 else self.rate

    def _levels(self) -> tuple[float, float]:
        """Return the height of complexes, and the threshold for a peak."""
        signal, noise = _median(self._signal), _median(self._noise)
        threshold = noise + 0.3 * (signal - noise) if signal > noise else 0.3 * signal
        return signal, max(threshold, 0.15 * signal)

    def _search_back(self, at: int) -> list[int]:
        """Return a complex that was refused at first: the highest peak in an interval that is too long."""
        usual = self._usual()
        since = at - self.last
        if self.last < 0 or since <= 1.66 * usual or since > _LONGEST_SEARCH * self.rate or not self._refused:
            return []
        signal, threshold = self._levels()
        first, end = self.last + 0.3 * self.rate, at - 0.25 * self.rate
        missed = [p for p in self._refused if first < p.sample < end and p.height > 0.5 * threshold]
        missed = [p for p in missed if not self._is_t_wave(p, p.sample - self.last)]
        if not missed:
            return []
        peak = max(missed, key=lambda each: each.height)
        self._accept(peak, signal)
        return [peak.sample]

    def _changed_complexes(self, last: EnergyPeak) -> list[int]:
        """Return complexes of another shape than the ones before, of which `last` is the last one: peaks that
        are alike and regular where the usual complexes are missing. The levels begin anew with theirs."""
        if self.last < 0 or last.clear < _SERIES_ENERGY:
            return []
        if last.sample - self.last <= 1.66 * self._usual():
            return []
        peaks = [peak for peak in self._refused if peak.clear >= _SERIES_ENERGY] + [last]
        lowest = max(peak.height for peak in peaks) / _SERIES_HEIGHTS
        high = [peak for peak in peaks if peak.height >= lowest]  # others are waves between complexes
        count = _regular([peak.sample / self.rate for peak in high]) if high[-1] is last else 0
        if count < _SERIES:
            return []
        series = high[-count:]
        height = _median(deque(peak.height for peak in series))
        self._signal.extend([height] * 8)
        self._noise.extend([0.2 * height] * 8)
        for peak in series:
            self._accept(peak, height)
        return [peak.sample for peak in series]

    def _accept(self, peak: EnergyPeak, signal: float) -> None:
        if self.last >= 0:
            self.rr.append(min(peak.sample - self.last, int(2 * self.rate)))
        self.last = peak.sample
        self._height = peak.height
        self._steepness = peak.steepness
        self._signal.append(min(peak.height, 2 * signal))  # an artefact counts as twice a complex at most
        while self._refused and self._refused[0].sample <= peak.sample:
            self._refused.popleft()


def _regular(times: list[float]) -> int:
    """Return how many of the last `times` (s) follow each other regularly, at a rate of complexes."""
    shortest, longest = _SERIES_RANGE[1], _SERIES_RANGE[0]
    count = 1
    for before, after in reversed(list(pairwise(times))):
        interval = after - before
        shortest, longest = min(shortest, interval), max(longest, interval)
        if shortest < _SERIES_RANGE[0] or longest > min(_SERIES_RANGE[1], _SERIES_INTERVALS * shortest):
            break
        count += 1
    return count


def find_energy_peaks(energy: Floats, apart: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the maxima of `energy` (rows, columns) without a higher value within
    `apart` columns; maxima nearer to an edge than that are left out."""
    highest = scipy.ndimage.maximum_filter1d(energy, 2 * apart + 1, axis=-1)
    inner = slice(apart, energy.shape[-1] - apart)
    rows, columns = np.nonzero((energy[:, inner] == highest[:, inner]) & (energy[:, inner] > 0))
    return rows, columns + apart


def find_clear(
    energy: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp], apart: int
) -> NDArray[np.bool_]:
    """Return which peaks of the energy (rows, columns) stand out from the lowest within `apart` columns,
    (peaks,)."""
    height = energy[rows, columns]
    beside = np.clip(columns[:, None] + np.arange(-apart, apart + 1), 0, energy.shape[1] - 1)
    lowest = energy[rows[:, None], beside].min(axis=1)
    return np.asarray(height > _SERIES_CONTRAST * lowest, np.bool_)


def find_steepest(
    squares: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp], width: int
) -> NDArray[np.float64]:
    """Return the largest of the squared slopes (rows, columns) that each peak of the energy is made of,
    (peaks,): those of the last `width` columns up to it."""
    at = np.maximum(columns[:, None] - np.arange(width), 0)
    return np.asarray(squares[rows[:, None], at].max(axis=1), np.float64)


def detect_peaks(signal: NDArray[np.floating], rate: float) -> NDArray[np.int64]:
    """Detect the R peaks of a whole lead.

    Args:
        signal: (samples,) in mV; NaN where samples are missing. Another unit is no obstacle to usual beats.
        rate: sampling rate, Hz.

    Returns:
        (beats,) sample indices.
    """
    samples = fill_missing(np.asarray(signal, np.float64)[None])
    rows = np.zeros(1, np.intp)
    bank = QrsFilter(rate, 1)
    bank.begin(rows, samples[:, 0])
    apart = round(REFRACTORY * rate)
    # Padded, as the last complexes need as much energy after them as before.
    padded = np.pad(samples, ((0, 0), (0, bank.delay + apart)), mode="edge")
    filtered = bank(rows, padded)
    energy = filtered.energy[:, bank.delay :]
    second = max(1, round(rate))
    seconds = [
        energy[0, i : i + second].max() for i in range(0, min(energy.shape[1], _LEARNING * second), second)
    ]
    level = max(float(np.median(seconds)), 1e-9)
    _, columns = find_energy_peaks(np.pad(energy, ((0, 0), (apart, 0))), apart)
    columns = columns - apart
    steepest = find_steepest(filtered.squares, np.zeros_like(columns), columns + bank.delay, bank.width)
    heights, slopes = energy[0, columns] / level, np.sqrt(steepest) / level
    clear = np.where(
        find_clear(energy, np.zeros_like(columns), columns, apart), energy[0, columns] * rate, 0.0
    )
    found = zip(columns.tolist(), heights.tolist(), slopes.tolist(), clear.tolist(), strict=True)
    peaks = [EnergyPeak(*peak) for peak in found]
    complexes = np.array(sorted(QrsThresholds(rate).push(peaks, samples.shape[1])), np.int64)
    return align_peaks(samples.T, complexes[complexes < samples.shape[1]], rate)


def align_peaks(signal: NDArray[np.floating], peaks: NDArray[np.integer], rate: float) -> NDArray[np.int64]:
    """Return the peaks moved to the largest deflection within 60 ms in the first lead of `signal` (samples,
    leads): the R peak, or the peak of a negative complex."""
    if not len(peaks):
        return np.asarray(peaks, np.int64)
    reach = max(1, round(0.06 * rate))
    at = np.clip(np.asarray(peaks)[:, None] + np.arange(-reach, reach + 1), 0, len(signal) - 1)
    around = signal[at, 0]
    deflection = np.abs(around - np.median(around, axis=1, keepdims=True))
    return np.asarray(at[np.arange(len(at)), deflection.argmax(axis=1)], np.int64)


def fill_missing(samples: Floats) -> Floats:
    """Return samples (leads, samples) with each missing (not finite) one replaced by the last before it, or
    0."""
    missing = ~np.isfinite(samples)
    if not missing.any():
        return samples
    last = np.where(missing, 0, np.arange(samples.shape[1]))
    np.maximum.accumulate(last, axis=1, out=last)
    result = np.take_along_axis(samples, last, axis=1)
    result[~np.isfinite(result)] = 0.0
    return result


def _median(values: deque[float] | deque[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)
