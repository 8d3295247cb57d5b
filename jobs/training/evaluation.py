"""Evaluation of networks during and after training: metrics of held-out samples, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.runs.samples import RunPicture
from jobs.training.checks.health import DeadUnits, Health
from jobs.training.device import Device
from jobs.training.recipe import Conclusion, EvaluationContext, Networks, Part, Recipe, SampleScores
from jobs.training.workers import TrainingWorker


@dataclass(frozen=True)
class Scores:
    """Metrics of held-out samples: of each one, by index, and the means; and what else the history keeps."""

    samples: Sequence[SampleScores]
    means: dict[str, float]

    @property
    def details(self) -> dict[str, Any]:
        """What the samples have beside their metrics."""
        return {name: value for sample in self.samples for name, value in sample.details.items()}


@dataclass(frozen=True)
class Evaluator:
    """Runs a recipe's validation and pictures on its device, in evaluation mode, without gradients."""

    recipe: Recipe[Any]
    device: Device
    worker: TrainingWorker

    def place(self, batch: NDArray[Any]) -> torch.Tensor:
        """Return a part of a batch as the networks take it, on the device, in its memory layout."""
        tensor = self.recipe.place(batch, self.device.where)
        return tensor.contiguous(memory_format=self.device.memory_format) if tensor.ndim == 4 else tensor

    def score(self, networks: Networks, part: Part) -> Scores:
        """Score the samples of `part`; each worker scores a share of them."""
        for network in networks.values():
            self.worker.share_buffers(network)
        with self._context(networks, part) as context:
            samples = self.recipe.validate(context, self.worker.share)
        samples = sorted(self.worker.gather(samples), key=lambda sample: sample.index)
        names = samples[0].metrics
        means = {name: float(np.mean([sample.metrics[name] for sample in samples])) for name in names}
        return Scores(samples, means)

    def health(self, networks: Networks, part: Part) -> Health | None:
        """Return the health of the networks on a few samples of `part`; None if it is not known."""
        if self.device.compile:
            return None  # a compiled network does not call its layers
        with self._context(networks, part) as context, DeadUnits.watching(networks) as units:
            probe = self.recipe.probe(context)
        if probe is None:
            return None
        return Health.of(probe.outputs.float(), probe.targets.float(), probe.span, units.shares)

    def picture(
        self, networks: Networks, part: Part, indices: Sequence[int], title: str = ""
    ) -> NDArray[np.uint8]:
        """Draw the networks' outputs for some samples of `part`: (H, W, 3) uint8."""
        with self._context(networks, part) as context:
            return self.recipe.picture(context, indices, title)

    def conclude(
        self, networks: Networks, part: Part, scores: Sequence[SampleScores], most: int
    ) -> Conclusion:
        """Return pictures, tables and metrics of the final networks; first a picture of at most `most`
        samples."""
        if self.recipe.ranked:
            extremes = self._worst_and_best(networks, part, scores, most)
            first = RunPicture("validation", "The worst and the best held-out samples", extremes)
        else:
            first = RunPicture("validation", "Samples", self.picture(networks, part, range(most)))
        with self._context(networks, part) as context:
            conclusion = self.recipe.conclude(context, scores)
        return replace(conclusion, pictures=[first, *conclusion.pictures])

    def _worst_and_best(
        self, networks: Networks, part: Part, scores: Sequence[SampleScores], most: int
    ) -> NDArray[np.uint8]:
        metric = self.recipe.metric
        worst_first = [sample.index for sample in sorted(scores, key=lambda s: -s.metrics[metric])]
        count = max(1, min(most, len(worst_first) // 2))
        halves = [
            self.picture(networks, part, worst_first[:count], "worst "),
            self.picture(networks, part, worst_first[::-1][:count], "best "),
        ]
        height = max(map(len, halves))  # images of other sizes make a picture of another height
        padded = [
            np.pad(half, ((0, height - len(half)), (0, 0), (0, 0)), constant_values=255) for half in halves
        ]
        return np.concatenate(padded, axis=1)

    @contextmanager
    def _context(self, networks: Networks, part: Part) -> Iterator[EvaluationContext]:
        with torch.inference_mode(), self.device.autocast():
            for network in networks.values():
                network.eval()
            yield EvaluationContext(networks, part, self.place)
