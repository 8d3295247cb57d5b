from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genray.bundle import load_bundle
from genray.ecg.rhythm import WINDOW, rhythm_features
from genray.ecg.synthesis import Episode, EpisodeKind, generate
from genray.errors import BundleMismatch
from monitors.patient.rhythm.ventricular import RhythmModel, judge_rhythms, ready_rhythm_model
from tests.genray.ecg.rhythms import Floats, fibrillation, flutter, torsades

RATE = 250.0


def ventricular(lead: Floats, rate: float = RATE) -> Floats:
    """Probability of a ventricular rhythm in each window of a lead."""
    length = round(WINDOW * rate)
    windows = lead[: len(lead) // length * length].reshape(-1, length)
    return 1 - ready_rhythm_model().rhythms(rhythm_features(windows, rate))[:, 0]


@pytest.mark.parametrize("rate", [128.0, 250.0, 500.0])
@pytest.mark.parametrize("millivolts", [0.15, 0.3, 0.8])
def test_fibrillation_is_recognised_whether_coarse_or_fine(rate: float, millivolts: float) -> None:
    assert np.mean(ventricular(fibrillation(60, rate, millivolts), rate) > 0.8) > 0.9


@pytest.mark.parametrize("lead", [flutter(30, RATE, 240), flutter(30, RATE, 300), torsades(40, RATE)])
def test_flutter_and_torsades_are_ventricular(lead: Floats) -> None:
    assert (ventricular(lead) > 0.6).all()


@pytest.mark.parametrize("kind", ["pvc", "tachycardia", "bradycardia", "asystole", None])
def test_other_rhythms_are_not_ventricular(kind: EpisodeKind | None) -> None:
    for seed in range(3):
        script = [Episode(kind, 0, 45)] if kind else []
        lead = generate(45, RATE, seed=seed, script=script).millivolts[round(5 * RATE) :, 0]
        assert (ventricular(lead) < 0.5).all()


def test_the_network_in_numpy_gives_what_it_gives_in_torch() -> None:
    import torch

    bundle = load_bundle("ready:rhythm")
    rng = np.random.default_rng(0)
    windows, beats = (rng.normal(size=(9, count)) for count in (25, 22))
    with torch.inference_mode():
        logits = bundle.network(torch.tensor(windows).float(), torch.tensor(beats).float())
    model = RhythmModel.from_bundle(bundle)
    assert model.rhythms(windows) == pytest.approx(torch.softmax(logits[0], 1).numpy(), abs=1e-4)
    assert model.ventricular(beats) == pytest.approx(torch.sigmoid(logits[1][:, 0]).numpy(), abs=1e-4)


def test_a_stream_without_a_lead_that_can_be_judged_is_unknown() -> None:
    history = np.stack([flutter(5, RATE, 270), np.full(1250, np.nan)])
    usable = np.array([True, True])
    found = judge_rhythms(history, usable, np.array([0, 1]), 2, RATE, ready_rhythm_model())
    assert max(found[0]) > 0.8
    assert np.isnan(found[1]).all()


def test_a_bundle_of_another_kind_is_refused() -> None:
    with pytest.raises(BundleMismatch, match="ecg-beats, not rhythm"):
        RhythmModel.from_bundle(load_bundle(Path("ready:ecg")))
