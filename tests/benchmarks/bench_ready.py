"""Quality and speed of a denoiser bundle beside OpenCV's fastNlMeans and BM3D, on data that it never saw.

    python -m tests.benchmarks.bench_ready DATA --bundle runs/photo/bundle [--images 20] [--out FILE]

DATA holds PolyU (real camera noise: *_real.JPG beside *_mean.JPG), Set12 (gray) and BSDS500/train (colour).
The network runs on every image: whether `denoise` calls it clean is not measured here. White noise is drawn
with a fixed seed, and not clipped. BM3D and fastNlMeans are told the true strength of the noise, the bundle
is not.

Speed is measured on crops of 512x512 with all cores, in turns: quote the ratios.
Needs bm3d and opencv-python-headless.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.bundle import load_bundle
from genray.inference.runner import InferenceSettings, Runner

Floats = NDArray[np.float64]
SIGMAS = (15, 25, 50)


def psnr(image: Floats, clean: Floats) -> float:
    """PSNR in dB of levels from 0 to 255."""
    return float(10 * np.log10(255**2 / np.square(image.clip(0, 255) - clean).mean()))


class Network:
    """The bundle's network on images of 8 bits or of float levels, gray ones as three equal channels."""

    def __init__(self, bundle: str) -> None:
        import torch

        loaded = load_bundle(bundle)
        self.channels = loaded.manifest.preprocessing.input.channels
        self._network = loaded.network
        self._torch = torch

    def __call__(self, image: Floats) -> Floats:
        given = np.repeat(image, self.channels // image.shape[2], axis=2)
        tensor = self._torch.from_numpy(given / 255).permute(2, 0, 1)[None].float()
        with self._torch.inference_mode():
            result = self._network(tensor)[0].permute(1, 2, 0).double().numpy() * 255
        return result.mean(axis=2, keepdims=True) if image.shape[2] == 1 else result


def read(path: Path, *, gray: bool = False) -> Floats:
    image = np.asarray(Image.open(path).convert("L" if gray else "RGB"), np.float64)
    return image[..., None] if gray else image


def real_pairs(folder: Path, most: int) -> Iterator[tuple[Floats, Floats]]:
    """Noisy and clean photographs."""
    for noisy in sorted(folder.glob("*_real.*"))[:most]:
        clean = noisy.with_name(noisy.name.replace("_real", "_mean"))
        yield read(noisy), read(clean)


def white_pairs(files: list[Path], sigma: float, *, gray: bool) -> Iterator[tuple[Floats, Floats]]:
    rng = np.random.default_rng(int(sigma))
    for file in files:
        clean = read(file, gray=gray)
        yield clean + rng.normal(0, sigma, clean.shape), clean


def compared(pairs: Iterator[tuple[Floats, Floats]], restore: Callable[[Floats], Floats]) -> dict[str, float]:
    rows = [(psnr(noisy, clean), psnr(restore(noisy), clean)) for noisy, clean in pairs]
    before, after = np.array(rows).T
    return {
        "before": round(float(before.mean()), 2),
        "after": round(float(after.mean()), 2),
        "worse": int((after < before).sum()),
        "images": len(rows),
    }


def nl_means(sigma: float) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    import cv2

    return lambda image: cv2.fastNlMeansDenoisingColored(image, None, sigma, sigma, 7, 21)


def bm3d(sigma: float) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    from bm3d import bm3d_rgb

    return lambda image: (bm3d_rgb(image / 255.0, sigma / 255) * 255).round().clip(0, 255).astype(np.uint8)


def speed(bundle: str, files: list[Path], sigma: int, precision: str) -> dict[str, dict[str, float]]:
    """Seconds and PSNR of each contender on the same noisy crops of 8 bits, in turns."""
    rng = np.random.default_rng(0)
    crops = [read(file)[:512, :512] for file in files]
    noisy = [np.rint(crop + rng.normal(0, sigma, crop.shape)).clip(0, 255).astype(np.uint8) for crop in crops]
    loaded = load_bundle(bundle)
    spec = loaded.manifest.preprocessing
    settings = InferenceSettings.model_validate({"precision": precision})
    threads = os.cpu_count() or 1
    runner = Runner.open(loaded.network, spec.input, spec.output, settings, threads=threads)
    contenders: dict[str, Callable[[Any], Any]] = {
        f"{bundle} {runner.backend} {precision}": lambda image: runner(image[None])[0],
        "fastNlMeansDenoisingColored": nl_means(sigma),
        "bm3d": bm3d(sigma),
    }
    for restore in contenders.values():
        restore(noisy[0])
    seconds = dict.fromkeys(contenders, 0.0)
    scores: dict[str, list[float]] = {name: [] for name in contenders}
    for image, clean in zip(noisy, crops, strict=True):
        for name, restore in contenders.items():
            began = time.perf_counter()
            result = restore(image)
            seconds[name] += time.perf_counter() - began
            scores[name].append(psnr(result.astype(np.float64), clean))
    return {
        name: {
            "images_per_second": round(len(crops) / seconds[name], 3),
            "psnr": round(float(np.mean(scores[name])), 2),
        }
        for name in contenders
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--images", type=int, default=20, help="photographs of BSDS")
    parser.add_argument("--real", type=int, default=1000, help="most pairs of PolyU")
    parser.add_argument("--speed", type=int, default=5, help="images of the comparison of speed (0: none)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    network = Network(options.bundle)
    gray = sorted((options.data / "Set12").glob("*.png"))
    # Every second one, from the second on: the first half may choose settings.
    colour = sorted((options.data / "BSDS500" / "train").glob("*.jpg"))[1::2][: options.images]
    results: dict[str, Any] = {"PolyU": compared(real_pairs(options.data / "PolyU", options.real), network)}
    print("PolyU", results["PolyU"], flush=True)
    for sigma in SIGMAS:
        results[f"Set12 {sigma}"] = compared(white_pairs(gray, sigma, gray=True), network)
        results[f"BSDS {sigma}"] = compared(white_pairs(colour, sigma, gray=False), network)
        print(sigma, results[f"Set12 {sigma}"], results[f"BSDS {sigma}"], flush=True)
    clean = [psnr(network(image), image) for image in map(read, colour)]
    results["clean"] = {"mean": round(float(np.mean(clean)), 2), "least": round(min(clean), 2)}
    print("clean", results["clean"], flush=True)
    if options.speed:
        results["speed"] = speed(options.bundle, colour[: options.speed], 15, "fp32")
        print(json.dumps(results["speed"], indent=2))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
