"""A step: what a bulk target does to images. The engine reads, decodes, encodes, writes and records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from genray.images.photo import Photo
from pipelines.settings import BulkSettings

S = TypeVar("S", bound=BulkSettings)


@dataclass(frozen=True)
class StepPlace:
    """Where a step works: on how many threads, on a GPU or not; `model` is a local folder with what
    `Step.prepare` wrote."""

    threads: int
    gpu: bool
    model: Path


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
class StepResult:
    """What a step made of one input. An output is written for `photo`, or the bytes `copy` as they are.

    Args:
        photo: the output image.
        copy: bytes to write instead: those of the input, if it is to stay untouched.
        also: further images, by what is put behind the stem of the output's name.
        row: a row of the step's table, without its `path`.
        values: numbers for the ledger: `noise`, `change`, `error`, `score`.
        skipped: why the image was left as it was; a key of `SKIPPED`.
    """

    photo: Photo | None = None
    copy: bytes | None = None
    also: Mapping[str, Photo] = field(default_factory=dict)
    row: Mapping[str, Any] | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    skipped: str = ""


SKIPPED = {
    "clean": "less noise than denoise.clean_below: copied untouched",
    "no-stamp": "no stamp was found: copied untouched",
}
"""Reasons of the ledger's status `skipped`."""


class Step(ABC, Generic[S]):
    """What a bulk target does. One is made in the driver and one in every worker, from the same settings.

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

    def prepare(self, sample: Sequence[Photo], model: Path) -> Mapping[str, Any]:
        """Once for an output, in the driver: fit what has to be fitted to the user's own images.

        Args:
            sample: some of the inputs; may be empty if all that were tried are broken.
            model: an empty folder for files that all workers get.

        Returns:
            What to put into the run's header: plain JSON values.
        """
        return {}

    @abstractmethod
    def open(self, place: StepPlace, header: Mapping[str, Any]) -> Sequence[str]:
        """In a worker: load the model. `header` is what `prepare` returned.

        Returns:
            What is worth saying of the form that the model runs in.
        """

    def named(self, path: str) -> str:
        """What the output of the input `path` is called, but for its suffix."""
        return path

    def key(self, photo: Photo | None) -> Hashable:
        """Inputs of one key may be given to `make` together."""
        return None if photo is None else (photo.pixels.shape, photo.pixels.dtype.str)

    def weight(self, photo: Photo | None) -> float:
        """Pixels that an input adds to a batch."""
        return 1.0 if photo is None else float(photo.pixels.shape[0] * photo.pixels.shape[1])

    @abstractmethod
    def make(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """Work on inputs of one key; what is made of each, in their order.

        Raises:
            BadImage: an image that the step cannot take. Of several inputs each is then tried alone.
        """
