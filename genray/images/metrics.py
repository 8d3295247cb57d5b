"""Metrics of how close images are to their targets."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_RADIUS = 5  # pixels: 3.5 sigma
_SIGMA = 1.5  # pixels
_MOST_PSNR = 100.0  # dB


def image_metrics(output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute L1, MSE, PSNR (dB) and SSIM of each image, for values that range over 1.

    Args:
        output: (N, C, H, W) in [0, 1], H and W at least 6.
        target: images of the same shape and range.

    Returns:
        "l1", "mse", "psnr" and "ssim", each (N,) float32. PSNR is at most 100 dB, which equal images have.
    """
    output, target = output.float(), target.float()
    mse = (output - target).square().mean(dim=(1, 2, 3))
    return {
        "l1": (output - target).abs().mean(dim=(1, 2, 3)),
        "mse": mse,
        "psnr": (-10 * mse.log10()).clamp(max=_MOST_PSNR),
        "ssim": structural_similarity(output, target),
    }


def structural_similarity(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the SSIM of each image with its target, for values that range over 1; differentiable.

    SSIM as in Wang et al. 2004: a Gaussian window of 11 pixels, sigma 1.5, the mean over pixels and channels.
    Borders are mirrored, so that every pixel counts. The values are those of torchmetrics, whose import alone
    takes as long as that of torch and ray together, in each worker of a training.

    Args:
        output: (N, C, H, W) in [0, 1], H and W at least 6.
        target: images of the same shape and range.

    Returns:
        (N,) float32, 1 for equal images.
    """
    # Under autocast the filter would run in half precision, which changes SSIM by some hundredths.
    with torch.autocast(output.device.type, enabled=False):
        output, target = output.float(), target.float()
        moments = torch.cat([output, target, output * output, target * target, output * target], dim=1)
        mean_o, mean_t, square_o, square_t, product = _blurred(moments).chunk(5, dim=1)
        variance_o = (square_o - mean_o * mean_o).clamp(min=0)
        variance_t = (square_t - mean_t * mean_t).clamp(min=0)
        covariance = product - mean_o * mean_t
        c1, c2 = 0.01**2, 0.03**2
        brightness = (2 * mean_o * mean_t + c1) / (mean_o * mean_o + mean_t * mean_t + c1)
        structure = (2 * covariance + c2) / (variance_o + variance_t + c2)
        return (brightness * structure).mean(dim=(1, 2, 3))


def _blurred(maps: torch.Tensor) -> torch.Tensor:
    """Return (N, M, H, W) under the Gaussian window, of the same shape."""
    count = maps.shape[1]
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=maps.dtype, device=maps.device)
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    # A Gaussian is the product of one down and one across: 22 products a pixel instead of 121.
    padded = F.pad(maps, (_RADIUS,) * 4, mode="reflect")
    down = F.conv2d(padded, window.view(1, 1, -1, 1).expand(count, -1, -1, -1), groups=count)
    return F.conv2d(down, window.view(1, 1, 1, -1).expand(count, -1, -1, -1), groups=count)
