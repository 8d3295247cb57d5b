"""Settings that every training has, and which of them a run may be continued or judged again with."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genray.settings.base import Location, Settings
from jobs.training.device import DeviceSettings

Count = Annotated[int, Field(ge=1)]

TICK_SECONDS = 0.3
"""Between updates of the progress line."""


class LoopSettings(Settings):
    """Settings of the training loop."""

    epochs: int = Field(200, ge=1, description="passes over the training data")
    batch_size: int = Field(1, ge=1, description="samples per worker and step")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    workers: Count | tuple[Count, Count] = Field(
        1, description="processes that train together; [1, 4] is elastic: as many as there is room for"
    )
    cpus_per_worker: float | None = Field(
        None,
        gt=0,
        description="null: an equal part of the CPUs, with room left for Ray Data where it is used",
    )
    decay: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="of the learning rate, to zero at the end"
    )
    decay_start: float = Field(0.5, ge=0, lt=1, description="share of the training after which decay begins")
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the training in which the rate rises from zero"
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights; 0: none")
    clip: float | None = Field(None, gt=0, description="largest norm of a network's gradient; null: any")
    loss_limit: float = Field(1e5, gt=0, description="a loss above this, or NaN, ends the run")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints")
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between checkpoints inside an epoch")
    patience: int | None = Field(
        None, ge=1, description="validations without a better one before the run ends early; null: never"
    )
    weights: Literal["last", "best"] = Field(
        "last", description="which go into the bundle: the last, or the best by validation"
    )
    max_restarts: int = Field(
        3, ge=0, description="how often a group of workers is started again after a crash"
    )
    log_every: int = Field(50, ge=1, description="steps between TensorBoard scalars")
    samples: int = Field(6, ge=1, le=64, description="held-out samples in the pictures")

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.worker_range[0] > self.worker_range[1]:
            raise ValueError(f"workers {list(self.worker_range)} must be [fewest, most]")
        if self.warmup > self.decay_start and self.decay != "constant":
            raise ValueError("warmup must end before decay_start")
        return self


class TrainSettings(Settings):
    """What every training target takes; its own class adds data, networks and losses."""

    runs: Location = Field("runs", description="folder of the runs; shared by all nodes of a cluster")
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order, jitter, dropout and split")
    loop: LoopSettings = Field(LoopSettings(), description="how it is trained")
    device: DeviceSettings = Field(DeviceSettings(), description="what it is trained on")


CHANGEABLE_SETTINGS = frozenset(
    {
        "runs",
        "loop.epochs",
        "loop.workers",
        "loop.cpus_per_worker",
        "loop.validate_every",
        "loop.checkpoint_every",
        "loop.checkpoint_steps",
        "loop.patience",
        "loop.weights",
        "loop.max_restarts",
        "loop.log_every",
        "loop.samples",
        "loop.loss_limit",
        "device.gpu",
        "device.threads",
        "device.compile",
        "eval.",
        "detector.",
        "threshold.",
    }
)
"""Settings, and groups of them, that a run may be continued with although they differ: its weights still make
sense."""

EVALUATION_SETTINGS = frozenset({"loop.weights", "loop.samples", "eval.", "detector.", "threshold."})
"""Settings, and groups of them, that a finished run is judged by: if they change it is judged again."""
