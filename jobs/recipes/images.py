"""What recipes that train on single images share: their data, and the way from it to the networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.bundle import ImageSpec, Preprocessing, save_bundle
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
from jobs.training.recipe import AdamSettings, DataSummary, OptimizerSettings, Part, Recipe
from jobs.training.settings import TrainSettings


class ImageTrainSettings(TrainSettings):
    """What every training on single images takes."""

    data: ImageSetSettings = Field(ImageSetSettings(), description="the images")
    optimizer: AdamSettings = Field(AdamSettings(), description="how the network is improved")


S = TypeVar("S", bound=ImageTrainSettings)

UNIT: ValueRange = (0.0, 1.0)


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

    def __init__(self, settings: S) -> None:
        super().__init__(settings)
        self._summary: DataSummary | None = None

    @abstractmethod
    def network_spec(self) -> NetworkSpec:
        """What the network for images of `self.shape` is built from."""

    def network(self) -> nn.Module:
        """The network, new."""
        return self.network_spec().build()

    @property
    def judging(self) -> Part:
        """The samples that judge the final weights."""
        return "test" if self.held_out["test"] else "val"

    @property
    def patch(self) -> int:
        """Pixels of the patches that a network for any size is trained on."""
        return 0

    @property
    def most(self) -> int:
        """Held-out images that are larger are judged by their middle of so many pixels; 0: whole."""
        return 0

    @property
    def repeats(self) -> int:
        """How often an epoch comes to each image, for another variant of it."""
        return 1

    def select(self, found: ImageSet) -> ImageSet:
        """The images that are trained and judged on; all, unless a recipe says otherwise."""
        return found

    def variant(self) -> tuple[Callable[[Pixels, Key], Sample], int]:
        """What is made of an image for training, and how many parts of `self.shape` it has."""
        return whole_image, 1

    def prepared(self, image: Pixels, part: Part, index: int) -> Sample:
        """A held-out image as it is judged."""
        return (image,)

    def open(self, note: Callable[[str], None]) -> DataSummary:
        if self._summary is not None:
            return self._summary
        data, seed = self.settings.data, self.settings.seed
        if data.download:
            download(data.download, data.path, note)
        found = self.select(open_image_set(data, seed))
        self.classes = found.classes
        source, pixels = self._source(found.train)
        bad: list[BadInput] = []
        limits: dict[Part, int] = {"val": data.val_max, "test": data.test_max}
        self.held_out: dict[Part, list[Sample]] = {}
        self.labels: dict[Part, NDArray[np.int64] | None] = {}
        self.names: dict[Part, list[str]] = {}
        parts: dict[Part, Images | None] = {"val": found.val, "test": found.test}
        for part, images in parts.items():
            side = self.most or max(self.shape[1:])
            fitting = int(data.memory_gb * 5e8 / (side * side * self.shape[0]))
            chosen = None if images is None else images.sample(max(2, min(limits[part], fitting)), seed)
            self.held_out[part], self.labels[part] = self._load(part, source, chosen, bad)
        self._source_, self._train = source, None
        gigabytes = len(source) * pixels * self.shape[0] / 1e9
        stream = data.loader == "stream" or (data.loader == "auto" and gigabytes > data.memory_gb)
        if not stream:
            if gigabytes > 0.2:
                note(f"decoding {len(source)} images ({gigabytes:.1f} GB)")
            self._train = load_all(source, bad.append)[1] * self.repeats
        total = len(source) + sum(len(i) for i in parts.values() if i is not None)
        check_bad_share(bad, total, data.max_bad_share, data.path)
        count = len(source) * self.repeats if self._train is None else len(self._train)
        if not count:
            raise DataError(
                f"every training image is broken, {bad[-1].path} for one: {bad[-1].detail}",
                where=data.path,
                hint="mend them, or take others",
            )
        val, test = len(self.held_out["val"]), len(self.held_out["test"])
        with torch.device("meta"):  # to count, without drawing weights
            parameters = parameter_count(self.network())
        judging = f"{test} to judge on" if test else "judged on these"
        where = "streamed by Ray Data" if stream else "in memory"
        self._summary = DataSummary(
            train=count,
            val=val,
            test=test,
            bad=bad,
            data={
                "fingerprint": found.fingerprint,
                "split": found.split,
                "train": count,
                "val": val,
                "test": test,
                "set_aside": len(bad),
            },
            lines=[
                f"{count // self.repeats} training images, {val} held out, {judging}, "
                f"{len(bad)} set aside ({found.layout}, {self._described()}, {where})",
                f"split {found.split}",
                f"{self.title}: {parameters:,} parameters",
            ],
            needs_ray=stream,
        )
        return self._summary

    @property
    def title(self) -> str:
        """What is trained, for a person."""
        return self.kind

    def _described(self) -> str:
        colours = "gray" if self.shape[0] == 1 else "RGB"
        what = f"patches of {self.patch}" if self.any_size else f"{self.shape[2]}x{self.shape[1]}"
        return f"{colours}, {what} pixels"

    def _source(self, images: Images) -> tuple[SingleImageSource, float]:
        """The training images as samples, and how many pixels one of them has; sets `self.shape`."""
        data = self.settings.data
        sizes, gray = look_at_headers(images)
        channels = data.channels or (1 if gray else 3)
        if data.size is not None:
            size: tuple[int, int] | None = (data.size, data.size)
        elif self.any_size:
            size = None
        elif len(set(sizes)) == 1:
            size = (sizes[0][1], sizes[0][0])
        else:
            some = ", ".join(f"{width}x{height}" for width, height in sorted(set(sizes))[:3])
            raise DataError(
                f"the images are of several sizes ({some}, ...), the network takes one",
                where="data.size",
                hint="set it to the height and width that they are to be brought to, such as data.size=64",
            )
        patch = self.patch if self.any_size else 0
        shorter = min(size) if size is not None else sorted(min(each) for each in sizes)[len(sizes) // 2]
        if shorter < max(patch, _LEAST):
            least = f"hold no patch of {patch}" if patch else f"are too small: at least {_LEAST} are needed"
            raise DataError(
                f"images of {shorter} pixels {least}",
                where="data.patch" if patch else "data.size",
                hint=f"set data.patch={shorter}"
                if shorter >= 16
                else "enlarge them, such as by data.size=32",
            )
        height, width = (patch, patch) if self.any_size else (size or (0, 0))
        self.shape: Shape = (channels, height, width)
        fit = data.fit if data.size is not None else None
        variant, self._parts = self.variant()
        pixels = float(np.mean([w * h for w, h in sizes])) if size is None else float(size[0] * size[1])
        source = SingleImageSource(
            images, channels, size, fit, max(patch, _LEAST), data.max_pixels, variant=variant
        )
        return source, pixels

    def _load(
        self, part: Part, source: SingleImageSource, images: Images | None, bad: list[BadInput]
    ) -> tuple[list[Sample], NDArray[np.int64] | None]:
        self.names[part] = []
        if images is None:
            return [], None
        held_out = replace(source, images=images, least=_LEAST, most=self.most)
        good, loaded = load_all(held_out, bad.append)
        if len(images) and not good:
            raise DataError(
                f"every {_PARTS[part]} image is broken, {bad[-1].path} for one: {bad[-1].detail}",
                where=self.settings.data.path,
                hint="mend them, or take others",
            )
        self.names[part] = [held_out.name(index) for index in good]
        samples = [self.prepared(sample[0], part, index) for index, sample in enumerate(loaded)]
        return samples, None if images.labels is None else images.labels[good]

    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        data, seed, source = self.settings.data, self.settings.seed, self._source_
        if self._train is not None:
            return MemoryLoader(self._train, source.vary, seed)
        channels, height, width = self.shape
        shapes = [(height, width, channels)] * self._parts
        source = replace(source, images=source.images.select(np.tile(np.arange(len(source)), self.repeats)))
        return StreamLoader(
            source, shapes, seed, report, limit=data.max_bad_share, path=data.path, repeats=self.repeats
        )

    def some_training_images(self, most: int) -> list[Pixels]:
        """Training images, the first of a fixed random order: for baselines and calibration."""
        order = np.random.default_rng(self.settings.seed).permutation(len(self._source_))[:most]
        if self._train is not None:
            return [self._train[i][0] for i in order if i < len(self._train)]
        some = replace(self._source_, images=self._source_.images.select(order))
        return [sample[0] for sample in load_all(some, lambda bad: None)[1]]

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """(N, H, W, C) uint8 -> (N, C, H, W) float32 in [0, 1]."""
        return to_network(batch, where, UNIT)

    def networks(self) -> dict[str, nn.Module]:
        return {self.name: self.network()}

    def optimizer(self, network: str) -> OptimizerSettings:
        return self.settings.optimizer

    def save_bundle(
        self,
        path: Path,
        networks: Mapping[str, nn.Module],
        metrics: Mapping[str, Any],
        samples: Sequence[Path],
        calibration: Mapping[str, Any],
    ) -> None:
        assert self._summary is not None
        save_bundle(
            path,
            networks[self.name],
            self.network_spec(),
            kind=self.kind,
            preprocessing=self._preprocessing(),
            metrics=metrics,
            seed=self.settings.seed,
            data=self._summary.data,
            calibration=calibration,
            samples=samples,
        )

    def _preprocessing(self) -> Preprocessing:
        spec, data = ImageSpec(channels=self.shape[0], range=UNIT), self.settings.data
        fixed = not self.any_size
        return Preprocessing(
            input=spec, output=spec, size=self.shape[1:], fixed=fixed, fit=data.fit if fixed else None
        )


_LEAST = 8  # pixels of a side that can be judged: SSIM's window needs some
_PARTS: dict[Part, str] = {"val": "held-out", "test": "test"}
