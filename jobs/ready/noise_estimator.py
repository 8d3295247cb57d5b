"""Fit the estimator of noise on drawn images with noise of a known strength.

    python -m jobs.ready.noise_estimator --photos photos --output genray/images/damage/noise_estimator.json

The photographs are clean, of a free licence, and at least 800 pixels wide and high: drawn images are a little
too tidy. A sample takes about 0.15 s of a core.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

from genray.datasets.drawn.graphics import draw_graphic
from genray.datasets.drawn.pages import draw_page
from genray.datasets.drawn.scenes import draw_scene
from genray.images.damage.corruptions import NoiseSettings, corrupt
from genray.images.damage.noise_features import measure, opponents
from genray.images.damage.noise_level import FLOOR, SMALLEST
from genray.images.pixels import Pixels
from genray.io.files import write_text

_FOLDER = click.Path(exists=True, file_okay=False)
_SIDES = (96, 385)  # pixels of a side, from and below
_SIZES = (0.5, 1.0, 1.5, 2.2)  # of the photographs, in multiples of their own
_WIDTHS = (32, 16)  # units of the hidden layers
_EPOCHS = 150
_CLIP = 4.0  # standard deviations beyond which a feature counts no more
_KINDS = {  # of noise, with their shares
    "none": 0.27,
    "white": 0.19,
    "coarse": 0.13,
    "colour": 0.05,
    "camera": 0.27,
    "jpeg": 0.06,
    "impulses": 0.03,
}
_HELD_OUT = 5  # every fifth sample judges


@dataclass(frozen=True)
class Sample:
    """A noisy image as the estimator sees it.

    Attributes:
        features: see `measure`.
        levels: fine, coarse and chroma level of the noise, (3,) in levels of 255.
        graphic: 1 for pages and graphics, 0 for scenes and photographs.
        kind: kind of the noise.
    """

    features: NDArray[np.float32]
    levels: NDArray[np.float64]
    graphic: float
    kind: str


def draw_sample(photos: str, key: tuple[int, int]) -> Sample:
    """Draw the sample of `key`, on one of the photographs in the folder `photos` or on a drawn image."""
    rng = np.random.default_rng(key)
    height, width = (int(side) for side in rng.integers(*_SIDES, 2))
    content = rng.random()
    if content < 0.05:
        clean = _shade(height, width, rng)
    elif content < 0.46:
        clean = draw_scene(height, width, key)
    elif content < 0.72:
        clean = _crop(photos, height, width, rng)
    elif content < 0.88:
        clean = draw_page(height, width, key)
    else:
        clean = draw_graphic(height, width, key)
    if rng.random() < 0.15:
        clean = np.asarray(Image.fromarray(clean).convert("L"))[..., None]
    images = torch.tensor(clean).permute(2, 0, 1)[None].float().div(255.0)
    kind, noisy, reference = _damage(images, rng)
    noise = (noisy - reference)[0].numpy() * np.float32(255)
    pixels = _framed(noisy[0].permute(1, 2, 0).mul(255.0).round().byte().numpy(), rng)
    return Sample(measure(pixels).values, _levels(noise), float(content >= 0.72), kind)


def _shade(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """Draw a plain surface, evenly lit or brighter to one side: all of its details are noise."""
    colour = rng.uniform(10, 245, 3) if rng.random() < 0.5 else rng.uniform(10, 245)
    slopes = rng.normal(0, 40, 2) * (rng.random() < 0.7)
    rows, columns = np.linspace(-0.5, 0.5, height)[:, None, None], np.linspace(-0.5, 0.5, width)[:, None]
    levels = np.rint(colour + slopes[0] * rows + slopes[1] * columns) * np.ones(3)
    shade: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return shade


def _framed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image, some within a flat frame as letterboxed pictures have, some cut to a small one."""
    height, width = pixels.shape[:2]
    choice = rng.random()
    if choice < 0.12:
        rows, columns = (int(side * rng.uniform(0.1, 0.6)) for side in (height, width))
        colour = rng.choice([0, 255, int(rng.integers(256))])
        pixels = pixels.copy()
        for edge in rng.permutation(4)[: int(rng.integers(1, 4))]:
            match int(edge):
                case 0:
                    pixels[:rows] = colour
                case 1:
                    pixels[-rows // 2 :] = colour
                case 2:
                    pixels[:, :columns] = colour
                case _:
                    pixels[:, -columns // 2 :] = colour
    elif choice < 0.22:
        rows, columns = (int(side) for side in rng.integers(SMALLEST, 72, 2))
        top, left = (height - rows) // 2, (width - columns) // 2
        pixels = pixels[top : top + rows, left : left + columns]
    return pixels


def _damage(images: torch.Tensor, rng: np.random.Generator) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Return kind of noise, noisy images, and what they would be without it; both whole levels of 255."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    sigma = float(np.exp(rng.uniform(math.log(0.7), math.log(45.0))))
    match kind:
        case "none":
            settings = None
        case "white":
            photons = float(np.exp(rng.uniform(math.log(30.0), math.log(1e6))))
            settings = NoiseSettings(kind="poisson-gaussian", sigma=sigma, photons=photons, clip=True)
        case "coarse":
            settings = NoiseSettings(sigma=sigma, correlation=float(rng.uniform(0.3, 1.6)), clip=True)
        case "colour":
            settings = NoiseSettings(sigma=sigma, correlation=float(rng.uniform(0.0, 1.6)))
        case "camera":
            settings = NoiseSettings(kind="camera", sigma=(sigma, sigma))
        case "jpeg":
            settings = NoiseSettings(kind="jpeg", quality=int(rng.integers(15, 85)))
        case _:
            settings = NoiseSettings(kind="salt-and-pepper", amount=float(rng.uniform(0.003, 0.2)))
    noisy = images if settings is None else corrupt(images, settings, generator)
    if kind == "colour" and images.shape[1] == 3:  # the brightness stays
        noise = noisy - images
        noisy = images + noise - noise.mean(dim=1, keepdim=True)
    noisy = noisy.clamp(0.0, 1.0).mul(255.0).round().div(255.0)
    if kind in ("none", "white", "coarse", "colour") and rng.random() < 0.4:  # stored as a JPEG file
        noisy = corrupt(noisy, NoiseSettings(kind="jpeg", quality=int(rng.integers(75, 96))), generator)
    return kind, noisy, noisy if kind == "none" else images


@lru_cache(maxsize=1)
def _load_photos(folder: str) -> list[Pixels]:
    """Load the photographs, each at its size, at half of it and enlarged: as cameras store them, photographs
    are softer than their noise."""
    photos = [Image.open(file).convert("RGB") for file in sorted(Path(folder).rglob("*.*"))]
    sizes = [(photo, factor) for photo in photos for factor in _SIZES]
    return [np.asarray(ImageOps.scale(*each, Image.Resampling.BICUBIC)) for each in sizes]


def _crop(photos: str, height: int, width: int, rng: np.random.Generator) -> Pixels:
    loaded = _load_photos(photos)
    photo = loaded[int(rng.integers(len(loaded)))]
    top = int(rng.integers(max(1, photo.shape[0] - height)))
    left = int(rng.integers(max(1, photo.shape[1] - width)))
    return photo[top : top + height, left : left + width]


def _levels(noise: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the fine, coarse and chroma level of noise (C, H, W), (3,) in levels of 255."""
    if len(noise) == 1:
        noise = noise.repeat(3, axis=0)
    planes = opponents(noise)
    height, width = (side - side % 2 for side in planes[0].shape)
    bright = planes[0][:height, :width]
    low = (bright[0::2] + bright[1::2])[:, 0::2] + (bright[0::2] + bright[1::2])[:, 1::2]
    coarse = float(np.square(low / 4).mean())
    fine = max(0.0, float(np.square(bright).mean()) - coarse)
    chroma = float(sum(np.square(plane).mean() for plane in planes[1:]))
    return np.sqrt(np.array([fine, coarse, chroma]) / 3)


@dataclass(frozen=True)
class Fit:
    """A fitted estimator: what its file contains, and its results for all samples, (N, 4)."""

    content: dict[str, object]
    results: NDArray[np.float32]


def fit(samples: Sequence[Sample]) -> Fit:
    """Fit the estimator on four in five of the samples."""
    torch.manual_seed(0)
    features = np.stack([sample.features for sample in samples])
    targets = np.log(np.stack([sample.levels for sample in samples]) + FLOOR)
    graphic = torch.tensor([sample.graphic for sample in samples])
    trained = torch.arange(len(samples)) % _HELD_OUT != 0
    mean, spread = features[trained].mean(0), features[trained].std(0) + 1e-3
    middle, scale = targets[trained].mean(0), targets[trained].std(0)
    inputs = torch.tensor((features - mean) / spread).float().clamp(-_CLIP, _CLIP)
    outputs = torch.tensor((targets - middle) / scale).float()
    first, second = _WIDTHS
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], first),
        nn.SiLU(),
        nn.Linear(first, second),
        nn.SiLU(),
        nn.Linear(second, 4),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS)
    indices = trained.nonzero()[:, 0]
    for _ in range(_EPOCHS):
        for batch in torch.split(indices[torch.randperm(len(indices))], 128):
            results = network(inputs[batch] + 0.05 * torch.randn(len(batch), inputs.shape[1]))
            loss = F.smooth_l1_loss(results[:, :3], outputs[batch], beta=0.5)
            loss = loss + 0.15 * F.binary_cross_entropy_with_logits(results[:, 3], graphic[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    content: dict[str, object] = {
        "mean": _plain(mean),
        "spread": _plain(spread),
        "clip": _CLIP,
        "weights": [_plain(layer.weight.detach().numpy()) for layer in layers],
        "biases": [_plain(layer.bias.detach().numpy()) for layer in layers],
        "middle": _plain(middle),
        "scale": _plain(scale),
    }
    with torch.inference_mode():
        return Fit(content, network(inputs).numpy())


def _plain(values: NDArray[np.floating]) -> list[object]:
    rounded = [float(f"{value:.4g}") for value in values.ravel()]
    plain: list[object] = np.array(rounded).reshape(values.shape).tolist()
    return plain


def _table(samples: Sequence[Sample], fitted: Fit) -> list[str]:
    """Return lines on the held-out samples: estimate over truth by kind and strength, and clean ones."""
    middle, scale = (np.asarray(fitted.content[name]) for name in ("middle", "scale"))
    levels = np.maximum(0, np.exp(fitted.results[:, :3] * scale + middle) - FLOOR)
    found = np.sqrt(np.square(levels).sum(axis=1))
    truth = np.array([math.sqrt(np.square(sample.levels).sum()) for sample in samples])
    kinds = np.array([sample.kind for sample in samples])
    graphic = np.array([sample.graphic for sample in samples])
    judged = np.arange(len(samples)) % _HELD_OUT == 0
    lines = []
    for content in (0, 1):
        for kind in sorted(set(kinds)):
            chosen = judged & (kinds == kind) & (graphic == content)
            name = f"{'graphic' if content else 'scene'}, {kind}"
            if not chosen.any():
                continue
            if kind == "none":
                shares = np.quantile(found[chosen], (0.5, 0.9, 0.95))
                lines.append(
                    f"{name}: median {shares[0]:.2f}, 90 % below {shares[1]:.2f}, 95 % {shares[2]:.2f}"
                )
                continue
            for low, high in ((0.7, 2), (2, 4), (4, 10), (10, 60)):
                here = chosen & (truth >= low) & (truth < high)
                if here.sum() < 3:
                    continue
                ratio = np.quantile(found[here] / truth[here], (0.1, 0.5, 0.9))
                missed = float((found[here] < 1).mean())
                lines.append(
                    f"{name} {low:g} to {high:g}: estimate / truth {ratio[0]:.2f} {ratio[1]:.2f} "
                    f"{ratio[2]:.2f}, below 1: {missed:.0%} of {here.sum()}"
                )
    right = float(((fitted.results[:, 3] > 0) == (graphic > 0))[judged].mean())
    return [*lines, f"graphic or not: {right:.1%} right"]


@click.command(help=__doc__)
@click.option(
    "--photos", required=True, type=click.Path(exists=True, file_okay=False), help="folder of photographs"
)
@click.option("--output", required=True, type=click.Path(dir_okay=False), help="JSON file to write")
@click.option("--samples", default=10_000, show_default=True, help="samples to draw")
@click.option("--processes", default=2, show_default=True, help="processes that draw them")
@click.option("--seed", default=0, show_default=True, help="seed of the samples")
def main(photos: str, output: str, samples: int, processes: int, seed: int) -> None:
    """Draw samples, fit the estimator and write its file."""
    began = time.monotonic()
    keys = [(seed, index) for index in range(samples)]
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        drawn = []
        for sample in pool.map(partial(draw_sample, photos), keys, chunksize=25):
            drawn.append(sample)
            if len(drawn) % 500 == 0:
                click.echo(f"{len(drawn)} of {samples} samples, {time.monotonic() - began:.0f} s", err=True)
    fitted = fit(drawn)
    for line in _table(drawn, fitted):
        click.echo(line)
    write_text(Path(output), json.dumps(fitted.content) + "\n")


if __name__ == "__main__":
    main()
