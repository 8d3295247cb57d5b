"""Losses of JPEG files, computed on the device of the images."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

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
