"""Small bundles for tests: one that knows normal generated beats, and one of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genray.bundle import ImageSpec, Preprocessing, save_bundle
from genray.ecg.beats import BeatPreprocessing, cut_beats
from genray.ecg.synthesis import generate
from genray.models.registry import NetworkSpec


def fit_beats(folder: Path, members: int = 1) -> Path:
    """Write to `folder` a dense autoencoder of `members` fitted to normal beats of 12 generated patients,
    leads II and V1; gives the folder."""
    takes = BeatPreprocessing(
        before=0.25, after=0.45, samples=140, normalisation="zscore", leads=("II", "MLII", "V1")
    )
    beats = []
    for seed in range(900, 912):
        made = generate(40, seed=seed)
        normal = made.peaks[[symbol == "N" for symbol in made.symbols]]
        beats.append(cut_beats(made.millivolts, normal, 360, takes.beat_settings)[0])
    values = torch.from_numpy(takes.normalise(np.concatenate(beats).reshape(-1, 1, takes.samples)))
    spec = NetworkSpec("beats-dense", {"samples": 140, "settings": {"members": members}})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = spec.build()
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
        folder,
        network,
        spec,
        kind="ecg-beats",
        preprocessing=takes,
        metrics={},
        seed=0,
        data={},
        calibration={"threshold": float(errors.quantile(0.95)), "error": "mse"},
    )


def save_image_bundle(folder: Path) -> Path:
    """Write to `folder` a network of pix2pix that was not trained; gives the folder."""
    spec = NetworkSpec("unet", {"in_channels": 3, "out_channels": 1, "size": 64, "settings": {"filters": 4}})
    return save_bundle(
        folder,
        spec.build().eval(),
        spec,
        kind="pix2pix",
        preprocessing=Preprocessing(
            input=ImageSpec(channels=3), output=ImageSpec(channels=1), size=(64, 64), direction="BtoA"
        ),
        metrics={},
        seed=0,
        data={},
    )
