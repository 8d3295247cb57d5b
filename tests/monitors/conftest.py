"""What tests of the monitor share: a small bundle that knows normal generated beats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genray.bundle import load_bundle, save_bundle
from genray.ecg.beats import cut_beats
from genray.ecg.preprocessing import BeatPreprocessing
from genray.ecg.synthesis import generate
from genray.models.registry import build
from monitors.scoring import Scorer


@pytest.fixture(scope="session")
def beat_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense autoencoder that was fitted to normal beats of 12 generated patients, leads II and V1."""
    takes = BeatPreprocessing(
        before=0.25, after=0.45, samples=140, normalisation="zscore", leads=("II", "MLII", "V1")
    )
    beats = []
    for seed in range(900, 912):
        made = generate(40, seed=seed)
        normal = made.peaks[[symbol == "N" for symbol in made.symbols]]
        beats.append(cut_beats(made.millivolts, normal, 360, takes.beat)[0])
    values = torch.from_numpy(takes.normalised(np.concatenate(beats).reshape(-1, 1, takes.samples)))
    arguments = {"samples": 140, "settings": {"members": 1}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("beats-dense", arguments)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(300):
            batch = values[torch.randint(len(values), (256,))]
            loss = (network(batch) - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        errors = (network(values) - values).square().mean(dim=(1, 2))
    return save_bundle(
        tmp_path_factory.mktemp("beats") / "bundle",
        network,
        kind="ecg-beats",
        name="beats-dense",
        arguments=arguments,
        preprocessing=takes,
        metrics={},
        seed=0,
        data={},
        calibration={"threshold": float(errors.quantile(0.95)), "error": "mse"},
    )


@pytest.fixture(scope="session")
def scorer(beat_bundle: Path) -> Scorer:
    """The scorer of `beat_bundle`."""
    return Scorer(load_bundle(beat_bundle))
