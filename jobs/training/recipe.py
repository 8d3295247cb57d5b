"""What is trained. A recipe says which networks, data, losses and pictures; the loop does the rest.

What a recipe may use for work of its own between the last epoch and the bundle.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from genray.datasets.loader import Loader, WorkerShare
from genray.errors import Interrupted
from genray.images.tensors import to_network
from genray.io.bad_input import BadInput
from genray.progress import Display, Tick
from genray.settings.base import Settings
from jobs.runs.run import Run
from jobs.runs.samples import RunPicture, RunTable
from jobs.training.device import Device
from jobs.training.settings import TrainSettings
from jobs.training.workers import TrainingWorker

S = TypeVar("S", bound=TrainSettings)
Scored = tuple[int, dict[str, float]]  # index of a held-out sample, its metrics
Part = Literal["val", "test"]  # held-out samples: those that choose the weights, those that judge them
ToDevice = Callable[[Any], torch.Tensor]


class OptimizerSettings(Settings):
    """Settings of one network's optimizer."""

    kind: Literal["adam", "adamw"] = Field("adam", description="adamw decouples the weight decay")
    learning_rate: float = Field(2e-4, gt=0, description="before warm-up and decay")
    beta1: float = Field(0.5, ge=0, lt=1, description="momentum of the gradient (GANs: 0.5)")
    beta2: float = Field(0.999, ge=0, lt=1, description="momentum of its square")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights towards zero")

    def make(self, network: nn.Module, *, fused: bool) -> Optimizer:
        """The optimizer of `network`."""
        cls = AdamW if self.kind == "adamw" else Adam
        return cls(
            network.parameters(),
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
            fused=fused,
        )


class AdamSettings(OptimizerSettings):
    """Settings of the optimizer, with what suits networks that have no adversary."""

    kind: Literal["adam", "adamw"] = Field("adam", description="adamw decouples the weight decay")
    learning_rate: float = Field(1e-3, gt=0, description="before warm-up and decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="momentum of the gradient")


class Learn(Protocol):
    """How a recipe's step updates networks. The loop's implementation adds mixed precision, gradient
    accumulation, clipping and distribution."""

    done: float
    """The share of the training that is over, 0 to 1."""

    def __call__(self, network: str, loss: torch.Tensor) -> None:
        """Back-propagate `loss`, then update `network` (when enough gradients have been accumulated)."""

    def frozen(self, network: str) -> AbstractContextManager[nn.Module]:
        """`network` for use inside another's loss: gradients pass through it, none stay in it."""


@dataclass(frozen=True)
class DataSummary:
    """What a recipe found when it opened its data."""

    train: int
    val: int
    bad: Sequence[BadInput]
    data: Mapping[str, Any]
    """For the bundle: fingerprint and counts."""
    lines: Sequence[str] = field(default_factory=tuple)
    """For a person: what will be trained on what."""
    needs_ray: bool = False
    test: int = 0
    """Samples that the final weights are judged on; 0: the held-out ones."""


@dataclass(frozen=True)
class Conclusion:
    """What a recipe says about the final weights, beside the mean metrics."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[RunPicture] = ()
    tables: Sequence[RunTable] = ()


class Recipe(ABC, Generic[S]):
    """One kind of training. Subclasses are made from settings alone, in every worker."""

    settings_class: ClassVar[type[TrainSettings]]
    metric: str
    """The validation metric that says which weights are best; smaller is better."""
    headline: ClassVar[Sequence[str]] = ()
    """Metrics that a report shows first; the first few if empty."""
    sample: ClassVar[str] = "image"
    """What a sample is called, in progress and reports."""
    can_use_gpu: bool = True
    shown: ClassVar[Sequence[str]] = ()
    """Losses on the progress line; all if empty."""
    averaged: ClassVar[Sequence[str]]
    """Networks that validation and the bundle use: of these an exponential moving average is kept."""
    channels_last_on_cpu: ClassVar[bool] = False
    """Whether that layout was measured faster for these networks (on a GPU it always is)."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def open(self, note: Callable[[str], None]) -> DataSummary:
        """Find, check and (if small) load the data. Called again it returns the same.

        Raises:
            DataError: the data cannot be trained on.
        """

    @abstractmethod
    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        """Where training batches come from, after `open`; pairs found broken later go to `report`."""

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
    def step(
        self, networks: Mapping[str, nn.Module], batch: Sequence[torch.Tensor], learn: Learn
    ) -> dict[str, torch.Tensor]:
        """One training step on `batch`: what the loader gave, after `place`.

        Returns:
            Losses by name, scalars, detached.
        """

    @abstractmethod
    def validate(
        self, networks: Mapping[str, nn.Module], part: Part, share: WorkerShare, place: ToDevice
    ) -> list[Scored]:
        """Score this worker's share of `part`. `place` moves a uint8 batch to the device."""

    @abstractmethod
    def picture(
        self,
        networks: Mapping[str, nn.Module],
        part: Part,
        indices: Sequence[int],
        place: ToDevice,
        title: str,
    ) -> NDArray[np.uint8]:
        """A picture, (H, W, 3) uint8, of what the networks make of some samples of `part`. Its columns'
        headings begin with `title`."""

    def follow_up(self, work: FollowUp) -> None:
        """Work of the recipe's own after the last epoch, before the final weights are judged; nothing unless
        a recipe says otherwise. Runs on rank 0 and calls `work.step` often, by which the others know that
        it goes on; a stop loses what it does not keep itself.

        Raises:
            Interrupted: a stop was requested.
        """
        return None

    def conclude(
        self, networks: Mapping[str, nn.Module], part: Part, scored: Sequence[Scored], place: ToDevice
    ) -> Conclusion:
        """Look at the final weights, which were `scored` on `part`: pictures and tables for the report,
        calibration for the bundle, metrics of all samples together. Runs on rank 0."""
        return Conclusion()

    @abstractmethod
    def baselines(self) -> dict[str, dict[str, float]]:
        """Metrics of trivial predictors on the samples that judge: what training has to beat."""

    @abstractmethod
    def save_bundle(
        self,
        path: Path,
        networks: Mapping[str, nn.Module],
        metrics: Mapping[str, Any],
        samples: Sequence[Path],
        calibration: Mapping[str, Any],
    ) -> None:
        """Write the bundle, with the pictures `samples`."""


_EVERY = 0.3  # seconds between updates of the progress line
_OVER, _WORKING = 0, 1
_ALIVE = 20.0  # seconds between signs of life; who waits for one gives up after half an hour


@dataclass
class FollowUp:
    """Attributes:
    run: that it belongs to.
    device: to work on.
    display: where progress is shown.
    epoch: how many epochs made the weights that go into the bundle.
    samples: what they are called.
    """

    run: Run
    device: Device
    display: Display
    epoch: int
    samples: str = "images"
    _began: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _said: float = field(default_factory=time.monotonic)
    _worker: TrainingWorker | None = None

    @property
    def where(self) -> torch.device:
        """The device."""
        return self.device.where

    def lead(self, worker: TrainingWorker, work: Callable[[FollowUp], None]) -> None:
        """Do `work` on rank 0 of the group of `worker`, however long, while the others wait: as
        `TrainingWorker.on_leader`, but with signs of life, for a group gives up on a rank that is silent."""

        def led() -> None:
            self._worker = worker
            try:
                work(self)
            finally:
                worker.max(_OVER)

        while not worker.leads and worker.max(_OVER) == [_WORKING]:
            pass
        worker.on_leader(led)

    def step(self, done: int, steps: int, samples: int, unit: str) -> None:
        """Say that `done` of `steps` are done, `samples` each; call it after each step.

        Raises:
            Interrupted: a stop was requested. What was done so far is lost, unless the work keeps it.
        """
        if self.run.stop_requested():
            raise Interrupted(
                f"stopped after the last epoch, {unit} {done} of {steps}",
                where=str(self.run.folder),
                hint=f"the same command with --name {self.run.name} goes on from the end of the training",
            )
        now = time.monotonic()
        if self._worker is not None and now - self._said >= _ALIVE:
            self._said = now
            self._worker.max(_WORKING)
        if now - self._shown > _EVERY or done == steps:
            self._shown, passed = now, max(now - self._began, 1e-9)
            left = passed / done * (steps - done)
            speed = done * samples / passed
            self.display.tick(Tick(0, 0, done, steps, speed, left, unit=unit, samples=self.samples))
