"""Losses of generators and discriminators, and the penalties on the discriminator's gradient.

All take the discriminator's scores before any sigmoid, (N,), and return a scalar in float32.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from genray.settings.base import Settings


class _LossSettings(Settings):
    """Settings of every loss."""

    r1: float = Field(
        0.0,
        ge=0,
        description="weight of R1: half the squared gradient of the scores at real images (Mescheder et al. "
        "2018, 0: none)",
    )
    r2: float = Field(
        0.0, ge=0, description="weight of R2: the same at generated images (Mescheder et al. 2018, 0: none)"
    )
    penalty_every: int = Field(
        1,
        ge=1,
        le=64,
        description="steps from one penalty on the gradient to the next, which weighs that many times as "
        "much (lazy regularisation, Karras et al. 2020, section 3.1; 1: every step)",
    )
    critic_steps: int = Field(
        1,
        ge=1,
        le=64,
        description="updates of the discriminator for one of the generator; each takes its part of the batch",
    )


class BceSettings(_LossSettings):
    """Settings of the loss of the first GAN."""

    kind: Literal["bce"] = Field(
        "bce", description="binary cross-entropy, not saturating (Goodfellow et al. 2014); collapses easily"
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="distance of the real images' label from 1 (one-sided label smoothing, Salimans et al. "
        "2016: 0.1)",
    )


class LeastSquaresSettings(_LossSettings):
    """Settings of the loss of LSGAN."""

    kind: Literal["least-squares"] = Field(
        "least-squares", description="squared distance from the labels 1 and 0 (LSGAN, Mao et al. 2017)"
    )


class HingeSettings(_LossSettings):
    """Settings of the hinge loss."""

    kind: Literal["hinge"] = Field(
        "hinge",
        description="scores beyond 1 and -1 cost nothing (Lim & Ye 2017); usual with spectral normalisation",
    )


class WganGpSettings(_LossSettings):
    """Settings of the loss of WGAN-GP."""

    kind: Literal["wgan-gp"] = Field(
        "wgan-gp",
        description="distance of Wasserstein, with a penalty where the gradient's norm is not 1 (Gulrajani "
        "et al. 2017)",
    )
    gradient: float = Field(10.0, gt=0, description="weight of the penalty between real and generated images")
    critic_steps: int = Field(
        5,
        ge=1,
        le=64,
        description="updates of the discriminator for one of the generator; each takes its part of the batch",
    )


class RelativisticSettings(_LossSettings):
    """Settings of the relativistic pairing loss."""

    kind: Literal["relativistic"] = Field(
        "relativistic",
        description="scores of real images above those of generated ones, in pairs (Jolicoeur-Martineau "
        "2019); with r1 and r2 it covers the data (Huang et al. 2024, arXiv:2501.05441)",
    )
    r1: float = Field(
        0.5,
        ge=0,
        description="weight of R1: half the squared gradient of the scores at real images (Mescheder et al. "
        "2018, 0: none)",
    )
    r2: float = Field(
        0.5, ge=0, description="weight of R2: the same at generated images (Mescheder et al. 2018, 0: none)"
    )
    penalty_every: int = Field(
        8,
        ge=1,
        le=64,
        description="steps from one penalty on the gradient to the next, which weighs that many times as "
        "much (lazy regularisation, Karras et al. 2020, section 3.1; 1: every step)",
    )


GanLoss = Annotated[
    RelativisticSettings | BceSettings | LeastSquaresSettings | HingeSettings | WganGpSettings,
    Field(discriminator="kind"),
]
"""Settings of any loss."""


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, settings: GanLoss) -> torch.Tensor:
    """Return the discriminator's loss for the scores of real and of generated images, without penalties."""
    real, fake = real.float(), fake.float()
    match settings:
        case RelativisticSettings():
            return F.softplus(fake - real).mean()
        case BceSettings():
            label = torch.full_like(real, 1 - settings.smoothing)
            return F.binary_cross_entropy_with_logits(real, label) + F.softplus(fake).mean()
        case LeastSquaresSettings():
            return 0.5 * ((real - 1).square().mean() + fake.square().mean())
        case HingeSettings():
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        case WganGpSettings():
            return fake.mean() - real.mean()


def generator_loss(fake: torch.Tensor, real: torch.Tensor, settings: GanLoss) -> torch.Tensor:
    """Return the generator's loss for the scores of its images, and of real ones, which the relativistic loss
    compares them with."""
    fake = fake.float()
    match settings:
        case RelativisticSettings():
            return F.softplus(real.float() - fake).mean()
        case BceSettings():
            return F.softplus(-fake).mean()
        case LeastSquaresSettings():
            return 0.5 * (fake - 1).square().mean()
        case HingeSettings() | WganGpSettings():
            return -fake.mean()


def squared_gradients(scores: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the squared norm of the gradient of each image's score, (N,) float32, which can itself be
    differentiated.

    Args:
        scores: scores of `images`, each of which depends on its own image only.
        images: images that require a gradient, (N, C, H, W).
    """
    with torch.autocast(scores.device.type, enabled=False):
        (gradients,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return gradients.float().square().flatten(1).sum(dim=1)


def mixed(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return an even draw from the line between each real and generated image (Gulrajani et al. 2017)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    return torch.lerp(real, fake, share)
