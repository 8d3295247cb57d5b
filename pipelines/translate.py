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

from genray.bundle import ImageSpec
from genray.errors import SettingsError
from genray.images.labels import class_map, colours_of, one_hot, resize_indices
from genray.images.photo import Photo
from genray.inference.tiling import run_in_tiles
from genray.io.bad_input import BadImage
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import ImageScores, StepInput, StepPlace, StepResult
from pipelines.steps.bundle import BundleSettings, BundleStep
from pipelines.steps.pixels import PixelArray, as_channels, in_window, without_metadata


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
    reads_levels = True

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        preprocessing = self.manifest.preprocessing
        self._run = self.make_runner(network, preprocessing.input, preprocessing.output, place)
        return self._run.notes

    def network_pixels(self, photo: Photo) -> NDArray[np.uint8]:
        """Return the photo at the size of the network's training; see `BundleStep`."""
        return self._at_size(self._halves(photo).before, *self.manifest.preprocessing.size)

    def check(self) -> Sequence[str]:
        """See `Step`."""
        channels = self.manifest.preprocessing.output.channels
        if channels not in (1, 3, 4):
            raise SettingsError(
                f"the bundle's outputs have {channels} channels, which no image format holds",
                where=f"bundle: {self.settings.bundle}",
                hint="use it in Python (examples/use_a_bundle.py)",
            )
        return super().check()

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
            classes = self.manifest.preprocessing.input.classes
            shown_before = before if classes is None else colours_of(before, classes)
            shown = [as_channels(image, 3) for image in (shown_before, after, target) if image is not None]
            also["-beside"] = without_metadata(photo, np.concatenate(shown, axis=1))
        translated = without_metadata(photo, after)
        if target is None:
            translated = replace(translated, alpha=photo.alpha)
        return StepResult(photo=translated, also=also, scores=ImageScores(error=error))

    def _halves(self, photo: Photo) -> _Halves:
        takes, gives = self.manifest.preprocessing.input, self.manifest.preprocessing.output
        pixels = photo.pixels
        half = self.settings.translate.half
        if half == "none":
            return _Halves(_as_input(pixels, takes), None)
        width = pixels.shape[1]
        if width < 2 or width % 2:
            raise BadImage("odd-shape", f"the image is {width} pixels wide and cannot be halved")
        left, right = pixels[:, : width // 2], pixels[:, width // 2 :]
        from_left = half == "left" or (half == "auto" and self.manifest.preprocessing.direction == "AtoB")
        before, target = (left, right) if from_left else (right, left)
        shown = as_channels(in_window(target, gives.window), gives.channels)
        return _Halves(_as_input(before, takes), shown)

    def _translated(self, images: Sequence[PixelArray]) -> list[PixelArray]:
        height, width = self.manifest.preprocessing.size
        if self.settings.translate.fit == "tile":
            return [self._tiled(self._in_channels(image), height) for image in images]
        batch = self._run(np.stack([self._at_size(image, height, width) for image in images]))
        return [
            _resized(translated, *image.shape[:2]) for translated, image in zip(batch, images, strict=True)
        ]

    def _at_size(self, image: PixelArray, height: int, width: int) -> PixelArray:
        """Return an input at a size, in the channels of the network."""
        if self.manifest.preprocessing.input.classes is None:
            return _resized(image, height, width)
        return self._in_channels(resize_indices(image, height, width))

    def _in_channels(self, image: PixelArray) -> PixelArray:
        """Return an input in the channels of the network: a map of class indices as one channel each."""
        classes = self.manifest.preprocessing.input.classes
        return image if classes is None else one_hot(image, len(classes))

    def _tiled(self, image: PixelArray, tile: int) -> PixelArray:
        # An image smaller than a tile is mirrored to the size of a tile.
        height, width = image.shape[:2]
        padding = [(0, max(0, tile - height)), (0, max(0, tile - width)), (0, 0)]
        padded = np.pad(image, padding, mode="symmetric")
        overlap = min(self.settings.translate.overlap, tile // 2)
        return run_in_tiles(self._run, padded, tile=tile, overlap=overlap, blend=True)[:height, :width]


@dataclass(frozen=True)
class _Halves:
    """The input half (for label maps the indices of its classes), and the target half if there is one; both
    uint8."""

    before: PixelArray
    target: PixelArray | None


def _as_input(pixels: PixelArray, takes: ImageSpec) -> PixelArray:
    """Return pixels in the window and channels of the network, or label maps as indices of its classes.

    Raises:
        BadImage: the pixels do not fit.
    """
    if takes.classes is not None:
        return class_map(pixels, takes.classes)
    return as_channels(in_window(pixels, takes.window), takes.channels)


def _resized(image: PixelArray, height: int, width: int) -> PixelArray:
    """Resize (H, W, C) uint8 to (height, width, C), bicubic, with antialiasing when shrinking."""
    if image.shape[:2] == (height, width):
        return image
    if image.shape[-1] not in (1, 3, 4):
        planes = [_resized(image[..., i : i + 1], height, width) for i in range(image.shape[-1])]
        return np.concatenate(planes, axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))
    array = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return array.reshape(height, width, image.shape[-1])


TARGET = Bulk(Translate)
