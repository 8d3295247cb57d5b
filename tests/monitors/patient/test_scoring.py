from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.bundle import Preprocessing, load_bundle, read_manifest
from genray.ecg.beats import cut_beats
from genray.ecg.synthesis import Episode, generate
from genray.errors import BundleMismatch
from monitors.patient.scoring import Scorer


def test_ventricular_beats_surprise_and_normal_ones_seldom(scorer: Scorer) -> None:
    made = generate(120, seed=1, script=[Episode("pvc", 0, 120, share=0.4)])
    beats, kept = cut_beats(made.millivolts, made.peaks, 360.0, scorer.beat)
    odd = np.array([s == "V" for s in made.symbols])[kept]
    surprise = scorer(beats[:, 0]).surprise
    assert np.median(surprise[odd]) > 0.5
    assert np.median(surprise[~odd]) < 0.5
    assert np.mean(surprise[odd][:, None] > surprise[~odd][None]) > 0.9


def test_a_reconstruction_comes_with_every_beat(scorer: Scorer) -> None:
    beats = generate(10, seed=2).millivolts[: 140 * 20].T.reshape(-1, 140)
    scores = scorer(beats)
    assert (scores.surprise.shape, scores.made.shape) == ((40,), (40, 140))
    assert np.isfinite(scores.made).all()


def test_no_beats_have_no_scores(scorer: Scorer) -> None:
    scores = scorer(np.empty((0, 140), np.float32))
    assert (scores.surprise.shape, scores.made.shape) == ((0,), (0, 140))


@pytest.mark.parametrize("value", [0.0, 32767.0, -32767.0])
def test_flat_beats_have_finite_scores(scorer: Scorer, value: float) -> None:
    assert np.isfinite(scorer(np.full((3, 140), value, np.float32)).surprise).all()


def test_it_knows_the_leads_that_it_was_trained_on_by_any_case(beat_bundle: Path) -> None:
    bundle = load_bundle(beat_bundle)
    scorer = Scorer(bundle)
    assert [scorer.knows(lead) for lead in ("II", "ii", "mlii", "V5")] == [True, True, True, False]
    takes = bundle.manifest.beats.model_copy(update={"leads": ()})
    manifest = bundle.manifest.model_copy(update={"stored": takes})
    assert Scorer(replace(bundle, manifest=manifest)).knows("V5")


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
    with pytest.raises(BundleMismatch, match="no threshold"):
        Scorer(replace(bundle, manifest=manifest))


def test_a_bundle_of_images_is_refused(beat_bundle: Path) -> None:
    images = Preprocessing.model_validate(
        {"input": {"channels": 1}, "output": {"channels": 1}, "size": (8, 8)}
    )
    manifest = read_manifest(beat_bundle).model_copy(update={"stored": images})
    with pytest.raises(BundleMismatch, match="beats"):
        Scorer(replace(load_bundle(beat_bundle), manifest=manifest))


def test_an_error_in_absolute_values_is_scored_by_it(beat_bundle: Path) -> None:
    bundle = load_bundle(beat_bundle)
    beats = generate(10, seed=2).millivolts[:1400, 0].reshape(-1, 140)
    absolute = bundle.manifest.model_copy(update={"calibration": {"threshold": 0.2, "error": "mae"}})
    scores = Scorer(replace(bundle, manifest=absolute))(beats)
    errors = np.abs(scores.made - bundle.manifest.beats.normalise(beats)).mean(axis=1)
    np.testing.assert_allclose(scores.surprise, np.log((errors + 0.004) / 0.204), rtol=1e-4)


def test_a_bundle_of_rows_of_a_table_is_refused(beat_bundle: Path) -> None:
    bundle = load_bundle(beat_bundle)
    takes = bundle.manifest.beats.model_copy(update={"before": None, "after": None})
    manifest = bundle.manifest.model_copy(update={"stored": takes})
    with pytest.raises(BundleMismatch, match="rows of a table") as refused:
        Scorer(replace(bundle, manifest=manifest))
    assert "train on records" in str(refused.value.hint)
    assert str(bundle.path) in str(refused.value.where)
