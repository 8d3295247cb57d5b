"""What the discriminator sees in place of images: varied copies of real and generated ones alike, so that it
cannot learn a small data set by heart; and noise on both, which makes them overlap."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from genray.settings.base import Settings

_SHIFT = 1 / 8  # largest shift, share of a side
_CUT = 1 / 2  # side of the cut square, share of the image's


class AugmentSettings(Settings):
    """Settings of what the discriminator sees."""

    policy: tuple[Literal["colour", "translation", "cutout"], ...] = Field(
        (),
        description="variations of real and generated images before they are judged (DiffAugment, Zhao et "
        "al. 2020, for sets of up to some thousand images: all three; []: none)",
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=2,
        description="standard deviation of Gaussian noise on all images that are judged, at first, of values "
        "from -1 to 1 (instance noise, Sonderby et al. 2017; 0: none)",
    )
    noise_until: float = Field(
        0.5, gt=0, le=1, description="share of the training after which the noise has decayed to zero"
    )

    def noise_at(self, progress: float) -> float:
        """Return the noise after the share `progress` of the training: it decays linearly."""
        return self.noise * max(0.0, 1 - progress / self.noise_until)


def vary(images: torch.Tensor, settings: AugmentSettings, progress: float) -> torch.Tensor:
    """Return what the discriminator sees of `images`, (N, C, H, W) with values from -1 to 1; differentiable.

    Random draws are torch's, on the device of the images.
    """
    if "colour" in settings.policy:
        images = _coloured(images)
    if "translation" in settings.policy:
        images = _shifted(images)
    if "cutout" in settings.policy:
        images = images * _cutout(images)
    if noise := settings.noise_at(progress):
        images = images + noise * torch.randn_like(images)
    return images


def _draw(images: torch.Tensor) -> torch.Tensor:
    """Return a number from 0 to 1 for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def _coloured(images: torch.Tensor) -> torch.Tensor:
    """Change brightness, saturation (of colour images) and contrast."""
    images = images + _draw(images) - 0.5
    if images.shape[1] > 1:
        gray = images.mean(dim=1, keepdim=True)
        images = torch.lerp(gray, images, 2 * _draw(images))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 0.5 + _draw(images))


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """Shift each image by up to an eighth of its sides; what enters is 0."""
    rows, columns = (_shifts(images, side) for side in images.shape[2:])
    return rows @ images @ columns.transpose(-1, -2)


def _shifts(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return a matrix for each image that moves the places of a side, (N, 1, side, side)."""
    most = round(_SHIFT * side)
    by = torch.randint(-most, most + 1, (len(images), 1, 1, 1), device=images.device)
    places = torch.arange(side, device=images.device)
    return (places[:, None] + by == places).to(images.dtype)


def _cutout(images: torch.Tensor) -> torch.Tensor:
    """Return 0 in a square of each image, 1 elsewhere, (N, 1, H, W)."""
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, side in ((2, images.shape[2]), (3, images.shape[3])):
        half = _CUT * side / 2
        middle = side * _draw(images)
        shape = [1, 1, 1, 1]
        shape[axis] = side
        places = torch.arange(side, device=images.device).view(shape)
        inside = inside & ((places - middle).abs() < half)
    return (~inside).to(images.dtype)
