"""Samples per second of the single-image recipes against the script that one would write, in one process.

    python -m tests.benchmarks.bench_recipes [--rounds 3] [--out FILE]

`script` is the same network, loss and batch in a plain loop: a torch `DataLoader` that shuffles, converts
and crops in its dataset, `torch.optim.Adam` as it is made by default, NCHW. `loop` is what the loop itself
records when a user runs the target, with its progress, checks and record. They take turns: quote the ratios.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from genray.models.registry import NetworkSpec
from genray.settings.load import load
from genray.targets import Resources, find_target
from jobs.runs.run import Run
from tests.benchmarks.bench_loop import Quiet

CASES: dict[str, tuple[str, str, int, int, int]] = {
    # target, kind, images, their size, patches of each
    "autoencoder dense 28": ("train-autoencoder", "dense", 12800, 28, 1),
    "autoencoder conv 28": ("train-autoencoder", "conv", 2560, 28, 1),
    "denoiser unet 64": ("train-denoiser", "unet", 20, 96, 16),
    "denoiser nafnet 64": ("train-denoiser", "nafnet", 20, 96, 16),
}


class Images(Dataset[torch.Tensor]):
    """What a script's dataset does: convert, and crop if the images are larger than a patch."""

    def __init__(self, images: NDArray[np.uint8], patches: int) -> None:
        self._images, self._patches = images, patches

    def __len__(self) -> int:
        return len(self._images) * self._patches

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.from_numpy(self._images[index % len(self._images)])[None].float() / 255
        if image.shape[1] > 64:
            top, left = torch.randint(0, image.shape[1] - 63, (2,)).tolist()
            image = image[:, top : top + 64, left : left + 64]
        return image


def script(case: str, images: NDArray[np.uint8]) -> float:
    """Samples per second of an epoch of the plain loop."""
    target, kind, _, size, patches = CASES[case]
    torch.manual_seed(0)
    denoises = target == "train-denoiser"
    arguments: dict[str, Any] = {"settings": {"kind": kind}}
    arguments |= {"channels": 1} if denoises else {"shape": [1, size, size]}
    network = NetworkSpec(f"{'restorer' if denoises else 'autoencoder'}-{kind}", arguments).build()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    data = DataLoader(
        Images(images, patches), batch_size=8 if denoises else 128, shuffle=True, drop_last=True
    )
    began = time.perf_counter()
    for batch in data:
        given = batch + torch.randn_like(batch) * 25 / 255 if denoises else batch
        loss = F.l1_loss(network(given), batch) if denoises else F.mse_loss(network(given), batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return len(images) * patches / (time.perf_counter() - began)


def loop(case: str, folder: Path, name: str) -> float:
    """Samples per second of an epoch, as the run's history has it."""
    target, kind, _, _, patches = CASES[case]
    implementation = find_target(target).load()
    sets = [f"data.path={folder}", f"runs={folder}/runs", f"model.kind={kind}", "loop.epochs=1"]
    sets += [
        "device.gpu=false",
        "loop.samples=1",
        "data.val_share=0.01",
        "data.val_max=1",
        "loop.decay=constant",
    ]
    if target == "train-denoiser":
        sets += [f"data.patches={patches}", "noise.sigma=25", "loop.warmup=0"]
    else:
        sets += ["eval.baselines=[]", "eval.projection=none"]
    settings = load(implementation.settings_class, target=target, sets=sets)
    implementation.prepare(settings, target, name, lambda text: None).run(Quiet(), Resources(1, 0), False)
    row = json.loads(Run(folder / "runs" / name).history.read_text().splitlines()[0])
    return float(row["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    given = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; the fastest of {given.rounds} turns"
    )
    for case, (_, _, count, size, _) in CASES.items():
        images = np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for index, image in enumerate(images):
                Image.fromarray(image).save(folder / f"{index:05}.png", compress_level=0)
            speeds: dict[str, list[float]] = {"script": [], "loop": []}
            for turn in range(given.rounds):
                speeds["script"].append(script(case, images))
                speeds["loop"].append(loop(case, folder, f"run{turn}"))
        best = {who: max(values) for who, values in speeds.items()}
        figures[case] = best | {"ratio": best["loop"] / best["script"]}
        print(
            f"{case:<22} script {best['script']:8.0f}, loop {best['loop']:8.0f} samples/s   "
            f"the loop is {figures[case]['ratio']:.2f} times as fast"
        )
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
