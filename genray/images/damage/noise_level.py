"""Estimation of the noise of an image, without a clean reference."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genray.images.damage.noise_features import BLOCKINESS, measure
from genray.images.damage.texture import is_texture

NoiseKind = Literal["none", "white", "coarse", "chroma", "blocks"]
FLOOR = 0.25  # level that is added before the logarithm, in levels of 255
SMALLEST = 8  # pixels of a side; smaller images cannot be measured

_FILE = Path(__file__).with_name("noise_estimator.json")
_NONE = 1.0  # level below which noise has no kind
_BLOCKS = 0.4  # blockiness from which the noise is that of JPEG
# In white noise the brightness is a third of the energy, and a quarter of that is coarse.
_COARSE = 1.0  # coarse over fine energy from which noise is coarse; white: 1/3
_CHROMA = 5.0  # energy of the colours over that of the brightness from which noise is of colour; white: 2
_GRAPHIC = 0.25  # share of constant squares of 2x2 pixels in the blocks that vary, above which there is none


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of an image: root mean squares over pixels and channels, in levels of 255 (gray levels of 8
    bits).

    Attributes:
        level: the whole noise, sqrt(fine² + coarse² + chroma²); NaN for an image too small to measure.
        fine: noise of the brightness in details of two pixels.
        coarse: noise of the brightness in larger details, as demosaicing, film and resizing leave it.
        chroma: noise of the colours.
        kind: what most of it is: white, coarse, chroma, or the blocks of JPEG; none below a level of 1.
        graphic: how sure it is that the image is a page, line art or a flat graphic, 0 to 1.
    """

    level: float
    fine: float
    coarse: float
    chroma: float
    kind: NoiseKind
    graphic: float


def estimate_noise(pixels: NDArray[Any]) -> NoiseEstimate:
    """Estimate the noise that is in the pixels now: what JPEG and clipping removed is not counted.

    Method: a small network reads levels of detail in the flattest places at three scales, in brightness and
    colours, with measurements of texture, clipping and blockiness (see `noise_features.measure`), and gives
    the strength of the noise. It was fitted on drawn scenes, photographs and pages with noise of known
    strength: white, of photons, of cameras, of film, of JPEG, and none (`jobs/ready/noise_estimator.py`).
    Where the flattest places show white noise and nothing else, its level is read there directly. A texture
    that fills the image has no noise (see `is_texture`).

    Limits: of weak noise (below 3) in texture that fills the image, a part is not found. Signal-dependent
    noise is measured where the image is flat, so that noise in dark places only is underestimated.

    Args:
        pixels: (H, W, C) uint8 or uint16 of any size, without alpha. Of more than three channels the first
            three are measured, of two the first.

    Raises:
        ValueError: `pixels` has another shape or type.
    """
    if pixels.ndim != 3 or not pixels.shape[2] or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be (H, W, C) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if min(pixels.shape[:2]) < SMALLEST:
        return NoiseEstimate(math.nan, math.nan, math.nan, math.nan, "none", 0.0)
    seen = pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1]
    features = measure(seen)
    levels, graphic = _estimator()(features.values)
    if features.white is None and np.square(levels).sum() >= _NONE**2 and is_texture(seen):
        levels = np.zeros(3)
    if features.white is not None:
        levels = _levels_of_white(features.white, rounded=pixels.dtype == np.uint8)
    # In a graphic only edges vary, and most squares of their blocks stay constant. Noise leaves few constant.
    if features.constant > _GRAPHIC:
        levels, graphic = np.zeros(3), 1.0
    fine, coarse, chroma = (float(level) for level in levels)
    level = math.sqrt(fine**2 + coarse**2 + chroma**2)
    blockiness = float(features.values[BLOCKINESS].mean())
    return NoiseEstimate(level, fine, coarse, chroma, _kind(level, fine, coarse, chroma, blockiness), graphic)


def _levels_of_white(energies: NDArray[np.float64], *, rounded: bool) -> NDArray[np.float64]:
    """Return the fine, coarse and chroma level of white noise, (3,).

    Args:
        energies: mean squares of brightness and of the two colour differences.
        rounded: whether the levels were rounded to whole ones, which adds a variance of 1/12.
    """
    bright, *colours = np.maximum(0.0, energies - rounded / 12 * (energies > 0)) / 3
    return np.sqrt([0.75 * bright, 0.25 * bright, sum(colours)])


def _kind(level: float, fine: float, coarse: float, chroma: float, blockiness: float) -> NoiseKind:
    if level < _NONE:
        return "none"
    if blockiness > _BLOCKS:
        return "blocks"
    if chroma**2 > _CHROMA * (fine**2 + coarse**2):
        return "chroma"
    return "coarse" if coarse**2 > _COARSE * fine**2 else "white"


@dataclass(frozen=True)
class _Estimator:
    """Network of two hidden layers with SiLU from features to the logarithms of three levels, and to the log
    odds of a graphic."""

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    clip: float
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    middle: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
        values = np.clip((features - self.mean) / self.spread, -self.clip, self.clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = weight @ values + bias
            values = values / (1 + np.exp(-values))
        results = (self.weights[-1] @ values + self.biases[-1]).astype(np.float64)
        levels = np.maximum(0.0, np.exp(results[:3] * self.scale + self.middle) - FLOOR)
        return levels, 1 / (1 + math.exp(-min(50.0, max(-50.0, float(results[3])))))


@lru_cache(maxsize=1)
def _estimator() -> _Estimator:
    content = json.loads(_FILE.read_text(encoding="utf-8"))

    def array(values: Any) -> NDArray[np.float32]:
        return np.asarray(values, np.float32)

    return _Estimator(
        mean=array(content["mean"]),
        spread=array(content["spread"]),
        clip=content["clip"],
        weights=tuple(array(weight) for weight in content["weights"]),
        biases=tuple(array(bias) for bias in content["biases"]),
        middle=array(content["middle"]),
        scale=array(content["scale"]),
    )
