import numpy as np
import pytest

from genray.ecg.beats import BeatSettings, cut_at, cut_beats, normalise_beats

SETTINGS = BeatSettings(before=0.25, after=0.45, samples=141)  # 5 ms apart


def _ramp(samples: int, leads: int = 1) -> np.ndarray:
    """Leads whose values say where they are."""
    return np.arange(samples, dtype=np.float64)[:, None] * np.arange(1, leads + 1)


@pytest.mark.parametrize("rate", [100.0, 128.0, 250.0, 360.0, 1000.0])
def test_a_beat_is_the_same_stretch_of_time_at_any_rate(rate: float) -> None:
    beats, kept = cut_beats(_ramp(round(3 * rate), 2), np.array([round(rate)]), rate, SETTINGS)
    assert (beats.shape, kept.tolist()) == ((1, 2, 141), [True])
    seconds = beats[0, 0] / rate - round(rate) / rate
    np.testing.assert_allclose(seconds, np.linspace(-0.25, 0.45, 141), atol=1e-4)
    np.testing.assert_allclose(beats[0, 1], 2 * beats[0, 0], rtol=1e-6)


def test_peaks_too_near_to_an_end_or_to_a_missing_sample_are_left_out() -> None:
    signal = _ramp(1000, 2)
    signal[500, 1] = np.nan
    peaks = np.array([0, 24, 25, 440, 460, 524, 526, 950, 954, 955, 999])
    beats, kept = cut_beats(signal, peaks, 100.0, SETTINGS)
    assert peaks[kept].tolist() == [25, 440, 526, 950]
    assert len(beats) == kept.sum()
    assert np.isfinite(beats).all()


def test_no_peaks_are_no_beats() -> None:
    beats, kept = cut_beats(_ramp(100), np.empty(0, np.int64), 100.0, SETTINGS)
    assert (beats.shape, kept.shape) == ((0, 1, 141), (0,))


def test_beats_of_many_rows_are_those_of_each_record() -> None:
    signal = np.random.default_rng(0).normal(size=(1000, 3))
    peaks = np.array([300, 500, 700])
    whole, _ = cut_beats(signal, peaks, 360.0, SETTINGS)
    rows = np.array([2, 0, 1])
    some = cut_at(signal.T, rows, peaks[[1, 1, 2]], 360.0, SETTINGS)
    np.testing.assert_allclose(some, [whole[1, 2], whole[1, 0], whole[2, 1]], rtol=1e-6)


def test_a_normalised_beat_has_no_height_and_a_flat_one_is_zero() -> None:
    beats = np.random.default_rng(1).normal(4, 3, (5, 2, 140)).astype(np.float32)
    made = normalise_beats(beats)
    np.testing.assert_allclose(made.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(made.std(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(normalise_beats(0.01 * beats - 7), made, atol=1e-3)
    assert not normalise_beats(np.full((2, 140), 5.1, np.float32)).any()
