"""Recipes: networks, data, losses and pictures of one kind of training. The loop does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from genray.bundle import AnyPreprocessing, save_bundle
from genray.datasets.loader import Loader, WorkerShare
from genray.images.tensors import ValueRange, to_network
from genray.io.bad_input import BadInput
from genray.io.file_types import FileCounts
from genray.models.registry import NetworkSpec
from genray.models.summary import NetworkSummary
from jobs.runs.samples import RunPicture, RunTable
from jobs.runs.verdict import Verdict, judge
from jobs.training.follow_up import FollowUp
from jobs.training.optimisation.optimizer import OptimizerSettings
from jobs.training.settings import TrainSettings

S = TypeVar("S", bound=TrainSettings)

Part = Literal["val", "test"]
"""Parts of the held-out samples: val chooses the weights, test judges them."""

Networks = Mapping[str, nn.Module]
"""By name."""

TensorBatch = Sequence[torch.Tensor]
"""Parts of a batch of the loader, as the networks take them."""

Losses = dict[str, torch.Tensor]
"""Scalars by name, detached."""


class Updater(Protocol):
    """Updates networks in a recipe's step. The loop's implementation adds mixed precision, gradient
    accumulation, clipping and distribution."""

    progress: float
    """Share of the training that is done, 0 to 1."""

    step: int
    """Optimizer steps that are done."""

    def update(self, network: str, loss: torch.Tensor) -> None:
        """Back-propagate `loss`, then update `network` (when enough gradients have been accumulated)."""

    def frozen(self, network: str) -> AbstractContextManager[nn.Module]:
        """Yield `network` for use in another network's loss: gradients pass through it, but it gets none."""


@dataclass(frozen=True)
class SampleScores:
    """Metrics of one held-out sample, its index in its part, and what else of it the history keeps (plain
    JSON values; of a recipe that is not `ranked`)."""

    index: int
    metrics: dict[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationContext:
    """Context of a recipe's evaluation: networks in evaluation mode, without gradients.

    Attributes:
        networks: the networks of `Recipe.averaged`.
        part: part of the held-out samples.
        place: moves a part of a batch to the device, as the networks take it.
    """

    networks: Networks
    part: Part
    place: Callable[[NDArray[Any]], torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """Outputs for a few held-out samples and their targets, of one shape, with values in `span`."""

    outputs: torch.Tensor
    targets: torch.Tensor
    span: ValueRange


@dataclass(frozen=True)
class DataSummary:
    """Summary of the data that a recipe opened.

    Attributes:
        train: number of samples of an epoch.
        val: number of held-out samples.
        bad: inputs that are set aside.
        data: fingerprint and counts, for the bundle.
        lines: lines that say what will be trained on which data.
        needs_ray: whether Ray Data streams the samples.
        test: number of samples that judge the final weights; 0: the held-out samples judge them.
        counts: files in the data folder, by type.
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
class Concern:
    """What the metrics of the validations so far show to be wrong.

    Attributes:
        text: what it is and what to try, for a person.
        stops: whether the training ends because of it.
    """

    text: str
    stops: bool = False


@dataclass(frozen=True)
class Conclusion:
    """Pictures, tables, calibration, metrics and warnings of the final weights, beside the mean metrics."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[RunPicture] = ()
    tables: Sequence[RunTable] = ()
    warnings: Sequence[str] = ()
    """What limits the trust in the results, such as a threshold from few images."""


@dataclass(frozen=True)
class BundleSpec:
    """Description of a recipe's bundle.

    Attributes:
        kind: kind of the bundle, such as pix2pix.
        network: name of the network in the recipe, see `Recipe.bundled`.
        spec: structure of the network.
        preprocessing: preprocessing of the inputs.
    """

    kind: str
    network: str
    spec: NetworkSpec
    preprocessing: AnyPreprocessing


class Recipe(ABC, Generic[S]):
    """One kind of training; every worker makes its own from the settings.

    Responsible for: the data and its summary, the networks, one training step, metrics and pictures of
    held-out samples, and the content of the bundle. Precision, accumulation, distribution, checkpoints, logs
    and the choice of the best weights are the loop's.
    """

    settings_class: ClassVar[type[TrainSettings]]
    headline: ClassVar[Sequence[str]] = ()
    """Metrics that a report shows first; if empty, the first few."""
    sample: ClassVar[str] = "image"
    """Name of a sample in progress lines and reports."""
    progress_losses: ClassVar[Sequence[str]] = ()
    """Losses on the progress line; if empty, all."""
    averaged: ClassVar[Sequence[str]]
    """Networks that validation and the bundle use; each has an exponential moving average."""
    compared_by: ClassVar[Sequence[str]]
    """Metrics to compare with the baselines by; the first that the final metrics have counts."""
    trivial: ClassVar[Mapping[str, str]]
    """Names of the baselines that do nothing, with a phrase for each; see `judge`."""
    advice: ClassVar[str] = (
        "more epochs (loop.epochs), more training data, or another learning rate (optimizer.learning_rate)"
    )
    """What to try with a model that is no better than a trivial predictor."""
    ranked: ClassVar[bool] = True
    """Whether each held-out sample has scores of its own, so that the worst and the best can be shown."""
    filmed: ClassVar[bool] = False
    """Whether the pictures of all epochs show the same samples, and make a film for the report."""
    channels_last_on_cpu: ClassVar[bool] = False
    """Whether these networks were measured faster in channels-last layout on a CPU (on a GPU all are)."""
    bf16_on_cpu: ClassVar[bool] = False
    """Whether these networks learn as well in bf16, which CPUs with AMX multiply several times as fast."""

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self._summary: DataSummary | None = None

    @property
    @abstractmethod
    def metric(self) -> str:
        """Name of the validation metric that chooses the best weights; smaller is better."""

    @property
    def can_use_gpu(self) -> bool:
        """Whether the networks can run on a GPU."""
        return True

    def open(self, note: Callable[[str], None]) -> DataSummary:
        """Find, check and (if small) load the data; a second call returns the same summary.

        Raises:
            DataError: the data cannot be trained on.
        """
        if self._summary is None:
            self._summary = self.open_data(note)
        return self._summary

    def with_batch_size(self, batch_size: int) -> Self:
        """Return this recipe with its data, which stays open, for batches of another size."""
        other = copy(self)
        loop = self.settings.loop.model_copy(update={"batch_size": batch_size})
        other.settings = self.settings.model_copy(update={"loop": loop})
        return other

    @property
    def summary(self) -> DataSummary:
        """The summary of the data, after `open`."""
        assert self._summary is not None, "the data is not open"
        return self._summary

    @abstractmethod
    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        """Open the data; called once, by `open`."""

    @abstractmethod
    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        """Return the loader of training batches, after `open`; inputs found broken later go to `report`."""

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """Convert a part of a batch to what the networks take. By default, images:
        (N, H, W, C) uint8 -> (N, C, H, W) float32 in [-1, 1]."""
        return to_network(batch, where)

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Make new networks, by name; torch's generator is seeded before."""

    def initialise(self, networks: Networks) -> None:
        """Set weights of new networks that the training data gives, before those of `init.bundle` are copied
        into them; by default none. Not called where a checkpoint is restored."""

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        """Return the arguments of the networks' calls for that many samples, of any values, after `open`. The
        outputs of networks that are left out stay unknown in summaries."""
        return {}

    def summaries(self, samples: int) -> dict[str, NetworkSummary]:
        """Return the layers of each network, and what a step on that many samples keeps of them; no memory is
        allocated for either."""
        with torch.device("meta"):
            networks = self.networks()
            inputs = self.example_inputs(samples)
        return {
            name: NetworkSummary.of(network.train(), inputs.get(name, ()))
            for name, network in networks.items()
        }

    @abstractmethod
    def optimizer(self, network: str) -> OptimizerSettings:
        """Return the optimizer settings of a network."""

    def make_optimizer(self, name: str, network: nn.Module) -> Optimizer:
        """Return the optimizer of a network."""
        return self.optimizer(name).make(network, fused=self.settings.device.fused)

    @abstractmethod
    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Take one training step on `batch`, whose parts went through `place`; returns the losses."""

    @abstractmethod
    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Score this worker's share of the held-out samples."""

    @abstractmethod
    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw the networks' outputs for some of the held-out samples, (H, W, 3) uint8. The headings of its
        columns begin with `title`."""

    def concern(self, validations: Sequence[Mapping[str, Any]]) -> Concern | None:
        """Return what the validations so far show to be wrong, by their rows in the history; None (by
        default): nothing. A function of the rows only, so that a resumed run finds the same."""
        return None

    def probe(self, context: EvaluationContext) -> Probe | None:
        """Run the networks on a few held-out samples, to watch how they learn; None (by default): they have
        no outputs of a limited range. It runs often, on rank 0."""
        return None

    def follow_up(self, work: FollowUp) -> None:
        """Do the recipe's own work after the last epoch, before the final weights are judged; by default
        nothing. It runs on rank 0 and calls `work.report_step` often, which tells the other ranks that it is
        alive; a stop loses what it does not store itself.

        Raises:
            Interrupted: a stop was requested.
        """
        return None

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return pictures and tables for the report, calibration for the bundle, and metrics of all samples
        together, from the final weights and their scores of all held-out samples. Runs on rank 0."""
        return Conclusion()

    @abstractmethod
    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the metrics of trivial predictors, and of other methods, on the judging samples; called
        after `conclude`."""

    def verdict(
        self, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
    ) -> Verdict | None:
        """Compare the final metrics with those of the baselines."""
        return judge(
            metrics,
            baselines,
            compared_by=self.compared_by,
            trivial=self.trivial,
            advice=self.advice,
        )

    @abstractmethod
    def bundle_spec(self) -> BundleSpec:
        """Return the description of the bundle, after `open`."""

    def bundled(self, networks: Networks) -> nn.Module:
        """Return the network that the bundle holds; by default that of its description's name."""
        return networks[self.bundle_spec().network]

    def save_bundle(
        self,
        path: Path,
        networks: Networks,
        *,
        metrics: Mapping[str, Any],
        samples: Sequence[Path],
        calibration: Mapping[str, Any],
        verdict: Verdict | None = None,
        started_from: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the bundle, with the pictures `samples`; `started_from` describes the bundle of
        `init.bundle`."""
        bundle = self.bundle_spec()
        save_bundle(
            path,
            self.bundled(networks),
            bundle.spec,
            kind=bundle.kind,
            preprocessing=bundle.preprocessing,
            metrics=metrics,
            seed=self.settings.seed,
            data={**self.summary.record, **({"started_from": dict(started_from)} if started_from else {})},
            calibration=calibration,
            samples=samples,
            quality=verdict.quality if verdict else None,
            verdict=verdict.text if verdict else "",
            behind=verdict.behind if verdict else (),
        )
