"""Autoencoders of heartbeats: the base class, the dense one, and the convolutional one, with convolutions of
stride 2 along time around a dense code."""

from __future__ import annotations

from abc import ABC
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from genray.models.autoencoder import ACTIVATIONS, Activation, Widths, init_he, init_xavier, up_to_multiple
from genray.settings.base import Settings

_KERNEL = 7  # samples: 35 ms of a beat at the outermost layer, a QRS complex at the next


class BeatAutoencoder(nn.Module, ABC):
    """Base of autoencoders of beats: (N, 1, samples) float32 -> codes (N, latent) -> (N, 1, samples).

    Beats are normalised (see `genray.ecg.beats.BeatPreprocessing`); outputs are linear, as they have no
    limits. A subclass sets `encoder`, from beats to codes, and `decoder`, the way back.

    Args:
        samples: samples of a beat; no other number is accepted.
        latent: length of a code.

    Raises:
        ValueError: no samples; beats or codes of another shape than the network's.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, samples: int, latent: int) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"a beat of {samples} samples")
        self.samples = samples
        self.latent = latent

    def encode(self, beats: torch.Tensor) -> torch.Tensor:
        """Encode (N, 1, samples) to (N, latent)."""
        self.check_beats(beats)
        codes: torch.Tensor = self.encoder(beats)
        return codes

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode (N, latent) to (N, 1, samples)."""
        if codes.ndim != 2 or codes.shape[1] != self.latent:
            raise ValueError(f"codes must be (N, {self.latent}), not {tuple(codes.shape)}")
        return self.decode_members(codes).mean(dim=0)

    def decode_members(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode (N, latent) to (members, N, 1, samples), each member's reconstruction. There is one member,
        unless a subclass has more."""
        beats: torch.Tensor = self.decoder(codes)
        return beats[None]

    def forward(self, beats: torch.Tensor, *, by_member: bool = False) -> torch.Tensor:
        """Return the reconstruction of `beats`; with `by_member` that of each member, (members, N, 1,
        samples)."""
        codes = self.encode(beats)
        return self.decode_members(codes) if by_member else self.decode(codes)

    def check_beats(self, beats: torch.Tensor) -> None:
        """Raise a ValueError unless `beats` are (N, 1, samples)."""
        if beats.ndim != 3 or tuple(beats.shape[1:]) != (1, self.samples):
            raise ValueError(f"beats must be (N, 1, {self.samples}), not {tuple(beats.shape)}")


class DenseBeatSettings(Settings):
    """Settings of the dense autoencoder of beats."""

    kind: Literal["dense"] = Field("dense", description="fully connected layers")
    latent: int = Field(8, ge=1, le=1024, description="length of a code; long codes let anomalies pass")
    hidden: Widths = Field(
        (32, 16), max_length=8, description="widths of the encoder's hidden layers, mirrored in the decoder"
    )
    activation: Activation = Field("relu", description="activation function of the hidden layers")
    members: int = Field(
        16,
        ge=1,
        le=64,
        description=(
            "autoencoders trained side by side; the mean of their reconstructions depends less on the seed"
        ),
    )


class DenseBeatAutoencoder(BeatAutoencoder):
    """Autoencoders 140-32-16-8-16-32-140 side by side, whose reconstructions are averaged.

    One of them has the shape of TensorFlow's tutorial "Intro to Autoencoders", which ends with a sigmoid and
    rectifies the code; here both are linear. A single one depends much on its initial weights if normal beats
    are few; several vary less (Chen et al. 2017, "Outlier Detection with Autoencoder Ensembles"). A code
    is the concatenation of all members' codes.

    Parameters for 140 samples, hidden (32, 16), latent 8: 10,484 for each member =
      2 * (140*32 + 32*16 + 16*8) + (32 + 16 + 8) + (16 + 32 + 140).

    Args:
        samples: samples of a beat.
        settings: widths, activation and members.
    """

    def __init__(self, samples: int, settings: DenseBeatSettings) -> None:
        super().__init__(samples, settings.latent * settings.members)
        self.members = settings.members
        inward = [samples, *settings.hidden, settings.latent]
        self.encoder = self._layers(inward, settings.activation)
        self.decoder = self._layers(inward[::-1], settings.activation)

    def encode(self, beats: torch.Tensor) -> torch.Tensor:
        """Encode (N, 1, samples) to (N, members * latent)."""
        self.check_beats(beats)
        codes: torch.Tensor = self.encoder(beats.transpose(0, 1).expand(self.members, -1, -1))
        return codes.transpose(0, 1).flatten(1)

    def decode_members(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode (N, members * latent) to (members, N, 1, samples)."""
        beats: torch.Tensor = self.decoder(codes.reshape(len(codes), self.members, -1).transpose(0, 1))
        return beats[:, :, None]

    def _layers(self, widths: list[int], activation: Activation) -> nn.Sequential:
        *rest, last = pairwise(widths)
        layers: list[nn.Module] = []
        for before, after in rest:
            layers += [_MemberLinear(self.members, before, after, gain=2.0), ACTIVATIONS[activation]()]
        return nn.Sequential(*layers, _MemberLinear(self.members, *last, gain=1.0))


class _MemberLinear(nn.Module):
    """A linear layer per member: (members, N, before) -> (members, N, after).

    Weights are drawn from N(0, gain / before), as `init_he` (2) and `init_xavier` (1) draw them.
    """

    def __init__(self, members: int, before: int, after: int, *, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, before, after) * (gain / before) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, after))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, values, self.weight)


class ConvBeatSettings(Settings):
    """Settings of the convolutional autoencoder of beats."""

    kind: Literal["conv"] = Field("conv", description="convolutions of stride 2 along time")
    latent: int = Field(16, ge=1, le=1024, description="length of a code; long codes let anomalies pass")
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
        samples: samples of a beat.
        settings: channels of the layers and length of the code.
    """

    def __init__(self, samples: int, settings: ConvBeatSettings) -> None:
        super().__init__(samples, settings.latent)
        filters = settings.filters
        step = 2 ** len(filters)
        length = up_to_multiple(samples, step) // step
        layers: list[nn.Module] = [nn.ReplicationPad1d((0, length * step - samples))]
        for before, after in zip((1, *filters), filters, strict=False):
            layers += [_convolution(before, after, stride=2), nn.ReLU()]
        code = init_xavier(nn.Linear(filters[-1] * length, settings.latent))
        self.encoder = nn.Sequential(*layers, nn.Flatten(), code)
        layers = [
            init_he(nn.Linear(settings.latent, filters[-1] * length)),
            nn.ReLU(),
            nn.Unflatten(1, (filters[-1], length)),
        ]
        for before, after in zip(filters[::-1], (*filters[-2::-1], filters[0]), strict=True):
            layers += [nn.Upsample(scale_factor=2), _convolution(before, after), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, _convolution(filters[0], 1))

    def decode_members(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode (N, latent) to (1, N, 1, samples)."""
        return super().decode_members(codes)[..., : self.samples]


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(before, after, _KERNEL, stride=stride, padding=_KERNEL // 2)
