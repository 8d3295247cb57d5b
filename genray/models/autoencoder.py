"""Autoencoders: images to codes and back, at any image size.

The base class, and the two networks of the tutorials: the dense one, of one layer each way or deeper (Hinton
& Salakhutdinov 2006), and the convolutional one, 3x3 convolutions of stride 2 around a dense code.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterable
from itertools import pairwise
from math import prod
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from genray.models.linear_path import LinearDecoder, LinearEncoder, fit_components, shrink_factor
from genray.models.parts.layers import Gain, Residual, Weighted, fan_in
from genray.settings.base import Settings

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

Widths = tuple[Annotated[int, Field(ge=1, le=16384)], ...]
"""Features or channels of layers, outermost first."""

L = TypeVar("L", bound=Weighted)


class Autoencoder(nn.Module, ABC):
    """Base of autoencoders: images (N, C, H, W) in [0, 1] -> codes (N, latent) -> images in [0, 1].

    A subclass sets `encoder`, from images of the shape `padded` to codes, and `decoder`, from codes to
    images of that shape in [0, 1].

    Args:
        shape: channels, height and width of the images; no others are accepted.
        latent: length of a code.
        stride: height and width of `padded` are multiples of it; the padding is cropped off again.

    Raises:
        ValueError: a shape without pixels; images or codes of another shape than the network's.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, shape: Shape, latent: int, stride: int = 1) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), each at least 1, not {shape}")
        channels, height, width = shape
        self.shape: Shape = (channels, height, width)  # a bundle stores a list
        self.latent = latent
        self.stride = stride
        self.padded: Shape = (channels, up_to_multiple(height, stride), up_to_multiple(width, stride))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode (N, C, H, W) to (N, latent)."""
        codes: torch.Tensor = self.encoder(self._pad(images))
        return codes

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode (N, latent) to (N, C, H, W) in [0, 1]."""
        if codes.ndim != 2 or codes.shape[1] != self.latent:
            raise ValueError(f"codes must be (N, {self.latent}), not {tuple(codes.shape)}")
        return crop(self.decoder(codes), self.shape[1], self.shape[2])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of `images`."""
        return self.decode(self.encode(images))

    @property
    def starts_from_images(self) -> bool:
        """Whether `start_from` needs the images."""
        return False

    def start_from(self, batches: Iterable[torch.Tensor]) -> None:
        """Set what the training images give before the first step; by default nothing.

        Args:
            batches: images (N, C, H, W) in [0, 1], in random order.
        """

    def _pad(self, images: torch.Tensor) -> torch.Tensor:
        """Check `images` and pad them to the shape of the encoder."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            sides = ", ".join(str(side) for side in self.shape)
            raise ValueError(f"images must be (N, {sides}), not {tuple(images.shape)}")
        return pad_to_multiple(images, self.stride)


def up_to_multiple(size: int, multiple: int) -> int:
    """Return `size`, rounded up to a multiple of `multiple`."""
    return -(-size // multiple) * multiple


def pad_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad (N, C, H, W) by repeating its edge pixels until `multiple` divides height and width.

    Repeating works at any size, even one pixel, whereas mirroring needs more pixels than it adds. `crop`
    removes the padding.
    """
    height, width = images.shape[-2:]
    below = up_to_multiple(height, multiple) - height
    right = up_to_multiple(width, multiple) - width
    if not below and not right:
        return images
    top, left = below // 2, right // 2
    return F.pad(images, (left, right - left, top, below - top), mode="replicate")


def crop(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the middle `height` x `width` pixels of (N, C, H, W), the image before `pad_to_multiple`."""
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def init_he(layer: L) -> L:
    """Draw the weights of a layer followed by a ReLU (or the like), and set its bias to zero, in place.

    N(0, 2 / inputs) keeps the second moment of the features from layer to layer (He et al. 2015, section
    2.2). In a transposed convolution of stride s, an output sums 1 / s^2 of the kernel's values.
    Uses torch's global generator: seed it first.
    """
    nn.init.normal_(layer.weight, 0.0, (2.0 / fan_in(layer)) ** 0.5)
    return _zero_bias(layer)


def init_xavier(layer: L) -> L:
    """Draw the weights of a layer followed by a code, a logit or a sum: N(0, 1 / inputs).

    Source: Glorot & Bengio 2010, section 4.2.1, only its condition of the forward pass: a code and an
    image differ too much in length to average the two conditions. Otherwise like `init_he`.
    """
    nn.init.normal_(layer.weight, 0.0, fan_in(layer) ** -0.5)
    return _zero_bias(layer)


def _init_zero(layer: L) -> L:
    nn.init.zeros_(layer.weight)
    return _zero_bias(layer)


def _zero_bias(layer: L) -> L:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


Activation = Literal["relu", "gelu", "silu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
"""Layers by the name of the activation function."""


class DenseSettings(Settings):
    """Settings of the dense autoencoder."""

    kind: Literal["dense"] = Field("dense", description="fully connected layers")
    latent: int = Field(64, ge=1, le=16384, description="length of a code")
    hidden: Widths = Field(
        (1024, 512),
        max_length=8,
        description=(
            "widths of the encoder's hidden layers, mirrored in the decoder ([]: no hidden "
            "layer, as in the tutorials)"
        ),
    )
    activation: Activation = Field("gelu", description="activation function of the hidden layers")


class DenseAutoencoder(Autoencoder):
    """Fully connected encoder and decoder, sigmoid output.

    Shapes: (N, C, H, W) in [0, 1] -> (N, latent) -> (N, C, H, W) in [0, 1].

    Without hidden layers the code is rectified, as in the tutorials ("Building Autoencoders in Keras",
    TensorFlow's "Intro to Autoencoders"): 784-latent-784. With them it is linear (Hinton & Salakhutdinov
    2006, "Reducing the Dimensionality of Data with Neural Networks").

    Parameters for 28x28 gray, hidden (1024, 512), latent 64: 2,723,664 =
      2 * (784*1024 + 1024*512 + 512*64) + (1024 + 512 + 64) + (512 + 1024 + 784);
    2.7 million multiplications per image.

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
    """Return linear layers from each of `widths` to the next, with activations between them."""
    *rest, last = pairwise(widths)
    layers: list[nn.Module] = []
    for before, after in rest:
        layers += [init_he(nn.Linear(before, after)), ACTIVATIONS[activation]()]
    return [*layers, init_xavier(nn.Linear(*last))]


Filters = Annotated[
    Widths | None,
    Field(
        min_length=1,
        max_length=12,
        description=(
            "channels of the encoder's convolutions, each halving the image; mirrored in the decoder "
            "(null: 32, 64, 128, or from four levels on 16, 32, 64, ... at most 256, until 8 or fewer pixels "
            "of the longer side are left)"
        ),
    ),
]
"""Setting of convolutional autoencoders; see `filters_for`."""


LINEAR_SIDE = 64
"""Longest side in pixels of the images of the linear path, in trainings that set none."""


class ConvSettings(Settings):
    """Settings of the convolutional autoencoder."""

    kind: Literal["conv"] = Field("conv", description="convolutions of stride 2")
    latent: int = Field(64, ge=1, le=16384, description="length of a code")
    filters: Filters = None
    linear_side: int | None = Field(
        None,
        ge=0,
        le=1024,
        description=(
            "longest side in pixels of the shrunk images whose principal components the convolutions "
            "improve on (0: convolutions only; null: 64 in a training)"
        ),
    )


def filters_for(shape: Shape, innermost: int = 8) -> tuple[int, ...]:
    """Return the channels of convolutions that halve images of `shape` until their longer side is at most
    `innermost` pixels, at least one of them.

    The dense layer around the code then has at most 256 * `innermost`^2 inputs at any image size. With two
    convolutions it has 65,536 at 128 pixels, 33 million weights, and its outputs sum over so many inputs that
    one step of Adam changes them beyond use. Channels double from 16, as the outermost layers take most of
    the time: with 400 photographs of 128 pixels, 50 s of one core gave an error of 0.034, from 32 on 100 s
    gave 0.039. Small images, whose outermost layers cost little, start with 32.
    """
    levels = max(1, math.ceil(math.log2(max(shape[1:]) / innermost)))
    first = 32 if levels < 4 else 16
    return tuple(min(256, first * 2**level) for level in range(levels))


class ConvAutoencoder(Autoencoder):
    """Convolutions of stride 2, a dense code, and transposed convolutions back, sigmoid output.

    Shapes: (N, C, H, W) in [0, 1] -> (N, latent) -> (N, C, H, W) in [0, 1]. Sizes that 2**len(filters)
    does not divide are padded on the way in and cropped on the way out.

    With `linear_side` the convolutions refine a linear autoencoder of shrunk images: the code is the sum of
    both, and the decoder's convolutions see the linear image. Its directions are the principal components of
    the training images (`start_from`) and stay as they are; what the convolutions add begins at zero. So few
    images are not learned by heart, and a training begins where principal components end.

    Parameters for 28x28 gray, whose filters are (32, 64), latent 64, without `linear_side`: 451,425 =
      encoder 9 * (1*32 + 32*64) + 32 + 64, code 3136*64 + 64
      decoder 64*3136 + 3136, 9 * (64*32 + 32*32 + 32*1) + 32 + 32 + 1
    4.3 million multiplications per image.

    Args:
        shape: channels, height and width of the images.
        settings: channels of the layers and length of the code.
    """

    def __init__(self, shape: Shape, settings: ConvSettings) -> None:
        filters = settings.filters or filters_for(shape)
        super().__init__(shape, settings.latent, 2 ** len(filters))
        encoder = conv_encoder(self.padded, filters, settings.latent)
        features = conv_decoder(self.padded, filters, settings.latent)
        if not settings.linear_side:
            self.encoder = encoder
            self.decoder = nn.Sequential(*features, conv_image(filters[0], shape[0]), nn.Sigmoid())
            return
        factor = shrink_factor(self.padded, settings.linear_side, self.stride)
        encoder.append(Gain(settings.latent))
        self.encoder = Residual(LinearEncoder(self.padded, settings.latent, factor), encoder)
        linear = LinearDecoder(self.padded, settings.latent, factor)
        self.decoder = Refining(linear, features, filters[0], shape[0])

    @property
    def starts_from_images(self) -> bool:
        return isinstance(self.decoder, Refining)

    def start_from(self, batches: Iterable[torch.Tensor]) -> None:
        """Set the linear maps to the principal components of images, see `fit_components`."""
        encoder, decoder = self.encoder, self.decoder
        if isinstance(encoder, Residual) and isinstance(decoder, Refining):
            padded = (self._pad(batch) for batch in batches)
            fit_components(encoder.linear, decoder.linear, padded)


class Refining(nn.Module):
    """Decoder that improves on a linear one by convolutions, which see its image.

    Shapes: (N, latent) -> (N, C, H, W) in [0, 1].

    Args:
        linear: the linear decoder.
        features: layers from codes to (N, channels, H, W).
        channels: channels of these features.
        image_channels: C.
    """

    def __init__(
        self, linear: LinearDecoder, features: nn.Module, channels: int, image_channels: int
    ) -> None:
        super().__init__()
        self.linear = linear
        self.features = features
        self.refine = nn.Sequential(
            init_he(nn.Conv2d(channels + image_channels, channels, 3, padding=1)),
            nn.ReLU(),
            _init_zero(nn.Conv2d(channels, image_channels, 3, padding=1)),
        )
        self.sigmoid = nn.Sigmoid()

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode `codes`."""
        image = self.linear(codes)
        seen = torch.cat([self.features(codes), 4.0 * (image - 0.5)], dim=1)  # of about variance 1
        # Bounds of the linear image: the slope of the sigmoid at them lets the convolutions correct it.
        logits = torch.logit(image.clamp(0.02, 0.98))
        result: torch.Tensor = self.sigmoid(logits + self.refine(seen))
        return result


def conv_encoder(shape: Shape, filters: Widths, features: int) -> nn.Sequential:
    """Return the encoder from images of `shape`, with sides that 2**len(filters) divides, to (N, features),
    linear."""
    layers: list[nn.Module] = []
    for before, after in zip((shape[0], *filters), filters, strict=False):
        layers += [init_he(nn.Conv2d(before, after, 3, stride=2, padding=1)), nn.ReLU()]
    channels, height, width = _innermost(shape, filters)
    return nn.Sequential(*layers, nn.Flatten(), init_xavier(nn.Linear(channels * height * width, features)))


def conv_decoder(shape: Shape, filters: Widths, latent: int) -> nn.Sequential:
    """Return the decoder from (N, latent) to features (N, filters[0], H, W) of images of `shape`."""
    innermost = _innermost(shape, filters)
    channels, height, width = innermost
    layers: list[nn.Module] = [
        init_he(nn.Linear(latent, channels * height * width)),
        nn.ReLU(),
        nn.Unflatten(1, innermost),
    ]
    for after in (*filters[-2::-1], filters[0]):
        up = nn.ConvTranspose2d(channels, after, 3, stride=2, padding=1, output_padding=1)
        layers += [init_he(up), nn.ReLU()]
        channels = after
    return nn.Sequential(*layers)


def conv_image(channels: int, image_channels: int) -> nn.Conv2d:
    """Return the layer from features to the logits of an image.

    It is a plain convolution: transposed ones reach odd and even pixels by different weights, which shows as
    a chequerboard (Odena et al. 2016).
    """
    return init_xavier(nn.Conv2d(channels, image_channels, 3, padding=1))


def _innermost(shape: Shape, filters: Widths) -> Shape:
    step = 2 ** len(filters)
    return filters[-1], shape[1] // step, shape[2] // step
