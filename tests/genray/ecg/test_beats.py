import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from genray.ecg.beats import (
    UNKNOWN,
    BeatPreprocessing,
    BeatSettings,
    RecordBeats,
    cut_at,
    cut_beats,
    normalise_beats,
    read_record_beats,
)
from genray.ecg.records.open import open_record
from genray.ecg.records.wfdb import write_wfdb
from genray.errors import BundleMismatch, DataError
from tests.beat_files import write_record

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


def read(path: Path, leads: tuple[str, ...] = ("II", "MLII"), detected: bool = False) -> RecordBeats:
    return read_record_beats(
        open_record(path), BeatSettings(), leads, "detected" if detected else "annotated"
    )


def test_annotated_beats_have_their_aami_classes(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NNVLRSFN")
    beats = read(tmp_path / "a.hea")
    assert beats.classes == list("NNVNNSFN")
    assert (beats.values.shape, beats.leads) == ((8, 140), ("MLII",))
    assert np.abs(beats.values[0].argmax() - 50) <= 3, "the spike is a quarter of a second after the start"


def test_all_leads_give_beats_of_their_own(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NNV")
    beats = read(tmp_path / "a.hea", leads=())
    assert beats.leads == ("MLII", "V1")
    assert beats.classes == list("NNVNNV")
    np.testing.assert_allclose(beats.values[3:], -0.5 * beats.values[:3], atol=0.002)


def test_detected_peaks_take_the_classes_of_annotated_ones_nearby(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "N" * 30)
    found = read(tmp_path / "a.hea", detected=True)
    assert found.classes.count("N") >= 25


def test_without_annotations_peaks_are_detected_and_nobody_knows_their_classes(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "N" * 30)
    (tmp_path / "a.atr").unlink()
    beats = read(tmp_path / "a.hea")
    assert len(beats.values) >= 25
    assert set(beats.classes) == {UNKNOWN}


def test_a_record_without_the_lead_says_which_it_has(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "NN")
    with pytest.raises(DataError, match="none of the leads II; its leads are MLII, V1"):
        read(tmp_path / "a.hea", leads=("II",))


def test_a_record_without_beats_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, "a", "")
    with pytest.raises(DataError, match="no complete beats"):
        read(tmp_path / "a.hea")


def test_by_mean_and_deviation_a_beat_keeps_its_shape_alone() -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=16, normalisation="zscore")
    beats = np.random.default_rng(0).normal(3, 5, (4, 1, 16))
    made = takes.normalise(beats)
    np.testing.assert_allclose(made.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(takes.normalise(7 * beats - 2), made, atol=1e-5)


def test_by_the_range_all_beats_are_moved_alike() -> None:
    takes = BeatPreprocessing(before=0.25, after=0.45, samples=16, normalisation="minmax", span=(-1.0, 3.0))
    np.testing.assert_allclose(takes.normalise(np.array([-1.0, 1.0, 3.0, 5.0])), [0, 0.5, 1, 1.5])


def test_it_says_what_a_beat_is() -> None:
    takes = BeatPreprocessing(before=0.2, after=0.4, samples=64, normalisation="zscore", leads=("II",))
    assert (takes.beat_settings.before, takes.beat_settings.after, takes.beat_settings.samples) == (
        0.2,
        0.4,
        64,
    )


def test_of_rows_of_a_table_nobody_knows_what_a_beat_is() -> None:
    takes = BeatPreprocessing(samples=64, normalisation="zscore")
    assert takes.window is None
    with pytest.raises(BundleMismatch, match="beats of a table"):
        _ = takes.beat_settings


def test_values_far_out_of_the_range_keep_their_squares_finite() -> None:
    takes = BeatPreprocessing(samples=16, normalisation="minmax", span=(0.0, 1e-6))
    made = takes.normalise(np.array([1e15, -1e15], np.float32))
    assert np.isfinite(np.square(made)).all()


def _long(folder: Path, gap: int) -> tuple[Path, np.ndarray]:
    """A record at 50 Hz of 65 minutes, a gap of `gap` samples and another minute, and its beats."""
    signal = np.random.default_rng(3).normal(0, 0.02, (65 * 60 * 50, 2))
    peaks = np.arange(40, len(signal) - 60, 41)
    for offset, height in ((-1, 0.4), (0, 1.2), (1, 0.3)):
        signal[peaks + offset] += height
    write_wfdb(folder / "one.hea", signal, 50.0, ["II", "V1"], peaks, ["N", "V"] * (len(peaks) // 2))
    write_wfdb(folder / "two.hea", signal[:3000], 50.0, ["II", "V1"], peaks[:0], [])
    (folder / "bed.hea").write_text(f"bed/3 2 50 0\none {len(signal)}\n~ {gap}\ntwo 3000\n")
    shutil.copy(folder / "one.atr", folder / "bed.atr")
    return folder / "bed.hea", peaks


def test_beats_of_a_long_record_are_those_of_it_as_a_whole(tmp_path: Path) -> None:
    path, peaks = _long(tmp_path, 50)
    record = open_record(path)
    found = read_record_beats(record, SETTINGS, [], "annotated")
    whole, kept = cut_beats(record.millivolts(0, record.samples), peaks, 50.0, SETTINGS)
    assert kept.all()
    np.testing.assert_array_equal(found.values, np.concatenate([whole[:, 0], whole[:, 1]]))
    assert found.classes == ["N", "V"] * len(peaks)
    detected = read_record_beats(record, SETTINGS, ["II"], "detected")
    assert len(detected.classes) == pytest.approx(len(peaks) + 3000 // 41, abs=4)


def test_a_gap_of_days_costs_no_memory(tmp_path: Path) -> None:
    path, peaks = _long(tmp_path, 4 * 86400 * 50)
    record = open_record(path)
    record.read(0, 10)
    tracemalloc.start()
    try:
        found = read_record_beats(record, SETTINGS, ["II"], "annotated")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20  # as a whole it is 69 MB for each lead
    finally:
        tracemalloc.stop()
    assert len(found.classes) == len(peaks)
