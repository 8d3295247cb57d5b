"""The denoising autoencoder of the tutorials (TensorFlow, "Intro to Autoencoders", second example)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.autoencoder import Widths, he, xavier
from genray.models.restorer import Restorer
from genray.settings.base import Settings


class ConvRestorerSettings(Settings):
    """Settings of the tutorials' denoising autoencoder."""

    kind: Literal["conv"] = Field(
        "conv", description="convolutions down and up again without skips: fast, and it blurs"
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

    The image itself is what it makes, not what is to be taken away, as the tutorial does. Nothing leads
    around the innermost features, so that fine detail is lost: the kind to compare others with.

    Parameters for gray, filters (32, 64): 74,497 =
      encoder 9 * (1*32 + 32*64) + 32 + 64
      decoder 9 * (64*64 + 64*32 + 32*1) + 64 + 32 + 1
    8,424 multiply-accumulates a pixel, 9,144 for colour.

    Args:
        channels: of the images.
        settings: channels of the layers.
    """

    def __init__(self, channels: int, settings: ConvRestorerSettings) -> None:
        filters = settings.filters
        super().__init__(channels, 2 ** len(filters))
        layers: list[nn.Module] = []
        before = channels
        for after in filters:
            layers += [he(nn.Conv2d(before, after, 3, stride=2, padding=1)), nn.ReLU()]
            before = after
        for after in reversed(filters):
            up = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
            layers += [he(up), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers, xavier(nn.Conv2d(before, channels, 3, padding=1)), nn.Sigmoid())

    def restored(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(images)
        return result
