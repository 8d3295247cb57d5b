"""The target corrupt: noise and stamps on clean images, to make training and test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from genray.images.damage.corruptions import NoiseSettings, corrupt_held_out
from genray.images.damage.stamps import StampSettings, stamp
from genray.io.bad_input import BadImage
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.settings import BulkSettings
from pipelines.steps.base import ImageScores, Step, StepInput, StepPlace, StepResult
from pipelines.steps.pixels import PixelArray, mean_change, with_pixels
from pipelines.storage.ledger.index import path_hash

_SMALLEST_STAMPED = 16  # shortest side that can be stamped, in pixels


class CorruptionSettings(Settings):
    """Settings of the damage."""

    kind: Literal["noise", "stamps", "both"] = Field(
        "noise", description="kind of damage (both: stamps, then noise over them)"
    )
    seed: int = Field(0, ge=0, description="seed of the damage; the same seed and path give the same damage")
    noise: NoiseSettings = Field(NoiseSettings(), description="noise added to the images")
    stamps: StampSettings = Field(StampSettings(), description="stamps put on the images")


class CorruptSettings(BulkSettings):
    """Settings of corrupt."""

    corrupt: CorruptionSettings = Field(CorruptionSettings(), description="damage that is put on the images")


class Corrupt(Step[CorruptSettings]):
    """Adds noise and stamps that depend only on the seed and the image's path, so that a second run gives
    the same. Stamps are for images of 8 bits.
    """

    settings_class = CorruptSettings
    can_use_gpu = False

    def check(self) -> Sequence[str]:
        """See `Step`."""
        return [f"damage: {self.settings.corrupt.kind}, seed {self.settings.corrupt.seed}"]

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        torch.set_num_threads(place.threads)
        return []

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        return [self._corrupted(image) for image in inputs]

    def _corrupted(self, image: StepInput) -> StepResult:
        settings = self.settings.corrupt
        before: PixelArray = image.photo.pixels
        after = before
        key = (settings.seed, int(path_hash(image.key)))
        if settings.kind != "noise":
            if before.dtype != np.uint8 or min(before.shape[:2]) < _SMALLEST_STAMPED:
                raise BadImage(
                    "odd-shape",
                    f"a stamp needs an image of 8 bits and at least {_SMALLEST_STAMPED} pixels per side",
                )
            after, _ = stamp(np.asarray(before, np.uint8), settings.stamps, key)
        if settings.kind != "stamps":
            after = self._with_noise(after, key)
        return StepResult(
            photo=with_pixels(image.photo, after), scores=ImageScores(change=mean_change(before, after))
        )

    def _with_noise(self, pixels: PixelArray, key: tuple[int, int]) -> PixelArray:
        seed, image_key = key
        white = np.iinfo(pixels.dtype).max
        image = torch.from_numpy(np.ascontiguousarray(pixels, np.float32) / white)
        batch = image.permute(2, 0, 1)[None]
        noisy = corrupt_held_out(batch, self.settings.corrupt.noise, seed, [image_key])
        values = noisy[0].permute(1, 2, 0).clamp(0, 1).mul(white).round().numpy()
        return np.ascontiguousarray(values.astype(pixels.dtype))


TARGET = Bulk(Corrupt)
