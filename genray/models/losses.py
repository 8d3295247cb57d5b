"""Losses that several recipes share."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

Adversarial = Literal["bce", "least-squares"]


def adversarial_loss(scores: torch.Tensor, real: bool, kind: Adversarial) -> torch.Tensor:
    """How far discriminator `scores` (logits, any shape) are from calling every patch `real`.

    `bce` is the original loss (Goodfellow et al. 2014), `least-squares` that of LSGAN (Mao et al. 2017).
    Returns a scalar in float32, whatever the precision of the scores.
    """
    scores = scores.float()
    truth = torch.full_like(scores, 1.0 if real else 0.0)
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(scores, truth)
    return F.mse_loss(scores, truth)
