"""Settings that all bulk targets share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genray.images.limits import ReadLimits
from genray.images.photo_writer import WriteSettings
from genray.io.sources import ContainerSettings
from genray.serving.settings import MetricsEndpoint
from genray.settings.base import Location, Settings
from genray.targets import WAIT_MINUTES

_Count = Annotated[int, Field(ge=1, le=100_000)]


class SelectionSettings(Settings):
    """Settings of the part of the inputs that a run processes."""

    limit: int | None = Field(
        None, ge=1, description="number of inputs to process, the first ones of the listing (null: all)"
    )
    random: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="number of inputs to process, drawn at random, the same ones when the run resumes (null: "
        "all)",
    )
    seed: int = Field(0, ge=0, description="seed of the draw of `random`")
    shard: str | None = Field(
        None,
        pattern=r"^\d{1,5}/\d{1,5}$",
        description="part of the inputs to process, such as 3/16 for the third of 16 (null: all); processes "
        "that run at the same time need an output each, which `genray ledger` joins",
    )

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """Number of the shard, from 1, and number of shards."""
        part, _, parts = (self.shard or "1/1").partition("/")
        return int(part), int(parts)

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        part, parts = self.shard_numbers
        if not 1 <= part <= parts:
            raise ValueError(f"shard is {self.shard}: the shards of {parts} are 1/{parts} to {parts}/{parts}")
        if self.limit and self.random:
            raise ValueError("limit and random are both set: give one of them")
        return self


class ReadSettings(ReadLimits, ContainerSettings, SelectionSettings):
    """Settings of the inputs."""


class SinkSettings(Settings):
    """Settings of the container of the results."""

    container: Literal["files", "parquet", "webdataset"] = Field(
        "files",
        description=(
            "container of the outputs (files: one file for each input; parquet: data/*.parquet; "
            "webdataset: shards/*.tar)"
        ),
    )


class OutputSettings(SinkSettings, WriteSettings):
    """Settings of the outputs."""


class WorkSettings(MetricsEndpoint):
    """Settings of workers and limits, which never change a result."""

    workers: Annotated[int, Field(ge=0, le=100_000)] | tuple[_Count, _Count] | None = Field(
        None,
        description=(
            "worker processes ([2, 16]: as many as there is room and work for; 0: threads of this process, "
            "without Ray; null: 0 for a few images or on up to 8 CPUs, else one for each GPU, or for each "
            "`cpus_per_worker` CPUs, and more as a cluster grows)"
        ),
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, le=256, description="CPUs that the model uses in each worker (null: 1)"
    )
    wait_minutes: float | None = Field(
        WAIT_MINUTES,
        ge=0,
        description="minutes to wait for room on a cluster, then the run ends with an error (null: no limit)",
    )
    gpu: bool | None = Field(None, description="run the model on a GPU (null: if there is one)")
    batch_megapixels: float | None = Field(
        None,
        gt=0,
        le=1000,
        description=(
            "largest batch of the model, in megapixels; images of one size share a batch (null: "
            "0.5, on a GPU 8)"
        ),
    )
    memory_mb: int = Field(
        512,
        ge=64,
        le=1_000_000,
        description="memory for decoded images in each worker, in MB; a single larger image still passes",
    )
    commit_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description=("seconds between a worker's commits to the ledger; a kill loses at most this much work"),
    )
    max_failed_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description=(
            "share of failed images, from the 100th image on, above which the run stops with an error"
        ),
    )

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise ValueError(
                f"workers must be [fewest, most] with fewest up to most, not {list(self.workers)}"
            )
        return self


class ReportSettings(Settings):
    """Settings of the report."""

    samples: int = Field(
        6, ge=0, le=50, description="number of images shown at random, and of each extreme (0: no pictures)"
    )
    seed: int = Field(0, ge=0, description="seed of the random choice of images")


class BulkSettings(Settings):
    """Settings of every bulk target."""

    input: Location = Field(
        "data/images",
        description="images to process: a folder of files or shards, a pattern (photos/**/*.png), one file, "
        "a list of paths or URLs (.txt, .csv, .parquet), or a URI of these",
    )
    output: Location = Field("data/output", description="folder or URI that the results are written to")
    retry: Literal["none", "failed", "all"] = Field(
        "none",
        description=(
            "images to process again (failed: the images that failed; all: every image, as if "
            "for the first time)"
        ),
    )
    read: ReadSettings = Field(ReadSettings(), description="reading of the inputs")
    write: OutputSettings = Field(OutputSettings(), description="writing of the outputs")
    work: WorkSettings = Field(WorkSettings(), description="workers, memory and limits")
    overwrite: bool = Field(
        False,
        description="write into a folder that contains other files; files of the same names are replaced",
    )
    report: ReportSettings = Field(ReportSettings(), description="the report at the end")


_MAY_CHANGE = (
    "work.",
    "report.",
    "retry",
    "overwrite",
    "allow_worse",
    "output",
    "read.max_",
    "read.suffixes",
    "read.include",
    "read.exclude",
    "read.fetch.",
    "read.limit",
    "read.random",
    "read.seed",
    "read.shard",
    "generate.count",
)


def may_change(key: str) -> bool:
    """Return whether a run may resume when the setting `key` differs, as it changes no result."""
    return key.startswith(_MAY_CHANGE)
