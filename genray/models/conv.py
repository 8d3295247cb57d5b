"""The convolutional autoencoder of the tutorials: 3x3 convolutions of stride 2 around a dense code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from genray.models.autoencoder import Autoencoder, Shape, Widths, he, xavier
from genray.settings.base import Settings


class ConvSettings(Settings):
    """Settings of the convolutional autoencoder."""

    kind: Literal["conv"] = Field("conv", description="convolutions of stride 2")
    latent: int = Field(64, ge=1, le=16384, description="length of a code")
    filters: Widths = Field(
        (32, 64),
        min_length=1,
        max_length=6,
        description="channels of the encoder's convolutions, each halving the image; mirrored in the decoder",
    )


class ConvAutoencoder(Autoencoder):
    """Convolutions of stride 2, a dense code, and transposed convolutions back, sigmoid output.

    Shapes: (N, C, H, W) in [0, 1] -> (N, latent) -> (N, C, H, W) in [0, 1]. Sizes that 2**len(filters)
    does not divide are padded on the way in and cropped on the way out.

    Parameters for 28x28 gray, filters (32, 64), latent 64: 451,425 =
      encoder 9 * (1*32 + 32*64) + 32 + 64, code 3136*64 + 64
      decoder 64*3136 + 3136, 9 * (64*32 + 32*32 + 32*1) + 32 + 32 + 1
    4.3 million multiplications an image.

    Args:
        shape: channels, height and width of the images.
        settings: channels of the layers and length of the code.
    """

    def __init__(self, shape: Shape, settings: ConvSettings) -> None:
        super().__init__(shape, settings.latent, 2 ** len(settings.filters))
        self.encoder = conv_encoder(self.padded, settings.filters, settings.latent)
        self.decoder = conv_decoder(self.padded, settings.filters, settings.latent)


def conv_encoder(shape: Shape, filters: Widths, features: int) -> nn.Sequential:
    """Images of `shape`, whose sides 2**len(filters) divides -> (N, features), linear."""
    layers: list[nn.Module] = []
    for before, after in zip((shape[0], *filters), filters, strict=False):
        layers += [he(nn.Conv2d(before, after, 3, stride=2, padding=1)), nn.ReLU()]
    channels, height, width = _innermost(shape, filters)
    return nn.Sequential(*layers, nn.Flatten(), xavier(nn.Linear(channels * height * width, features)))


def conv_decoder(shape: Shape, filters: Widths, latent: int) -> nn.Sequential:
    """(N, latent) -> images of `shape` in [0, 1].

    The last transposed convolution keeps its channels and a plain one makes the image: transposed ones
    reach odd and even pixels by different weights, which shows as a chequerboard (Odena et al. 2016).
    """
    innermost = _innermost(shape, filters)
    channels, height, width = innermost
    layers: list[nn.Module] = [
        he(nn.Linear(latent, channels * height * width)),
        nn.ReLU(),
        nn.Unflatten(1, innermost),
    ]
    for after in (*filters[-2::-1], filters[0]):
        up = nn.ConvTranspose2d(channels, after, 3, stride=2, padding=1, output_padding=1)
        layers += [he(up), nn.ReLU()]
        channels = after
    return nn.Sequential(*layers, xavier(nn.Conv2d(channels, shape[0], 3, padding=1)), nn.Sigmoid())


def _innermost(shape: Shape, filters: Widths) -> Shape:
    step = 2 ** len(filters)
    return filters[-1], shape[1] // step, shape[2] // step
