"""Updates of the networks from a loss, with mixed precision, accumulation, clipping and distribution; and
the moving averages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

_FIRST_STEPS = 32  # steps at first, after each of which the averages are updated
_STEPS_BETWEEN = 8  # steps between later updates of the averages


class GradientUpdater:
    """The loop's `Updater`: see `jobs/training/recipe.py`.

    Args:
        networks: networks by name, wrapped for distribution if there are several workers.
        optimizers: one per network.
        accumulate: batches whose gradients are accumulated for one step.
        clip: largest norm of a gradient; None: no limit.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        *,
        accumulate: int,
        clip: float | None,
    ) -> None:
        self._networks = networks
        self._optimizers = optimizers
        self._accumulate = accumulate
        self._clip = clip
        self._applies = True
        self.progress = 0.0
        self.step = 0

    @contextmanager
    def batch(self, index: int) -> Iterator[bool]:
        """Wrap the recipe's step on batch `index` of the accumulated ones; yields whether the step is
        applied."""
        self._applies = index == self._accumulate - 1
        with ExitStack() as stack:
            if not self._applies:
                for network in self._networks.values():
                    if isinstance(network, DistributedDataParallel):
                        stack.enter_context(network.no_sync())
            yield self._applies

    def update(self, network: str, loss: torch.Tensor) -> None:
        with torch.autocast(loss.device.type, enabled=False):
            (loss.float() / self._accumulate).backward()  # type: ignore[no-untyped-call]
        if not self._applies:
            return
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._networks[network].parameters(), self._clip)
        self._optimizers[network].step()
        # Autocast caches half-precision copies of the weights until its block ends; they are outdated now.
        torch.clear_autocast_cache()
        self._optimizers[network].zero_grad(set_to_none=True)

    @contextmanager
    def frozen(self, network: str) -> Iterator[nn.Module]:
        # Without its wrapper, which would wait for gradients that never arrive.
        module = unwrapped(self._networks[network])
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield module
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network without the wrapper that synchronises its gradients."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def is_averaging_step(step: int) -> bool:
    """Return whether the moving averages are updated after optimizer step `step` (from 1): after each of the
    first 32 steps, then after every eighth. An update after every step would cost an eighth of a step at
    batch 1, for the same average."""
    return step <= _FIRST_STEPS or step % _STEPS_BETWEEN == 0


def moving_average(decay: float) -> Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], Any], None]:
    """Return the update of `AveragedModel` for an exponential moving average with `decay` per step.

    The decay rises with the number of updates, min(decay, (1 + updates) / (10 + updates)), so that a new
    average does not depend on the first weights for long.
    """

    @torch.no_grad()
    def update(averages: Sequence[torch.Tensor], values: Sequence[torch.Tensor], count: Any) -> None:
        updates = int(count)
        steps = 1 if updates < _FIRST_STEPS else _STEPS_BETWEEN
        decay_now = min(decay**steps, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(averages), list(values), 1 - decay_now)

    return update
