"""The target translate: images of one kind turned into another by a pix2pix bundle."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import nn

from genray.images.photo import Photo, to_eight_bits
from genray.images.pixels import apply_window
from genray.inference.tiling import run_in_tiles
from genray.io.bad_input import BadImage
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import ImageScores, StepInput, StepPlace, StepResult
from pipelines.steps.bundle import BundleSettings, BundleStep
from pipelines.steps.pixels import PixelArray, as_channels, without_metadata


class TranslationSettings(Settings):
    """Settings of size and halves of the images."""

    fit: Literal["resize", "tile"] = Field(
        "resize",
        description=(
            "fit of an image to the network (resize: to the size of its training and back; tile: "
            "at the image's own size, in tiles that fade into each other)"
        ),
    )
    half: Literal["none", "left", "right", "auto"] = Field(
        "none",
        description=(
            "half of the input to take, if inputs are pairs side by side (auto: the half that "
            "the network was trained on)"
        ),
    )
    overlap: int = Field(64, ge=0, le=1024, description="pixels that neighbouring tiles share and fade over")
    beside: bool = Field(False, description="write NAME-beside, too: input and output side by side")


class TranslateSettings(BundleSettings):
    """Settings of translate."""

    translate: TranslationSettings = Field(
        TranslationSettings(), description="size and halves of the images for the network"
    )


class Translate(BundleStep[TranslateSettings]):
    """Writes outputs of the inputs' size, with the channels of the network; images of 16 bits are reduced to
    8, and transparency is preserved.

    For pairs, the ledger's `error` is the mean absolute difference to the other half, with values in [0, 1].
    """

    settings_class = TranslateSettings
    bundle_kinds = ("pix2pix",)

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        preprocessing = self.manifest.preprocessing
        self._run = self.make_runner(network, preprocessing.input, preprocessing.output, place)
        return self._run.notes

    def network_pixels(self, photo: Photo) -> NDArray[np.uint8]:
        """Return the photo at the size of the network's training; see `BundleStep`."""
        return _resized(self._halves(photo).before, *self.manifest.preprocessing.size)

    def batch_key(self, photo: Photo | None) -> Hashable:
        """Return the key of the batch: resized images all have one size."""
        return None if self.settings.translate.fit == "resize" else super().batch_key(photo)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        halves = [self._halves(each.photo) for each in inputs]
        translated = self._translated([each.before for each in halves])
        return [
            self._result(each.photo, half, after)
            for each, half, after in zip(inputs, halves, translated, strict=True)
        ]

    @property
    def keeps_samples(self) -> bool:
        """See `Step`: with pictures beside the results there are several for one input."""
        return not self.settings.translate.beside

    def _result(self, photo: Photo, halves: _Halves, after: PixelArray) -> StepResult:
        before = halves.before
        target = halves.target
        error = None
        if target is not None and target.shape == after.shape:
            error = float(np.abs(target.astype(np.float32) - after).mean() / 255)
        also = {}
        if self.settings.translate.beside:
            shown = [as_channels(image, 3) for image in (before, after, target) if image is not None]
            also["-beside"] = without_metadata(photo, np.concatenate(shown, axis=1))
        translated = without_metadata(photo, after)
        if target is None:
            translated = replace(translated, alpha=photo.alpha)
        return StepResult(photo=translated, also=also, scores=ImageScores(error=error))

    def _halves(self, photo: Photo) -> _Halves:
        preprocessing = self.manifest.preprocessing
        pixels = _in_window(photo, preprocessing.input.window)
        half = self.settings.translate.half
        if half == "none":
            return _Halves(as_channels(pixels, preprocessing.input.channels), None)
        width = pixels.shape[1]
        if width < 2 or width % 2:
            raise BadImage("odd-shape", f"the image is {width} pixels wide and cannot be halved")
        left, right = pixels[:, : width // 2], pixels[:, width // 2 :]
        from_left = half == "left" or (half == "auto" and preprocessing.direction == "AtoB")
        before, target = (left, right) if from_left else (right, left)
        if preprocessing.output.window != preprocessing.input.window:
            pixels = _in_window(photo, preprocessing.output.window)
            target = pixels[:, width // 2 :] if from_left else pixels[:, : width // 2]
        return _Halves(
            as_channels(before, preprocessing.input.channels),
            as_channels(target, preprocessing.output.channels),
        )

    def _translated(self, images: Sequence[PixelArray]) -> list[PixelArray]:
        height, width = self.manifest.preprocessing.size
        if self.settings.translate.fit == "tile":
            return [self._tiled(image, height) for image in images]
        batch = self._run(np.stack([_resized(image, height, width) for image in images]))
        return [
            _resized(translated, *image.shape[:2]) for translated, image in zip(batch, images, strict=True)
        ]

    def _tiled(self, image: PixelArray, tile: int) -> PixelArray:
        # An image smaller than a tile is mirrored to the size of a tile.
        height, width = image.shape[:2]
        padding = [(0, max(0, tile - height)), (0, max(0, tile - width)), (0, 0)]
        padded = np.pad(image, padding, mode="symmetric")
        overlap = min(self.settings.translate.overlap, tile // 2)
        return run_in_tiles(self._run, padded, tile=tile, overlap=overlap, blend=True)[:height, :width]


def _in_window(photo: Photo, window: tuple[float, float] | None) -> PixelArray:
    """Return the pixels as 8 bits; the levels of `window` become black and white (None: the whole range)."""
    return to_eight_bits(photo.pixels) if window is None else apply_window(photo.pixels, window)


@dataclass(frozen=True)
class _Halves:
    """The input half, and the target half if there is one; both uint8."""

    before: PixelArray
    target: PixelArray | None


def _resized(image: PixelArray, height: int, width: int) -> PixelArray:
    """Resize (H, W, C) uint8 to (height, width, C), bicubic, with antialiasing when shrinking."""
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))
    array = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return array.reshape(height, width, image.shape[-1])


TARGET = Bulk(Translate)
