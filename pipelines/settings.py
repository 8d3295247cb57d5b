"""Settings that all bulk targets share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genray.images.photo import PhotoLimits, WriteSettings
from genray.io.sources import ContainerSettings
from genray.settings.base import Location, Settings


class ReadSettings(ContainerSettings, PhotoLimits):
    """Settings of the inputs."""


class SinkSettings(Settings):
    """Settings of where the results go."""

    container: Literal["files", "parquet", "webdataset"] = Field(
        "files", description="files (as the inputs), parquet (data/*.parquet), webdataset (shards/*.tar)"
    )


class OutputSettings(SinkSettings, WriteSettings):
    """Settings of the outputs."""


class WorkSettings(Settings):
    """Settings of how the work is spread; they never change a result."""

    workers: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        None,
        description="processes; 0: threads of this one, without Ray; null: 0 for a few images or on up to 8 "
        "CPUs, else one for each GPU, or for each `cpus_per_worker` CPUs",
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, le=256, description="CPUs that the model takes in each; null: 1"
    )
    gpu: bool | None = Field(None, description="null: where there is one")
    batch_megapixels: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="most of images of one size that the model is given at once; null: 0.5, on a GPU 8",
    )
    memory_mb: int = Field(
        512,
        ge=64,
        le=1_000_000,
        description="of decoded images in each worker; one larger image still passes",
    )
    commit_seconds: float = Field(
        30.0, gt=0, le=3600, description="how often a worker records what it has done: what a kill can cost"
    )
    max_failed_share: float = Field(
        0.9, gt=0, le=1, description="stop if more of the first 100 or later images fail: something is wrong"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="serve Prometheus metrics on 127.0.0.1 while it works; 0: a free port",
    )


class ReportSettings(Settings):
    """Settings of the report."""

    samples: int = Field(6, ge=0, le=50, description="images at random, and of each extreme; 0: no pictures")
    seed: int = Field(0, ge=0, description="other numbers choose others")


class BulkSettings(Settings):
    """Settings of every bulk target."""

    input: Location = Field(
        "data/images",
        description="images: a folder of files or shards, a pattern (photos/**/*.png), or one file; or URI",
    )
    output: Location = Field("data/output", description="where the results go: a folder or URI")
    retry: Literal["none", "failed", "all"] = Field(
        "none",
        description="failed: also those that failed before; all: everything again, as if for the first time",
    )
    read: ReadSettings = Field(ReadSettings(), description="how the inputs are read")
    write: OutputSettings = Field(OutputSettings(), description="how the outputs are written")
    work: WorkSettings = Field(WorkSettings(), description="how the work is spread")
    overwrite: bool = Field(
        False, description="write into a folder that holds other files; those of the same names are replaced"
    )
    report: ReportSettings = Field(ReportSettings(), description="what the page at the end shows")


_MAY_CHANGE = ("work.", "report.", "retry", "overwrite", "output", "read.max_", "read.suffixes")


def may_change(key: str) -> bool:
    """Whether an output can be gone on with when the setting `key` differs: it changes no result."""
    return key.startswith(_MAY_CHANGE)
