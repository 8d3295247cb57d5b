"""The target generate: images drawn from nothing, by a generator or the decoder of a variational
autoencoder."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from genray.bundle import ImageSpec
from genray.bundle_places import bundle_folder
from genray.errors import SettingsError
from genray.images.photo import Photo
from genray.inference.runner import InferenceSettings
from genray.io.listing import Container
from genray.io.sources import Item, ItemSource, OnError
from genray.io.store import open_store
from genray.models.generator import LARGEST_INDEX, Drawing, ImageDrawer, between, code_of
from genray.report.film import film
from genray.report.page import png
from genray.report.pictures import draw_tiles
from genray.settings.base import Settings
from genray.text import counted
from pipelines.engine.target import Bulk
from pipelines.settings import OutputSettings
from pipelines.steps.base import StepInput, StepPlace, StepResult
from pipelines.steps.bundle import BundleSettings, BundleStep
from pipelines.steps.pixels import PixelArray
from pipelines.storage.output import FILM

_BATCH_PIXELS = 500_000
_LARGEST_BATCH = 256
_SHOWN = 64  # images of the report's grid
_COLUMNS = 8
_NAMED = 10  # most classes that are named
_DIGITS = 8  # of the number in a name


class FilmSettings(Settings):
    """Settings of the film, an animated WebP file that passes through codes and back to the first."""

    stops: int = Field(
        0,
        ge=0,
        le=100,
        description="number of codes that each image of the film passes through (0: no film)",
    )
    frames: int = Field(12, ge=1, le=120, description="number of frames from one code to the next")
    images: int = Field(
        16, ge=1, le=64, description="number of images in the film, the first ones of the run"
    )
    frames_per_second: float = Field(12.0, gt=0, le=60, description="frames in a second")

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.stops == 1:
            raise ValueError("stops is 1: a film passes through at least 2 codes")
        return self


class DrawingSettings(Settings):
    """Settings of the images that are drawn."""

    count: int = Field(
        1000,
        ge=1,
        le=LARGEST_INDEX,
        description="number of images; a larger one with the same output draws those that are missing",
    )
    seed: int = Field(
        0,
        ge=0,
        le=LARGEST_INDEX,
        description="seed of the codes; an image depends on it and on the number of the image only",
    )
    classes: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        max_length=10_000,
        description="classes to draw in turn, numbers from 0, of a bundle with classes ([]: all of them)",
    )
    truncation: float | None = Field(
        None,
        ge=0.01,
        description="largest magnitude of the numbers of a code, such as 1.0: images are more typical, and "
        "differ less (null: no limit)",
    )
    film: FilmSettings = Field(FilmSettings(), description="film of images that change into others")


class GenerateSettings(BundleSettings):
    """Settings of generate."""

    input: Literal["codes"] = Field(
        "codes", description="source of the images (codes: numbers of the standard normal distribution)"
    )
    generate: DrawingSettings = Field(DrawingSettings(), description="images to draw")
    write: OutputSettings = Field(OutputSettings(format="png"), description="writing of the images")
    inference: InferenceSettings = Field(
        InferenceSettings(backend="torch"),
        description="engine and precision of the model; by PyTorch an image has the same pixels in every run",
    )


@dataclass(eq=False)
class NumberedItems(ItemSource):
    """Source of inputs that are numbers only, in folders of their classes if there are any.

    Attributes:
        count: number of inputs.
        classes: classes that the inputs have in turn.
    """

    count: int = 0
    classes: tuple[int, ...] = ()

    container: ClassVar[Container] = "files"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.settings, self.place, self.count, self.classes)

    def items(self, on_error: OnError) -> Iterator[Item]:
        for index in range(self.count):
            folder = f"{self.classes[index % len(self.classes)]}/" if self.classes else ""
            yield Item(f"{folder}{index:0{_DIGITS}}", 0, 0)

    def completed(self, item: Item) -> Item:
        """Return `item`: it lies in no file."""
        return item

    def read(self, item: Item, limit: int) -> bytes:
        return b""


class Generate(BundleStep[GenerateSettings]):
    """Draws images, each from the code that its number gives: any worker draws the same image, and a second
    run draws what is missing. It also draws the film and the grid of the report, in the driver."""

    settings_class = GenerateSettings
    bundle_kinds: ClassVar[tuple[str, ...]] = ("gan", "autoencoder")
    reads_images = False
    reads_store = False

    def check(self) -> Sequence[str]:
        """See `Step`."""
        lines = list(super().check())
        settings, network = self.settings, self._structure
        if not isinstance(network, ImageDrawer):
            raise SettingsError(
                f"the network {self.manifest.network} draws no images from nothing",
                where=f"bundle: {settings.bundle}",
                hint="give a bundle of train-gan, or of train-autoencoder with model.kind=vae",
            )
        channels, height, width = network.shape
        if channels not in (1, 3):
            raise SettingsError(
                f"the bundle's images have {channels} channels, which no image format holds",
                where=f"bundle: {settings.bundle}",
            )
        if settings.inference.precision == "int8":
            raise SettingsError(
                "inference.precision=int8 is only for networks from images to images",
                where="inference.precision",
                hint="set fp32 or bf16",
            )
        if settings.write.format == "same":
            raise SettingsError(
                "write.format=same: drawn images have no format yet",
                where="write.format",
                hint="set write.format=png, or another format",
            )
        asked = settings.generate.classes
        if asked and max(asked) >= network.classes:
            known = f"classes 0 to {network.classes - 1}" if network.classes else "no classes"
            raise SettingsError(
                f"class {max(asked)} is asked for, the bundle has {known}",
                where="generate.classes",
                hint="set generate.classes=[] for "
                + ("all" if network.classes else "a bundle without classes"),
            )
        drawn = f"{counted(settings.generate.count, 'image')} of {width}x{height} pixels"
        drawn += f", of classes {', '.join(map(str, self._classes[:_NAMED]))}" if self._classes else ""
        drawn += ", ..." if len(self._classes) > _NAMED else ""
        return [*lines, f"drawing {drawn}, seed {settings.generate.seed}"]

    def open_source(self) -> ItemSource:
        """Return the numbers of the images."""
        settings = self.settings
        bundle = open_store(bundle_folder(settings.bundle))
        return NumberedItems(bundle, settings.read, None, settings.generate.count, self._classes)

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """Draw the grid of the report, and write the film; see `Step`."""
        settings = self.settings
        if not settings.report.samples and not settings.generate.film.stops:
            return {}
        self.open(StepPlace(settings.work.cpus_per_worker or 1, False, model_folder), {})
        pictures: list[dict[str, str]] = []
        prepared: dict[str, Any] = {"pictures": pictures}
        if settings.report.samples:
            shown = min(_SHOWN, settings.generate.count)
            grid = draw_tiles(list(self.draw(range(shown))), _COLUMNS)
            caption = f"The first {shown}, one for one or enlarged by a whole factor."
            picture = {"png_base64": base64.b64encode(png(grid)).decode()}
            pictures.append({"title": "Images", **picture, "caption": caption})
        if settings.generate.film.stops:
            open_store(settings.output).write(FILM, self._film())
            caption = "The first images on their way through other codes and back."
            pictures.append({"title": "Film", "file": FILM, "caption": caption})
            prepared["notes"] = [f"film: {FILM} in the output"]
        return prepared

    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """See `BundleStep`."""
        drawing = Drawing(network)
        self._runner = self.make_runner(
            drawing, None, ImageSpec(channels=drawing.shape[0], range=(0.0, 1.0)), place
        )
        return self._runner.notes

    def batch_weight(self, photo: Photo | None) -> float:
        """Return the pixels that an image counts as: a batch has at most as many images as the network
        draws at once."""
        return _BATCH_PIXELS / self._at_once

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        indices = [int(each.path.rpartition("/")[2]) for each in inputs]
        return [
            StepResult(photo=Photo(pixels, None, "", None, None, None, None)) for pixels in self.draw(indices)
        ]

    def draw(self, indices: Sequence[int], stop: int = 0, share: float = 0.0) -> PixelArray:
        """Return the images (N, H, W, C) uint8 of these numbers; in a film those that are the `share` (0 to
        1) of the way from the code `stop` to the next."""
        settings = self.settings.generate

        def codes(stop: int) -> NDArray[np.float32]:
            each = [
                code_of(self._structure.latent, settings.seed, i, stop, settings.truncation) for i in indices
            ]
            return np.stack(each)

        vectors = codes(stop)
        if share:
            vectors = between(vectors, codes((stop + 1) % settings.film.stops), share)
        if self._classes:
            classes = [[self._classes[index % len(self._classes)]] for index in indices]
            vectors = np.hstack([vectors, np.array(classes, np.float32)])
        drawn = []
        for first in range(0, len(vectors), self._at_once):
            part = vectors[first : first + self._at_once]
            # Sums are rounded differently in batches of other sizes: all have one.
            padded = np.zeros((self._at_once, part.shape[1]), np.float32)
            padded[: len(part)] = part
            drawn.append(self._runner(padded)[: len(part)])
        return np.concatenate(drawn)

    def _film(self) -> bytes:
        """Draw the film, as an animated WebP file."""
        settings = self.settings.generate.film
        shown = range(min(settings.images, self.settings.generate.count))
        columns = math.ceil(len(shown) ** 0.5)
        frames = [
            draw_tiles(list(self.draw(shown, stop, step / settings.frames)), columns)
            for stop in range(settings.stops)
            for step in range(settings.frames)
        ]
        return film(frames, round(1000 / settings.frames_per_second))

    @cached_property
    def _structure(self) -> Any:
        """The network without weights."""
        with torch.device("meta"):
            return self.manifest.spec.build()

    @property
    def _classes(self) -> tuple[int, ...]:
        """Classes to draw in turn; none of an unconditional network."""
        return self.settings.generate.classes or tuple(range(self._structure.classes))

    @property
    def _at_once(self) -> int:
        """Number of images that the network draws at once."""
        _, height, width = self._structure.shape
        return max(1, min(_LARGEST_BATCH, _BATCH_PIXELS // int(height * width)))


TARGET = Bulk(Generate)
