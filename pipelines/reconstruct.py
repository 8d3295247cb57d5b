"""Reconstruct: images through an autoencoder and back, to see what it keeps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genray.images.photo import Photo
from pipelines.engine.target import Bulk
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings
from pipelines.steps.base import StepInput, StepResult
from pipelines.steps.bundle import PixelArray


class ReconstructSettings(AutoencoderStepSettings):
    """Settings of reconstruct."""


class Reconstruct(AutoencoderStep[ReconstructSettings]):
    """Writes the reconstruction, of the network's own size, and records its MSE of values in [0, 1]."""

    settings_class = ReconstructSettings

    def prepare(self, sample: Sequence[Photo], model: Path) -> Mapping[str, Any]:
        """See `Step`: the error beyond which an image is unlike those of the training."""
        return error_limit(self.manifest.calibration)

    def make(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        seen = self.seen_by(inputs)
        made = self.decoded(self.codes(seen))
        return [
            StepResult(photo=plain(pixels, each.photo), values={"error": mse(before, pixels)})
            for each, before, pixels in zip(inputs, seen, made, strict=True)
        ]


def plain(pixels: PixelArray, like: Photo) -> Photo:
    """A photo of other pixels, in the format of `like`, with nothing else of it."""
    return replace(like, pixels=pixels, alpha=None, icc=None, exif=None)


def mse(first: PixelArray, second: PixelArray) -> float:
    """Mean squared error of two uint8 images, of values in [0, 1]."""
    difference = first.astype(np.float32) - second
    return float(np.mean(np.square(difference)) / 255**2)


def error_limit(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """The largest error of held-out images of the training, if the bundle knows it in this measure."""
    if calibration.get("error") != "mse":
        return {}
    return {"error_limit": float(calibration["quantiles"]["1"])}


TARGET = Bulk(Reconstruct)
