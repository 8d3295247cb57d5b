"""True noise against its estimate, and what clean images are estimated to have: two tables in Markdown.

    python -m tests.benchmarks.bench_noise [--images 20] [--photos FOLDER] [--scores FOLDER]

The images are drawn, of seeds that the estimator was not fitted on; with --photos the noise is added to
crops of photographs, too. --scores names a folder of pairs NAME_real.* and NAME_mean.*, noisy and clean
photographs, as PolyU has them: the table then has their noise, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from genray.datasets.drawn.graphics import draw_graphic
from genray.datasets.drawn.pages import draw_page
from genray.datasets.drawn.scenes import draw_scene
from genray.images.damage.corruptions import NoiseSettings, corrupt
from genray.images.damage.noise_level import estimate_noise

Pixels = NDArray[np.uint8]
SIDE = 256
SEED = 0xBE7C

NOISES: dict[str, NoiseSettings] = {
    "white, sigma 3": NoiseSettings(sigma=3, clip=True),
    "white, sigma 10": NoiseSettings(sigma=10, clip=True),
    "white, sigma 25": NoiseSettings(sigma=25, clip=True),
    "white, blurred by 0.7 pixels, sigma 5": NoiseSettings(sigma=5, correlation=0.7, clip=True),
    "grain: blurred by 1.2 pixels, sigma 12": NoiseSettings(sigma=12, correlation=1.2, clip=True),
    "photons: 200 of a white pixel": NoiseSettings(kind="poisson-gaussian", sigma=1, photons=200, clip=True),
    "camera, 4": NoiseSettings(kind="camera", sigma=(4, 4)),
    "camera, 12": NoiseSettings(kind="camera", sigma=(12, 12)),
    "JPEG, quality 30": NoiseSettings(kind="jpeg", quality=30),
    "salt and pepper, 5 %": NoiseSettings(kind="salt-and-pepper", amount=0.05),
}


def crop_of(photos: list[Path], key: int, shrink: int = 1) -> Pixels:
    """A crop of one of the photographs, at the size it has or smaller."""
    rng = np.random.default_rng(key)
    photo = np.asarray(Image.open(photos[key % len(photos)]).convert("RGB").reduce(shrink))
    top, left = (int(rng.integers(max(1, side - SIDE + 1))) for side in photo.shape[:2])
    return photo[top : top + SIDE, left : left + SIDE]


def textures(key: int) -> Pixels:
    """A texture that fills the image, with the amplitude of grass or cloth."""
    rng = np.random.default_rng((SEED, key))
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    amplitude = (np.hypot(rows, columns) + 1 / SIDE) ** -rng.uniform(0.9, 1.4)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * amplitude, (SIDE, SIDE))
    levels = np.clip(120 + 30 * field / field.std(), 0, 255)
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def screens(key: int) -> Pixels:
    """A halftone of two levels."""
    rows, columns = np.mgrid[:SIDE, :SIDE] * (2 * np.pi / (4 + key % 4))
    shade = 0.5 + 0.4 * np.sin(columns / 60)
    dots = np.cos(rows) + np.cos(columns) > 4 * shade - 2
    return np.repeat((dots * 255).astype(np.uint8)[..., None], 3, axis=2)


def as_jpeg(draw: Callable[[int], Pixels], quality: int) -> Callable[[int], Pixels]:
    def drawn(key: int) -> Pixels:
        images = torch.tensor(draw(key)).permute(2, 0, 1)[None].float() / 255
        stored = corrupt(images, NoiseSettings(kind="jpeg", quality=quality))
        return stored[0].permute(1, 2, 0).mul(255).round().byte().numpy()

    return drawn


def scenes(key: int) -> Pixels:
    return draw_scene(SIDE, SIDE, (SEED, key))


def pages(key: int) -> Pixels:
    return draw_page(SIDE, SIDE, (SEED, key))


def graphics(key: int) -> Pixels:
    return draw_graphic(SIDE, SIDE, (SEED, key))


def clean_kinds(photos: list[Path]) -> Iterator[tuple[str, Callable[[int], Pixels]]]:
    yield "drawn scenes", scenes
    yield "drawn scenes as JPEG of quality 90", as_jpeg(scenes, 90)
    yield "drawn pages", pages
    yield "drawn pages as JPEG of quality 90", as_jpeg(pages, 90)
    yield "flat graphics", graphics
    yield "flat graphics as JPEG of quality 90", as_jpeg(graphics, 90)
    yield "textures of 1/f", textures
    yield "halftones", screens
    if photos:
        yield "photographs", lambda key: crop_of(photos, key)
        yield "photographs at half size", lambda key: crop_of(photos, key, 2)


def noisy(clean: Pixels, settings: NoiseSettings, key: int) -> tuple[Pixels, float]:
    """The noisy image, and the root mean square of its noise."""
    images = torch.tensor(clean).permute(2, 0, 1)[None].float() / 255
    result = corrupt(images, settings, torch.Generator().manual_seed(key))
    pixels = result.clamp(0, 1)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    return pixels, float(np.sqrt(np.mean(np.square(pixels.astype(np.float32) - clean))))


def quantiles(values: list[float]) -> str:
    return " | ".join(f"{value:.2f}" for value in np.quantile(values, (0.1, 0.5, 0.9)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20, help="images of each kind")
    parser.add_argument("--photos", type=Path, help="folder of clean photographs")
    parser.add_argument("--scores", type=Path, help="folder of pairs of noisy and clean photographs")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*.*")) if arguments.photos else []
    bases = {"scenes": scenes}
    if photos:
        bases["photographs"] = lambda key: crop_of(photos, key)
    print("| noise | on | true, median | estimate / truth: 10 % | 50 % | 90 % | most frequent kind |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, settings in NOISES.items():
        for base, draw in bases.items():
            ratios, truths, kinds = [], [], []
            for key in range(arguments.images):
                pixels, truth = noisy(draw(key), settings, key)
                estimate = estimate_noise(pixels)
                ratios.append(estimate.level / max(truth, 0.1))
                truths.append(truth)
                kinds.append(estimate.kind)
            cells = (name, base, f"{np.median(truths):.1f}", quantiles(ratios), max(kinds, key=kinds.count))
            print("| " + " | ".join(cells) + " |", flush=True)
    if arguments.scores:
        estimates, truths = [], []
        for file in sorted(arguments.scores.glob("*_real.*")):
            pixels = np.asarray(Image.open(file).convert("RGB"))
            clean = np.asarray(Image.open(next(arguments.scores.glob(file.name.replace("_real", "_mean")))))
            estimates.append(estimate_noise(pixels).level)
            truths.append(float(np.sqrt(np.mean(np.square(pixels.astype(np.float32) - clean)))))
        ratios = [each / truth for each, truth in zip(estimates, truths, strict=True)]
        print(f"| {arguments.scores.name} | itself | {np.median(truths):.1f} | {quantiles(ratios)} | |")
    print("\n| clean images | estimate: 10 % | 50 % | 90 % | called a page or graphic |")
    print("| --- | --- | --- | --- | --- |")
    for name, draw in clean_kinds(photos):
        found = [estimate_noise(draw(key)) for key in range(arguments.images)]
        graphic = np.mean([each.graphic > 0.9 for each in found])
        print(f"| {name} | {quantiles([each.level for each in found])} | {graphic:.0%} |", flush=True)


if __name__ == "__main__":
    main()
