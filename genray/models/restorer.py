"""Restoration networks: damaged images in, restored ones out, at any size.

The base class, and the denoising autoencoder of the tutorials (TensorFlow, "Intro to Autoencoders", second
example).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from genray.models.autoencoder import Widths, crop, init_he, init_xavier, up_to_multiple
from genray.settings.base import Settings


class Restorer(nn.Module, ABC):
    """Base of restoration networks: damaged images (N, C, H, W), nominally in [0, 1] -> restored ones.

    Outputs are not clamped to [0, 1], as training needs the gradients beyond. Height and width are free, down
    to one pixel: images are padded for `restore`, and the result is cropped.

    Args:
        channels: channels of the images, 1 for gray and 3 for colour; no others are accepted.
        multiple: divisor of the heights and widths that `restore` gets.

    Raises:
        ValueError: no channels; images with other channels, or without pixels.
    """

    def __init__(self, channels: int, multiple: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        self.channels = channels
        self.multiple = multiple

    @abstractmethod
    def restore(self, images: torch.Tensor) -> torch.Tensor:
        """Return `images` (N, C, H, W), H and W multiples of `multiple`, restored."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return `images`, restored."""
        return self.run_padded(self.restore, images)

    def run_padded(
        self, network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        """Run `network` on padded `images`, and crop the result."""
        if images.ndim != 4 or images.shape[1] != self.channels or not images.shape[2] * images.shape[3]:
            raise ValueError(f"images must be (N, {self.channels}, height, width), not {tuple(images.shape)}")
        height, width = images.shape[-2:]
        return crop(network(mirror_to_multiple(images, self.multiple)), height, width)


def mirror_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Mirror (N, C, H, W) at its edges until `multiple` divides height and width.

    A mirrored image is as noisy as the image; repeated edge pixels would give streaks, which a network was
    never trained on. Images that are too small to mirror have their edges repeated. `autoencoder.crop`
    removes the padding.
    """
    height, width = images.shape[-2:]
    below = up_to_multiple(height, multiple) - height
    right = up_to_multiple(width, multiple) - width
    if not below and not right:
        return images
    top, left = below // 2, right // 2
    fits = below - top < height and right - left < width
    sides = (left, right - left, top, below - top)
    return F.pad(images, sides, mode="reflect" if fits else "replicate")


def macs_per_pixel(network: nn.Module, channels: int) -> float:
    """Return the multiply-accumulates of the convolutions of `network` per pixel of an image of 512x512.

    Nothing is computed: the network runs on torch's meta device, whatever the device of the weights.

    Args:
        network: takes images (N, channels, 512, 512); it is not changed.
        channels: channels of the images.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, where that is installed

    side = 512
    weights = {name: value.detach().to("meta") for name, value in network.state_dict().items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(network, weights, (torch.empty(1, channels, side, side, device="meta"),))
    return float(counter.get_total_flops()) / 2 / side**2


class ConvRestorerSettings(Settings):
    """Settings of the tutorials' denoising autoencoder."""

    kind: Literal["conv"] = Field(
        "conv", description="convolutions down and up again without skip connections; fast, but blurs"
    )
    filters: Widths = Field(
        (32, 64),
        min_length=1,
        max_length=6,
        description="channels of the encoder's convolutions, each halving the image; mirrored in the decoder",
    )


class ConvRestorer(Restorer):
    """3x3 convolutions of stride 2, transposed ones back, and a last one through a sigmoid.

    Shapes: (N, C, H, W) -> (N, C, H, W) in [0, 1]. Any size: what 2**len(filters) does not divide is
    padded and cropped.

    The network predicts the image, not its damage, as in the tutorial. There are no skip connections around
    the innermost features, so that fine detail is lost; it is a baseline for the others.

    Parameters for gray, filters (32, 64): 74,497 =
      encoder 9 * (1*32 + 32*64) + 32 + 64
      decoder 9 * (64*64 + 64*32 + 32*1) + 64 + 32 + 1
    8,424 multiply-accumulates per pixel, 9,144 for colour.

    Args:
        channels: channels of the images.
        settings: channels of the layers.
    """

    def __init__(self, channels: int, settings: ConvRestorerSettings) -> None:
        filters = settings.filters
        super().__init__(channels, 2 ** len(filters))
        layers: list[nn.Module] = []
        before = channels
        for after in filters:
            layers += [init_he(nn.Conv2d(before, after, 3, stride=2, padding=1)), nn.ReLU()]
            before = after
        for after in reversed(filters):
            up = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
            layers += [init_he(up), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(
            *layers, init_xavier(nn.Conv2d(before, channels, 3, padding=1)), nn.Sigmoid()
        )

    def restore(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(images)
        return result
