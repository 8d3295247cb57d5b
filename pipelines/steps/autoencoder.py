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
from pipelines.steps.bundle import BundleSettings, BundleStep, PixelArray


class AutoencoderStepSettings(BundleSettings):
    """Settings of the targets that use an autoencoder."""


C = TypeVar("C", bound=AutoencoderStepSettings)


class AutoencoderStep(BundleStep[C]):
    """A step with an autoencoder. Images are brought to its size as those were that it was trained on; of 16
    bits they are taken as 8; transparency is not seen."""

    kinds: ClassVar[tuple[str, ...]] = ("autoencoder", "anomaly")

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

    def open_network(self, network: nn.Module, place: StepPlace, header: Mapping[str, Any]) -> Sequence[str]:
        """See `BundleStep`."""
        assert isinstance(network, Autoencoder)
        spec = self.manifest.preprocessing.input
        self._encode = self.runner(_Encoder(network), spec, None, place)
        self._decode = self.runner(_Decoder(network), None, self.manifest.preprocessing.output, place)
        return self._encode.notes

    def key(self, photo: Photo | None) -> Hashable:
        """All images are of one size when they reach the network."""
        return None

    def weight(self, photo: Photo | None) -> float:
        """In the network they are all as heavy."""
        return float(self.size[0] * self.size[1])

    def seen_by(self, inputs: Sequence[StepInput]) -> PixelArray:
        """(N, H, W, C) uint8: the inputs, `fitted`."""
        return np.stack([self.fitted(each.photo) for each in inputs])

    def fitted(self, photo: Photo) -> NDArray[np.uint8]:
        """`photo` at the size of the network."""
        # Fewer channels first: less to resize.
        return resized(self.seen(photo), self.size, self.manifest.preprocessing.fit or "stretch")

    def codes(self, images: PixelArray) -> NDArray[np.float32]:
        """(N, H, W, C) -> (N, latent)."""
        return np.asarray(self._encode(images), np.float32)

    def decoded(self, codes: NDArray[np.float32]) -> PixelArray:
        """(N, latent) -> (N, H, W, C) uint8."""
        return self._decode(codes)


def resized(image: PixelArray, size: tuple[int, int], fit: Literal["crop", "stretch"]) -> NDArray[np.uint8]:
    """(H, W, C) uint8 -> (*size, C), bicubic with antialiasing: the largest part in the middle of the same
    shape, or the whole, stretched.

    Within one level of what Pillow makes, which training uses, in a sixth of its time.
    """
    if fit == "crop":
        height, width = image.shape[:2]
        scale = min(height / size[0], width / size[1])
        high, wide = round(size[0] * scale), round(size[1] * scale)
        top, left = (height - high) // 2, (width - wide) // 2
        image = image[top : top + high, left : left + wide]
    if image.shape[:2] == size:
        return np.asarray(image, np.uint8)
    planes = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    made = F.interpolate(planes, size, mode="bicubic", antialias=True)
    return made[0].permute(1, 2, 0).contiguous().numpy()


class _Encoder(nn.Module):
    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.encode(images)


class _Decoder(nn.Module):
    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.network.decode(codes)
