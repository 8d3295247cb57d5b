"""Denoise: noise taken away by a denoiser bundle, from images that have some."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from genray.images.noise_level import noise_level
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import StepInput, StepResult
from pipelines.steps.bundle import change, with_pixels
from pipelines.steps.restoration import RestorationSettings, RestorationStep, blended


class DenoisingSettings(Settings):
    """Settings of what is done to an image."""

    clean_below: float = Field(
        4.0,
        ge=0,
        le=255,
        description="images with less noise (in levels of 255, estimated blindly) are copied untouched",
    )
    strength: float = Field(
        1.0, ge=0, le=1, description="of the change; below 1 some noise is left, as film has"
    )


class DenoiseSettings(RestorationSettings):
    """Settings of denoise."""

    denoise: DenoisingSettings = Field(DenoisingSettings(), description="what is done to an image")


class Denoise(RestorationStep[DenoiseSettings]):
    """Every image is judged first: what is clean already is left as it is, byte for byte."""

    settings_class = DenoiseSettings
    kinds = ("denoiser",)
    noise = 25.0

    def make(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        settings = self.settings.denoise
        noise = [noise_level(each.photo.pixels) for each in inputs]
        noisy = [i for i, level in enumerate(noise) if not level < settings.clean_below]
        made = [
            StepResult(copy=each.data, values={"noise": level, "change": 0.0}, skipped="clean")
            for each, level in zip(inputs, noise, strict=True)
        ]
        restored = self.restored([inputs[i].photo.pixels for i in noisy]) if noisy else []
        for i, result in zip(noisy, restored, strict=True):
            photo = inputs[i].photo
            pixels = blended(photo.pixels, result, settings.strength)
            values = {"change": change(photo.pixels, pixels)}
            if not math.isnan(noise[i]):  # nothing can be told of a few pixels: they are not taken for clean
                values["noise"] = noise[i]
            made[i] = StepResult(photo=with_pixels(photo, pixels), values=values)
        return made


TARGET = Bulk(Denoise)
