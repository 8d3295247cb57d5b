"""What recipes that train on single images share: their data, and the way from it to the networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.bundle import ImageSpec, Preprocessing
from genray.datasets.download import download
from genray.datasets.image_set import (
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
from genray.errors import DataError
from genray.images.pixels import Pixels
from genray.images.tensors import ValueRange, to_network
from genray.io.bad_input import BadInput
from genray.models.autoencoder import Shape
from genray.models.layers import parameter_count
from genray.models.registry import NetworkSpec
from jobs.training.optimizer import AdamSettings, OptimizerSettings
from jobs.training.recipe import BundleSpec, DataSummary, Part, Recipe
from jobs.training.settings import TrainSettings


class ImageTrainSettings(TrainSettings):
    """What every training on single images takes."""

    data: ImageSetSettings = Field(ImageSetSettings(), description="the images")
    optimizer: AdamSettings = Field(AdamSettings(), description="how the network is improved")


S = TypeVar("S", bound=ImageTrainSettings)

UNIT: ValueRange = (0.0, 1.0)

_LEAST_SIDE = 8  # pixels of a side that can be judged: SSIM's window needs some
_PART_NAMES: dict[Part, str] = {"val": "held-out", "test": "test"}


@dataclass(frozen=True)
class Variant:
    """What is made of an image for training: a sample of so many parts of `ImageRecipe.shape`, by a function
    of the image and the key of its random draws."""

    make: Callable[[Pixels, Key], Sample]
    parts: int = 1


@dataclass(frozen=True)
class HeldOutImages:
    """The held-out images of one part, as they are judged.

    Attributes:
        samples: decoded.
        names: their paths.
        labels: indices of the set's classes; None: unknown.
    """

    samples: list[Sample]
    names: list[str]
    labels: NDArray[np.int64] | None


class ImageRecipe(Recipe[S]):
    """A recipe on single images, with values from 0 to 1 in the networks. A subclass says which of the
    images it wants (`select`), what it trains on of each (`variant`), and everything that is its own."""

    name = "network"
    """Of the one network, `self.network()`."""
    averaged = (name,)
    channels_last_on_cpu = True  # 1.1 to 1.3 times as fast
    kind: str
    """Of the bundle."""
    any_size = False
    """Whether the network takes images of any size: then they are trained on in patches."""

    classes: tuple[str, ...]
    """Of the images; this and what follows is there after `open`."""
    held_out: dict[Part, HeldOutImages]
    shape: Shape
    """Channels, height and width of a part of a training sample."""
    _source: SingleImageSource
    _training: list[Sample] | None
    """The training images, unless they are streamed."""
    _variant: Variant

    @abstractmethod
    def network_spec(self) -> NetworkSpec:
        """The network for images of `self.shape`."""

    def network(self) -> nn.Module:
        """The network, new."""
        return self.network_spec().build()

    @property
    def judging_part(self) -> Part:
        """The samples that judge the final weights."""
        return "test" if self.held_out["test"].samples else "val"

    @property
    def patch(self) -> int:
        """Pixels of the patches that a network for any size is trained on."""
        return 0

    @property
    def judged_side(self) -> int:
        """Held-out images that are larger are judged by their middle of so many pixels; 0: whole."""
        return 0

    @property
    def repeats(self) -> int:
        """How often an epoch comes to each image, for another variant of it."""
        return 1

    def select(self, image_set: ImageSet) -> ImageSet:
        """The images that are trained and judged on; all, unless a recipe says otherwise."""
        return image_set

    def variant(self) -> Variant:
        """What is made of an image for training."""
        return Variant(whole_image)

    def prepare_held_out(self, image: Pixels, part: Part, index: int) -> Sample:
        """A held-out image as it is judged."""
        return (image,)

    @property
    def title(self) -> str:
        """What is trained, for a person."""
        return self.kind

    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        data = self.settings.data
        if data.download:
            download(data.download, data.path, note)
        image_set = self.select(open_image_set(data, self.settings.seed))
        self.classes = image_set.classes
        self._variant = self.variant()
        pixels = self._open_training(image_set.train)
        bad: list[BadInput] = []
        self.held_out = {
            "val": self._load_held_out("val", image_set.val, data.val_max, bad),
            "test": self._load_held_out("test", image_set.test, data.test_max, bad),
        }
        gigabytes = len(self._source) * pixels * self.shape[0] / 1e9
        stream = data.loader == "stream" or (data.loader == "auto" and gigabytes > data.memory_gb)
        self._training = None
        if not stream:
            if gigabytes > 0.2:
                note(f"decoding {len(self._source)} images ({gigabytes:.1f} GB)")
            self._training = load_all(self._source, bad.append)[1] * self.repeats
        total = len(self._source) + len(image_set.val) + len(image_set.test or ())
        check_bad_share(bad, total, data.max_bad_share, data.path)
        return self._summarise(image_set, bad)

    def _open_training(self, images: Images) -> float:
        """Look at the headers of the training images; returns how many pixels one of them has when it is
        decoded."""
        data = self.settings.data
        sizes, gray = look_at_headers(images)
        channels = data.channels or (1 if gray else 3)
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
            data.max_pixels,
            variant=self._variant.make,
        )
        return float(np.mean([w * h for w, h in sizes])) if size is None else float(size[0] * size[1])

    def _decoded_size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """Height and width that images are brought to; None: each keeps its own. `sizes` are widths and
        heights."""
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
            f"the images are of several sizes ({examples}, ...), the network takes one",
            where="data.size",
            hint="set it to the height and width that they are to be brought to, such as data.size=64",
        )

    def _load_held_out(
        self, part: Part, images: Images | None, most: int, bad: list[BadInput]
    ) -> HeldOutImages:
        """Decode at most `most` of the images, and no more than fit into memory; broken ones go to `bad`."""
        if images is None:
            return HeldOutImages([], [], None)
        data = self.settings.data
        side = self.judged_side or max(self.shape[1:])
        fitting = int(data.memory_gb * 5e8 / (side * side * self.shape[0]))
        images = images.sample(max(2, min(most, fitting)), self.settings.seed)
        source = replace(self._source, images=images, least=_LEAST_SIDE, most=self.judged_side)
        good, loaded = load_all(source, bad.append)
        if len(images) and not good:
            raise DataError(
                f"every {_PART_NAMES[part]} image is broken, {bad[-1].path} for one: {bad[-1].detail}",
                where=data.path,
                hint="mend them, or take others",
            )
        return HeldOutImages(
            [self.prepare_held_out(sample[0], part, index) for index, sample in enumerate(loaded)],
            [source.name(index) for index in good],
            None if images.labels is None else images.labels[good],
        )

    def _summarise(self, image_set: ImageSet, bad: list[BadInput]) -> DataSummary:
        stream = self._training is None
        count = len(self._source) * self.repeats if self._training is None else len(self._training)
        if not count:
            raise DataError(
                f"every training image is broken, {bad[-1].path} for one: {bad[-1].detail}",
                where=self.settings.data.path,
                hint="mend them, or take others",
            )
        val, test = (len(self.held_out[part].samples) for part in _PART_NAMES)
        with torch.device("meta"):  # to count, without drawing weights
            parameters = parameter_count(self.network())
        unread = f"; {image_set.counts.unread_text}" if image_set.counts.unread_text else ""
        judging = f"{test} to judge on" if test else "judged on these"
        colours = "gray" if self.shape[0] == 1 else "RGB"
        pixels = f"patches of {self.patch}" if self.any_size else f"{self.shape[2]}x{self.shape[1]}"
        where = "streamed by Ray Data" if stream else "in memory"
        return DataSummary(
            train=count,
            val=val,
            test=test,
            bad=bad,
            data={
                "fingerprint": image_set.fingerprint,
                "split": image_set.split,
                "train": count,
                "val": val,
                "test": test,
                "set_aside": len(bad),
            },
            counts=image_set.counts,
            lines=[
                f"{count // self.repeats} training images, {val} held out, {judging}, "
                f"{len(bad)} set aside ({image_set.layout}, {colours}, {pixels} pixels, {where}){unread}",
                f"split {image_set.split}",
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
        shapes = [(height, width, channels)] * self._variant.parts
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
        """At most `most` training images, the first of a fixed random order, for baselines."""
        order = np.random.default_rng(self.settings.seed).permutation(len(self._source))[:most]
        if self._training is not None:
            return [self._training[i][0] for i in order if i < len(self._training)]
        source = replace(self._source, images=self._source.images.select(order))
        return [sample[0] for sample in load_all(source, lambda bad: None)[1]]

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """(N, H, W, C) uint8 -> (N, C, H, W) float32 in [0, 1]."""
        return to_network(batch, where, UNIT)

    def networks(self) -> dict[str, nn.Module]:
        return {self.name: self.network()}

    def optimizer(self, network: str) -> OptimizerSettings:
        return self.settings.optimizer

    def bundle_spec(self) -> BundleSpec:
        spec = ImageSpec(channels=self.shape[0], range=UNIT)
        fixed = not self.any_size
        preprocessing = Preprocessing(
            input=spec,
            output=spec,
            size=self.shape[1:],
            fixed=fixed,
            fit=self.settings.data.fit if fixed else None,
        )
        return BundleSpec(self.kind, self.name, self.network_spec(), preprocessing)


def _check_side(shorter: int, patch: int) -> None:
    """Raise if images whose shorter side has so many pixels hold no patch, or cannot be judged."""
    if shorter >= max(patch, _LEAST_SIDE):
        return
    least = f"hold no patch of {patch}" if patch else f"are too small: at least {_LEAST_SIDE} are needed"
    raise DataError(
        f"images of {shorter} pixels {least}",
        where="data.patch" if patch else "data.size",
        hint=f"set data.patch={shorter}" if shorter >= 16 else "enlarge them, such as by data.size=32",
    )
