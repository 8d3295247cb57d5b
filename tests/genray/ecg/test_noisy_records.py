from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genray.ecg.noise_generator import generate_noise, noise_rms
from genray.ecg.noisy_records import AddedNoise, NoiseTest, parse_noises, qrs_amplitudes
from genray.ecg.records.base import EcgRecord, LeadKind
from genray.ecg.records.open import open_record
from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, generate
from genray.errors import DataError

RATE = 250.0


def written(
    folder: Path, seconds: float, script: tuple[Episode, ...] = (), *, beats: bool = True
) -> EcgRecord:
    made = generate(seconds, RATE, seed=8, script=script)
    symbols = made.symbols if beats else []
    peaks = made.peaks if beats else made.peaks[:0]
    write_wfdb(folder / "r.hea", made.millivolts, RATE, ("II", "V1"), peaks, symbols)
    return open_record(folder / "r.hea")


def added(noisy: EcgRecord, clean: EcgRecord) -> np.ndarray:
    return noisy.millivolts(0, clean.samples) - clean.millivolts(0, clean.samples)


@pytest.mark.parametrize("ratio", [0.0, 12.0])
def test_the_ratio_of_complexes_to_noise_is_that_of_nst_in_every_lead(tmp_path: Path, ratio: float) -> None:
    clean = written(tmp_path, 120)
    noisy = NoiseTest((AddedNoise("muscle", ratio),), "always").add_to(clean)
    noise = added(noisy, clean)
    for lead, height in enumerate(qrs_amplitudes(clean)):
        found = 20 * math.log10(height / math.sqrt(8) / noise_rms(noise[:, lead], RATE))
        assert found == pytest.approx(ratio, abs=1.5)  # of two minutes out of thirty


def test_the_amplitude_is_that_of_the_complexes_with_and_without_annotations(tmp_path: Path) -> None:
    annotated = qrs_amplitudes(written(tmp_path, 60))
    detected = qrs_amplitudes(written(tmp_path, 60, beats=False))
    assert annotated == pytest.approx(detected, rel=0.1)
    assert (annotated > 0.3).all()


def test_noise_of_nst_begins_at_minute_5_without_a_step_and_pauses(tmp_path: Path) -> None:
    clean = written(tmp_path, 560)
    noise = added(NoiseTest((AddedNoise("wander", -6),)).add_to(clean), clean)
    minutes = [
        np.abs(noise[int(a * RATE) : int(b * RATE)]).max() for a, b in ((0, 300), (301, 419), (420, 540))
    ]
    assert minutes[0] == minutes[2] == 0
    assert minutes[1] > 0.5
    assert np.abs(np.diff(noise[:, 0])).max() < 0.1


def test_pieces_of_a_record_have_the_noise_of_the_whole_and_missing_samples_stay_missing(
    tmp_path: Path,
) -> None:
    clean = written(tmp_path, 40, (Episode("gap", 10, 3),))
    noisy = NoiseTest(parse_noises(["motion:6,muscle:12"]), "always", seed=4).add_to(clean)
    whole = noisy.read(0, clean.samples)
    parts = [noisy.read(at, at + 1777) for at in range(0, clean.samples, 1777)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(np.isnan(noisy.millivolts(0, 9999)), np.isnan(clean.millivolts(0, 9999)))
    assert (noisy.annotations() or 1) != 1


def test_recorded_noise_of_another_rate_is_added_like_generated_noise(tmp_path: Path) -> None:
    noise = 0.2 * generate_noise("muscle", 36_000, 360.0, 2, seed=1).T
    write_wfdb(tmp_path / "ma.hea", noise, 360.0, ("noise1", "noise2"), np.empty(0, np.int64), [])
    clean = written(tmp_path, 100)
    test = NoiseTest(parse_noises([f"{tmp_path / 'ma'}:6"]), "always")
    test.check()
    rms = [noise_rms(lead, RATE) for lead in added(test.add_to(clean), clean).T]
    assert rms == pytest.approx(qrs_amplitudes(clean) / math.sqrt(8) / 2, rel=0.15)


@pytest.mark.parametrize("text", ["muscle", "muscle:", ":6", "muscle:loud", "muscle:nan", "muscle:1000"])
def test_a_noise_without_a_ratio_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DataError) as refused:
        parse_noises([text])
    assert "muscle:12" in (refused.value.hint or "")


def test_what_noise_cannot_be_added_to_is_refused(tmp_path: Path) -> None:
    clean = written(tmp_path, 30)
    with pytest.raises(DataError, match="add it always instead"):
        NoiseTest((AddedNoise("muscle", 6),)).add_to(clean)
    with pytest.raises(DataError):
        NoiseTest((AddedNoise(str(tmp_path / "none.hea"), 6),)).check()
    write_wfdb(
        tmp_path / "flat.hea", np.zeros((9000, 1), np.float32), RATE, ("II",), np.empty(0, np.int64), []
    )
    with pytest.raises(DataError, match="0 QRS complexes found"):
        NoiseTest((AddedNoise("muscle", 6),), "always").add_to(open_record(tmp_path / "flat.hea"))


def test_no_noise_is_added_to_a_pulse_wave(tmp_path: Path) -> None:
    record = replace(written(tmp_path, 60, beats=False), kinds=(LeadKind.PRESSURE, LeadKind.ECG))
    noise = added(NoiseTest((AddedNoise("muscle", 6),), "always").add_to(record), record)
    assert np.abs(noise).max(axis=0) == pytest.approx([0, np.abs(noise[:, 1]).max()])
    assert noise[:, 1].std() > 0.02
