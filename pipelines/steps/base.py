"""Steps: the work of bulk targets on images. The engine reads, decodes, encodes, writes and records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import pyarrow as pa

from genray.images.photo import Photo
from genray.io.sources import ItemSource, open_source
from pipelines.settings import BulkSettings

S = TypeVar("S", bound=BulkSettings)

SKIP_REASONS = {
    "clean": "less noise than denoise.clean_below, copied unchanged",
    "page": "text, line art or a graphic, copied unchanged: the bundle is for photographs (for pages: "
    "ready:document)",
    "photograph": "a photograph, copied unchanged: the bundle is for pages (for photographs: ready:photo)",
    "would harm": "the network took away more than noise or stamps, copied unchanged",
    "no-stamp": "no stamp found, copied unchanged",
}
"""Reasons of the ledger's status `skipped`, why an image was left unchanged, in words."""


@dataclass(frozen=True)
class StepPlace:
    """Place where a step runs: threads, GPU or not, and `model_folder`, a local folder with the files that
    `Step.prepare` wrote."""

    threads: int
    gpu: bool
    model_folder: Path


@dataclass(frozen=True)
class StepInput:
    """An input: its path, its bytes, and the decoded image if the step reads images.

    Each page of a file is an input of its own, and `page` is its number, from 0.
    """

    path: str
    data: bytes
    decoded: Photo | None
    page: int = 0

    @property
    def photo(self) -> Photo:
        """The decoded image."""
        assert self.decoded is not None
        return self.decoded

    @property
    def key(self) -> str:
        """Text that is another one for each page: the path, for further pages with their number."""
        return f"{self.path}#{self.page + 1}" if self.page else self.path


@dataclass(frozen=True)
class ImageScores:
    """Measurements of an image by a step, for the ledger's columns of the same names."""

    noise: float | None = None
    """Estimated standard deviation of the noise, in levels of 255."""
    noise_fine: float | None = None
    """Its part in details of two pixels of the brightness."""
    noise_coarse: float | None = None
    """Its part in larger details of the brightness."""
    noise_chroma: float | None = None
    """Its part in the colours."""
    noise_kind: str | None = None
    """What most of it is, see `NoiseEstimate`."""
    change: float | None = None
    """Mean absolute difference of output and input, in levels of 255."""
    error: float | None = None
    """Error of the reconstruction."""
    score: float | None = None
    """Score of an anomaly, error / threshold."""


@dataclass(frozen=True)
class StepResult:
    """Result of a step for one input: an output is encoded from `photo`, or is the bytes `copy`.

    Args:
        photo: the output image.
        copy: bytes to write instead, such as those of an unchanged input.
        also: further images, by the suffix of the stem of their names.
        row: row of the step's table, without its `path`.
        scores: measurements for the ledger.
        skipped: reason why the image was left unchanged, a key of `SKIP_REASONS`.
    """

    photo: Photo | None = None
    copy: bytes | None = None
    also: Mapping[str, Photo] = field(default_factory=dict)
    row: Mapping[str, Any] | None = None
    scores: ImageScores = ImageScores()
    skipped: str = ""


class Step(ABC, Generic[S]):
    """Work of a bulk target. The driver and every worker load one each, from the same settings.

    Responsible for: checks of settings and bundle, the fit to the user's images, and the results of inputs.
    The engine decodes, batches, encodes, writes and records.

    Args:
        settings: settings of the target.
    """

    settings_class: ClassVar[type[BulkSettings]]
    can_use_gpu: ClassVar[bool] = True
    """Whether a GPU makes the step faster."""
    reads_images: ClassVar[bool] = True
    """Whether the inputs are images, which the engine decodes."""
    reads_store: ClassVar[bool] = True
    """Whether the inputs lie in a store, at `settings.input`."""
    reads_levels: ClassVar[bool] = False
    """Whether the step takes photos as levels: floats, and any number of channels."""
    writes_images: ClassVar[bool] = True
    """Whether the results contain images."""
    table: ClassVar[str] = ""
    """Folder of the step's table under the output's root; empty: no table. A table has one row for each file,
    so that files of several pages are refused."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @classmethod
    def load(cls, settings: S) -> Self:
        """Make the step of `settings`, and read what they name, such as a bundle's manifest.

        Raises:
            BundleError: the bundle cannot be read.
        """
        return cls(settings)

    @abstractmethod
    def check(self) -> Sequence[str]:
        """Check the settings and the bundle, before anything starts.

        Returns:
            Lines that say what will be done.

        Raises:
            UsageError, BundleError: settings or bundle cannot be used.
        """

    def open_source(self) -> ItemSource:
        """Return the source of the inputs.

        Raises:
            DataError: there are no inputs, or in several containers.
        """
        return open_source(self.settings.input, self.settings.read)

    def identity(self) -> Mapping[str, Any]:
        """Return what the results depend on beside the settings: the bundle's checksum."""
        return {}

    def schema(self) -> pa.Schema | None:
        """Return the columns of the step's table, except `path`."""
        return None

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """Fit the step to the user's images; called once for an output, in the driver.

        Args:
            sample: some of the inputs; may be empty if all of them are broken.
            model_folder: an empty folder for files that all workers get.

        Returns:
            Plain JSON values for the run's header. The report shows their `notes`, `tables` and `pictures`,
            and counts images with an error above `error_limit`.
        """
        return {}

    @abstractmethod
    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """Load the model, in a worker. `prepared` is the result of `prepare`.

        Returns:
            Notes on how the model runs, for a person.
        """

    @property
    def keeps_samples(self) -> bool:
        """Whether each result takes the place of its input, so that shards keep their samples."""
        return self.writes_images and self.reads_images

    def joins_shards(self, container: str) -> bool:
        """Return whether results are joined to the shards of the input, which lies in `container`."""
        packed = container in ("parquet", "webdataset")
        return packed and container == self.settings.write.container and self.keeps_samples

    def output_path(self, path: str) -> str:
        """Return the path of the output of the input `path`; the engine adds the suffix."""
        return path

    def batch_key(self, photo: Photo | None) -> Hashable:
        """Return the key of an input; inputs with the same key may form one batch for `process`."""
        return None if photo is None else (photo.pixels.shape, photo.pixels.dtype.str)

    def batch_weight(self, photo: Photo | None) -> float:
        """Return the pixels that an input adds to a batch."""
        return 1.0 if photo is None else float(photo.pixels.shape[0] * photo.pixels.shape[1])

    @abstractmethod
    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """Process inputs of one key; returns their results, in order.

        Raises:
            BadImage: the step cannot take an image. Each input of a batch is then tried by itself.
        """
