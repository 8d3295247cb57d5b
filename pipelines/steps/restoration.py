"""Steps with a restoration network for images of any size and channels, the base of denoise and destamp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import Field
from torch import nn

from genray.images.pixels import Window
from genray.inference.tiling import run_in_tiles
from genray.models.restorer import Restorer
from genray.settings.base import Settings
from pipelines.steps.base import StepPlace
from pipelines.steps.bundle import BundleSettings, BundleStep
from pipelines.steps.pixels import PixelArray


class TileSettings(Settings):
    """Settings of the tiles of large images."""

    size: int = Field(1024, ge=64, le=16384, description="height and width of a tile, in pixels")
    overlap: int = Field(
        96,
        ge=0,
        le=4096,
        description=(
            "pixels that neighbouring tiles share (with 32 to 96 the default denoiser is within "
            "one grey level of its result for the whole image, from 148 on equal to it)"
        ),
    )


class RestorationSettings(BundleSettings):
    """Settings of the targets that use a restoration network."""

    tiles: TileSettings = Field(
        TileSettings(), description="tiles that images larger than two of them are cut into"
    )


R = TypeVar("R", bound=RestorationSettings)


class RestorationStep(BundleStep[R]):
    """A step with a network from images to images of the same size.

    Gray networks take the three channels of a colour image one by one; colour networks take a gray image as
    three equal channels, whose results are averaged. Transparency is not changed.
    """

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        assert isinstance(network, Restorer)
        preprocessing = self.manifest.preprocessing
        self._channels = network.channels
        assert preprocessing.multiple is not None  # `read_manifest` finds it
        self._multiple = preprocessing.multiple
        self._runner = self.make_runner(network, preprocessing.input, preprocessing.output, place)
        return self._runner.notes

    def restore(self, images: Sequence[PixelArray]) -> list[PixelArray]:
        """Return the restored images, for images (H, W, C) of one shape and type."""
        if self.window is None:
            return self._restore(images)
        before = [to_window(image, self.window) for image in images]
        after = self._restore(before)
        return [
            with_change(image, old, new, self.window)
            for image, old, new in zip(images, before, after, strict=True)
        ]

    @property
    def window(self) -> Window | None:
        """Levels that are black and white for the network; None: the whole range."""
        return self.manifest.preprocessing.input.window

    def seen(self, image: PixelArray) -> PixelArray:
        """Return an image as the network sees it, in its own type."""
        return image if self.window is None else to_window(image, self.window)

    def _restore(self, images: Sequence[PixelArray]) -> list[PixelArray]:
        batch = np.stack(images)
        number, height, width, channels = batch.shape
        if channels == self._channels:
            restored = self._run(batch)
        elif self._channels == 1:
            planes = np.moveaxis(batch, -1, 1).reshape(number * channels, height, width, 1)
            restored = np.moveaxis(self._run(planes).reshape(number, channels, height, width), 1, -1)
        else:
            threefold = self._run(np.repeat(batch, self._channels, axis=-1))
            restored = threefold.mean(axis=-1, keepdims=True).round().astype(batch.dtype)
        return list(restored)

    def _run(self, batch: PixelArray) -> PixelArray:
        """Run the network, in tiles if the images are large."""
        tiles = self.settings.tiles
        if batch.shape[1] * batch.shape[2] <= 2 * tiles.size**2:
            return self._runner(batch)
        return np.stack(
            [
                run_in_tiles(
                    self._runner, image, tile=tiles.size, overlap=tiles.overlap, multiple=self._multiple
                )
                for image in batch
            ]
        )


def to_window(image: PixelArray, window: Window) -> PixelArray:
    """Scale levels so that those of `window` become black and white of the image's type."""
    low, high = window
    top = np.iinfo(image.dtype).max
    scaled = (image.astype(np.float32) - low) * (top / (high - low))
    windowed: PixelArray = np.rint(scaled.clip(0, top)).astype(image.dtype)
    return windowed


def with_change(image: PixelArray, before: PixelArray, after: PixelArray, window: Window) -> PixelArray:
    """Return an image with the change from `before` to `after`, which are in `window`: levels beyond the
    window stay."""
    low, high = window
    top = np.iinfo(image.dtype).max
    change = (after.astype(np.float32) - before) * ((high - low) / top)
    changed: PixelArray = np.rint((image + change).clip(0, top)).astype(image.dtype)
    return changed


def blend(before: PixelArray, after: PixelArray, weight: float | PixelArray) -> PixelArray:
    """Return before + weight * (after - before), rounded and clipped to the type; weight is (H, W, 1) or a
    number."""
    if isinstance(weight, float | int) and weight == 1:
        return after
    white = np.iinfo(before.dtype).max
    mixed = before + weight * (after.astype(np.float32) - before)
    return np.clip(np.rint(mixed), 0, white).astype(before.dtype)
