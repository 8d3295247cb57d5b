from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.bundle import Preprocessing, load_bundle, read_manifest
from genray.ecg.beats import cut_beats
from genray.ecg.synthesis import Episode, generate
from genray.errors import BundleMismatch
from monitors.patient import scoring
from monitors.patient.rhythm.heart_rate import UNKNOWN_INTERVAL, RelativeInterval
from monitors.patient.scoring import BeatModel, ScoreInputs, ScoreSettings

NONE = np.empty(0, np.float32)
IN_TIME = RelativeInterval(1.0, 0.0)
EARLY = RelativeInterval(0.6, 0.0)


WEIGHTS = ScoreSettings()


def score_beat(distances: np.ndarray, surprises: np.ndarray, interval: RelativeInterval) -> float:
    return scoring.score_beat(ScoreInputs(distances, surprises, interval), WEIGHTS)


def score_new_patient(surprises: np.ndarray, interval: RelativeInterval) -> float:
    return scoring.score_new_patient(ScoreInputs(NONE, surprises, interval), WEIGHTS)


def combined_distance(distances: np.ndarray) -> float:
    return scoring.combined_distance(distances, WEIGHTS.lower)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_ventricular_beats_surprise_and_normal_ones_seldom(beat_model: BeatModel) -> None:
    ecg = generate(120, seed=1, script=[Episode("pvc", 0, 120, share=0.4)])
    beats, kept = cut_beats(ecg.millivolts, ecg.peaks, 360.0, beat_model.beat)
    odd = np.array([s == "V" for s in ecg.symbols])[kept]
    surprise = beat_model.surprises(beats[:, 0]).values
    assert np.median(surprise[odd]) > 0.5
    assert np.median(surprise[~odd]) < 0.5
    assert np.mean(surprise[odd][:, None] > surprise[~odd][None]) > 0.9


def test_a_reconstruction_comes_with_every_beat(beat_model: BeatModel) -> None:
    beats = generate(10, seed=2).millivolts[: 140 * 20].T.reshape(-1, 140)
    surprises = beat_model.surprises(beats)
    assert (surprises.values.shape, surprises.reconstructions.shape) == ((40,), (40, 140))
    assert np.isfinite(surprises.reconstructions).all()


def test_no_beats_have_no_scores(beat_model: BeatModel) -> None:
    surprises = beat_model.surprises(np.empty((0, 140), np.float32))
    assert (surprises.values.shape, surprises.reconstructions.shape) == ((0,), (0, 140))


@pytest.mark.parametrize("value", [0.0, 32767.0, -32767.0])
def test_flat_beats_have_finite_scores(beat_model: BeatModel, value: float) -> None:
    assert np.isfinite(beat_model.surprises(np.full((3, 140), value, np.float32)).values).all()


def test_it_knows_the_leads_that_it_was_trained_on_by_any_case(beat_bundle: Path) -> None:
    bundle = load_bundle(beat_bundle)
    beat_model = BeatModel.from_bundle(bundle)
    assert [beat_model.knows(lead) for lead in ("II", "ii", "mlii", "V5")] == [True, True, True, False]
    takes = bundle.manifest.beats.model_copy(update={"leads": ()})
    manifest = bundle.manifest.model_copy(update={"stored": takes})
    assert BeatModel.from_bundle(replace(bundle, manifest=manifest)).knows("V5")


@pytest.mark.parametrize(
    "calibration",
    [
        {},
        {"threshold": 0.1},
        {"threshold": 0.1, "error": "rmse"},
        {"threshold": 0, "error": "mse"},
        {"threshold": float("nan"), "error": "mse"},
        {"threshold": "0.1", "error": "mse"},
    ],
)
def test_a_bundle_without_a_threshold_is_refused(beat_bundle: Path, calibration: dict[str, Any]) -> None:
    bundle = load_bundle(beat_bundle)
    manifest = bundle.manifest.model_copy(update={"calibration": calibration})
    with pytest.raises(BundleMismatch, match="no error threshold"):
        BeatModel.from_bundle(replace(bundle, manifest=manifest))


def test_a_bundle_of_images_is_refused(beat_bundle: Path) -> None:
    images = Preprocessing.model_validate(
        {"input": {"channels": 1}, "output": {"channels": 1}, "size": (8, 8)}
    )
    manifest = read_manifest(beat_bundle).model_copy(update={"stored": images})
    with pytest.raises(BundleMismatch, match="beats"):
        BeatModel.from_bundle(replace(load_bundle(beat_bundle), manifest=manifest))


def test_an_error_in_absolute_values_is_scored_by_it(beat_bundle: Path) -> None:
    bundle = load_bundle(beat_bundle)
    beats = generate(10, seed=2).millivolts[:1400, 0].reshape(-1, 140)
    absolute = bundle.manifest.model_copy(update={"calibration": {"threshold": 0.2, "error": "mae"}})
    surprises = BeatModel.from_bundle(replace(bundle, manifest=absolute)).surprises(beats)
    errors = np.abs(surprises.reconstructions - bundle.manifest.beats.normalise(beats)).mean(axis=1)
    np.testing.assert_allclose(surprises.values, np.log((errors + 0.004) / 0.204), rtol=1e-4)


def test_a_bundle_of_rows_of_a_table_is_refused(beat_bundle: Path) -> None:
    bundle = load_bundle(beat_bundle)
    takes = bundle.manifest.beats.model_copy(update={"before": None, "after": None})
    manifest = bundle.manifest.model_copy(update={"stored": takes})
    with pytest.raises(BundleMismatch, match="beats of a table") as refused:
        BeatModel.from_bundle(replace(bundle, manifest=manifest))
    assert "train on records" in str(refused.value.hint)
    assert str(bundle.path) in str(refused.value.where)


def test_a_beat_like_the_reference_is_normal_and_another_shape_is_not() -> None:
    assert score_beat(array(-0.5, 0.0), array(0.0, 0.0), IN_TIME) < 1
    assert score_beat(array(2.0, 1.5), NONE, IN_TIME) > 1


def test_an_artefact_in_one_lead_counts_less_than_a_change_in_all() -> None:
    assert combined_distance(array(-0.3, 1.8)) < 0.5 < combined_distance(array(1.8, 1.8))
    assert combined_distance(array(1.8, -0.3)) == combined_distance(array(-0.3, 1.8))
    assert combined_distance(array(0.7)) == pytest.approx(0.7)


def test_surprise_and_an_early_beat_add_to_the_score() -> None:
    usual = score_beat(array(0.2), array(0.0), IN_TIME)
    assert score_beat(array(0.2), array(3.0), IN_TIME) > usual
    assert score_beat(array(0.2), array(0.0), EARLY) > 1 > usual
    irregular = score_beat(array(0.2), array(0.0), RelativeInterval(0.6, 0.5))
    assert irregular == score_beat(array(0.2), array(0.0), RelativeInterval(math.nan, 0.5)) == usual


def test_of_a_patient_who_is_not_known_surprise_and_rhythm_decide() -> None:
    assert score_new_patient(NONE, UNKNOWN_INTERVAL) == 1.0
    assert score_new_patient(array(1.0), IN_TIME) > 1 > score_new_patient(array(-1.0), IN_TIME)
    assert score_new_patient(array(-1.0), EARLY) > score_new_patient(array(-1.0), IN_TIME)


def test_no_score_is_infinite() -> None:
    assert math.isfinite(score_beat(array(1e9), array(1e9), RelativeInterval(1e-9, 0.0)))
    assert score_beat(array(-1e9), NONE, IN_TIME) > 0
