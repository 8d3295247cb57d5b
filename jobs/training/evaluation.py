"""Judging networks in the middle and at the end of a training: metrics of held-out samples, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jobs.runs.samples import RunPicture
from jobs.training.device import Device
from jobs.training.recipe import Conclusion, Part, Recipe, Scored
from jobs.training.workers import TrainingWorker

Networks = Mapping[str, nn.Module]


class Evaluation:
    """Runs a recipe's validation and pictures on its device, in evaluation mode, without gradients."""

    def __init__(self, recipe: Recipe[Any], device: Device, worker: TrainingWorker) -> None:
        self._recipe, self._device, self._worker = recipe, device, worker

    def place(self, batch: NDArray[Any]) -> torch.Tensor:
        """A part of a batch as the networks take it, on the device, in its memory layout."""
        tensor = self._recipe.place(batch, self._device.where)
        return tensor.contiguous(memory_format=self._device.memory_format) if tensor.ndim == 4 else tensor

    def score(self, networks: Networks, part: Part) -> tuple[dict[str, float], list[Scored]]:
        """Mean metrics over the samples of `part`, and those of each, by index; each worker does a share."""
        for network in networks.values():
            self._worker.share_buffers(network)
        with torch.inference_mode(), self._device.autocast():
            scored = self._recipe.validate(_evaluating(networks), part, self._worker.share, self.place)
        scored = sorted(self._worker.gather(scored), key=lambda item: item[0])
        return {k: float(np.mean([s[k] for _, s in scored])) for k in scored[0][1]}, scored

    def picture(
        self, networks: Networks, part: Part, indices: Sequence[int], title: str = ""
    ) -> NDArray[np.uint8]:
        """What the networks make of some samples of `part`: (H, W, 3) uint8."""
        with torch.inference_mode(), self._device.autocast():
            return self._recipe.picture(_evaluating(networks), part, indices, self.place, title)

    def conclude(self, networks: Networks, part: Part, scored: Sequence[Scored], most: int) -> Conclusion:
        """What there is to say about the final networks; first a picture of at most `most` samples."""
        extremes = self._worst_and_best(networks, part, scored, most)
        with torch.inference_mode(), self._device.autocast():
            said = self._recipe.conclude(_evaluating(networks), part, scored, self.place)
        first = RunPicture("validation", "The worst and the best held-out samples", extremes)
        return replace(said, pictures=[first, *said.pictures])

    def _worst_and_best(
        self, networks: Networks, part: Part, scored: Sequence[Scored], most: int
    ) -> NDArray[np.uint8]:
        order = [index for index, _ in sorted(scored, key=lambda item: -item[1][self._recipe.metric])]
        count = max(1, min(most, len(order) // 2))
        halves = [
            self.picture(networks, part, order[:count], "worst "),
            self.picture(networks, part, order[::-1][:count], "best "),
        ]
        return np.concatenate(halves, axis=1)


def _evaluating(networks: Networks) -> Networks:
    for network in networks.values():
        network.eval()
    return networks
