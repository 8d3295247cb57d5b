"""Noise and JPEG losses added to clean images at training time, on the device of the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch.nn import functional as F

from genray.settings.base import Settings

NoiseKind = Literal["gaussian", "poisson-gaussian", "salt-and-pepper", "jpeg", "noise-factor", "mixed"]
Sigma = Annotated[float, Field(ge=0, le=255)]
Photons = Annotated[float, Field(gt=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
JpegQuality = Annotated[int, Field(ge=1, le=95)]
Factor = Annotated[float, Field(ge=0, le=10)]
Width = Annotated[float, Field(ge=0, le=8)]


# The example tables of ITU-T T.81, annex K, which libjpeg scales by the quality.
_LUMA = """
16 11 10 16 24 40 51 61      12 12 14 19 26 58 60 55      14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62      18 22 37 56 68 109 103 77    24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMA = """
17 18 24 47 99 99 99 99      18 21 26 66 99 99 99 99      24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99      99 99 99 99 99 99 99 99      99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99      99 99 99 99 99 99 99 99"""

# YCbCr of JFIF (ITU-R BT.601, full range): the rows compute Y, Cb - 128 and Cr - 128 from R, G and B.
_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


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
        "salt-and-pepper, jpeg, or gaussian then jpeg; for photos of unknown origin)",
    )
    sigma: Sigma | tuple[Sigma, Sigma] = Field(
        25.0,
        description="standard deviation in gray levels of 8 bits, 25 is 25/255 (gaussian, poisson-gaussian)",
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
        noisy = _CORRUPTIONS[settings.kind](images.float(), settings, _Sampler(images, generator))
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


def jpeg(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Compress and decompress images as JPEG does, with chroma at half the resolution (4:2:0).

    Everything but the lossless entropy coding is done. The result equals that of libjpeg up to the rounding
    of its integer arithmetic (tests compare it with Pillow). No gradients pass.

    Args:
        images: (N, C, H, W) in [0, 1], any size; other values are clipped. Three channels are RGB; of any
            other number each channel is compressed as a gray image.
        quality: (N,), libjpeg's quality of each image, 1 to 100; rounded.

    Returns:
        (N, C, H, W) float32, multiples of 1/255 in [0, 1].
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        levels = images.float().clamp(0.0, 1.0).mul(255.0).round()
        luma, chroma = _tables(quality.to(images.device))
        if images.shape[1] != 3:
            return _compress(levels, luma).div(255.0)
        height, width = images.shape[2:]
        to_ycbcr = torch.tensor(_YCBCR)
        to_rgb = torch.linalg.inv(to_ycbcr).to(
            images.device
        )  # on the CPU: on a GPU it would have to be waited for
        planes = torch.einsum("kc,nchw->nkhw", to_ycbcr.to(images.device), levels)
        bright = _compress(planes[:, :1].round(), luma) - 128.0
        # libjpeg repeats the last row and column of an odd size before it averages squares of 2x2.
        even = F.pad(planes[:, 1:].round(), (0, width % 2, 0, height % 2), mode="replicate")
        small = _compress(F.avg_pool2d(even, 2).add(128.0).round(), chroma) - 128.0
        # Bilinear is what libjpeg calls fancy upsampling.
        colour = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
        planes = torch.cat([bright + 128.0, colour[:, :, :height, :width]], dim=1)
        levels = torch.einsum("ck,nkhw->nchw", to_rgb, planes)
        return levels.round().clamp(0.0, 255.0).div(255.0)


class _Sampler:
    """Source of random tensors for a batch: drawn on the generator's device, moved to that of the images."""

    def __init__(self, images: torch.Tensor, generator: torch.Generator | None) -> None:
        self.target = images.device
        self._count = len(images)
        self._generator = generator
        self._source = images.device if generator is None else generator.device

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self._generator, device=self._source).to(self.target)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self._source).to(self.target)

    def poisson(self, mean: torch.Tensor) -> torch.Tensor:
        # Contiguous, because torch assigns the draws in the order of memory.
        return torch.poisson(mean.to(self._source).contiguous(), generator=self._generator).to(self.target)

    def strength(self, bounds: float | tuple[float, float]) -> torch.Tensor:
        """Draw a strength for each image, (N, 1, 1, 1), uniformly within `bounds`."""
        low, high = bounds if isinstance(bounds, tuple) else (bounds, bounds)
        return low + (high - low) * self.uniform(self._count, 1, 1, 1)


def _normal(shape: torch.Size, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
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


def _gaussian(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    noisy = images + sampler.strength(settings.sigma) / 255 * _normal(images.shape, settings, sampler)
    return noisy.clamp(0.0, 1.0) if settings.clip else noisy


def _poisson_gaussian(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """Count photons, then add the normal noise of the read-out: variance = brightness / photons + sigma²."""
    photons = sampler.strength(settings.photons)
    return _gaussian(sampler.poisson(images.clamp(min=0.0) * photons) / photons, settings, sampler)


def _salt_and_pepper(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """Make pixels black or white, all channels of a pixel together, so that no colours appear."""
    half = sampler.strength(settings.amount) / 2
    chance = sampler.uniform(len(images), 1, *images.shape[2:])
    return images.masked_fill(chance < half, 0.0).masked_fill(chance >= 1 - half, 1.0)


def _jpeg(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    return jpeg(images, sampler.strength(settings.quality).flatten())


def _noise_factor(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """Add noise as TensorFlow's tutorial "Intro to Autoencoders" does."""
    return (images + sampler.strength(settings.noise_factor) * sampler.normal(*images.shape)).clamp(0.0, 1.0)


def _gaussian_then_jpeg(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    return _jpeg(_gaussian(images, settings, sampler), settings, sampler)


def _mixed(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    kinds = (_gaussian, _poisson_gaussian, _salt_and_pepper, _jpeg, _gaussian_then_jpeg)
    choice = sampler.uniform(len(images), 1, 1, 1).mul(len(kinds)).long()
    noisy = images
    # Every kind is computed for all images: selecting the images of a kind would make a GPU wait.
    for number, corruption in enumerate(kinds):
        noisy = torch.where(choice == number, corruption(images, settings, sampler), noisy)
    return noisy


_CORRUPTIONS: dict[NoiseKind, Callable[[torch.Tensor, NoiseSettings, _Sampler], torch.Tensor]] = {
    "gaussian": _gaussian,
    "poisson-gaussian": _poisson_gaussian,
    "salt-and-pepper": _salt_and_pepper,
    "jpeg": _jpeg,
    "noise-factor": _noise_factor,
    "mixed": _mixed,
}


def _tables(quality: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the luma and chroma quantisation tables of each quality by libjpeg's rule: (N, 1, 1, 64)."""
    quality = quality.float().round().clamp(1.0, 100.0)[:, None]
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)

    def table(numbers: str) -> torch.Tensor:
        base = torch.tensor([float(number) for number in numbers.split()], device=quality.device)
        return (base * scale + 50).div(100).floor().clamp(1, 255)[:, None, None]

    return table(_LUMA), table(_CHROMA)


def _compress(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantise the DCT of each 8x8 block of planes, (N, C, H, W) levels from 0 to 255, and transform back."""
    count, channels, height, width = planes.shape
    padded = F.pad(planes - 128.0, (0, -width % 8, 0, -height % 8), mode="replicate")
    down = padded.shape[2] // 8
    along = padded.shape[3] // 8
    blocks = padded.reshape(count, channels, down, 8, along, 8).permute(0, 1, 2, 4, 3, 5)
    # One product with a 64x64 matrix is several times faster than two with 8x8 matrices.
    basis = _dct().to(planes.device)
    values = blocks.reshape(count, channels, -1, 64) @ basis.T
    blocks = (values.div(table).round().mul(table) @ basis).reshape(count, channels, down, along, 8, 8)
    whole = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
    return whole[:, :, :height, :width].add(128.0).round().clamp(0.0, 255.0)


def _dct() -> torch.Tensor:
    """Return the orthonormal two-dimensional DCT-II of an 8x8 block as a (64, 64) matrix."""
    step = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi / 8 * step[:, None] * (step + 0.5)) / 2
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float()
