"""Losses that several recipes share."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from genray.images.metrics import structural_similarity
from genray.settings.base import Settings

Adversarial = Literal["bce", "least-squares"]


class ReconstructionSettings(Settings):
    """Settings of the distance between output and target."""

    kind: Literal["mse", "mae", "bce", "ssim"] = Field(
        "mse",
        description=(
            "distance between output and target (bce: binary cross-entropy; ssim: 1 - SSIM mixed "
            "with mae by ssim_share)"
        ),
    )
    ssim_share: float = Field(
        0.84, ge=0, le=1, description="share of 1 - SSIM in the loss ssim; the rest is mae"
    )


def reconstruction_loss(
    output: torch.Tensor, target: torch.Tensor, settings: ReconstructionSettings
) -> torch.Tensor:
    """Return the distance of each image of `output` from that of `target`, its mean over values: (N,)
    float32.

    `ssim` is the mix of Zhao et al. 2017, "Loss Functions for Image Restoration with Neural Networks", with
    SSIM at one scale.

    Args:
        output: (N, C, H, W) in [0, 1]; for ssim H and W at least 6.
        target: the same shape.
    """
    with torch.autocast(output.device.type, enabled=False):
        output = output.float()
        if settings.kind == "ssim":
            similar = structural_similarity(output, target)
            distance = (output - target).abs().mean(dim=(1, 2, 3))
            return settings.ssim_share * (1 - similar) + (1 - settings.ssim_share) * distance
        if settings.kind == "bce":
            losses = F.binary_cross_entropy(output.clamp(0, 1), target, reduction="none")
        elif settings.kind == "mse":
            losses = F.mse_loss(output, target, reduction="none")
        else:
            losses = F.l1_loss(output, target, reduction="none")
        return losses.mean(dim=(1, 2, 3))


def adversarial_loss(scores: torch.Tensor, kind: Adversarial, *, real: bool) -> torch.Tensor:
    """Return the distance of discriminator `scores` (logits, any shape) from judging every patch as `real`.

    `bce` is the original loss (Goodfellow et al. 2014), `least-squares` that of LSGAN (Mao et al. 2017).
    Returns a scalar in float32, whatever the precision of the scores.
    """
    scores = scores.float()
    truth = torch.full_like(scores, 1.0 if real else 0.0)
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(scores, truth)
    return F.mse_loss(scores, truth)
