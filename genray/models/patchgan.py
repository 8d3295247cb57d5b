"""The PatchGAN discriminator of pix2pix (Isola et al. 2017, section 3.2.2 and appendix 6.1.2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.layers import init_normal, norm_layer
from genray.settings.base import Settings


class PatchGANSettings(Settings):
    """Settings of the PatchGAN discriminator."""

    filters: int = Field(
        64, ge=1, le=512, description="channels of the first layer; deeper ones have up to 8x"
    )
    layers: int = Field(3, ge=1, le=6, description="layers of stride 2; 3 judges patches of 70x70 pixels")
    norm: Literal["batch", "instance"] = Field("batch", description="batch (the paper) or instance")


def receptive_field(layers: int) -> int:
    """The side in pixels of the patch that one score sees.

    Going back through a convolution of kernel k and stride s, r outputs see s * (r - 1) + k inputs.
    From the score: two 4x4 of stride 1 (1 -> 4 -> 7), then one 4x4 of stride 2 for each of `layers`;
    with three of them 7 -> 16 -> 34 -> 70.
    """
    field = 7
    for _ in range(layers):
        field = 2 * (field - 1) + 4
    return field


class PatchGAN(nn.Module):
    """Judges each overlapping patch of an image pair as real or generated; scores are logits.

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
