"""The target reconstruct: images encoded and decoded by an autoencoder, to see what it preserves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genray.images.photo import Photo
from pipelines.engine.target import Bulk
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings, error_limit
from pipelines.steps.base import ImageScores, StepInput, StepResult
from pipelines.steps.pixels import mean_squared_error, without_metadata


class ReconstructSettings(AutoencoderStepSettings):
    """Settings of reconstruct."""


class Reconstruct(AutoencoderStep[ReconstructSettings]):
    """Writes reconstructions, of the network's size, and records their MSE with values in [0, 1]."""

    settings_class = ReconstructSettings

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """Return the largest error of images like those of the training; see `Step`."""
        return error_limit(self.manifest.calibration)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        before = self.network_batch(inputs)
        after = self.decode(self.encode(before))
        return [
            StepResult(
                photo=without_metadata(each.photo, decoded),
                scores=ImageScores(error=mean_squared_error(original, decoded)),
            )
            for each, original, decoded in zip(inputs, before, after, strict=True)
        ]


TARGET = Bulk(Reconstruct)
