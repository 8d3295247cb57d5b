from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from genray.ecg.qrs import QrsThresholds, detect_peaks, fill_missing
from genray.ecg.synthesis import Episode, generate
from monitors.patient.detection import QrsDetector
from tests.genray.ecg.rhythms import wide_beats
from tests.monitors.patients import hits

RATE = 360.0
NOISE = np.random.default_rng(0)


def stream(
    millivolts: NDArray[np.floating], hop: float = 1.0, rate: float = RATE, usable: tuple[bool, ...] = ()
) -> NDArray[np.float64]:
    """Seconds of the complexes that are found in (samples, leads), hop by hop."""
    samples, size = fill_missing(millivolts.T.astype(np.float64)), round(hop * rate)
    leads = np.arange(len(samples))
    detector, decisions = QrsDetector(rate, size), [QrsThresholds(rate)]
    detector.grow(len(samples))
    detector.begin(leads, samples[:, 0], forget=True)
    votes = np.array(usable or [True] * len(samples))
    found: list[int] = []
    for end in range(size, samples.shape[1] + 1, size):
        hops = samples[:, end - size : end]
        found += detector.detect(leads, np.zeros(1, np.intp), hops, votes, votes, decisions, [end])[0]
    return np.array(sorted(found)) / rate


@pytest.mark.parametrize("hop", [0.25, 1.0, 2.0])
def test_of_the_beats_of_generated_patients_more_than_99_in_100_are_found(hop: float) -> None:
    total = np.zeros(3, int)
    for seed in range(8):
        ecg = generate(70, seed=seed, script=[Episode("pvc", 20, 50, share=0.3)] if seed % 2 else [])
        truth = ecg.peaks / RATE
        found = stream(ecg.millivolts, hop)
        both, missed, _ = hits(found, truth[(truth > 8) & (truth < 67)], 0.15)
        total += both, missed, hits(found, truth, 0.15)[2]
    assert total[0] > 500
    assert total[0] / (total[0] + total[1]) > 0.99
    assert total[0] / (total[0] + total[2]) > 0.99


@pytest.mark.parametrize("rate", [50.0, 128.0, 1000.0])
def test_any_rate_will_do(rate: float) -> None:
    ecg = generate(40, rate, seed=5)
    truth = ecg.peaks / rate
    assert hits(stream(ecg.millivolts, rate=rate), truth[(truth > 8) & (truth < 37)], 0.15)[1] == 0


def test_a_stream_has_the_beats_of_the_whole_record() -> None:
    ecg = generate(60, seed=3)
    whole = detect_peaks(ecg.millivolts[:, 0], RATE) / RATE
    whole = whole[(whole > 8) & (whole < 57)]
    for hop in (0.25, 1.0, 2.0):
        assert hits(stream(ecg.millivolts[:, :1], hop), whole, 0.1)[:2] == (len(whole), 0)


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("kind", ["dead", "noisy"])
def test_a_lead_that_breaks_loses_no_beats_of_the_other(broken: int, kind: str) -> None:
    for seed in range(4):
        ecg = generate(60, seed=seed)
        volts = ecg.millivolts.copy()
        lead = volts[30 * 360 :, broken]
        lead[:] = 0.0 if kind == "dead" else NOISE.normal(0, 0.15, len(lead))
        truth = ecg.peaks / RATE
        both, missed, invented = hits(stream(volts), truth, 0.15)
        assert missed <= 4  # those of the first seconds, in which levels are learned
        assert invented <= 1
        assert both > 40


def test_a_lead_that_may_not_vote_does_not() -> None:
    ecg = generate(40, seed=1)
    volts = ecg.millivolts.copy()
    volts[:, 1] = 20 * np.sin(np.arange(len(volts)) / 6)
    np.testing.assert_array_equal(
        stream(volts, usable=(True, False)), stream(ecg.millivolts, usable=(True, False))
    )


def test_after_an_electrode_was_moved_the_level_is_learned_anew() -> None:
    ecg = generate(90, seed=2)
    volts = ecg.millivolts.copy()
    volts[30 * 360 :] *= 0.22
    truth = ecg.peaks / RATE
    found = stream(volts)
    assert hits(found, truth[(truth > 45) & (truth < 87)], 0.15)[1] == 0


@pytest.mark.parametrize("hop", [0.25, 1.0, 2.0])
def test_in_asystole_neither_noise_nor_drift_nor_p_waves_are_beats(hop: float) -> None:
    for seed in range(5):
        ecg = generate(80, seed=seed, script=[Episode("asystole", 20, 50)])
        waves = ecg.millivolts.copy()
        seconds = np.arange(len(waves)) / RATE
        for at in np.arange(22, 69, 0.8):
            waves += (0.12 * np.exp(-(((seconds - at) / 0.022) ** 2) / 2))[:, None]
        waves += (0.5 * np.sin(2 * np.pi * 0.2 * seconds))[:, None]
        for volts in (ecg.millivolts, waves):
            found = stream(volts, hop)
            assert not ((found > 21) & (found < 69)).any()
            truth = ecg.peaks / RATE
            assert hits(found, truth[(truth > 71) & (truth < 77)], 0.15)[1] == 0


@pytest.mark.parametrize("hertz", [12.0, 20.0, 30.0, 45.0])
def test_a_tone_of_a_tenth_of_a_millivolt_has_no_beats(hertz: float) -> None:
    seconds = np.arange(round(30 * RATE)) / RATE
    tone = 0.1 * np.sin(2 * np.pi * hertz * seconds) + NOISE.normal(0, 0.005, len(seconds))
    assert len(stream(tone[:, None])) == 0
    ecg = generate(60, seed=4, script=[Episode("asystole", 20, 40)])
    found = stream(ecg.millivolts[:, :1] + np.tile(tone, 2)[:, None])
    assert not ((found > 21) & (found < 59)).any()


@pytest.mark.parametrize("rate", [250.0, 360.0, 1000.0])
@pytest.mark.parametrize("milliseconds", [0.5, 1.0, 2.0])
def test_pace_pulses_that_the_heart_does_not_follow_are_no_beats(rate: float, milliseconds: float) -> None:
    ecg = generate(50, rate, seed=3, script=[Episode("asystole", 12, 38)])
    found = stream(_paced(ecg.millivolts, rate, milliseconds), rate=rate)
    assert not ((found > 13) & (found < 49)).any()


@pytest.mark.parametrize("rate", [250.0, 360.0, 1000.0])
def test_pace_pulses_before_each_beat_neither_hide_nor_double_it(rate: float) -> None:
    ecg = generate(50, rate, seed=6)
    volts = ecg.millivolts.copy()
    for peak in ecg.peaks.tolist():
        volts[max(0, peak - round(0.1 * rate)) :][: math.ceil(0.001 * rate)] += 2.0
    truth = ecg.peaks / rate
    found = stream(volts, rate=rate)
    assert hits(found, truth[(truth > 8) & (truth < 47)], 0.15)[1] == 0
    assert hits(found[found > 8], truth, 0.15)[2] == 0


def _paced(millivolts: NDArray[np.floating], rate: float, milliseconds: float) -> NDArray[np.float64]:
    """`millivolts` with pulses of 2 mV at 70/min, each sample the mean over its sampling interval."""
    volts = millivolts.astype(np.float64)
    edges = np.arange(len(volts) + 1) / rate
    for start in np.arange(0.5, edges[-1] - 1, 60 / 70):
        covered = np.clip(edges, start, start + milliseconds / 1000)
        volts += 2.0 * np.diff(covered)[:, None] * rate
    return volts


@pytest.mark.parametrize("width", [0.045, 0.06])
def test_t_waves_higher_than_the_complexes_are_no_beats(width: float) -> None:
    for seed in range(4):
        ecg = generate(50, seed=seed)
        volts = ecg.millivolts[:, :1].copy()
        seconds, truth = np.arange(len(volts)) / RATE, ecg.peaks / RATE
        height = 1.2 * float(np.median(volts[ecg.peaks, 0]))
        for peak, interval in zip(truth, np.diff(truth, prepend=truth[0] - 0.8), strict=True):
            at = peak + 0.29 * np.sqrt(np.clip(interval, 0.4, 1.3))
            volts[:, 0] += height * np.exp(-(((seconds - at) / width) ** 2) / 2)
        found = stream(volts)
        assert hits(found[found > 8], truth, 0.15)[2] == 0
        assert hits(found, truth[(truth > 8) & (truth < 47)], 0.15)[1] == 0


@pytest.mark.parametrize("per_minute", [110, 150, 190])
def test_wide_complexes_after_narrow_ones_are_found_at_once(per_minute: int) -> None:
    for seed in range(3):
        volts = generate(40, seed=seed).millivolts.astype(np.float64)
        first = round(15 * RATE)
        wide = wide_beats(14, RATE, per_minute, seed)
        volts[first : first + len(wide)] = 0.8 * wide[:, None] * [1.0, 0.7]
        truth = 15 + np.arange(0.1, 14, 60 / per_minute)
        found = stream(volts)
        assert hits(found, truth[1:-1], 0.15)[1] <= 1


@pytest.mark.parametrize("height", [0.12, 0.2])
def test_p_waves_without_complexes_are_no_complexes_of_another_shape(height: float) -> None:
    ecg = generate(50, seed=1, script=[Episode("asystole", 15, 35)])
    times = np.arange(len(ecg.millivolts)) / RATE
    near = (times + 0.35) % 0.7 - 0.35
    waves = height * np.exp(-((near / 0.025) ** 2) / 2) * (times > 16)
    found = stream(ecg.millivolts + waves[:, None])
    assert not (found > 16).any()


def test_a_silent_heart_has_no_beats_from_the_start() -> None:
    for seed in range(6):
        ecg = generate(60, seed=seed, script=[Episode("asystole", 0, 60)])
        assert len(stream(ecg.millivolts[4 * 360 :])) <= 1


def test_many_streams_at_once_are_found_as_one_at_a_time() -> None:
    ecgs = [
        generate(20, leads=leads, seed=n)
        for n, leads in enumerate([("II",), ("II", "V1"), ("I", "II", "V5")])
    ]
    samples = np.concatenate([ecg.millivolts.T for ecg in ecgs]).astype(np.float64)
    rows, starts = np.arange(6), np.array([0, 1, 3])
    detector, decisions = QrsDetector(RATE, 360), [QrsThresholds(RATE) for _ in ecgs]
    detector.grow(6)
    detector.begin(rows, samples[:, 0], forget=True)
    found: list[list[int]] = [[], [], []]
    for end in range(360, samples.shape[1] + 1, 360):
        hop = samples[:, end - 360 : end]
        new = detector.detect(rows, starts, hop, np.ones(6, bool), np.ones(6, bool), decisions, [end] * 3)
        found = [before + more for before, more in zip(found, new, strict=True)]
    for ecg, complexes in zip(ecgs, found, strict=True):
        np.testing.assert_array_equal(np.array(complexes) / RATE, stream(ecg.millivolts))


def test_rows_that_grow_while_in_use_keep_their_state() -> None:
    ecg = generate(20, seed=7)
    samples = ecg.millivolts.T.astype(np.float64)
    detector, decisions = QrsDetector(RATE, 360), [QrsThresholds(RATE)]
    detector.grow(2)
    rows = np.arange(2)
    detector.begin(rows, samples[:, 0], forget=True)
    found: list[int] = []
    for number, end in enumerate(range(360, 7201, 360)):
        detector.grow(2 + 3 * number)
        hop = samples[:, end - 360 : end]
        found += detector.detect(
            rows, np.zeros(1, np.intp), hop, np.ones(2, bool), np.ones(2, bool), decisions, [end]
        )[0]
    np.testing.assert_array_equal(np.array(found) / RATE, stream(ecg.millivolts))


def test_the_next_patient_in_the_same_rows_begins_as_in_fresh_ones() -> None:
    tall, small = 6 * generate(30, seed=8).millivolts, 0.3 * generate(30, seed=9).millivolts
    detector = QrsDetector(RATE, 360)
    detector.grow(2)
    rows = np.arange(2)
    for volts in (tall, small):
        samples, decisions = volts.T.astype(np.float64), [QrsThresholds(RATE)]
        detector.begin(rows, samples[:, 0], forget=True)
        found: list[int] = []
        for end in range(360, 30 * 360 + 1, 360):
            hop = samples[:, end - 360 : end]
            found += detector.detect(
                rows, np.zeros(1, np.intp), hop, np.ones(2, bool), np.ones(2, bool), decisions, [end]
            )[0]
    np.testing.assert_array_equal(np.array(found) / RATE, stream(small))


@pytest.mark.parametrize("hertz", [20.0, 30.0])
@pytest.mark.parametrize("height", [0.3, 1.0])
def test_a_tone_after_the_last_beat_is_no_beat(hertz: float, height: float) -> None:
    ecg = generate(30, seed=11).millivolts[:, :1]
    ecg = ecg * (height / np.ptp(ecg))
    times = np.arange(round(25 * RATE)) / RATE
    strength = NOISE.uniform(0.1, 0.15) * (1 + 0.4 * np.sin(2 * math.pi * 1.7 * times)) / 1.4
    tone = strength * np.sin(2 * math.pi * hertz * times) + NOISE.normal(0, 0.004, len(times))
    found = stream(np.concatenate([ecg, tone[:, None]]))
    assert ((found > 10) & (found < 29)).sum() > 15
    assert not (found > 32.5).any()  # what the last beats left is forgotten within 2 s
