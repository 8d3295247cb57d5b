"""Corrupt: noise and stamps put on clean images, to make data to train and to test with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from genray.images.corruptions import NoiseSettings, corrupt_held_out
from genray.images.stamps import StampSettings, stamp
from genray.io.bad_input import BadImage
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput, StepPlace, StepResult
from pipelines.steps.bundle import PixelArray, as_channels, change, with_pixels
from pipelines.storage.ledger import path_hash

_LEAST = 16  # pixels a side that a stamp needs


class CorruptionSettings(Settings):
    """Settings of the damage."""

    kind: Literal["noise", "stamps", "both"] = Field(
        "noise", description="both: stamps, then noise over them"
    )
    seed: int = Field(0, ge=0, description="the same seed and path give the same damage")
    noise: NoiseSettings = Field(NoiseSettings(), description="the noise")
    stamps: StampSettings = Field(StampSettings(), description="the stamps")


class CorruptSettings(BulkSettings):
    """Settings of corrupt."""

    corrupt: CorruptionSettings = Field(CorruptionSettings(), description="the damage")


class Corrupt(Step[CorruptSettings]):
    """What an image gets depends on the seed and its path alone, so that a second run makes the same.
    Stamps are for images of 8 bits.
    """

    settings_class = CorruptSettings
    can_use_gpu = False

    def check(self) -> Sequence[str]:
        """See `Step`."""
        return [f"damage: {self.settings.corrupt.kind}, seed {self.settings.corrupt.seed}"]

    def open(self, place: StepPlace, header: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        torch.set_num_threads(place.threads)
        return []

    def make(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        return [self._damaged(each) for each in inputs]

    def _damaged(self, each: StepInput) -> StepResult:
        settings = self.settings.corrupt
        pixels: PixelArray = each.photo.pixels
        key = (settings.seed, int(path_hash(each.path)))
        if settings.kind != "noise":
            if pixels.dtype != np.uint8 or min(pixels.shape[:2]) < _LEAST:
                raise BadImage("odd-shape", f"a stamp needs 8 bits and {_LEAST} pixels a side")
            pixels, _ = stamp(np.asarray(pixels, np.uint8), settings.stamps, key)
        if settings.kind != "stamps":
            pixels = self._noisy(pixels, key)
        values = {"change": change(each.photo.pixels, pixels)}
        return StepResult(photo=with_pixels(each.photo, pixels), values=values)

    def _noisy(self, pixels: PixelArray, key: tuple[int, int]) -> PixelArray:
        top = np.iinfo(pixels.dtype).max
        image = torch.from_numpy(
            np.ascontiguousarray(as_channels(pixels, pixels.shape[-1]), np.float32) / top
        )
        noisy = corrupt_held_out(image.permute(2, 0, 1)[None], self.settings.corrupt.noise, key[0], [key[1]])
        made = noisy[0].permute(1, 2, 0).clamp(0, 1).mul(top).round().numpy()
        return np.ascontiguousarray(made.astype(pixels.dtype))


TARGET = Bulk(Corrupt)
