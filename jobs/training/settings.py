"""Settings of every training, and which of them may change when a run resumes or is judged again."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genray.serving.settings import MetricsEndpoint
from genray.settings.base import Location, Settings
from genray.targets import WAIT_MINUTES
from jobs.runs.trackers.base import TrackerName
from jobs.training.device import DeviceSettings

Count = Annotated[int, Field(ge=1)]

TICK_SECONDS = 0.3
"""Seconds between updates of the progress line."""


class LoopSettings(MetricsEndpoint):
    """Settings of the training loop."""

    epochs: int = Field(200, ge=1, description="passes over the training data")
    batch_size: int = Field(1, ge=1, description="samples per worker and batch")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are accumulated for one step")
    workers: Count | tuple[Count, Count] = Field(
        1,
        description=(
            "worker processes that train together ([1, 4] is elastic: as many as there is room for)"
        ),
    )
    cpus_per_worker: float | None = Field(
        None,
        gt=0,
        description=(
            "CPUs of each worker (null: an equal share, with room left for Ray Data where it is used)"
        ),
    )
    wait_minutes: float | None = Field(
        WAIT_MINUTES,
        ge=0,
        description="minutes to wait for room on a cluster, then the run ends with an error (null: no limit)",
    )
    decay: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="decay of the learning rate to zero at the end of the training (constant: no decay)",
    )
    decay_start: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the training after which the decay begins (at the end of warmup, if later)",
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the training over which the learning rate rises from zero"
    )
    extend: Literal["constant", "restart", "stretch"] = Field(
        "constant",
        description=(
            "learning rate of epochs that are added to a finished run (constant: the rate after 95 % of "
            "the run; restart: warm-up and decay again; stretch: those of a run of the new length)"
        ),
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights per step (0: no average)"
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="largest norm of a network's gradient; larger ones are scaled down (null: no limit)",
    )
    loss_limit: float = Field(
        1e5, gt=0, description="largest loss: above this, or at NaN, the run stops with an error"
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    validate_steps: int | None = Field(
        None,
        ge=1,
        description="steps between validations inside an epoch, counted from its beginning; one that the "
        "validation of the epoch would follow within half as many is left out (null: none inside)",
    )
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints")
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between checkpoints inside an epoch")
    patience: int | None = Field(
        None,
        ge=1,
        description="validations without an improvement after which training stops early (null: never)",
    )
    weights: Literal["last", "best"] = Field(
        "last", description="weights that the bundle gets: the last, or the best by validation"
    )
    max_restarts: int = Field(
        3, ge=0, description="times that the group of workers is restarted after a crash"
    )
    log_every: int = Field(50, ge=1, description="steps between the losses that `track` logs")
    samples: int = Field(6, ge=1, le=64, description="number of held-out samples in the pictures")

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.worker_range[0] > self.worker_range[1]:
            raise ValueError(
                f"workers must be [fewest, most] with fewest up to most, not {list(self.worker_range)}"
            )
        return self


class InitSettings(Settings):
    """Settings of the weights that a training starts from."""

    bundle: Location | None = Field(
        None,
        description="folder of a bundle whose weights the network starts from, where names and shapes fit "
        "(null: random weights)",
    )
    freeze: tuple[str, ...] = Field(
        (),
        description="modules of the network that keep the weights of init.bundle, such as encoder",
    )

    @model_validator(mode="after")
    def _frozen_weights_have_an_origin(self) -> Self:
        if self.freeze and self.bundle is None:
            raise ValueError("freeze needs bundle: random weights would stay random")
        return self


class EvalSettings(Settings):
    """Settings of the evaluation."""

    require_better: bool = Field(
        False,
        description="end with exit code 1 if the model is no better than a predictor that does nothing",
    )


class TrainSettings(Settings):
    """Settings of every training target; its own class adds data, networks and losses."""

    runs: Location = Field(
        "runs",
        description="folder of the runs, or a store (s3://BUCKET/runs, gs://...) that all workers reach",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="seed of the initial weights, the order, the jitter, the dropout and the split",
    )
    loop: LoopSettings = Field(LoopSettings(), description="the training loop")
    track: tuple[TrackerName, ...] = Field(
        ("tensorboard",),
        description=(
            "logs of losses and metrics beside history.jsonl (tensorboard: files in the run; mlflow: the "
            "server of MLFLOW_TRACKING_URI; wandb: files in the run, with WANDB_MODE=online its server)"
        ),
    )
    init: InitSettings = Field(InitSettings(), description="weights that the training starts from")
    eval: EvalSettings = Field(EvalSettings(), description="evaluation of the final weights")
    device: DeviceSettings = Field(DeviceSettings(), description="device, precision and memory layout")


CHANGEABLE_SETTINGS = frozenset(
    {
        "runs",
        "track",
        "loop.epochs",
        "loop.extend",
        "loop.workers",
        "loop.cpus_per_worker",
        "loop.wait_minutes",
        "loop.validate_every",
        "loop.validate_steps",
        "loop.checkpoint_every",
        "loop.checkpoint_steps",
        "loop.patience",
        "loop.weights",
        "loop.max_restarts",
        *(f"loop.{name}" for name in MetricsEndpoint.model_fields),
        "loop.log_every",
        "loop.samples",
        "loop.loss_limit",
        "loop.stop_on_collapse",
        "device.gpu",
        "device.threads",
        "device.compile",
        "eval.",
        "detector.",
        "measure.",
        "threshold.",
    }
)
"""Settings, and groups of them, that may differ when a run resumes: its weights remain valid."""

EVALUATION_SETTINGS = frozenset(
    {"loop.weights", "loop.samples", "eval.", "detector.", "measure.", "threshold."}
)
"""Settings, and groups of them, of the evaluation: if they change, a finished run is judged again."""
