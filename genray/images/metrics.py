"""Metrics of how close images are to their targets."""

from __future__ import annotations

import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)


def image_metrics(output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute L1, MSE, PSNR (dB) and SSIM of each image, for values that range over 1.

    SSIM follows Wang et al. 2004: a Gaussian window of 11 pixels, sigma 1.5, the mean over channels.

    Args:
        output: (N, C, H, W) in [0, 1], H and W at least 8.
        target: images of the same shape and range.

    Returns:
        "l1", "mse", "psnr" and "ssim", each (N,) float32. PSNR is at most 100 dB, which equal images have.
    """
    # Under autocast the filter would run in half precision, which changes SSIM by some hundredths.
    with torch.autocast(output.device.type, enabled=False):
        output, target = output.float(), target.float()
        psnr = peak_signal_noise_ratio(output, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
        ssim = structural_similarity_index_measure(output, target, data_range=1.0, reduction="none")
    assert isinstance(ssim, torch.Tensor)  # a tuple only if the full map is requested
    return {
        "l1": (output - target).abs().mean(dim=(1, 2, 3)),
        "mse": (output - target).square().mean(dim=(1, 2, 3)),
        "psnr": psnr.clamp(max=100.0),
        "ssim": ssim.reshape(-1),
    }
