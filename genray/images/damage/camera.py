"""Noise as cameras and what follows them make it, for training on clean images.

Sources: the shuffled, repeated chain of damages is that of BSRGAN (Zhang et al. 2021, "Designing a practical
degradation model for deep blind image super-resolution") and SCUNet (Zhang et al. 2023, "Practical blind
image denoising via Swin-Conv-UNet and data synthesis"); the noise of the sensor and its way through the
camera is that of Brooks et al. 2019, "Unprocessing images for learned raw denoising".

The clean image stays as it is: only the noise is blurred, demosaiced, resized and compressed with it. A
network that is trained on such pairs removes noise, and does not sharpen what was soft before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from genray.images.damage.jpeg_losses import jpeg
from genray.images.damage.sampler import Sampler

_LUMA = (0.299, 0.587, 0.114)
_UNTOUCHED = 0.06  # share of images that stay clean, so that clean images are learned to be left alone
_WHITE = 0.3  # share of images with white Gaussian noise only, as published figures are measured on
_COARSE = 0.16  # share of images with blurred noise only, as film grain and scanned photographs have
_WIDTHS = (0.5, 2.5)  # of the blur of coarse noise: standard deviation in pixels
_COMPRESSED = 0.5  # share of the other images that are stored as a JPEG file in the end


@dataclass(frozen=True)
class CameraNoise:
    """Noise of cameras, of a strength from `lowest` to `highest`: the root mean square of the noise, where
    white is 1.

    White noise has every strength as often, as published figures are measured up to strong noise. Of coarse
    noise weak one is drawn more often, by the square of a uniform number: half is below a quarter of the
    range. Of the noise that went through a camera it is the cube: half is below an eighth.
    """

    lowest: float
    highest: float

    def add(self, images: torch.Tensor, sampler: Sampler) -> torch.Tensor:
        """Add noise to images (N, C, H, W) in [0, 1], each with its own chain of damages; the result is not
        clipped where the noise is white. Of gray images in colour (equal channels) the noise is gray, too.
        """
        return torch.cat([self._add_to_one(image[None], sampler) for image in images])

    def _add_to_one(self, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
        kind = sampler.number()
        if kind < _UNTOUCHED:
            return clean.clone()
        draw = sampler.number()
        if kind >= _UNTOUCHED + _WHITE + _COARSE:
            draw **= 3
        elif kind >= _UNTOUCHED + _WHITE:
            draw **= 2
        level = self.lowest + (self.highest - self.lowest) * draw
        if clean.shape[1] == 3 and torch.equal(clean[:, :1], clean[:, 1:2]):
            return self._add_to_one_kind(clean[:, :1], level, kind, sampler).expand(-1, 3, -1, -1)
        return self._add_to_one_kind(clean, level, kind, sampler)

    def _add_to_one_kind(
        self, clean: torch.Tensor, level: float, kind: float, sampler: Sampler
    ) -> torch.Tensor:
        if kind < _UNTOUCHED + _WHITE:
            return clean + level * sampler.normal(*clean.shape)
        if kind < _UNTOUCHED + _WHITE + _COARSE:
            noise = _coarse(clean, sampler)
        else:
            noisy = clean
            for _ in range(2):
                for number in sampler.order(len(_CHAIN)):
                    chance, damage = _CHAIN[number]
                    if sampler.number() < chance:
                        noisy = damage(noisy, clean, sampler)
            noise = noisy - clean
        strength = float(noise.square().mean().sqrt())
        if strength > 0:
            noise = noise * (level / strength)
        noisy = (clean + noise).mul(255.0).round().clamp(0.0, 255.0).div(255.0)
        if sampler.number() < _COMPRESSED:
            noisy = _compressed(noisy, clean, sampler)
        return noisy


def _coarse(clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Return blurred noise: the same in all channels, as the grain of scanned film, or of each apart."""
    low, high = _WIDTHS
    width = low + (high - low) * sampler.number()
    count, channels, height, columns = clean.shape
    if sampler.number() < 0.5:
        channels = 1
    # Drawn larger than the image, so that the noise at the borders is the same as inside.
    edge = math.ceil(3 * width)
    noise = _blur(sampler.normal(count, channels, height + 2 * edge, columns + 2 * edge), width)
    return noise[:, :, edge : edge + height, edge : edge + columns].expand(clean.shape)


def _gaussian(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Add white noise: of each channel apart, the same in all, or correlated between channels."""
    noise = sampler.normal(*clean.shape)
    choice = sampler.number()
    if choice < 0.3:
        noise = noise[:, :1]
    elif choice < 0.6 and clean.shape[1] == 3:
        mixing = sampler.normal(3, 3)
        noise = torch.einsum("kc,nchw->nkhw", mixing / mixing.norm(), noise)
    return noisy + _log_between(0.004, 0.15, sampler) * noise


def _poisson(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Count photons, of each channel apart or of the brightness."""
    photons = _log_between(60.0, 10_000.0, sampler)
    light = noisy.clamp(0.0, 1.0)
    if clean.shape[1] == 3 and sampler.number() < 0.4:
        light = _brightness(light)
    return noisy + sampler.poisson(light * photons) / photons - light


def _sensor(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Noise of a sensor below a Bayer filter, then demosaicing, white balance and tone curve (Brooks et al.).

    Demosaicing is bilinear. The clean image takes the same way, and only the difference is added.
    """
    channels = clean.shape[1]
    # Light of the scene from 0 to 1: the curve of sRGB is close to a power of 2.2.
    gamma = 1.8 + 0.8 * sampler.number()
    curve = sampler.number() < 0.5  # contrast, as 3x² - 2x³
    gains = [1.0] * channels
    if channels == 3:
        gains = [1.9 + 0.5 * sampler.number(), 1.0, 1.5 + 0.4 * sampler.number()]
    gain = torch.tensor(gains, device=clean.device)[:, None, None]
    light = _invert_curve(clean, curve=curve).clamp(min=1e-4).pow(gamma) / gain
    shot = _log_between(1e-4, 0.012, sampler)
    read = math.exp(2.18 * math.log(shot) + 1.2 + 0.26 * float(sampler.normal(1)))
    noise = sampler.normal(*clean.shape) * (shot * light + read).sqrt()
    if channels == 3:
        noise = _demosaic(noise, int(4 * sampler.number()))
    raw = torch.stack([light + noise, light]).clamp(min=1e-5) * gain
    toned = raw.clamp(max=1.0).pow(1 / gamma)
    developed = _curve(toned) if curve else toned
    return noisy + (developed[0] - developed[1])


def _grain(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Grain of film: blurred, mostly gray, strongest in middle tones."""
    noise = _blur(sampler.normal(len(clean), 1, *clean.shape[2:]), 0.4 + 1.2 * sampler.number())
    light = _brightness(clean).clamp(0.0, 1.0)
    return noisy + _log_between(0.01, 0.15, sampler) * noise * (0.3 + 2.8 * light * (1 - light))


def _soften(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Blur the noise, as lenses do not but every later filter does, or sharpen it."""
    noise = noisy - clean
    blurred = _blur(noise, 0.3 + 0.9 * sampler.number())
    if sampler.number() < 0.35:
        return noisy + (0.5 + sampler.number()) * (noise - blurred)
    return clean + blurred


def _smooth_colour(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Blur the colour of the noise only, as the denoising inside cameras does: blotches remain."""
    if clean.shape[1] != 3:
        return noisy
    noise = noisy - clean
    gray = _brightness(noise)
    return clean + gray + _blur(noise - gray, 0.7 + 2.3 * sampler.number())


def _enlarge(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Enlarge the noise by up to 2, as of an image that was resized: each grain covers several pixels."""
    height, width = clean.shape[2:]
    if min(height, width) < 8:
        return noisy
    factor = 1 + sampler.number()
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    noise = (noisy - clean)[:, :, :rows, :columns]
    mode = "bilinear" if sampler.number() < 0.5 else "bicubic"
    return clean + F.interpolate(noise, (height, width), mode=mode, align_corners=False)


def _compressed(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Store as a JPEG file: mostly of high quality."""
    quality = 30 + 65 * math.sqrt(sampler.number())
    return jpeg(noisy, torch.tensor([quality], device=clean.device))


def _shifted_jpeg(noisy: torch.Tensor, clean: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Store as a JPEG file that is cropped later: its blocks begin anywhere."""
    top, left = int(8 * sampler.number()), int(8 * sampler.number())
    padded = F.pad(noisy, (left, 0, top, 0), mode="replicate")
    return _compressed(padded, clean, sampler)[:, :, top:, left:]


_Damage = Callable[[torch.Tensor, torch.Tensor, Sampler], torch.Tensor]
_CHAIN: tuple[tuple[float, _Damage], ...] = (
    (0.4, _gaussian),
    (0.3, _poisson),
    (0.6, _sensor),
    (0.15, _grain),
    (0.3, _soften),
    (0.3, _smooth_colour),
    (0.15, _enlarge),
    (0.15, _shifted_jpeg),
)
"""Damages with their chance in each of the two rounds."""


def _log_between(low: float, high: float, sampler: Sampler) -> float:
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * sampler.number())


def _brightness(images: torch.Tensor) -> torch.Tensor:
    """Return the brightness of RGB images, (N, 1, H, W); other images unchanged."""
    if images.shape[1] != 3:
        return images
    weights = torch.tensor(_LUMA, device=images.device)[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True)


def _blur(images: torch.Tensor, width: float) -> torch.Tensor:
    """Blur (N, C, H, W) by a Gaussian of standard deviation `width`, in pixels."""
    reach = math.ceil(3 * width)
    steps = torch.arange(-reach, reach + 1.0, device=images.device)
    kernel = torch.exp(-0.5 * (steps / width).square())
    kernel = (kernel / kernel.sum())[None, None, None]
    planes = images.flatten(0, 1)[:, None]
    padded = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))
    return blurred.reshape(images.shape)


def _demosaic(mosaic: torch.Tensor, phase: int) -> torch.Tensor:
    """Keep of each pixel the colour that a Bayer filter lets through, and interpolate the others bilinearly.

    Args:
        mosaic: (N, 3, H, W).
        phase: which of the four pixels of a square is the red one, 0 to 3.
    """
    height, width = mosaic.shape[2:]
    rows = (torch.arange(height, device=mosaic.device) + phase // 2)[:, None] % 2
    columns = (torch.arange(width, device=mosaic.device) + phase % 2)[None] % 2
    red = (1 - rows) * (1 - columns)
    blue = rows * columns
    kept = torch.stack([red, 1 - red - blue, blue]).to(mosaic.dtype)[None]
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], device=mosaic.device)
    weights = kernel.expand(3, 1, 3, 3)
    total = F.conv2d(mosaic * kept, weights, padding=1, groups=3)
    near = F.conv2d(kept, weights, padding=1, groups=3)
    return torch.where(kept > 0, mosaic, total / near.clamp(min=1e-6))


def _curve(light: torch.Tensor) -> torch.Tensor:
    return 3 * light.square() - 2 * light**3


def _invert_curve(levels: torch.Tensor, *, curve: bool) -> torch.Tensor:
    levels = levels.clamp(0.0, 1.0)
    return 0.5 - torch.sin(torch.asin(1 - 2 * levels) / 3) if curve else levels
