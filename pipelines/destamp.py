"""Destamp: stamped dates and words taken away by a destamper bundle, and nothing else changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import StepInput, StepResult
from pipelines.steps.bundle import PixelArray, change, with_pixels
from pipelines.steps.restoration import RestorationSettings, RestorationStep, blended


class DestampingSettings(Settings):
    """Settings of what is taken for a stamp."""

    threshold: float = Field(
        15.0,
        ge=0,
        le=255,
        description="levels of 255 by which the network has to change a pixel, to be believed",
    )
    least_pixels: int = Field(
        150, ge=1, description="changed pixels that hang together; fewer are not a stamp"
    )
    feather: int = Field(3, ge=0, le=64, description="pixels around the stamp over which the change fades")


class DestampSettings(RestorationSettings):
    """Settings of destamp."""

    destamp: DestampingSettings = Field(DestampingSettings(), description="what is taken for a stamp")


class Destamp(RestorationStep[DestampSettings]):
    """Outside of a mask of what the network changed most, pixels are the input's own, exactly.

    That is of the pixels: an output in a lossy format is encoded again.
    """

    settings_class = DestampSettings
    kinds = ("destamper",)

    def make(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        made = []
        for each, result in zip(inputs, self.restored([i.photo.pixels for i in inputs]), strict=True):
            before = each.photo.pixels
            mask = change_mask(before, result, self.settings.destamp)
            if mask is None:
                made.append(StepResult(copy=each.data, values={"change": 0.0}, skipped="no-stamp"))
                continue
            pixels = blended(before, result, mask)
            made.append(
                StepResult(photo=with_pixels(each.photo, pixels), values={"change": change(before, pixels)})
            )
        return made


def change_mask(
    before: PixelArray, after: PixelArray, settings: DestampingSettings
) -> NDArray[np.float32] | None:
    """(H, W, 1) in [0, 1]: where `after` is to be believed; None if nowhere.

    Pixels that changed by more than the threshold, in groups of at least `least_pixels` when gaps of a
    stroke's width are closed; two pixels more on every side, then fading.
    """
    scale = 257.0 if before.dtype == np.uint16 else 1.0
    moved = (np.maximum(before, after) - np.minimum(before, after)).max(axis=-1) / scale > settings.threshold
    if not moved.any():
        return None
    near = ndimage.binary_dilation(moved, iterations=2)
    groups, count = ndimage.label(near)
    sizes = ndimage.sum_labels(moved, groups, np.arange(1, count + 1))
    kept = np.concatenate([[False], sizes >= settings.least_pixels])[groups]
    if not kept.any():
        return None
    if not settings.feather:
        return np.asarray(kept[..., None], np.float32)
    distance = ndimage.distance_transform_edt(~kept)
    fading = np.clip(1.0 - distance / (settings.feather + 1), 0.0, 1.0)
    return np.asarray(fading[..., None], np.float32)


TARGET = Bulk(Destamp)
