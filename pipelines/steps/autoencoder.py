"""What reconstruct, embed, compress and detect share: images through an autoencoder."""

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
    """A step with an autoencoder. Images are brought to its size as those were that it was trained on; of 16
    bits they are taken as 8; transparency is not seen."""

    bundle_kinds: ClassVar[tuple[str, ...]] = ("autoencoder", "anomaly")

    def check(self) -> Sequence[str]:
        """See `Step`."""
        if self.settings.inference.precision == "int8":
            raise SettingsError(
                "int8 is for networks from images to images",
                where="inference.precision",
                hint="set fp32 or bf16: with an autoencoder most of the time goes into decoding files",
            )
        height, width = self.size
        colours = "gray" if self.manifest.preprocessing.input.channels == 1 else "in colour"
        return [*super().check(), f"images are brought to {width}x{height} pixels, {colours}"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the network takes."""
        return self.manifest.preprocessing.size

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        assert isinstance(network, Autoencoder)
        preprocessing = self.manifest.preprocessing
        self._encoder = self.make_runner(EncoderNetwork(network), preprocessing.input, None, place)
        self._decoder = self.make_runner(DecoderNetwork(network), None, preprocessing.output, place)
        return self._encoder.notes

    def batch_key(self, photo: Photo | None) -> Hashable:
        """All images are of one size when they reach the network."""
        return None

    def batch_weight(self, photo: Photo | None) -> float:
        """In the network they are all as heavy."""
        return float(self.size[0] * self.size[1])

    def network_batch(self, inputs: Sequence[StepInput]) -> PixelArray:
        """(N, H, W, C) uint8: the inputs, `fitted`."""
        return np.stack([self.fitted(each.photo) for each in inputs])

    def fitted(self, photo: Photo) -> NDArray[np.uint8]:
        """`photo` at the size of the network."""
        # Fewer channels first: less to resize.
        return resized(self.network_pixels(photo), self.size, self.manifest.preprocessing.fit or "stretch")

    def encode(self, images: PixelArray) -> NDArray[np.float32]:
        """(N, H, W, C) -> (N, latent)."""
        return np.asarray(self._encoder(images), np.float32)

    def decode(self, codes: NDArray[np.float32]) -> PixelArray:
        """(N, latent) -> (N, H, W, C) uint8."""
        return self._decoder(codes)


def resized(image: PixelArray, size: tuple[int, int], fit: Literal["crop", "stretch"]) -> NDArray[np.uint8]:
    """(H, W, C) uint8 -> (*size, C), bicubic with antialiasing: the largest part in the middle of the same
    shape, or the whole, stretched.

    Within one level of what Pillow makes, which training uses, in a sixth of its time.
    """
    if fit == "crop":
        image = _cropped(image, size)
    if image.shape[:2] == size:
        return np.asarray(image, np.uint8)
    planes = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    interpolated = F.interpolate(planes, size, mode="bicubic", antialias=True)
    return interpolated[0].permute(1, 2, 0).contiguous().numpy()


def error_limit(calibration: Mapping[str, Any]) -> dict[str, float]:
    """The largest error of held-out images of the training, if a bundle's calibration knows the mean squared
    error, as a step's `prepare` returns it."""
    largest = calibration.get("quantiles", {}).get("1")
    if calibration.get("error") != "mse" or largest is None:
        return {}
    return {"error_limit": float(largest)}


class EncoderNetwork(nn.Module):
    """The first half of an autoencoder."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to codes."""
        return self.network.encode(images)


class DecoderNetwork(nn.Module):
    """The second half of an autoencoder."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes to images."""
        return self.network.decode(codes)


def _cropped(image: PixelArray, size: tuple[int, int]) -> PixelArray:
    """The largest part in the middle whose sides are in the ratio of `size`."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    crop_height = round(size[0] * scale)
    crop_width = round(size[1] * scale)
    top = (height - crop_height) // 2
    left = (width - crop_width) // 2
    return image[top : top + crop_height, left : left + crop_width]
