"""What is trained. A recipe says which networks, data, losses and pictures; the loop does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from genray.bundle import Preprocessing, save_bundle
from genray.datasets.loader import Loader, WorkerShare
from genray.ecg.beats import BeatPreprocessing
from genray.images.tensors import to_network
from genray.io.bad_input import BadInput
from genray.io.file_types import FileCounts
from genray.models.registry import NetworkSpec
from jobs.runs.samples import RunPicture, RunTable
from jobs.training.follow_up import FollowUp
from jobs.training.optimizer import OptimizerSettings
from jobs.training.settings import TrainSettings

S = TypeVar("S", bound=TrainSettings)

Part = Literal["val", "test"]
"""Held-out samples: those that choose the weights, those that judge them."""

Networks = Mapping[str, nn.Module]
"""By name."""

TensorBatch = Sequence[torch.Tensor]
"""The parts of a batch of the loader, as the networks take them."""

Losses = dict[str, torch.Tensor]
"""Scalars by name, detached."""


class Updater(Protocol):
    """How a recipe's step updates networks. The loop's implementation adds mixed precision, gradient
    accumulation, clipping and distribution."""

    progress: float
    """The share of the training that is over, 0 to 1."""

    def update(self, network: str, loss: torch.Tensor) -> None:
        """Back-propagate `loss`, then update `network` (when enough gradients have been accumulated)."""

    def frozen(self, network: str) -> AbstractContextManager[nn.Module]:
        """`network` for use inside another's loss: gradients pass through it, none stay in it."""


@dataclass(frozen=True)
class SampleScores:
    """The metrics of one held-out sample, and its index in the part that it is of."""

    index: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class EvaluationContext:
    """What a recipe evaluates networks with: they are in evaluation mode, and gradients are off.

    Attributes:
        networks: those of `Recipe.averaged`.
        part: the held-out samples.
        place: brings a part of a batch to the device, as the networks take it.
    """

    networks: Networks
    part: Part
    place: Callable[[NDArray[Any]], torch.Tensor]


@dataclass(frozen=True)
class DataSummary:
    """What a recipe found when it opened its data.

    Attributes:
        train: samples of an epoch.
        val: held-out samples.
        bad: inputs that cannot be used.
        data: for the bundle: fingerprint and counts.
        lines: for a person: what will be trained on what.
        needs_ray: whether Ray Data streams the samples.
        test: samples that the final weights are judged on; 0: the held-out ones.
        counts: files where the data lies, by type.
    """

    train: int
    val: int
    bad: Sequence[BadInput]
    data: Mapping[str, Any]
    lines: Sequence[str] = ()
    needs_ray: bool = False
    test: int = 0
    counts: FileCounts = field(default_factory=FileCounts)

    @property
    def record(self) -> dict[str, Any]:
        """What the run, its report and its bundle say of the data: `data`, and what is not read."""
        text = self.counts.unread_text
        return {**self.data, **({"not_read": text} if text else {})}


@dataclass(frozen=True)
class Conclusion:
    """What a recipe says about the final weights, beside the mean metrics."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[RunPicture] = ()
    tables: Sequence[RunTable] = ()


@dataclass(frozen=True)
class BundleSpec:
    """What a recipe's bundle is.

    Attributes:
        kind: what made it, such as pix2pix.
        network: the name of the network in the recipe.
        spec: what that was built from.
        preprocessing: what is done to inputs.
    """

    kind: str
    network: str
    spec: NetworkSpec
    preprocessing: Preprocessing | BeatPreprocessing


class Recipe(ABC, Generic[S]):
    """One kind of training. Subclasses are made from settings alone, in every worker."""

    settings_class: ClassVar[type[TrainSettings]]
    headline: ClassVar[Sequence[str]] = ()
    """Metrics that a report shows first; the first few if empty."""
    sample: ClassVar[str] = "image"
    """What a sample is called, in progress and reports."""
    progress_losses: ClassVar[Sequence[str]] = ()
    """Losses on the progress line; all if empty."""
    averaged: ClassVar[Sequence[str]]
    """Networks that validation and the bundle use: of these an exponential moving average is kept."""
    channels_last_on_cpu: ClassVar[bool] = False
    """Whether that layout was measured faster for these networks (on a GPU it always is)."""

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self._summary: DataSummary | None = None

    @property
    @abstractmethod
    def metric(self) -> str:
        """The validation metric that says which weights are best; smaller is better."""

    @property
    def can_use_gpu(self) -> bool:
        """Whether there is a GPU implementation of the networks."""
        return True

    def open(self, note: Callable[[str], None]) -> DataSummary:
        """Find, check and (if small) load the data. Called again it returns the same.

        Raises:
            DataError: the data cannot be trained on.
        """
        if self._summary is None:
            self._summary = self.open_data(note)
        return self._summary

    @property
    def summary(self) -> DataSummary:
        """What `open` found."""
        assert self._summary is not None, "the data is not open"
        return self._summary

    @abstractmethod
    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        """See `open`, which calls this once."""

    @abstractmethod
    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        """Where training batches come from, after `open`; inputs found broken later go to `report`."""

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """A part of a batch as the networks take it. Images, unless a recipe says otherwise:
        (N, H, W, C) uint8 -> (N, C, H, W) float32 in [-1, 1]."""
        return to_network(batch, where)

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """New networks by name. torch's generator has been seeded."""

    @abstractmethod
    def optimizer(self, network: str) -> OptimizerSettings:
        """The optimizer settings of a network."""

    def make_optimizer(self, name: str, network: nn.Module) -> Optimizer:
        """The optimizer of a network."""
        return self.optimizer(name).make(network, fused=self.settings.device.fused)

    @abstractmethod
    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """One training step on `batch`: what the loader gave, after `place`."""

    @abstractmethod
    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Score this worker's share of the held-out samples."""

    @abstractmethod
    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """A picture, (H, W, 3) uint8, of what the networks make of some of the held-out samples. Its columns'
        headings begin with `title`."""

    def follow_up(self, work: FollowUp) -> None:
        """Work of the recipe's own after the last epoch, before the final weights are judged; nothing unless
        a recipe says otherwise. Runs on rank 0 and calls `work.report_step` often, by which the others know
        that it goes on; a stop loses what it does not keep itself.

        Raises:
            Interrupted: a stop was requested.
        """
        return None

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Look at the final weights, whose scores of all held-out samples are given: pictures and tables for
        the report, calibration for the bundle, metrics of all samples together. Runs on rank 0."""
        return Conclusion()

    @abstractmethod
    def baselines(self) -> dict[str, dict[str, float]]:
        """Metrics of trivial predictors on the samples that judge: what training has to beat."""

    @abstractmethod
    def bundle_spec(self) -> BundleSpec:
        """What the bundle is, after `open`."""

    def save_bundle(
        self,
        path: Path,
        networks: Networks,
        *,
        metrics: Mapping[str, Any],
        samples: Sequence[Path],
        calibration: Mapping[str, Any],
    ) -> None:
        """Write the bundle, with the pictures `samples`."""
        bundle = self.bundle_spec()
        save_bundle(
            path,
            networks[bundle.network],
            bundle.spec,
            kind=bundle.kind,
            preprocessing=bundle.preprocessing,
            metrics=metrics,
            seed=self.settings.seed,
            data=self.summary.record,
            calibration=calibration,
            samples=samples,
        )
