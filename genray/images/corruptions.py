"""Noise and JPEG's losses made on the fly: clean images in, corrupted ones out, on their device."""

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


# The example tables of ITU-T T.81, Annex K, which libjpeg scales by its quality.
_LUMA = """
16 11 10 16 24 40 51 61      12 12 14 19 26 58 60 55      14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62      18 22 37 56 68 109 103 77    24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMA = """
17 18 24 47 99 99 99 99      18 21 26 66 99 99 99 99      24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99      99 99 99 99 99 99 99 99      99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99      99 99 99 99 99 99 99 99"""

# JFIF's YCbCr (ITU-R BT.601, full range): rows give Y, Cb - 128 and Cr - 128 from R, G and B.
_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


class NoiseSettings(Settings):
    """Settings of the noise. A strength is one number, or [lowest, highest] for blind training: then each
    image draws its own, uniformly. Strengths of other kinds than `kind` are not used.

    White noise alone does not prepare for photos, whose noise is blurred by the camera: DnCNN so trained
    scores below BM3D on SIDD's photos. `correlation` and mixed are for them.
    """

    kind: NoiseKind = Field(
        "gaussian",
        description="kind of noise (mixed: each image gets gaussian, poisson-gaussian, salt-and-pepper, "
        "jpeg, or "
        "gaussian then jpeg, for photos of unknown origin)",
    )
    sigma: Sigma | tuple[Sigma, Sigma] = Field(
        25.0, description="standard deviation in levels of 8 bits, 25 is 25/255 (gaussian, poisson-gaussian)"
    )
    photons: Photons | tuple[Photons, Photons] = Field(
        100.0, description="mean photons of a white pixel; fewer are noisier (poisson-gaussian)"
    )
    amount: Share | tuple[Share, Share] = Field(
        0.1, description="share of pixels that turn black or white, half each, 0 to 1 (salt-and-pepper)"
    )
    quality: JpegQuality | tuple[JpegQuality, JpegQuality] = Field(
        30, description="JPEG quality, 1 to 95 (jpeg)"
    )
    noise_factor: Factor | tuple[Factor, Factor] = Field(
        0.2,
        description="factor of normal noise that is added, clipped to [0, 1] as in the tutorials "
        "(noise-factor)",
    )
    correlation: Width | tuple[Width, Width] = Field(
        0.0,
        description="blur of the noise in pixels at the same strength; 0: white noise, which no camera makes "
        "(gaussian, poisson-gaussian)",
    )
    clip: bool = Field(
        False,
        description="clip to [0, 1], as files do and published figures do not (gaussian, poisson-gaussian)",
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
    """New images with noise; each draws its own, and its own strength where `settings` gives a range.

    Args:
        images: (N, C, H, W) in [0, 1].
        generator: draws on its own device, whichever the images are on; None: torch's, of their device.

    Returns:
        (N, C, H, W) float32, on the device and in the layout of `images`, without gradients.
        Gaussian kinds leave [0, 1] unless `clip` is set; the others stay inside.
    """
    # Autocast would blur in half precision, with steps of some levels.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        noisy = _CORRUPTIONS[settings.kind](images.float(), settings, _Sampler(images, generator))
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return noisy.contiguous(memory_format=layout)


def corrupt_held_out(
    images: torch.Tensor, settings: NoiseSettings, seed: int, indices: Sequence[int]
) -> torch.Tensor:
    """`corrupt` for validation: the noise of an image depends on `seed` and its index alone, not on the batch
    that it is in nor on the device (but for the last digits of arithmetic), so every epoch and every network
    is given the same.

    Args:
        images: (N, C, H, W) in [0, 1].
        seed: at least 0.
        indices: of the images in the held-out set, N of them, at least 0.

    Returns:
        See `corrupt`.
    """
    noisy = []
    for image, index in zip(images, indices, strict=True):
        # A sum of seed and index would give the next seed the same noise, one image further.
        words = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
        noisy.append(corrupt(image[None], settings, torch.Generator().manual_seed(int(words[0]))))
    return torch.cat(noisy)


def jpeg(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """What is left of `images` after JPEG at libjpeg's `quality`, with colour at half the size (4:2:0).

    Only the entropy coding, which loses nothing, is left out: the result is that of libjpeg but for the
    rounding of its integer arithmetic (tests hold it against Pillow). Nothing passes gradients.

    Args:
        images: (N, C, H, W) in [0, 1], any size; what lies beyond is clipped. Three channels are RGB; of any
            other number each is compressed as a gray image.
        quality: (N,), one for each image, from 1 to 100; rounded.

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
        to_rgb = torch.linalg.inv(to_ycbcr).to(images.device)  # on the CPU: a GPU would be waited for
        planes = torch.einsum("kc,nchw->nkhw", to_ycbcr.to(images.device), levels)
        bright = _compress(planes[:, :1].round(), luma) - 128.0
        # libjpeg repeats the last row and column of an odd size before it averages squares of four.
        even = F.pad(planes[:, 1:].round(), (0, width % 2, 0, height % 2), mode="replicate")
        small = _compress(F.avg_pool2d(even, 2).add(128.0).round(), chroma) - 128.0
        # Bilinear is what libjpeg calls fancy upsampling.
        colour = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
        planes = torch.cat([bright + 128.0, colour[:, :, :height, :width]], dim=1)
        levels = torch.einsum("ck,nkhw->nchw", to_rgb, planes)
        return levels.round().clamp(0.0, 255.0).div(255.0)


class _Sampler:
    """Random tensors for a batch, drawn where the generator is, given where the images are."""

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
        # Contiguous, because the draws are dealt out in the order of memory.
        return torch.poisson(mean.to(self._source).contiguous(), generator=self._generator).to(self.target)

    def strength(self, bounds: float | tuple[float, float]) -> torch.Tensor:
        """One for each image, (N, 1, 1, 1)."""
        low, high = bounds if isinstance(bounds, tuple) else (bounds, bounds)
        return low + (high - low) * self.uniform(self._count, 1, 1, 1)


def _normal(shape: torch.Size, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """Normal noise of mean 0 and deviation 1 (N, C, H, W), white or blurred."""
    width = settings.correlation
    largest = width[1] if isinstance(width, tuple) else width
    if not largest:
        return sampler.normal(*shape)
    count, channels, height, columns = shape
    reach = math.ceil(3 * largest)
    steps = torch.arange(-reach, reach + 1.0, device=sampler.target)
    kernel = torch.exp(-0.5 * (steps / sampler.strength(width).clamp(min=1e-3)).square())
    kernel = kernel / kernel.norm(dim=-1, keepdim=True)  # so that the sum of white noise keeps its deviation
    # Drawn larger than the image: at the borders the noise is then as inside.
    noise = sampler.normal(channels, count, height + 2 * reach, columns + 2 * reach)
    noise = F.conv2d(F.conv2d(noise, kernel, groups=count), kernel.transpose(2, 3), groups=count)
    return noise.transpose(0, 1)


def _gaussian(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    noisy = images + sampler.strength(settings.sigma) / 255 * _normal(images.shape, settings, sampler)
    return noisy.clamp(0.0, 1.0) if settings.clip else noisy


def _poisson_gaussian(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """Photons are counted, then read out with normal noise: variance = brightness / photons + sigma²."""
    photons = sampler.strength(settings.photons)
    return _gaussian(sampler.poisson(images.clamp(min=0.0) * photons) / photons, settings, sampler)


def _salt_and_pepper(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """All channels of a pixel turn together: to black or to white, never to a colour."""
    half = sampler.strength(settings.amount) / 2
    chance = sampler.uniform(len(images), 1, *images.shape[2:])
    return images.masked_fill(chance < half, 0.0).masked_fill(chance >= 1 - half, 1.0)


def _jpeg(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    return jpeg(images, sampler.strength(settings.quality).flatten())


def _noise_factor(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    """As in TensorFlow's "Intro to Autoencoders"."""
    return (images + sampler.strength(settings.noise_factor) * sampler.normal(*images.shape)).clamp(0.0, 1.0)


def _gaussian_then_jpeg(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    return _jpeg(_gaussian(images, settings, sampler), settings, sampler)


def _mixed(images: torch.Tensor, settings: NoiseSettings, sampler: _Sampler) -> torch.Tensor:
    kinds = (_gaussian, _poisson_gaussian, _salt_and_pepper, _jpeg, _gaussian_then_jpeg)
    choice = sampler.uniform(len(images), 1, 1, 1).mul(len(kinds)).long()
    noisy = images
    # All kinds of all images: to pick out the images of a kind would make a GPU wait for the choice.
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
    """The quantisation tables of each quality, by libjpeg's rule: luma and chroma, (N, 1, 1, 64)."""
    quality = quality.float().round().clamp(1.0, 100.0)[:, None]
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)

    def table(numbers: str) -> torch.Tensor:
        base = torch.tensor([float(number) for number in numbers.split()], device=quality.device)
        return (base * scale + 50).div(100).floor().clamp(1, 255)[:, None, None]

    return table(_LUMA), table(_CHROMA)


def _compress(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantise the DCT of each 8x8 block of planes (N, C, H, W), levels from 0 to 255; gives levels again."""
    count, channels, height, width = planes.shape
    padded = F.pad(planes - 128.0, (0, -width % 8, 0, -height % 8), mode="replicate")
    down = padded.shape[2] // 8
    along = padded.shape[3] // 8
    blocks = padded.reshape(count, channels, down, 8, along, 8).permute(0, 1, 2, 4, 3, 5)
    # One product with a 64x64 matrix is several times faster than 8x8 products from both sides.
    basis = _dct().to(planes.device)
    values = blocks.reshape(count, channels, -1, 64) @ basis.T
    blocks = (values.div(table).round().mul(table) @ basis).reshape(count, channels, down, along, 8, 8)
    whole = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
    return whole[:, :, :height, :width].add(128.0).round().clamp(0.0, 255.0)


def _dct() -> torch.Tensor:
    """The orthonormal two-dimensional DCT-II of an 8x8 block as a (64, 64) matrix."""
    step = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi / 8 * step[:, None] * (step + 0.5)) / 2
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float()
