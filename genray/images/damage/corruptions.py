"""Noise and JPEG losses added to clean images at training time, on the device of the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch.nn import functional as F

from genray.images.damage.camera import CameraNoise
from genray.images.damage.jpeg_losses import jpeg
from genray.images.damage.sampler import Sampler
from genray.settings.base import Settings

NoiseKind = Literal[
    "gaussian", "poisson-gaussian", "salt-and-pepper", "jpeg", "noise-factor", "mixed", "camera"
]
Sigma = Annotated[float, Field(ge=0, le=255)]
Photons = Annotated[float, Field(gt=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
JpegQuality = Annotated[int, Field(ge=1, le=95)]
Factor = Annotated[float, Field(ge=0, le=10)]
Width = Annotated[float, Field(ge=0, le=8)]


class NoiseSettings(Settings):
    """Settings of the noise.

    A strength is one number, or [lowest, highest] for blind training: each image then draws its own from
    this range, uniformly. The strengths of other kinds than `kind` are not used.

    Noise in photos is blurred by the camera's processing, and a network that was trained on white noise does
    not remove it: such a DnCNN scores below BM3D on the photos of SIDD. `correlation` and mixed model it.
    """

    kind: NoiseKind = Field(
        "gaussian",
        description="kind of noise (mixed: for each image one of gaussian, poisson-gaussian, "
        "salt-and-pepper, jpeg, or gaussian then jpeg; camera: for each image a chain of its own of what "
        "cameras and files do to photos, of a strength up to sigma)",
    )
    sigma: Sigma | tuple[Sigma, Sigma] = Field(
        25.0,
        description="standard deviation in gray levels of 8 bits, 25 is 25/255 (gaussian, poisson-gaussian, "
        "camera)",
    )
    photons: Photons | tuple[Photons, Photons] = Field(
        100.0, description="mean number of photons of a white pixel; fewer give more noise (poisson-gaussian)"
    )
    amount: Share | tuple[Share, Share] = Field(
        0.1, description="share of pixels that become black or white, half of each, 0 to 1 (salt-and-pepper)"
    )
    quality: JpegQuality | tuple[JpegQuality, JpegQuality] = Field(
        30, description="JPEG quality, 1 to 95 (jpeg)"
    )
    noise_factor: Factor | tuple[Factor, Factor] = Field(
        0.2,
        description="standard deviation of normal noise where white is 1; the sum is clipped to [0, 1], as "
        "in the tutorials (noise-factor)",
    )
    correlation: Width | tuple[Width, Width] = Field(
        0.0,
        description="standard deviation of the blur of the noise in pixels, at the same strength (0: white "
        "noise, which cameras do not make; gaussian, poisson-gaussian)",
    )
    clip: bool = Field(
        False,
        description="clip to [0, 1] as files do; published figures are without (gaussian, poisson-gaussian)",
    )

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest standard deviation of the noise, in levels of 255; None for kinds that are not
        given by one."""
        if self.kind == "noise-factor":
            low, high = (
                self.noise_factor if isinstance(self.noise_factor, tuple) else (self.noise_factor,) * 2
            )
            return 255 * low, 255 * high
        if self.kind not in ("gaussian", "camera"):
            return None
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)

    @field_validator("sigma", "photons", "amount", "quality", "noise_factor", "correlation")
    @classmethod
    def _ordered(cls, strength: float | tuple[float, float]) -> float | tuple[float, float]:
        if isinstance(strength, tuple) and strength[0] > strength[1]:
            raise ValueError(f"{list(strength)} must be [lowest, highest]")
        return strength


def corrupt(
    images: torch.Tensor, settings: NoiseSettings, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Add noise to images. Each image draws its own noise, and its own strength where `settings` has a range.

    Args:
        images: (N, C, H, W) in [0, 1].
        settings: kind and strength.
        generator: source of random numbers, on any device (None: torch's generator of the images' device).

    Returns:
        New images, (N, C, H, W) float32, on the device and in the layout of `images`, without gradients.
        Values of gaussian and poisson-gaussian leave [0, 1] unless `clip` is set; other kinds stay inside.
    """
    # Under autocast the blur would run in half precision, whose steps are some gray levels.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        noisy = _CORRUPTIONS[settings.kind](images.float(), settings, Sampler(images, generator))
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return noisy.contiguous(memory_format=layout)


def corrupt_held_out(
    images: torch.Tensor, settings: NoiseSettings, seed: int, indices: Sequence[int]
) -> torch.Tensor:
    """Add the same noise to a validation image each time.

    The noise depends only on `seed` and on the image's index, not on its batch or device (up to the last
    digits of the arithmetic): every epoch and every network is validated on the same images.

    Args:
        images: (N, C, H, W) in [0, 1].
        settings: kind and strength.
        seed: at least 0.
        indices: index of each of the N images in the held-out set, at least 0.

    Returns:
        See `corrupt`.
    """
    noisy = []
    for image, index in zip(images, indices, strict=True):
        # With the sum of seed and index, the next seed would give the same noise, shifted by one image.
        words = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
        noisy.append(corrupt(image[None], settings, torch.Generator().manual_seed(int(words[0]))))
    return torch.cat(noisy)


def _normal(shape: torch.Size, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    """Draw normal noise of mean 0 and standard deviation 1, (N, C, H, W), white or blurred."""
    width = settings.correlation
    largest = width[1] if isinstance(width, tuple) else width
    if not largest:
        return sampler.normal(*shape)
    count, channels, height, columns = shape
    reach = math.ceil(3 * largest)
    steps = torch.arange(-reach, reach + 1.0, device=sampler.target)
    kernel = torch.exp(-0.5 * (steps / sampler.strength(width).clamp(min=1e-3)).square())
    kernel = kernel / kernel.norm(dim=-1, keepdim=True)  # so that blurred white noise keeps its deviation
    # Drawn larger than the image, so that the noise at the borders is the same as inside.
    noise = sampler.normal(channels, count, height + 2 * reach, columns + 2 * reach)
    noise = F.conv2d(F.conv2d(noise, kernel, groups=count), kernel.transpose(2, 3), groups=count)
    return noise.transpose(0, 1)


def _gaussian(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    noisy = images + sampler.strength(settings.sigma) / 255 * _normal(images.shape, settings, sampler)
    return noisy.clamp(0.0, 1.0) if settings.clip else noisy


def _poisson_gaussian(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    """Count photons, then add the normal noise of the read-out: variance = brightness / photons + sigma²."""
    photons = sampler.strength(settings.photons)
    return _gaussian(sampler.poisson(images.clamp(min=0.0) * photons) / photons, settings, sampler)


def _salt_and_pepper(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    """Make pixels black or white, all channels of a pixel together, so that no colours appear."""
    half = sampler.strength(settings.amount) / 2
    chance = sampler.uniform(len(images), 1, *images.shape[2:])
    return images.masked_fill(chance < half, 0.0).masked_fill(chance >= 1 - half, 1.0)


def _jpeg(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    return jpeg(images, sampler.strength(settings.quality).flatten())


def _noise_factor(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    """Add noise as TensorFlow's tutorial "Intro to Autoencoders" does."""
    return (images + sampler.strength(settings.noise_factor) * sampler.normal(*images.shape)).clamp(0.0, 1.0)


def _gaussian_then_jpeg(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    return _jpeg(_gaussian(images, settings, sampler), settings, sampler)


def _mixed(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    kinds = (_gaussian, _poisson_gaussian, _salt_and_pepper, _jpeg, _gaussian_then_jpeg)
    choice = sampler.uniform(len(images), 1, 1, 1).mul(len(kinds)).long()
    noisy = images
    # Every kind is computed for all images: selecting the images of a kind would make a GPU wait.
    for number, corruption in enumerate(kinds):
        noisy = torch.where(choice == number, corruption(images, settings, sampler), noisy)
    return noisy


def _camera(images: torch.Tensor, settings: NoiseSettings, sampler: Sampler) -> torch.Tensor:
    sigma = settings.sigma
    lowest, highest = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    return CameraNoise(lowest / 255, highest / 255).add(images, sampler)


_CORRUPTIONS: dict[NoiseKind, Callable[[torch.Tensor, NoiseSettings, Sampler], torch.Tensor]] = {
    "gaussian": _gaussian,
    "poisson-gaussian": _poisson_gaussian,
    "salt-and-pepper": _salt_and_pepper,
    "jpeg": _jpeg,
    "noise-factor": _noise_factor,
    "mixed": _mixed,
    "camera": _camera,
}
