"""The target destamp: removes stamped dates and words with a destamper bundle, and changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import ImageScores, StepInput, StepResult
from pipelines.steps.pixels import (
    PixelArray,
    absolute_difference,
    levels_per_255,
    mean_change,
    with_pixels,
)
from pipelines.steps.restoration import RestorationSettings, RestorationStep, blend


class DestampingSettings(Settings):
    """Settings of the detection of stamps."""

    threshold: float = Field(
        15.0,
        ge=0,
        le=255,
        description="smallest change by the network, in levels of 255, that marks a pixel as stamped",
    )
    least_pixels: int = Field(
        150, ge=1, description="smallest stamp: changed pixels that are connected; fewer are left unchanged"
    )
    feather: int = Field(
        3, ge=0, le=64, description="width of the edge around a stamp over which the change fades, in pixels"
    )
    most_changed: float = Field(
        0.25,
        ge=0,
        le=1,
        description=(
            "share of the pixels that stamps may cover; an image with more is copied unchanged (1: no limit)"
        ),
    )


class DestampSettings(RestorationSettings):
    """Settings of destamp."""

    destamp: DestampingSettings = Field(DestampingSettings(), description="detection of the stamps")


class Destamp(RestorationStep[DestampSettings]):
    """Restores the pixels under a mask of what the network changed most; all others are exactly the input's.

    An output in a lossy format is encoded again, which changes its pixels a little.
    """

    settings_class = DestampSettings
    bundle_kinds = ("destamper",)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        restored = self.restore([image.photo.pixels for image in inputs])
        return [self._destamped(image, pixels) for image, pixels in zip(inputs, restored, strict=True)]

    def _destamped(self, image: StepInput, restored: PixelArray) -> StepResult:
        before = image.photo.pixels
        mask = change_mask(self.seen(before), self.seen(restored), self.settings.destamp)
        if mask is None:
            return StepResult(copy=image.data, scores=ImageScores(change=0.0), skipped="no-stamp")
        if (mask > 0).mean() > self.settings.destamp.most_changed:
            return StepResult(copy=image.data, scores=ImageScores(change=0.0), skipped="would harm")
        after = blend(before, restored, mask)
        return StepResult(
            photo=with_pixels(image.photo, after), scores=ImageScores(change=mean_change(before, after))
        )


def change_mask(
    before: PixelArray, after: PixelArray, settings: DestampingSettings
) -> NDArray[np.float32] | None:
    """Return the mask of the stamps, (H, W, 1) in [0, 1]; None if there are none.

    It contains the pixels that changed by more than the threshold, in groups of at least `least_pixels` after
    gaps of a stroke's width are closed, grown by two pixels on every side, then fading.
    """
    difference = absolute_difference(before, after).max(axis=-1) / levels_per_255(before)
    changed = difference > settings.threshold
    if not changed.any():
        return None
    dilated = ndimage.binary_dilation(changed, iterations=2)
    groups, count = ndimage.label(dilated)
    sizes = ndimage.sum_labels(changed, groups, np.arange(1, count + 1))
    kept = np.concatenate([[False], sizes >= settings.least_pixels])[groups]
    if not kept.any():
        return None
    if not settings.feather:
        return np.asarray(kept[..., None], np.float32)
    distance = ndimage.distance_transform_edt(~kept)
    fading = np.clip(1.0 - distance / (settings.feather + 1), 0.0, 1.0)
    return np.asarray(fading[..., None], np.float32)


TARGET = Bulk(Destamp)
