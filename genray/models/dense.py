"""The dense autoencoder: of the tutorials (one layer each way) and deeper (Hinton & Salakhutdinov 2006)."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

from pydantic import Field
from torch import nn

from genray.models.autoencoder import Autoencoder, Shape, Widths, he, xavier
from genray.settings.base import Settings

Activation = Literal["relu", "gelu", "silu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
"""The layers of that name."""


class DenseSettings(Settings):
    """Settings of the dense autoencoder."""

    kind: Literal["dense"] = Field("dense", description="fully connected layers")
    latent: int = Field(64, ge=1, le=16384, description="length of a code")
    hidden: Widths = Field(
        (1024, 512),
        max_length=8,
        description="widths of the encoder's hidden layers, mirrored in the decoder; [] for none, "
        "as in the tutorials",
    )
    activation: Activation = Field("gelu", description="of the hidden layers: relu, gelu or silu")


class DenseAutoencoder(Autoencoder):
    """Fully connected encoder and decoder, sigmoid output.

    Shapes: (N, C, H, W) in [0, 1] -> (N, latent) -> (N, C, H, W) in [0, 1].

    Without hidden layers the code is rectified, as in the tutorials ("Building Autoencoders in Keras",
    TensorFlow's "Intro to Autoencoders"): 784-latent-784. With them it is linear (Hinton & Salakhutdinov
    2006, "Reducing the Dimensionality of Data with Neural Networks").

    Parameters for 28x28 gray, hidden (1024, 512), latent 64: 2,723,664 =
      2 * (784*1024 + 1024*512 + 512*64) + (1024 + 512 + 64) + (512 + 1024 + 784);
    2.7 million multiplications an image.

    Args:
        shape: channels, height and width of the images.
        settings: widths and activation.
    """

    def __init__(self, shape: Shape, settings: DenseSettings) -> None:
        super().__init__(shape, settings.latent)
        inward = [prod(self.shape), *settings.hidden, settings.latent]
        outward = inward[::-1]
        encoder = _layers(inward, settings.activation)
        if not settings.hidden:
            encoder.append(nn.ReLU())
        self.encoder = nn.Sequential(nn.Flatten(), *encoder)
        decoder = _layers(outward, settings.activation)
        self.decoder = nn.Sequential(*decoder, nn.Sigmoid(), nn.Unflatten(1, self.shape))


def _layers(widths: list[int], activation: Activation) -> list[nn.Module]:
    """Linear layers from each of `widths` to the next, with activations between them."""
    *rest, last = pairwise(widths)
    layers: list[nn.Module] = []
    for before, after in rest:
        layers += [he(nn.Linear(before, after)), ACTIVATIONS[activation]()]
    return [*layers, xavier(nn.Linear(*last))]
