"""Noise of muscles: measured between complexes, and no reason to call beats unusual."""

from __future__ import annotations

import numpy as np
import pytest

from genray.ecg.beats import BeatSettings, cut_beats
from genray.ecg.synthesis import Episode, generate
from monitors.patient.noise import NoiseMeter
from monitors.patient.reference import ReferenceSettings
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from tests.monitors.patients import LiveWard, chunks

RATE = 125.0
QUIET, LONG = 90.0, 690.0  # s: without noise, in which the reference is learned; in all
ROW = np.zeros(1, np.intp)


def muscles(shape: tuple[int, int], rate: float, rms: float, seed: int) -> np.ndarray:
    """Noise from 20 to 100 Hz of this RMS in mV, (samples, leads)."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=shape), axis=0)
    hertz = np.fft.rfftfreq(shape[0], 1 / rate)
    spectrum[(hertz < 20) | (hertz > 100)] = 0
    noise = np.fft.irfft(spectrum, shape[0], axis=0)
    return noise * (rms / noise.std(axis=0))


def measured(rms: float, script: tuple[Episode, ...] = ()) -> np.ndarray:
    """Power of the noise at each beat of one lead with muscle noise."""
    made = generate(60, 250.0, seed=3, script=script)
    lead = made.millivolts + (muscles(made.millivolts.shape, 250.0, rms, 1) if rms else 0)
    beats = cut_beats(lead, made.peaks, 250.0, BeatSettings())[0][:, 0]
    meter = NoiseMeter(BeatSettings())
    meter.grow(1)
    return np.array([float(meter.measure(ROW, beat[None])[0]) for beat in beats.astype(np.float32)])


@pytest.mark.parametrize("rms", [0.05, 0.1, 0.3])
def test_the_noise_of_muscles_is_measured(rms: float) -> None:
    power = np.median(measured(rms)[5:])
    assert 0.35 * rms**2 < power < 1.1 * rms**2, "the cut of beats smooths, which takes some of it away"


def test_ectopic_beats_are_no_noise() -> None:
    bigeminy = measured(0.0, (Episode("pvc", 0, 60, share=0.5),))
    assert np.median(bigeminy) < 2 * np.median(measured(0.0))


def test_the_first_beat_has_no_noise_and_a_forgotten_lead_begins_again() -> None:
    meter = NoiseMeter(BeatSettings())
    meter.grow(1)
    rng = np.random.default_rng(0)
    first, second, third = rng.normal(size=(3, 1, BeatSettings().samples)).astype(np.float32)
    missing = np.full_like(first, np.nan)
    assert meter.measure(ROW, first) == meter.measure(ROW, missing) == 0
    meter.measure(ROW, first)
    assert meter.measure(ROW, second) > 0
    meter.forget(ROW)
    assert meter.measure(ROW, third) == 0


def test_muscle_noise_makes_no_beats_unusual_and_hides_no_ventricular_ones(beat_model: BeatModel) -> None:
    settings = WardSettings(hop=2.0, reference=ReferenceSettings(minutes=1.25, beats=20))
    live = LiveWard(Ward(settings, beat_model))
    streams = {}
    for seed, rms in enumerate((0.05, 0.1, 0.2, 0.3)):
        ecg = generate(LONG, RATE, seed=seed).millivolts
        ecg[round(QUIET * RATE) :] += muscles(ecg.shape, RATE, rms, seed)[round(QUIET * RATE) :]
        streams[f"muscles-{rms}"] = ecg
    ectopic = generate(330, RATE, seed=5, script=[Episode("pvc", 150, 150, share=0.5)]).millivolts
    streams["ectopic"] = ectopic + muscles(ectopic.shape, RATE, 0.1, 5)
    live.feed(*(chunks(name, ecg, RATE, sizes=(2.0,)) for name, ecg in streams.items()))
    unusual = [change for change in live.changes() if change.kind == "anomaly"]
    assert {change.stream for change in unusual} - {"muscles-0.3"} == {"ectopic"}
    assert not [change for change in unusual if change.priority == "high" and change.stream != "ectopic"]
