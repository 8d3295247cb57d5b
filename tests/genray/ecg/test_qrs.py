from __future__ import annotations

import pickle

import numpy as np
import pytest

from genray.ecg.qrs import (
    EnergyPeak,
    QrsFilter,
    QrsThresholds,
    align_peaks,
    detect_peaks,
    fill_missing,
    find_energy_peaks,
)
from genray.ecg.synthesis import Episode, generate
from tests.monitors.patients import hits

RATE = 360.0
ONE = np.zeros(1, np.intp)


@pytest.mark.parametrize("rate", [100.0, 250.0, 360.0, 1000.0])
def test_of_the_beats_of_whole_records_more_than_99_in_100_are_found_and_few_others(rate: float) -> None:
    total = np.zeros(3, int)
    for seed in range(8):
        made = generate(60, rate, seed=seed, script=[Episode("pvc", 20, 40, share=0.3)] if seed % 2 else [])
        total += hits(detect_peaks(made.millivolts[:, 0], rate) / rate, made.peaks / rate, 0.15)
    both, missed, invented = total
    assert both > 550
    assert both / (both + missed) > 0.99
    assert both / (both + invented) > 0.99


def test_a_found_peak_is_the_r_peak_itself() -> None:
    made = generate(30, seed=3)
    found = detect_peaks(made.millivolts[:, 0], RATE)
    off = np.abs(found[:, None] - made.peaks[None]).min(axis=1)
    assert np.median(off) <= 1


def test_neither_height_nor_offset_nor_direction_of_a_lead_changes_where_its_beats_are() -> None:
    lead = generate(40, seed=4).millivolts[:, 0]
    usual = detect_peaks(lead, RATE)
    for other in (0.2 * lead, 8 * lead, lead + 5, -lead):
        assert hits(detect_peaks(other, RATE) / RATE, usual / RATE, 0.05) == (len(usual), 0, 0)


@pytest.mark.parametrize("lead", [np.zeros(3600), np.full(3600, np.nan), np.full(3600, 5.1), np.zeros(3)])
def test_where_nothing_beats_nothing_is_found(lead: np.ndarray) -> None:
    assert len(detect_peaks(lead, RATE)) == 0


def test_missing_samples_are_no_beats_and_hide_no_others() -> None:
    made = generate(60, seed=5, script=[Episode("gap", 20, 6), Episode("gap", 40.2, 0.05)])
    both, missed, invented = hits(detect_peaks(made.millivolts[:, 0], RATE) / RATE, made.peaks / RATE, 0.15)
    assert both > 50
    assert missed + invented <= 1


def test_a_late_complex_that_is_low_is_found_by_looking_back() -> None:
    made = generate(30, seed=6)
    lead = made.millivolts[:, 0].copy()
    low = made.peaks[15]
    lead[low - 30 : low + 30] *= 0.3
    assert hits(detect_peaks(lead, RATE) / RATE, made.peaks / RATE, 0.15) == (len(made.peaks), 0, 0)


def test_energy_of_pieces_is_the_energy_of_the_whole() -> None:
    samples = generate(8, seed=1).millivolts.T.astype(np.float64)
    rows = np.arange(2)
    whole = QrsFilter(RATE, 2)
    whole.begin(rows, samples[:, 0])
    parts = QrsFilter(RATE, 2)
    parts.begin(rows, samples[:, 0])
    cuts = np.split(samples, [1, 7, 400, 401, 2000], axis=1)
    made = np.concatenate([parts(rows, cut).energy for cut in cuts], axis=1)
    expected = whole(rows, samples).energy
    # Both are roots of differences of running sums, which begin elsewhere: of squares so far apart at most.
    rounding = samples.shape[1] * np.finfo(np.float64).eps * np.square(expected).sum(axis=1).max()
    np.testing.assert_allclose(np.square(made), np.square(expected), rtol=1e-9, atol=rounding)


def test_a_lead_begins_without_a_step_and_rows_do_not_touch_each_other() -> None:
    bank = QrsFilter(RATE, 1)
    bank.grow(3)
    rows = np.array([2, 0])
    bank.begin(rows, np.array([5.1, -3.0]))
    assert bank(rows, np.repeat([[5.1], [-3.0]], 400, axis=1)).energy.max() < 1e-9
    alone = bank(ONE + 1, np.random.default_rng(0).normal(size=(1, 400))).energy
    assert alone.max() > 0
    assert bank(rows, np.repeat([[5.1], [-3.0]], 400, axis=1)).energy.max() < 1e-9


def test_the_energy_lags_as_it_says() -> None:
    made = generate(20, seed=2)
    lead = made.millivolts[:, :1].T.astype(np.float64)
    bank = QrsFilter(RATE, 1)
    bank.begin(ONE, lead[:, 0])
    energy = bank(ONE, lead).energy
    _, columns = find_energy_peaks(energy, 72)
    tall = columns[energy[0, columns] > 0.5 * energy.max()]
    off = (tall - bank.delay)[:, None] - made.peaks[None]
    nearest = off[np.arange(len(off)), np.abs(off).argmin(axis=1)]
    assert len(tall) > 15
    assert abs(np.median(nearest)) < 0.05 * RATE


def test_peaks_are_apart_and_not_at_edges() -> None:
    energy = np.zeros((2, 100))
    energy[0, [5, 30, 35, 60, 95]] = [9, 3, 4, 1, 9]
    rows, columns = find_energy_peaks(energy, 10)
    assert (rows.tolist(), columns.tolist()) == ([0, 0], [35, 60])


@pytest.mark.parametrize(("height", "steepness"), [(0.45, 1.0), (1.3, 0.4)])
def test_a_low_or_smooth_peak_soon_after_a_complex_is_its_t_wave(height: float, steepness: float) -> None:
    t_wave = (110, height, steepness)
    peaks = [
        EnergyPeak(360 * n + extra, *sizes) for n in range(1, 9) for extra, *sizes in ((0, 1.0, 1.0), t_wave)
    ]
    assert QrsThresholds(RATE).push(peaks, 3100) == [360 * n for n in range(1, 9)]


def test_a_tall_t_wave_is_no_complex_in_a_pause_either() -> None:
    peaks = [
        EnergyPeak(360 * n + e, h, s) for n in range(1, 9) for e, h, s in ((0, 1.0, 1.0), (115, 0.9, 0.4))
    ]
    assert QrsThresholds(RATE).push(peaks, 360 * 8 + 1000) == [360 * n for n in range(1, 9)]


@pytest.mark.parametrize("width", [0.035, 0.045, 0.06])
@pytest.mark.parametrize("height", [0.8, 1.2, -1.2])
@pytest.mark.parametrize("rate", [250.0, 360.0])
def test_t_waves_higher_than_the_r_wave_are_not_counted(width: float, height: float, rate: float) -> None:
    rng = np.random.default_rng([round(1000 * width), round(abs(height) * 10)])
    times = np.arange(round(20 * rate)) / rate
    beats = 0.5 + np.cumsum(np.full(20, rng.uniform(0.7, 1.0)) * rng.normal(1, 0.02, 20))
    beats = beats[beats < 19]
    lead = rng.normal(0, 0.01, len(times))
    for beat in beats:
        for at, wide, high in (
            (0.0, 0.011, 1.0),
            (0.03, 0.011, -0.2),
            (rng.uniform(0.26, 0.3), width, height),
        ):
            lead += high * np.exp(-(((times - beat - at) / wide) ** 2) / 2)
    assert hits(detect_peaks(lead, rate) / rate, beats, 0.1) == (len(beats), 0, 0)


def test_one_artefact_does_not_hide_what_follows() -> None:
    detector = QrsThresholds(RATE)
    peaks = [EnergyPeak(300 * n, 30.0 if n == 10 else 1.0, 1.0) for n in range(1, 30)]
    assert detector.push(peaks, 300 * 29) == [300 * n for n in range(1, 30)]


def test_peaks_that_are_refused_for_hours_are_not_kept() -> None:
    detector = QrsThresholds(RATE)
    assert detector.push([EnergyPeak(100, 1.0, 1.0)], 200) == [100]
    detector.push([EnergyPeak(1000 + 100 * n, 0.01, 0.01) for n in range(1000)], 200_000)
    size = len(pickle.dumps(detector))
    detector.push([EnergyPeak(1000 + 100 * n, 0.01, 0.01) for n in range(2000, 52_000)], 10_000_000)
    assert len(pickle.dumps(detector)) < 2 * size


def test_after_a_restart_no_interval_spans_it() -> None:
    detector = QrsThresholds(RATE)
    detector.push([EnergyPeak(300 * n, 1.0, 1.0) for n in range(1, 5)], 1300)
    before = list(detector.rr)
    detector.restart()
    assert detector.push([EnergyPeak(90_000, 1.0, 1.0)], 90_100) == [90_000]
    assert list(detector.rr) == before


def test_peaks_are_moved_to_the_largest_deflection_up_or_down() -> None:
    signal = np.zeros((200, 2))
    signal[57, 0], signal[103, 0], signal[45, 1] = 1.0, -2.0, 9.0
    assert align_peaks(signal, np.array([50, 99, 199]), 200.0).tolist()[:2] == [57, 103]
    assert align_peaks(signal, np.empty(0, np.int64), 200.0).tolist() == []


def test_missing_samples_are_the_last_before_them() -> None:
    nan, inf = np.nan, np.inf
    samples = np.array([[nan, 1.0, nan, inf, 2.0], [3.0, 3.0, nan, 4.0, nan]])
    assert fill_missing(samples).tolist() == [[0, 1, 1, 1, 2], [3, 3, 3, 4, 4]]
    assert fill_missing(np.ones((1, 3))).tolist() == [[1, 1, 1]]


def test_low_peaks_that_are_alike_regular_and_clear_are_complexes_of_another_shape() -> None:
    usual = [EnergyPeak(300 * n, 1.0, 1.0, 30.0) for n in range(1, 6)]
    low = [EnergyPeak(1500 + 180 * n, 0.1, 0.05, 4.5) for n in range(1, 8)]
    expected = [peak.sample for peak in usual + low]
    assert sorted(QrsThresholds(RATE).push(usual + low, 2800)) == expected
    for others in (
        [peak._replace(clear=2.0) for peak in low],  # P waves
        [
            peak._replace(height=0.08 * (1 + n % 2), clear=4.5 * (1 + n % 2))
            for n, peak in enumerate(low[::2])
        ],
        [peak._replace(sample=peak.sample + 60 * (n % 2)) for n, peak in enumerate(low)],
    ):
        assert sorted(QrsThresholds(RATE).push(usual + others, 2800)) == expected[:5]
