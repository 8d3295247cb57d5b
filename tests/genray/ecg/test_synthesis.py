from __future__ import annotations

import time
import warnings
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import sleepecg

from genray.ecg.beats import BeatSettings, cut_beats, normalise_beats
from genray.ecg.records.base import MISSING
from genray.ecg.records.open import open_record
from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, GeneratedEcg, Patient, generate, write_records

with warnings.catch_warnings(action="ignore"):  # it uses what pandas gives up
    import wfdb

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

RATE = 360


def _beats_a_minute(made: GeneratedEcg, start: float, stop: float) -> float:
    inside = (made.peaks > start * RATE) & (made.peaks < stop * RATE)
    return 60 * RATE / float(np.median(np.diff(made.peaks[inside])))


def _share(made: GeneratedEcg, start: float, stop: float) -> float:
    inside = np.flatnonzero((made.peaks > start * RATE) & (made.peaks < stop * RATE))
    return float(np.mean([made.symbols[n] == "V" for n in inside]))


def test_the_same_seed_gives_the_same_samples_however_they_are_taken() -> None:
    script = [Episode("noise", 3, 9), Episode("pvc", 10, 20), Episode("gap", 15.5, 2)]
    whole = generate(40, seed=5, script=script)
    patient = Patient(5, script=script)
    parts = [patient.next(n) for n in (1, 359, 5000, 3, 2880, 6157)]
    np.testing.assert_array_equal(np.concatenate([p.millivolts for p in parts]), whole.millivolts)
    begins = np.cumsum([0, *(len(p.millivolts) for p in parts)])
    peaks = np.concatenate([p.peaks + at for p, at in zip(parts, begins, strict=False)])
    np.testing.assert_array_equal(peaks, whole.peaks)
    assert [s for p in parts for s in p.symbols] == whole.symbols
    assert not np.array_equal(generate(40, seed=6).millivolts, generate(40, seed=5).millivolts)


def test_a_detector_finds_the_beats_where_they_are_said_to_be() -> None:
    hits = missed = invented = 0
    for seed in range(12):
        made = generate(120, seed=seed, script=[Episode("pvc", 60, 60, share=0.3)] if seed % 2 else [])
        found = sleepecg.detect_heartbeats(made.millivolts[:, 0].astype(np.float64), RATE)
        both, extra, lost = sleepecg.compare_heartbeats(found, made.peaks, round(0.1 * RATE))
        hits, missed, invented = hits + len(both), missed + len(lost), invented + len(extra)
    assert hits > 1500
    assert hits / (hits + missed) > 0.99
    assert hits / (hits + invented) > 0.98


def test_ventricular_beats_are_wide_early_and_unlike_the_patients_normal_ones() -> None:
    apart = []
    for seed in range(8):
        made = generate(240, seed=seed, script=[Episode("pvc", 60, 180, share=0.3)])
        beats, kept = cut_beats(made.millivolts, made.peaks, RATE, BeatSettings())
        shapes = normalise_beats(beats).reshape(len(beats), -1)
        odd = np.array([s == "V" for s in made.symbols])[kept]
        normal = np.array([s == "N" for s in made.symbols])[kept]
        usual = np.median(shapes[normal], axis=0)
        far = ((shapes - usual) ** 2).mean(axis=1)
        apart.append(float(np.mean(far[odd][:, None] > far[normal])))
        gaps = np.diff(made.peaks)
        early = np.array([s == "V" for s in made.symbols])[1:]
        assert np.median(gaps[early]) < 0.8 * np.median(gaps)
        after = np.flatnonzero(early)[:-1] + 1
        assert np.median(gaps[after]) > 1.2 * np.median(gaps)
    assert min(apart) > 0.97


def test_early_narrow_beats_look_like_normal_ones() -> None:
    patients = [generate(600, seed=seed) for seed in range(30)]
    made = max(patients, key=lambda p: p.symbols.count("S"))
    symbols = np.array(made.symbols)
    assert (symbols == "S").sum() > 10
    gaps = np.diff(made.peaks)
    assert np.median(gaps[symbols[1:] == "S"]) < 0.85 * np.median(gaps)
    beats, kept = cut_beats(made.millivolts, made.peaks, RATE, BeatSettings(before=0.06, after=0.06))
    shapes = normalise_beats(beats).reshape(len(beats), -1)
    usual = np.median(shapes[symbols[kept] == "N"], axis=0)
    assert ((shapes[symbols[kept] == "S"] - usual) ** 2).mean() < 0.1


@pytest.mark.parametrize(("kind", "low", "high"), [("bradycardia", 25, 39), ("tachycardia", 141, 180)])
def test_the_rate_leaves_its_limits_for_the_episode_alone(kind: str, low: float, high: float) -> None:
    for seed in range(6):
        made = generate(90, seed=seed, script=[Episode(kind, 30, 30)])  # type: ignore[arg-type]
        assert low < _beats_a_minute(made, 32, 58) < high
        assert 50 < _beats_a_minute(made, 0, 29) < 100
        assert 50 < _beats_a_minute(made, 64, 90) < 100


def test_the_share_of_ventricular_beats_is_the_scripts() -> None:
    made = generate(900, seed=2, script=[Episode("pvc", 300, 600, share=0.4)])
    assert _share(made, 300, 900) == pytest.approx(0.4, abs=0.05)
    assert _share(made, 0, 300) < 0.1
    assert "VV" not in "".join(made.symbols)


def test_in_asystole_nothing_beats() -> None:
    made = generate(60, seed=1, script=[Episode("asystole", 20.3, 9)])
    assert not ((made.peaks > 20.3 * RATE) & (made.peaks < 29.3 * RATE)).any()
    still = made.millivolts[round(21.5 * RATE) : round(28.5 * RATE)]
    assert np.ptp(still) < 0.6
    assert (made.peaks > 29.3 * RATE).sum() > 20


def test_a_lead_that_is_off_stays_at_the_rail_and_beats_that_no_lead_shows_are_not_annotated() -> None:
    made = generate(
        60, seed=1, script=[Episode("lead-off", 10, 10, leads=("V1",)), Episode("lead-off", 30, 10)]
    )
    one = made.millivolts[10 * RATE : 20 * RATE]
    assert np.ptp(one[:, 1]) == 0
    assert np.ptp(one[:, 0]) > 0.4
    assert ((made.peaks > 10 * RATE) & (made.peaks < 20 * RATE)).any()
    assert np.ptp(made.millivolts[30 * RATE : 40 * RATE]) == 0
    assert not ((made.peaks >= 30 * RATE) & (made.peaks < 40 * RATE)).any()


def test_in_a_gap_samples_are_missing_and_motion_hides_the_beats() -> None:
    made = generate(60, seed=1, script=[Episode("gap", 12.5, 5), Episode("noise", 40, 10)])
    missing = np.isnan(made.millivolts).any(axis=1)
    assert (missing.sum(), missing[round(12.5 * RATE) :][: 5 * RATE].all()) == (5 * RATE, True)
    assert not ((made.peaks >= 12.5 * RATE) & (made.peaks < 17.5 * RATE)).any()
    assert made.millivolts[40 * RATE : 50 * RATE].std() > 4 * made.millivolts[20 * RATE : 30 * RATE].std()


def test_leads_agree_as_einthoven_says() -> None:
    made = generate(20, leads=("I", "II", "III", "V5"), seed=4)
    one, two, three, _ = made.millivolts.T
    assert np.abs(two - one - three).max() < 0.5  # noise and wander are each lead's own
    with pytest.raises(ValueError, match="cannot generate the leads"):
        generate(1, leads=("II", "X"))


def test_an_endless_script_is_read_as_far_as_it_is_played() -> None:
    taken = count()
    patient = Patient(0, script=(Episode("gap", 60.0 * next(taken), 1) for _ in count()))
    patient.next(600 * RATE)
    assert next(taken) < 15


def test_written_records_are_read_back_here_and_by_the_wfdb_package(tmp_path: Path) -> None:
    headers = write_records(tmp_path / "new", 3, 30, seed=9)
    assert [h.name for h in headers] == ["patient-001.hea", "patient-002.hea", "patient-003.hea"]
    record = open_record(headers[1])
    made = generate(30, seed=9 * 1_000_003 + 1, script=[Episode("pvc", 20, 10, share=0.3)])
    np.testing.assert_allclose(record.millivolts(0, record.samples), made.millivolts, atol=0.00051)
    theirs = wfdb.rdrecord(str(headers[1].with_suffix("")), physical=False)
    np.testing.assert_array_equal(theirs.d_signal, record.read(0, record.samples))
    assert [c % 65536 for c in theirs.checksum] == theirs.calc_checksum()
    beats, ours = wfdb.rdann(str(headers[1].with_suffix("")), "atr"), record.annotations()
    assert ours is not None
    assert beats.sample.tolist() == ours.peaks.tolist() == made.peaks.tolist()
    assert beats.symbol == ours.symbols == made.symbols


def test_missing_samples_and_annotations_far_apart_survive_writing(tmp_path: Path) -> None:
    volts = np.zeros((300_000, 1), np.float32)
    volts[5] = np.nan
    peaks = [3, 1026, 2050, 299_999]
    write_wfdb(tmp_path / "a.hea", volts, 250.0, ["II"], np.array(peaks), ["N", "V", "S", "N"])
    record = open_record(tmp_path / "a")
    assert record.read(0, 10)[:, 0].tolist() == [0] * 5 + [MISSING] + [0] * 4
    found = record.annotations()
    assert found is not None
    assert found.peaks.tolist() == wfdb.rdann(str(tmp_path / "a"), "atr").sample.tolist() == peaks


def test_a_core_generates_more_than_two_thousand_leads_in_real_time() -> None:
    patients = [Patient(seed) for seed in range(20)]
    began = time.process_time()
    for patient in patients:
        patient.next(64 * RATE)
    assert 20 * 64 * 2 / (time.process_time() - began) > 2000
