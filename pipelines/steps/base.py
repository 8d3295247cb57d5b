"""A step: what a bulk target does to images. The engine reads, decodes, encodes, writes and records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import pyarrow as pa

from genray.images.photo import Photo
from pipelines.settings import BulkSettings

S = TypeVar("S", bound=BulkSettings)

SKIP_REASONS = {
    "clean": "less noise than denoise.clean_below: copied untouched",
    "no-stamp": "no stamp was found: copied untouched",
}
"""Why an image was left as it was, in words: the reasons of the ledger's status `skipped`."""


@dataclass(frozen=True)
class StepPlace:
    """Where a step works: on how many threads, on a GPU or not; `model_folder` is a local folder with what
    `Step.prepare` wrote."""

    threads: int
    gpu: bool
    model_folder: Path


@dataclass(frozen=True)
class StepInput:
    """An input: its path, its bytes, and what they were decoded to if the step reads images."""

    path: str
    data: bytes
    decoded: Photo | None

    @property
    def photo(self) -> Photo:
        """The image."""
        assert self.decoded is not None
        return self.decoded


@dataclass(frozen=True)
class ImageScores:
    """What a step measured of an image, for the columns of the ledger that are called the same."""

    noise: float | None = None
    """Estimated standard deviation, in levels of 255."""
    change: float | None = None
    """Mean absolute difference of output and input, in levels of 255."""
    error: float | None = None
    """Of the reconstruction."""
    score: float | None = None
    """Of an anomaly: error / threshold."""


@dataclass(frozen=True)
class StepResult:
    """What a step made of one input. An output is written for `photo`, or the bytes `copy` as they are.

    Args:
        photo: the output image.
        copy: bytes to write instead: those of the input, if it is to stay untouched.
        also: further images, by what is put behind the stem of the output's name.
        row: a row of the step's table, without its `path`.
        scores: for the ledger.
        skipped: why the image was left as it was; a key of `SKIP_REASONS`.
    """

    photo: Photo | None = None
    copy: bytes | None = None
    also: Mapping[str, Photo] = field(default_factory=dict)
    row: Mapping[str, Any] | None = None
    scores: ImageScores = ImageScores()
    skipped: str = ""


class Step(ABC, Generic[S]):
    """What a bulk target does. One is loaded in the driver and one in every worker, from the same settings.

    Args:
        settings: of the target.
    """

    settings_class: ClassVar[type[BulkSettings]]
    can_use_gpu: ClassVar[bool] = True
    """Whether a GPU makes it faster."""
    reads_images: ClassVar[bool] = True
    """Whether its inputs are images, which are decoded for it."""
    table: ClassVar[str] = ""
    """The folder of its table under the output's root; without a name it has none."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @classmethod
    def load(cls, settings: S) -> Self:
        """The step of `settings`, with what they name read, such as a bundle's manifest.

        Raises:
            BundleError: that cannot be read.
        """
        return cls(settings)

    @abstractmethod
    def check(self) -> Sequence[str]:
        """Find what is wrong with the settings and the bundle, before anything is started.

        Returns:
            What will be done, for a person.

        Raises:
            UsageError, BundleError: it cannot work.
        """

    def identity(self) -> Mapping[str, Any]:
        """What its results depend on beside the settings: the bundle's checksum."""
        return {}

    def schema(self) -> pa.Schema | None:
        """The columns of its table, but for `path`."""
        return None

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """Once for an output, in the driver: fit what has to be fitted to the user's own images.

        Args:
            sample: some of the inputs; may be empty if all that were tried are broken.
            model_folder: an empty folder for files that all workers get.

        Returns:
            What to put into the run's header: plain JSON values. The report shows its `notes`, `tables` and
            `pictures`, and counts images whose error is above its `error_limit`.
        """
        return {}

    @abstractmethod
    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """In a worker: load the model. `prepared` is what `prepare` returned.

        Returns:
            What is worth saying of the form that the model runs in.
        """

    def output_path(self, path: str) -> str:
        """What the output of the input `path` is called, but for its suffix."""
        return path

    def batch_key(self, photo: Photo | None) -> Hashable:
        """Inputs of one key may be given to `process` together."""
        return None if photo is None else (photo.pixels.shape, photo.pixels.dtype.str)

    def batch_weight(self, photo: Photo | None) -> float:
        """Pixels that an input adds to a batch."""
        return 1.0 if photo is None else float(photo.pixels.shape[0] * photo.pixels.shape[1])

    @abstractmethod
    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """Work on inputs of one key; what is made of each, in their order.

        Raises:
            BadImage: an image that the step cannot take. Of several inputs each is then tried alone.
        """
