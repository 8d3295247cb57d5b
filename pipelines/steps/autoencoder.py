"""Steps with an autoencoder, the base of reconstruct, embed, compress and detect."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from genray.errors import SettingsError
from genray.images.photo import Photo
from genray.models.autoencoder import Autoencoder
from pipelines.steps.base import StepInput, StepPlace
from pipelines.steps.bundle import BundleSettings, BundleStep
from pipelines.steps.pixels import PixelArray


class AutoencoderStepSettings(BundleSettings):
    """Settings of the targets that use an autoencoder."""


C = TypeVar("C", bound=AutoencoderStepSettings)


class AutoencoderStep(BundleStep[C]):
    """A step with an autoencoder. Images are resized to its size in the way of its training; 16 bits are
    reduced to 8; transparency is ignored."""

    bundle_kinds: ClassVar[tuple[str, ...]] = ("autoencoder", "anomaly")
    reads_levels = True
    decodes: ClassVar[bool] = True
    """Whether the step uses the decoder, which takes seconds to open."""

    @property
    def draws(self) -> bool:
        """Whether the results contain images of the network."""
        return self.writes_images

    def check(self) -> Sequence[str]:
        """See `Step`."""
        if self.settings.inference.precision == "int8":
            raise SettingsError(
                "inference.precision=int8 is only for networks from images to images",
                where="inference.precision",
                hint="set fp32 or bf16: with an autoencoder, most of the time is spent on decoding files",
            )
        height, width = self.size
        channels = self.manifest.preprocessing.input.channels
        if self.draws and channels not in (1, 3):
            raise SettingsError(
                f"the bundle's images have {channels} channels, which no image format holds",
                where=f"bundle: {self.settings.bundle}",
                hint="embed, and detect with detect.heat_maps=none, take it",
            )
        colours = {1: "gray", 3: "in colour"}.get(channels, f"{channels} channels")
        return [*super().check(), f"images are resized to {width}x{height} pixels, {colours}"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's images."""
        return self.manifest.preprocessing.size

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        assert isinstance(network, Autoencoder)
        preprocessing = self.manifest.preprocessing
        notes = self.open_encoder(EncoderNetwork(network), place)
        if self.decodes:
            self._decoder = self.make_runner(DecoderNetwork(network), None, preprocessing.output, place)
        return notes

    def open_encoder(self, network: nn.Module, place: StepPlace) -> Sequence[str]:
        """Open what makes vectors of images; returns notes for the user."""
        self._encoder = self.make_runner(network, self.manifest.preprocessing.input, None, place)
        return self._encoder.notes

    def batch_key(self, photo: Photo | None) -> Hashable:
        """Return the key of the batch: all images have one size when they reach the network."""
        return None

    def batch_weight(self, photo: Photo | None) -> float:
        """Return the pixels of the network's image, equal for all inputs."""
        return float(self.size[0] * self.size[1])

    def network_batch(self, inputs: Sequence[StepInput]) -> PixelArray:
        """Return the inputs, `fitted`, as (N, H, W, C) uint8."""
        return np.stack([self.fitted(each.photo) for each in inputs])

    def fitted(self, photo: Photo) -> NDArray[np.uint8]:
        """Return the pixels of `photo` at the size of the network."""
        # Channels are reduced first: fewer values to resize.
        return resized(self.network_pixels(photo), self.size, self.manifest.preprocessing.fit or "stretch")

    def encode(self, images: PixelArray) -> NDArray[np.float32]:
        """Encode (N, H, W, C) to (N, latent)."""
        return np.asarray(self._encoder(images), np.float32)

    def decode(self, codes: NDArray[np.float32]) -> PixelArray:
        """Decode (N, latent) to (N, H, W, C) uint8."""
        return self._decoder(codes)


def resized(image: PixelArray, size: tuple[int, int], fit: Literal["crop", "stretch"]) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8 to (*size, C), bicubic with antialiasing: the largest part in the middle of the
    same aspect ratio, or the whole, stretched.

    The result is within one level of Pillow's, which training uses, in a sixth of the time.
    """
    if fit == "crop":
        image = _cropped(image, size)
    if image.shape[:2] == size:
        return np.asarray(image, np.uint8)
    planes = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    interpolated = F.interpolate(planes, size, mode="bicubic", antialias=True)
    return interpolated[0].permute(1, 2, 0).contiguous().numpy()


def error_limit(calibration: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest error of the training's held-out images, as a step's `prepare` returns it, if the
    bundle is calibrated by the mean squared error."""
    largest = calibration.get("quantiles", {}).get("1")
    if calibration.get("error") != "mse" or largest is None:
        return {}
    return {"error_limit": float(largest)}


class EncoderNetwork(nn.Module):
    """Encoder of an autoencoder, as a network."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images."""
        return self.network.encode(images)


class DecoderNetwork(nn.Module):
    """Decoder of an autoencoder, as a network."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode codes."""
        return self.network.decode(codes)


def _cropped(image: PixelArray, size: tuple[int, int]) -> PixelArray:
    """Return the largest part in the middle with the aspect ratio of `size`."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    crop_height = round(size[0] * scale)
    crop_width = round(size[1] * scale)
    top = (height - crop_height) // 2
    left = (width - crop_width) // 2
    return image[top : top + crop_height, left : left + crop_width]
