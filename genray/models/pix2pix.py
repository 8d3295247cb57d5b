"""The networks of pix2pix (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial
Networks"): the U-Net generator (section 3.2.1, appendix 6.1.1) and the PatchGAN discriminator (section 3.2.2,
appendix 6.1.2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.parts.layers import Norm, init_normal, norm_layer
from genray.settings.base import Settings


class UNetSettings(Settings):
    """Settings of the U-Net generator."""

    filters: int = Field(
        64, ge=1, le=512, description="channels of the first layer; deeper layers have up to 8 times as many"
    )
    norm: Norm = Field(
        "image-batch",
        description=(
            "normalisation of the layers (image-batch: each image's own statistics when in use, "
            "as in the paper, for batch_size 1; batch: running averages)"
        ),
    )
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the inner decoder's features that dropout zeroes, in training only",
    )


def unet_depth(size: int) -> int:
    """Return how often an image of `size` pixels is halved: down to 1 pixel if a power of two (256 -> 8),
    else as far as it divides evenly (96 -> 5, to 3 pixels)."""
    return (size & -size).bit_length() - 1


class UNet(nn.Module):
    """Encoder-decoder with skip connections, 4x4 convolutions of stride 2, tanh output.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W) in [-1, 1]; H and W multiples of
    2**depth and larger than 2**(depth - 1), depth = unet_depth(size).

    Parameters at size 256 (depth 8), RGB to RGB, 64 filters, batch norm: 54,413,955 =
      encoder 16 * (3*64 + 64*128 + 128*256 + 256*512 + 4 * 512*512)                   = 19,532,800
      its norms 2 * (128 + 256 + 4*512): all but the first and the innermost           =      4,864
      decoder 16 * (512*512 + 3 * 1024*512 + 1024*256 + 512*128 + 256*64 + 128*3) + 3  = 34,871,299
      its norms 2 * (4*512 + 256 + 128 + 64): all but the last                         =      4,992
    A convolution that a batch norm follows has no bias. The innermost encoder layer has no norm: at
    1x1 pixels and one image per batch it would be zero.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        size: height and width of the training images, which sets the depth; a multiple of 32, at least 64.
        settings: filters, norm and dropout.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, size: int = 256, settings: UNetSettings | None = None
    ) -> None:
        super().__init__()
        settings = settings or UNetSettings()
        self.depth = unet_depth(size)
        self.multiple = 2**self.depth
        if self.depth < 5 or size < 64:
            raise ValueError(f"a U-Net needs a size that is a multiple of 32, at least 64, not {size}")
        widths = [settings.filters * min(8, 2**level) for level in range(self.depth)]
        bias = settings.norm == "instance"

        # In place is exact here: the skip that a LeakyReLU changes passes a ReLU on its way up, and
        # relu(leaky_relu(x)) = relu(x).
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            layers: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=True)] if level else []
            layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1, bias=bias))
            if 0 < level < self.depth - 1:
                layers.append(norm_layer(settings.norm, width))
            self.down.append(nn.Sequential(*layers))

        self.up = nn.ModuleList()  # innermost first
        for level in reversed(range(1, self.depth)):
            before = widths[level] * (1 if level == self.depth - 1 else 2)
            layers = [
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(before, widths[level - 1], 4, stride=2, padding=1, bias=bias),
                norm_layer(settings.norm, widths[level - 1]),
            ]
            if 4 <= level < self.depth - 1 and settings.dropout:
                layers.append(nn.Dropout(settings.dropout))
            self.up.append(nn.Sequential(*layers))
        self.out = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * widths[0], out_channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        init_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Translate `images`, (N, in_channels, H, W) in [-1, 1]."""
        step = self.multiple
        if images.shape[-1] % step or images.shape[-2] % step:
            raise ValueError(f"height and width must be multiples of {step}, not {tuple(images.shape[-2:])}")
        skips = []
        x = images
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = torch.cat([skips.pop(), up(x)], dim=1)
        result: torch.Tensor = self.out(x)
        return result


class PatchGANSettings(Settings):
    """Settings of the PatchGAN discriminator."""

    filters: int = Field(
        64, ge=1, le=512, description="channels of the first layer; deeper layers have up to 8 times as many"
    )
    layers: int = Field(
        3,
        ge=1,
        le=6,
        description="number of layers of stride 2 (with 3, each score judges a patch of 70x70 pixels)",
    )
    norm: Literal["batch", "instance"] = Field(
        "batch", description="normalisation of the layers (batch: as in the paper)"
    )


class PatchGAN(nn.Module):
    """Judges each overlapping patch of an image pair as real or generated; scores are logits.

    A score depends on 7x7 outputs of the layers of stride 2 (two 4x4 convolutions of stride 1), and r
    outputs of such a layer depend on 2 * (r - 1) + 4 inputs: with three layers 7 -> 16 -> 34 -> 70 pixels.

    Shapes: input (N, in_channels, H, W) and target (N, out_channels, H, W) -> (N, 1, H', W'),
    with H' = H / 2**layers - 2.

    Parameters for RGB to RGB, 64 filters, 3 layers, batch norm: 2,768,705 =
      16 * (6*64) + 64 + 16 * (64*128 + 128*256 + 256*512) + 16*512 + 1, and norms 2 * (128 + 256 + 512).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, settings: PatchGANSettings | None = None
    ) -> None:
        super().__init__()
        settings = settings or PatchGANSettings()
        bias = settings.norm == "instance"
        widths = [settings.filters * min(8, 2**level) for level in range(settings.layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels + out_channels, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for level in range(1, settings.layers + 1):
            stride = 2 if level < settings.layers else 1
            layers += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1, bias=bias),
                norm_layer(settings.norm, widths[level]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Score the pairs (`images`, `targets`)."""
        scores: torch.Tensor = self.layers(torch.cat([images, targets], dim=1))
        return scores
