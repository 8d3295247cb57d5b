"""What every autoencoder is: images to codes and back, at any image size."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

Widths = tuple[Annotated[int, Field(ge=1, le=16384)], ...]
"""Features or channels of layers, outermost first."""

L = TypeVar("L", bound=nn.Linear | nn.Conv2d | nn.ConvTranspose2d)


class Autoencoder(nn.Module, ABC):
    """Images (N, C, H, W) in [0, 1] -> codes (N, latent) -> images (N, C, H, W) in [0, 1].

    A subclass sets `encoder`, from images of the shape `padded` to codes, and `decoder`, from codes to
    images of that shape in [0, 1].

    Args:
        shape: channels, height and width of the images; these alone are taken.
        latent: length of a code.
        stride: height and width of `padded` are multiples of it; what was added is cropped off again.

    Raises:
        ValueError: a shape without pixels; images or codes of another shape than it was built for.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, shape: Shape, latent: int, stride: int = 1) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), each at least 1, not {shape}")
        channels, height, width = shape
        self.shape: Shape = (channels, height, width)  # a bundle gives a list
        self.latent = latent
        self.stride = stride
        self.padded: Shape = (channels, up_to_multiple(height, stride), up_to_multiple(width, stride))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, latent)."""
        codes: torch.Tensor = self.encoder(self._framed(images))
        return codes

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """(N, latent) -> (N, C, H, W) in [0, 1]."""
        if codes.ndim != 2 or codes.shape[1] != self.latent:
            raise ValueError(f"codes must be (N, {self.latent}), not {tuple(codes.shape)}")
        return crop(self.decoder(codes), self.shape[1], self.shape[2])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `images`."""
        return self.decode(self.encode(images))

    def _framed(self, images: torch.Tensor) -> torch.Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            sides = ", ".join(str(side) for side in self.shape)
            raise ValueError(f"images must be (N, {sides}), not {tuple(images.shape)}")
        return pad_to_multiple(images, self.stride)


def up_to_multiple(size: int, multiple: int) -> int:
    """`size`, or the next multiple of `multiple` above it."""
    return -(-size // multiple) * multiple


def pad_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """(N, C, H, W) with its edge pixels repeated on all sides until `multiple` divides height and width.

    Repeating works at any size, even one pixel, where mirroring needs more pixels than it adds.
    `crop` undoes it.
    """
    height, width = images.shape[-2:]
    below, right = up_to_multiple(height, multiple) - height, up_to_multiple(width, multiple) - width
    if not below and not right:
        return images
    top, left = below // 2, right // 2
    return F.pad(images, (left, right - left, top, below - top), mode="replicate")


def crop(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The middle `height` x `width` pixels of (N, C, H, W): those that `pad_to_multiple` was given."""
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def he(layer: L) -> L:
    """Draw the weights of a layer that a ReLU (or the like) follows, and set its bias to zero, in place.

    N(0, 2 / inputs) keeps the second moment of the features from layer to layer (He et al. 2015, section
    2.2). A transposed convolution of stride s hands each output 1 / s^2 of its kernel's values.
    Uses torch's global generator: seed it first.
    """
    nn.init.normal_(layer.weight, 0.0, (2.0 / _inputs(layer)) ** 0.5)
    return _unbiased(layer)


def xavier(layer: L) -> L:
    """Draw the weights of a linear layer, with a code, a logit or a sum after it: N(0, 1 / inputs).

    Source: Glorot & Bengio 2010, section 4.2.1, its condition of the forward pass alone: a code and an
    image differ too much in length to average the two. Otherwise as `he`.
    """
    nn.init.normal_(layer.weight, 0.0, _inputs(layer) ** -0.5)
    return _unbiased(layer)


def _inputs(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many values one output is a sum of."""
    if isinstance(layer, nn.ConvTranspose2d):
        kernel, stride = layer.kernel_size, layer.stride
        return layer.in_channels * kernel[0] * kernel[1] / (stride[0] * stride[1])
    return layer.weight[0].numel()


def _unbiased(layer: L) -> L:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
