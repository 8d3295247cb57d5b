"""Health of a network in training: dead units, and outputs that are stuck at an end of their range.

Both stop the gradients, so that the training goes on without learning, and a loss curve alone does not tell
why. They come from steps that are too large, mostly of the first few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from genray.images.tensors import ValueRange

_MOST_DEAD = 0.5  # share of the units of a layer
_MOST_STUCK = 0.25  # share of the output values
_AT_END = 1 / 510  # half a level of 8 bits, of a range of 1
_OFF_TARGET = 0.1  # of a range of 1


@dataclass(frozen=True)
class Health:
    """Shares of what does not learn.

    Attributes:
        stuck: share of the output values that are at an end of their range, though their targets are not.
        dead: share of the units that are zero for every sample, by the name of their layer.
    """

    stuck: float
    dead: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        span: ValueRange,
        dead: Mapping[str, float],
    ) -> Health:
        """Compare `outputs` with `targets`, of the same shape and with values in `span`."""
        low, high = span
        at_end = (outputs - low).minimum(high - outputs) < _AT_END * (high - low)
        wrong = (outputs - targets).abs() > _OFF_TARGET * (high - low)
        return cls(float((at_end & wrong).float().mean()), dict(dead))

    def problems(self, learning_rate: float) -> dict[str, str]:
        """Return what is wrong and what to try, by kind: "stuck", "dead"."""
        try_this = (
            f"lower optimizer.learning_rate (now {learning_rate:g}), or set loop.warmup=0.05 and loop.clip=1"
        )
        found = {}
        if self.stuck > _MOST_STUCK:
            found["stuck"] = (
                f"{self.stuck:.0%} of the output values are stuck at an end of their range, where they do "
                f"not learn: {try_this}"
            )
        layer = max(self.dead, key=lambda name: self.dead[name], default="")
        if layer and self.dead[layer] > _MOST_DEAD:
            found["dead"] = (
                f"{self.dead[layer]:.0%} of the units of {layer} are zero for every image and do not learn: "
                f"{try_this}"
            )
        return found


class DeadUnits:
    """Counter of units that are zero for every sample; make one with `watching`."""

    def __init__(self) -> None:
        self._alive: dict[str, torch.Tensor] = {}

    @classmethod
    @contextmanager
    def watching(cls, networks: Mapping[str, nn.Module]) -> Iterator[DeadUnits]:
        """Count in the rectifiers of `networks` as long as the context is open. A unit is a channel of a
        convolution, or a feature of a dense layer."""
        counter = cls()
        several = len(networks) > 1
        with ExitStack() as stack:
            for of, network in networks.items():
                for name, module in network.named_modules():
                    if isinstance(module, nn.ReLU):
                        label = f"{of}.{name}" if several else name
                        handle = module.register_forward_hook(partial(counter._count, label))
                        stack.callback(handle.remove)
            yield counter

    @property
    def shares(self) -> dict[str, float]:
        """Share of dead units, by the name of their layer."""
        return {name: float((~alive).float().mean()) for name, alive in self._alive.items()}

    def _count(self, name: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        alive = (output > 0).transpose(0, 1).flatten(1).any(dim=1)
        self._alive[name] = self._alive[name] | alive if name in self._alive else alive
