"""Data of the recipes that train on single images, and its preparation for the networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.bundle import ImageSpec, Preprocessing
from genray.datasets.download import download
from genray.datasets.drawn.drawing import DrawnShare
from genray.datasets.image_set import (
    LABEL_SHAPE,
    Images,
    ImageSet,
    ImageSetSettings,
    Key,
    SingleImageSource,
    look_at_headers,
    open_image_set,
    whole_image,
)
from genray.datasets.loader import Loader, MemoryLoader, Sample, check_bad_share, load_all
from genray.datasets.ray_stream import StreamLoader
from genray.datasets.values import check_numbers, note_values, note_window, window_of
from genray.errors import DataError, SettingsError
from genray.images.pixels import Pixels
from genray.images.tensors import ValueRange, to_network
from genray.io.bad_input import BadInput
from genray.models.autoencoder import Shape
from genray.models.parts.layers import parameter_count
from genray.models.registry import NetworkSpec
from genray.text import visible
from jobs.training.optimisation.optimizer import AdamSettings, OptimizerSettings
from jobs.training.recipe import BundleSpec, DataSummary, Part, Recipe
from jobs.training.settings import TrainSettings


class ImageTrainSettings(TrainSettings):
    """Settings of every training on single images."""

    data: ImageSetSettings = Field(ImageSetSettings(), description="images to train on")
    optimizer: AdamSettings = Field(AdamSettings(), description="optimizer of the network")


S = TypeVar("S", bound=ImageTrainSettings)

UNIT: ValueRange = (0.0, 1.0)

_LEAST_SIDE = 8  # shortest side of a judged image in pixels, for the window of SSIM
_MOST_CLASSES = 20  # classes that are named
_LOOKED_AT = 16  # images whose levels and sizes are looked at
_ENLARGED = 1.5  # factor above which enlarging is warned of
_COLOURS = {1: "gray", 3: "RGB", 4: "RGBA"}
_PART_NAMES: dict[Part, str] = {"val": "held-out", "test": "test"}


@dataclass(frozen=True)
class Variant:
    """A training sample made of an image: its number of parts of `ImageRecipe.shape`, and the function that
    makes it from the image and the key of its random draws."""

    make: Callable[[Pixels, Key], Sample]
    parts: int = 1


@dataclass(frozen=True)
class HeldOutImages:
    """Held-out images of one part, as they are judged.

    Attributes:
        samples: decoded images.
        names: paths of the images.
        labels: indices of the set's classes; None: unknown.
    """

    samples: list[Sample]
    names: list[str]
    labels: NDArray[np.int64] | None


class ImageRecipe(Recipe[S]):
    """A recipe on single images, with values from 0 to 1 in the networks. A subclass selects its images
    (`select`), makes training samples of them (`variant`), and defines everything else of its own."""

    name = "network"
    """Name of the network."""
    averaged: ClassVar[Sequence[str]] = (name,)
    channels_last_on_cpu = True  # measured 1.1 to 1.3 times as fast
    kind: str
    """Of the bundle."""
    any_size = False
    """Whether the network takes images of any size; it is trained on patches then."""

    classes: tuple[str, ...]
    """Source of the images. This attribute and the following ones are set by `open`."""
    held_out: dict[Part, HeldOutImages]
    shape: Shape
    """Channels, height and width of a part of a training sample."""
    _source: SingleImageSource
    _training: list[Sample] | None
    """Decoded training images, unless they are streamed."""
    _variant: Variant

    @abstractmethod
    def network_spec(self) -> NetworkSpec:
        """Return the structure of the network for images of `self.shape`."""

    def network(self) -> nn.Module:
        """Make a new network."""
        return self.network_spec().build()

    @property
    def judging_part(self) -> Part:
        """The part of the samples that judges the final weights."""
        return "test" if self.held_out["test"].samples else "val"

    @property
    def patch(self) -> int:
        """Height and width of the training patches in pixels, of a network for any size."""
        return 0

    @property
    def judged_side(self) -> int:
        """Largest height and width of a judged image in pixels; larger ones are cropped to the middle; 0: no
        limit."""
        return 0

    @property
    def repeats(self) -> int:
        """Times that an epoch uses each image, each time for another variant."""
        return 1

    def select(self, image_set: ImageSet) -> ImageSet:
        """Select the images to train and judge on; by default all."""
        return image_set

    def arrange(self, image_set: ImageSet) -> ImageSet:
        """Return the images as the network takes them, after those on both sides of a split were left out; by
        default unchanged."""
        return image_set

    @property
    def labelled(self) -> bool:
        """Whether the class of an image is the last part of a training sample."""
        return False

    def variant(self) -> Variant:
        """Return how a training sample is made of an image."""
        return Variant(whole_image)

    def prepare_held_out(self, image: Pixels, part: Part, index: int) -> Sample:
        """Return a held-out image as it is judged."""
        return (image,)

    @property
    def title(self) -> str:
        """Name of the training, for a person."""
        return self.kind

    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        data = self.settings.data
        if data.download:
            download(data.download, data.path, note)
        image_set = self.select(open_image_set(data, self.settings.seed))
        image_set, notes = image_set.without_shared(allowed=data.allow_shared)
        image_set = self.arrange(image_set)
        self.classes = image_set.classes
        self._variant = self.variant()
        pixels = self._open_training(image_set.train)
        notes += self._fit_values(image_set.train)
        bad: list[BadInput] = []
        self.held_out = {
            "val": self._load_held_out("val", image_set.val, data.val_max, bad),
            "test": self._load_held_out("test", image_set.test, data.test_max, bad),
        }
        # If all training images are drawn, none is stored.
        gigabytes = (data.drawn < 1) * len(self._source) * pixels * self.shape[0] / 1e9
        stream = data.loader == "stream" or (data.loader == "auto" and gigabytes > data.memory_gb)
        self._training = None
        if not stream:
            if gigabytes > 0.2:
                note(f"decoding {len(self._source)} images ({gigabytes:.1f} GB)")
            self._training = load_all(self._source, bad.append)[1] * self.repeats
        total = len(self._source) + len(image_set.val) + len(image_set.test or ())
        check_bad_share(bad, total, data.max_bad_share, data.path)
        return self._summarise(image_set, bad, notes)

    def _open_training(self, images: Images) -> float:
        """Read the headers of the training images; returns the number of pixels of a decoded one."""
        data = self.settings.data
        sizes, found = look_at_headers(images)
        channels = data.channels or found
        if data.drawn and channels not in (1, 3):
            raise SettingsError(
                f"drawn images are gray or RGB, and the images have {channels} channels",
                where="data.drawn",
                hint="set data.channels=3 (or 1) to convert them, or data.drawn=0",
            )
        size = self._decoded_size(sizes)
        patch = self.patch if self.any_size else 0
        shorter_sides = sorted(min(sides) for sides in ([size] if size is not None else sizes))
        shorter = shorter_sides[len(shorter_sides) // 2]  # the median
        _check_side(shorter, patch)
        height, width = (patch, patch) if self.any_size else (size or (0, 0))
        self.shape = (channels, height, width)
        self._source = SingleImageSource(
            images,
            channels,
            size,
            data.fit if data.size is not None else None,
            max(patch, _LEAST_SIDE),
            data,
            variant=self._variant.make,
            drawn=DrawnShare(data.drawn, data.drawn_kind, (height, width, channels)) if data.drawn else None,
            labelled=self.labelled,
        )
        return float(np.mean([w * h for w, h in sizes])) if size is None else float(size[0] * size[1])

    def _fit_values(self, images: Images) -> list[str]:
        """Set the window of the images, and return what a few of them show of values and sizes."""
        data = self.settings.data
        levels = images.levels(_LOOKED_AT, data)
        if data.window is None:
            check_numbers(levels, "the images", "data.window")
        window = window_of(data.window, levels, "data.window")
        self._source = replace(self._source, window=window)
        notes = [note_window(data.window, window, "data.window")]
        if window is None:
            notes.append(note_values(levels, "the images", "data.window"))
        shorter = min((min(image.shape[:2]) for image in levels), default=0)
        if data.size is not None and data.size > _ENLARGED * shorter > 0:
            notes.append(
                f"warning: images of {shorter} pixels are enlarged to {data.size}; data.size={shorter} is "
                "their own size"
            )
        return [note for note in notes if note]

    def _decoded_size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """Return the height and width that images are resized to; None: each keeps its own. `sizes` are
        widths and heights."""
        data = self.settings.data
        if data.size is not None:
            return data.size, data.size
        if self.any_size:
            return None
        several = sorted(set(sizes))
        if len(several) == 1:
            width, height = several[0]
            return height, width
        examples = ", ".join(f"{width}x{height}" for width, height in several[:3])
        raise DataError(
            f"the images have several sizes ({examples}, ...), but the network takes one size",
            where="data.size",
            hint=("set data.size to the height and width that images are resized to, such as data.size=64"),
        )

    def _load_held_out(
        self, part: Part, images: Images | None, most: int, bad: list[BadInput]
    ) -> HeldOutImages:
        """Decode at most `most` of the images, and no more than fit into memory; broken ones are added to
        `bad`."""
        if images is None:
            return HeldOutImages([], [], None)
        data = self.settings.data
        side = self.judged_side or max(self.shape[1:])
        fitting = int(data.memory_gb * 5e8 / (side * side * self.shape[0]))
        images = images.sample(max(2, min(most, fitting)), self.settings.seed)
        source = replace(
            self._source,
            images=images,
            least=_LEAST_SIDE,
            most=self.judged_side,
            drawn=None,
            labelled=False,
        )
        good, loaded = load_all(source, bad.append)
        if len(images) and not good:
            raise DataError(
                f"every {_PART_NAMES[part]} image is broken, such as {bad[-1].path}: {bad[-1].detail}",
                where=data.path,
                hint="repair the files, or give others",
            )
        return HeldOutImages(
            [self.prepare_held_out(sample[0], part, index) for index, sample in enumerate(loaded)],
            [source.name(index) for index in good],
            None if images.labels is None else images.labels[good],
        )

    def _summarise(self, image_set: ImageSet, bad: list[BadInput], notes: Sequence[str]) -> DataSummary:
        stream = self._training is None
        count = len(self._source) * self.repeats if self._training is None else len(self._training)
        if not count:
            raise DataError(
                f"every training image is broken, such as {bad[-1].path}: {bad[-1].detail}",
                where=self.settings.data.path,
                hint="repair the files, or give others",
            )
        val, test = (len(self.held_out[part].samples) for part in _PART_NAMES)
        with torch.device("meta"):  # the meta device counts parameters without drawing weights
            parameters = parameter_count(self.network())
        unread = f"; {image_set.counts.unread_text}" if image_set.counts.unread_text else ""
        judging = f"{test} to judge on" if test else "judged on the held-out images"
        colours = _COLOURS.get(self.shape[0], f"{self.shape[0]} channels")
        pixels = f"patches of {self.patch}" if self.any_size else f"{self.shape[2]}x{self.shape[1]}"
        where = "streamed by Ray Data" if stream else "in memory"
        if self.settings.data.drawn == 1:
            where = "drawn in every epoch"
        return DataSummary(
            train=count,
            val=val,
            test=test,
            bad=bad,
            data={
                "fingerprint": image_set.fingerprint,
                "layout": image_set.layout,
                "split": image_set.split,
                **({"classes": ", ".join(image_set.classes[:_MOST_CLASSES])} if image_set.classes else {}),
                "train": count,
                "val": val,
                "test": test,
                "set_aside": len(bad),
            },
            counts=image_set.counts,
            lines=[
                f"{count // self.repeats} training images, {val} held out, {judging}, "
                f"{len(bad)} set aside ({image_set.layout}, {colours}, {pixels} pixels, {where}){unread}",
                f"split: {image_set.split}",
                *_class_lines(image_set.classes),
                *notes,
                f"{self.title}: {parameters:,} parameters",
            ],
            needs_ray=stream,
        )

    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        data = self.settings.data
        source = self._source
        if self._training is not None:
            return MemoryLoader(self._training, source.vary, self.settings.seed)
        channels, height, width = self.shape
        shapes = [(height, width, channels)] * self._variant.parts + [LABEL_SHAPE] * self.labelled
        repeated = source.images.select(np.tile(np.arange(len(source)), self.repeats))
        return StreamLoader(
            replace(source, images=repeated),
            shapes,
            self.settings.seed,
            report,
            limit=data.max_bad_share,
            path=data.path,
            repeats=self.repeats,
        )

    def sample_training_images(self, most: int) -> list[Pixels]:
        """Return at most `most` training images, the first of a fixed random order, for baselines."""
        order = np.random.default_rng(self.settings.seed).permutation(len(self._source))[:most]
        if self._training is not None and self.settings.data.drawn < 1:
            return [self._training[i][0] for i in order if i < len(self._training)]
        source = replace(self._source, images=self._source.images.select(order), drawn=None)
        return [sample[0] for sample in load_all(source, lambda bad: None)[1]]

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """Convert (N, H, W, C) uint8 to (N, C, H, W) float32 in [0, 1]."""
        return to_network(batch, where, UNIT)

    def networks(self) -> dict[str, nn.Module]:
        return {self.name: self.network()}

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        return {self.name: [torch.empty(samples, *self.shape)]}

    def optimizer(self, network: str) -> OptimizerSettings:
        return self.settings.optimizer

    def bundle_spec(self) -> BundleSpec:
        spec = ImageSpec(channels=self.shape[0], range=UNIT, window=self._source.window)
        fixed = not self.any_size
        preprocessing = Preprocessing(
            input=spec,
            output=spec,
            size=self.shape[1:],
            fixed=fixed,
            fit=self.settings.data.fit if fixed else None,
        )
        return BundleSpec(self.kind, self.name, self.network_spec(), preprocessing)


def _class_lines(classes: Sequence[str]) -> list[str]:
    """Return the line that names the classes of the images, if they have any."""
    more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    return [f"classes: {visible(', '.join(classes[:_MOST_CLASSES]))}{more}"] if classes else []


def _check_side(shorter: int, patch: int) -> None:
    """Raise if images with a shorter side of `shorter` pixels are too small for a patch, or to be judged."""
    if shorter >= max(patch, _LEAST_SIDE):
        return
    least = (
        f"are too small for patches of {patch}"
        if patch
        else f"are too small: at least {_LEAST_SIDE} are needed"
    )
    raise DataError(
        f"images of {shorter} pixels {least}",
        where="data.patch" if patch else "data.size",
        hint=f"set data.patch={shorter}"
        if shorter >= 16
        else "give larger images, or enlarge them with data.size=32",
    )
