"""Settings of a network's optimizer."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from genray.models.parts.layers import Weighted, fan_in
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

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters of `network` as torch's groups, in their order, each with the factor of its
        learning rate as `scale`."""
        return [{"params": list(network.parameters()), "scale": 1.0}]

    def make(self, network: nn.Module, *, fused: bool) -> Optimizer:
        """Return the optimizer of `network`."""
        cls = AdamW if self.kind == "adamw" else Adam
        return cls(
            self.groups(network),
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


class WidthScaledAdamSettings(AdamSettings):
    """Settings of the optimizer, with a learning rate that suits layers of any width.

    A step of Adam changes every weight by about the learning rate, whatever the gradient, so that the output
    of a layer of n inputs changes in proportion to n. With a rate proportional to 1/n it changes alike in
    layers of every width (Yang & Hu 2021, "Tensor Programs IV", table 3 of Yang et al. 2022 for Adam).
    """

    full_rate_inputs: int | None = Field(
        4096,
        ge=1,
        description=(
            "inputs of a layer up to which its weights get the whole step size; with n times as many they "
            "get an n-th of it (null: all weights get the whole one)"
        ),
    )

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        factors = self.rate_factors(network)
        # Neighbours share a group: the order of the parameters, which a checkpoint numbers, stays.
        runs = groupby(network.parameters(), key=lambda parameter: factors.get(parameter, 1.0))
        return [{"params": list(parameters), "scale": factor} for factor, parameters in runs]

    def rate_factors(self, network: nn.Module) -> dict[torch.Tensor, float]:
        """Return the factor of the learning rate of each weight matrix or kernel."""
        most = self.full_rate_inputs
        layers = [module for module in network.modules() if isinstance(module, Weighted)]
        return {layer.weight: min(1.0, most / fan_in(layer)) if most else 1.0 for layer in layers}
