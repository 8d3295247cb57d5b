"""Seconds per step of the loop against plain PyTorch over the same networks and data, in one process.

    python -m tests.benchmarks.bench_loop [--size 256] [--batch 1] [--steps 8] [--rounds 5] [--out FILE]

The three take turns, so that a machine that slows down slows all of them; quote the ratios. `plain` is the
algorithm of pix2pix written down as directly as PyTorch allows, with the optimizer that the loop uses;
`plain, default Adam` is the same with the optimizer as scripts usually make it. Each turn starts from fresh
networks and takes the same samples. `loop, averaging` is the default, with its moving average of the
weights, which these first steps update each time; from step 32 on every eighth step pays for it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from genray.datasets.demo_fronts import write_fronts
from genray.datasets.loader import WorkerShare
from genray.images.tensors import to_network
from genray.progress import LineDisplay
from genray.settings.load import load
from genray.targets import Resources
from jobs.runs.run import Run
from jobs.train_pix2pix import TARGET, Pix2Pix, TrainPix2PixSettings


class Quiet(LineDisplay):
    """Shows nothing."""

    def note(self, text: str) -> None:
        pass


def plain(recipe: Pix2Pix, steps: int, *, fused: bool) -> float:
    """Seconds per step of the algorithm written down directly."""
    torch.manual_seed(0)
    networks = recipe.networks()
    generator, discriminator = networks["generator"].train(), networks["discriminator"].train()
    options = {"lr": 2e-4, "betas": (0.5, 0.999), "fused": fused or None}
    g_adam = torch.optim.Adam(generator.parameters(), **options)  # type: ignore[arg-type]
    d_adam = torch.optim.Adam(discriminator.parameters(), **options)  # type: ignore[arg-type]
    batches = recipe.loader(lambda bad: None).batches(0, recipe.settings.loop.batch_size, WorkerShare())
    began = time.perf_counter()
    for _, (inputs, targets) in zip(range(steps), batches, strict=False):
        x, y = to_network(inputs).contiguous(), to_network(targets).contiguous()
        fake = generator(x)
        for parameter in discriminator.parameters():
            parameter.requires_grad_(True)
        d_adam.zero_grad()
        real_score, fake_score = discriminator(x, y), discriminator(x, fake.detach())
        loss = F.mse_loss(real_score, torch.ones_like(real_score)) + F.mse_loss(
            fake_score, torch.zeros_like(fake_score)
        )
        (0.5 * loss).backward()
        d_adam.step()
        for parameter in discriminator.parameters():
            parameter.requires_grad_(False)
        g_adam.zero_grad()
        score = discriminator(x, fake)
        (F.mse_loss(score, torch.ones_like(score)) + 100 * F.l1_loss(fake, y)).backward()
        g_adam.step()
    return (time.perf_counter() - began) / steps


def loop(settings: TrainPix2PixSettings, name: str, steps: int) -> float:
    """Seconds per step that the loop itself records, as a user runs it, progress and checks included."""
    prepared = TARGET.prepare(settings, "train-pix2pix", name, lambda text: None)
    prepared.run(Quiet(), Resources(1, 0), attached=False)
    row = json.loads(Run(Path(settings.runs) / name).history.read_text().splitlines()[0])
    assert row["step"] == steps
    return float(row["seconds"]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "fronts"
        samples = given.batch * given.steps
        write_fronts(data, count=samples + 2, size=given.size, val_share=2 / (samples + 2))
        sets = [f"data.path={data}", f"runs={folder}/runs", f"data.size={given.size}", "device.gpu=false"]
        sets += [f"loop.batch_size={given.batch}", "loop.epochs=1"]

        def settings(*more: str) -> TrainPix2PixSettings:
            return load(TrainPix2PixSettings, target="train-pix2pix", sets=[*sets, *more])

        recipe = Pix2Pix(settings())
        recipe.open(lambda text: None)
        names = iter(range(10**6))
        contestants: dict[str, Callable[[], float]] = {
            "plain": lambda: plain(recipe, given.steps, fused=True),
            "loop": lambda: loop(settings("loop.ema=0"), f"run{next(names)}", given.steps),
            "loop, averaging": lambda: loop(settings(), f"run{next(names)}", given.steps),
            "plain, default Adam": lambda: plain(recipe, given.steps, fused=False),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(given.rounds + 1):
            for name, run in contestants.items():
                seconds = run()
                if turn:  # the first turn warms up
                    times[name].append(seconds)
    best = {name: min(values) for name, values in times.items()}
    threads = torch.get_num_threads()
    print(f"{given.size} pixels, batch {given.batch}, {threads} threads, torch {torch.__version__}")
    figures = {}
    for name, values in times.items():
        # The fastest turn is the one that the machine disturbed least.
        ratios = [value / base for value, base in zip(values, times["plain"], strict=True)]
        figures[name] = {"seconds": values, "ratio_of_fastest": best[name] / best["plain"]}
        print(
            f"{name:<20} fastest {best[name]:.4f}, median {statistics.median(values):.4f} s/step   ratio to "
            f"plain: of the fastest {best[name] / best['plain']:.3f}, median {statistics.median(ratios):.3f}"
        )
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
