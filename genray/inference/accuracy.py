"""Accuracy of a fast way of running a network, on one batch and on a user's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Precision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class ImageDifference:
    """Difference of images from the exact ones.

    Attributes:
        levels: largest difference, in levels of 255.
        psnr: PSNR in dB, at most 100.
    """

    levels: float
    psnr: float

    def is_close(self, precision: Precision) -> bool:
        """Return whether the difference is acceptable for `precision`: one level in fp32, else 30 dB."""
        return self.levels <= 1 if precision == "fp32" else self.psnr >= 30

    def __str__(self) -> str:
        return f"at most {self.levels:.3g} of 255 levels, PSNR {self.psnr:.3g} dB"


@dataclass(frozen=True)
class VectorDifference:
    """Difference of vectors from the exact ones: the largest one, relative to the largest value."""

    error: float

    def is_close(self, precision: Precision) -> bool:
        """Return whether the difference is acceptable for `precision`: a thousandth in fp32, else a tenth."""
        return self.error <= (1e-3 if precision == "fp32" else 0.1)

    def __str__(self) -> str:
        return f"at most {self.error:.3g} of the largest value"


def compare(exact: Array, result: Array) -> ImageDifference | VectorDifference:
    """Return the difference of `result` from `exact`: images (N, H, W, C) uint8 or uint16, or vectors (N,
    d). NaN counts as infinitely different."""
    return _compare_vectors(exact, result) if exact.ndim == 2 else _compare_images(exact, result)


def _compare_vectors(exact: Array, result: Array) -> VectorDifference:
    return VectorDifference(float(_distances(exact, result).max() / max(np.abs(exact).max(), 1e-12)))


def _compare_images(exact: Array, result: Array) -> ImageDifference:
    distances = _distances(exact, result)
    top = float(np.iinfo(exact.dtype).max)
    psnr = -10 * np.log10(max(float(np.square(distances / top).mean()), 1e-10))
    return ImageDifference(levels=float(distances.max() / top * 255), psnr=float(psnr))


def _distances(exact: Array, result: Array) -> NDArray[np.float64]:
    return np.nan_to_num(np.abs(exact.astype(np.float64) - result), nan=np.inf)


@dataclass(frozen=True)
class FastLoss:
    """Loss of a fast network against the exact one: means over images, in dB.

    Attributes:
        psnr_between: PSNR between the two results on the images.
        psnr_exact: PSNR of the exact denoiser's result against the clean image.
        psnr_fast: PSNR of the fast denoiser's result against the clean image.
        psnr_drop: difference of these two.
    """

    psnr_between: float
    psnr_exact: float | None = None
    psnr_fast: float | None = None
    psnr_drop: float | None = None

    def as_json(self) -> dict[str, float]:
        """Return the measured values, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def measure_loss(
    exact: Callable[[Array], Array],
    fast: Callable[[Array], Array],
    images: Sequence[Array],
    sigma: float | None = None,
    seed: int = 0,
) -> FastLoss:
    """Measure the loss of `fast` against `exact`, on images whose clean versions are unknown.

    The result of `exact` on an image stands for the clean image: Gaussian noise is added to it, and both
    networks are judged by their PSNR against it. It is smoother than a photograph, which makes `exact`
    better and the drop larger than the true one (1.3 times, measured on BSDS500).

    Args:
        exact, fast: runners from images to images of the same size, (N, H, W, C) uint8.
        images: (H, W, C) uint8 each.
        sigma: noise in levels of 255; None for networks that are no denoisers, which are only compared.
        seed: seed of the noise.
    """
    rng = np.random.default_rng(seed)
    between: list[float] = []
    of_exact: list[float] = []
    of_fast: list[float] = []
    for image in images:
        clean = exact(image[None])
        between.append(_compare_images(clean, fast(image[None])).psnr)
        if sigma is not None:
            noisy = np.clip(np.rint(clean + rng.normal(0.0, sigma, clean.shape)), 0, 255).astype(np.uint8)
            of_exact.append(_compare_images(clean, exact(noisy)).psnr)
            of_fast.append(_compare_images(clean, fast(noisy)).psnr)
    if sigma is None:
        return FastLoss(float(np.mean(between)))
    drops = [exact_psnr - fast_psnr for exact_psnr, fast_psnr in zip(of_exact, of_fast, strict=True)]
    return FastLoss(
        psnr_between=float(np.mean(between)),
        psnr_exact=float(np.mean(of_exact)),
        psnr_fast=float(np.mean(of_fast)),
        psnr_drop=float(np.mean(drops)),
    )
