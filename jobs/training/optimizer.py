"""Settings of a network's optimizer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from genray.settings.base import Settings


class OptimizerSettings(Settings):
    """Settings of one network's optimizer."""

    kind: Literal["adam", "adamw"] = Field("adam", description="optimizer (adamw decouples the weight decay)")
    learning_rate: float = Field(
        2e-4, gt=0, description="step size of the optimizer, before warm-up and decay"
    )
    beta1: float = Field(0.5, ge=0, lt=1, description="decay of the mean of the gradient (0.5 for GANs)")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of the squared gradient")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, the pull of the weights towards zero")

    def make(self, network: nn.Module, *, fused: bool) -> Optimizer:
        """Return the optimizer of `network`."""
        cls = AdamW if self.kind == "adamw" else Adam
        return cls(
            network.parameters(),
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
            fused=fused,
        )


class AdamSettings(OptimizerSettings):
    """Settings of the optimizer, with defaults for networks without an adversary."""

    kind: Literal["adam", "adamw"] = Field("adam", description="optimizer (adamw decouples the weight decay)")
    learning_rate: float = Field(
        1e-3, gt=0, description="step size of the optimizer, before warm-up and decay"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of the gradient")
