"""The convolutional autoencoder of heartbeats: convolutions of stride 2 along time around a dense code."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.autoencoder import Widths, he, up_to_multiple, xavier
from genray.models.beats import BeatAutoencoder
from genray.settings.base import Settings

_KERNEL = 7  # samples: 35 ms of a beat at the outermost layer, a QRS complex at the next


class ConvBeatSettings(Settings):
    """Settings of the convolutional autoencoder of beats."""

    kind: Literal["conv"] = Field("conv", description="convolutions of stride 2 along time")
    latent: int = Field(16, ge=1, le=1024, description="length of a code; long ones let anomalies pass")
    filters: Widths = Field(
        (16, 32),
        min_length=1,
        max_length=5,
        description="channels of the encoder's convolutions, each halving the beat; mirrored in the decoder",
    )


class ConvBeatAutoencoder(BeatAutoencoder):
    """Convolutions of stride 2 with ReLU, a dense code, and upsampling with convolutions back.

    Samples that 2**len(filters) does not divide are padded by repeating the last on the way in, and cropped
    on the way out. Upsampling repeats samples before a plain convolution: a transposed one would reach odd
    and even samples by different weights (Odena et al. 2016).

    Parameters for 140 samples, filters (16, 32), latent 16: 46,241 =
      encoder 7 * (1*16 + 16*32) + 16 + 32, code 1120*16 + 16
      decoder 16*1120 + 1120, 7 * (32*16 + 16*16 + 16*1) + 16 + 16 + 1.

    Args:
        samples: of a beat.
        settings: channels of the layers and length of the code.
    """

    def __init__(self, samples: int, settings: ConvBeatSettings) -> None:
        super().__init__(samples, settings.latent)
        filters, step = settings.filters, 2 ** len(settings.filters)
        length = up_to_multiple(samples, step) // step
        layers: list[nn.Module] = [nn.ReplicationPad1d((0, length * step - samples))]
        for before, after in zip((1, *filters), filters, strict=False):
            layers += [_convolution(before, after, stride=2), nn.ReLU()]
        code = xavier(nn.Linear(filters[-1] * length, settings.latent))
        self.encoder = nn.Sequential(*layers, nn.Flatten(), code)
        layers = [
            he(nn.Linear(settings.latent, filters[-1] * length)),
            nn.ReLU(),
            nn.Unflatten(1, (filters[-1], length)),
        ]
        for before, after in zip(filters[::-1], (*filters[-2::-1], filters[0]), strict=True):
            layers += [nn.Upsample(scale_factor=2), _convolution(before, after), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, _convolution(filters[0], 1))

    def apart(self, codes: torch.Tensor) -> torch.Tensor:
        """(N, latent) -> (1, N, 1, samples)."""
        return super().apart(codes)[..., : self.samples]


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(before, after, _KERNEL, stride=stride, padding=_KERNEL // 2)
