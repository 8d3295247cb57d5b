"""The target denoise: removes noise with a denoiser bundle, from images that have some."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from genray.images.damage.noise_level import noise_level
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import ImageScores, StepInput, StepResult
from pipelines.steps.pixels import PixelArray, mean_change, with_pixels
from pipelines.steps.restoration import RestorationSettings, RestorationStep, blend


class DenoisingSettings(Settings):
    """Settings of the denoising of an image."""

    clean_below: float = Field(
        4.0,
        ge=0,
        le=255,
        description="estimated noise, in levels of 255, below which an image is copied unchanged",
    )
    strength: float = Field(
        1.0, ge=0, le=1, description="strength of the change (below 1 some noise is left, like film grain)"
    )


class DenoiseSettings(RestorationSettings):
    """Settings of denoise."""

    denoise: DenoisingSettings = Field(
        DenoisingSettings(), description="strength of the denoising, and images that are left unchanged"
    )


class Denoise(RestorationStep[DenoiseSettings]):
    """Estimates the noise of each image, and copies clean images unchanged, byte for byte."""

    settings_class = DenoiseSettings
    bundle_kinds = ("denoiser",)
    noise_sigma = 25.0

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        levels = [noise_level(self.seen(image.photo.pixels)) for image in inputs]
        # A level of NaN means too few pixels for an estimate: the image does not count as clean.
        noisy = [
            image.photo for image, level in zip(inputs, levels, strict=True) if not self._is_clean(level)
        ]
        restored = iter(self.restore([photo.pixels for photo in noisy]) if noisy else [])
        results = []
        for image, level in zip(inputs, levels, strict=True):
            if self._is_clean(level):
                results.append(self._copied(image, level))
            else:
                results.append(self._denoised(image, level, next(restored)))
        return results

    def _is_clean(self, level: float) -> bool:
        return level < self.settings.denoise.clean_below

    def _copied(self, image: StepInput, level: float) -> StepResult:
        return StepResult(copy=image.data, scores=ImageScores(noise=level, change=0.0), skipped="clean")

    def _denoised(self, image: StepInput, level: float, restored: PixelArray) -> StepResult:
        before = image.photo.pixels
        after = blend(before, restored, self.settings.denoise.strength)
        noise = None if math.isnan(level) else level
        return StepResult(
            photo=with_pixels(image.photo, after),
            scores=ImageScores(noise=noise, change=mean_change(before, after)),
        )


TARGET = Bulk(Denoise)
