from __future__ import annotations

import numpy as np
import pytest

from genray.ecg.quality import QualitySettings, SignalQuality, assess_quality
from genray.ecg.synthesis import Episode, generate

RATE = 360
NOISE = np.random.default_rng(0)


def _word(lead: np.ndarray, rate: float = RATE, **settings: float) -> str:
    return SignalQuality(
        int(assess_quality(np.asarray(lead, np.float32)[None], rate, QualitySettings(**settings)).quality[0])
    ).word


def _seconds(made: np.ndarray, first: int = 0) -> list[str]:
    """The quality of each two seconds of (samples, leads)."""
    windows = [made[at : at + 2 * RATE].T for at in range(first * RATE, len(made) - 2 * RATE + 1, 2 * RATE)]
    assessed = [assess_quality(window, RATE, QualitySettings()).quality for window in windows]
    return [SignalQuality(int(each)).word for quality in assessed for each in quality]


ECG = generate(20, seed=1).millivolts[4 * RATE : 6 * RATE, 0]


def test_generated_patients_are_good_throughout() -> None:
    for seed in range(10):
        assert set(_seconds(generate(60, seed=seed).millivolts)) == {"good"}


def test_tall_ventricular_beats_are_good() -> None:
    for seed in range(10):
        made = generate(60, seed=seed, script=[Episode("pvc", 0, 60, share=0.5)]).millivolts
        assert set(_seconds(2.5 * made)) == {"good"}


@pytest.mark.parametrize("seed", range(6))
def test_a_silent_heart_with_its_electrodes_on_is_good(seed: int) -> None:
    made = generate(40, seed=seed, script=[Episode("asystole", 0, 40)]).millivolts
    assert set(_seconds(made, 4)) == {"good"}


@pytest.mark.parametrize(
    "lead",
    [
        np.zeros(720),
        np.full(720, 5.1),
        np.full(720, np.nan),
        np.where(np.arange(720) % 2, np.nan, ECG),
        ECG + 12,
        NOISE.normal(0, 0.0005, 720),
        np.clip(8 * np.sin(np.arange(720) / 200), -9, 5.1),
        np.full(720, -32.767),
    ],
    ids=["flat", "rail", "missing", "half-missing", "offset", "converter", "saturated", "extreme"],
)
def test_an_electrode_that_is_off_is_found(lead: np.ndarray) -> None:
    assert _word(lead) == "off"


@pytest.mark.parametrize(
    "lead",
    [
        ECG + NOISE.normal(0, 1.5, 720),
        ECG + np.linspace(0, 6, 720),
        np.where(np.arange(720) < 100, np.nan, ECG),
    ],
    ids=["noise", "baseline", "gaps"],
)
def test_what_cannot_be_judged_is_poor(lead: np.ndarray) -> None:
    assert _word(lead) == "poor"


def test_leads_are_judged_each_for_itself() -> None:
    leads = np.stack([ECG, np.zeros(720), ECG + NOISE.normal(0, 1.5, 720), ECG])
    assert assess_quality(leads, RATE, QualitySettings()).quality.tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize("rate", [50, 125, 1000, 4000])
def test_any_rate_will_do(rate: int) -> None:
    made = generate(10, float(rate), seed=1).millivolts
    assert assess_quality(made[-2 * rate :].T, rate, QualitySettings()).quality.tolist() == [0, 0]
    assert assess_quality(
        np.full((1, 2 * rate), np.nan, np.float32), rate, QualitySettings()
    ).quality.tolist() == [2]


def test_limits_are_those_of_the_settings() -> None:
    assert _word(0.1 * ECG, flat=0.9) == _word(np.zeros(720)) == "off"
    assert _word(ECG + 12, offset=15.0) == "good"
    assert _word(ECG + np.linspace(0, 6, 720), baseline=10.0) == "good"


def test_a_wandering_baseline_spoils_shapes_and_not_the_rhythm() -> None:
    seconds = np.arange(2 * RATE) / RATE
    wander = ECG + 2 * np.sin(2 * np.pi * 0.3 * seconds + 1)
    noisy = ECG + NOISE.normal(0, 3, len(ECG))
    assessed = assess_quality(np.stack([wander, noisy, np.zeros(len(ECG))]), RATE, QualitySettings())
    assert assessed.quality.tolist() == [1, 1, 2]
    assert assessed.rhythm.tolist() == [True, False, False]
