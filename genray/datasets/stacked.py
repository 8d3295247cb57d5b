"""Images whose channels are several gray images, such as Stacked MNIST (Metz et al. 2017, "Unrolled
Generative Adversarial Networks"): three digits as channels make 1,000 classes, all of which a generator has
to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from genray.datasets.image_set import Images, ImageSet
from genray.datasets.layouts import StoredImages
from genray.errors import DataError
from genray.images.decode import ImageHeader
from genray.images.image_file import Levels
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, Window
from genray.io.bad_input import BadImage

L = TypeVar("L", bound=Levels)

_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class StackedImages:
    """Gray images as channels of others: `StoredImages`, see `genray/datasets/layouts.py`.

    Attributes:
        stored: the gray images.
        members: stored indices of the channels of each image, (N, channels).
    """

    stored: StoredImages
    members: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        return " + ".join(self.stored.name(int(member)) for member in self.members[index])

    def header(self, index: int) -> ImageHeader:
        return replace(self.stored.header(int(self.members[index, 0])), channels=self.members.shape[1])

    def size(self, index: int) -> int:
        return sum(self.stored.size(int(member)) for member in self.members[index])

    def data(self, index: int, limits: ReadLimits) -> bytes:
        return b"".join(self.stored.data(int(member), limits) for member in self.members[index])

    def pixels(self, index: int, channels: int, limits: ReadLimits, window: Window | None = None) -> Pixels:
        if channels != self.members.shape[1]:
            raise BadImage("odd-shape", f"{self.members.shape[1]} stacked images, not {channels} channels")
        parts = [self.stored.pixels(int(member), 1, limits, window) for member in self.members[index]]
        return np.concatenate(_checked(parts), axis=2)

    def levels(self, index: int, limits: ReadLimits) -> Levels:
        parts = [self.stored.levels(int(member), limits) for member in self.members[index]]
        return np.concatenate(_checked(parts), axis=2)


def stack_images(image_set: ImageSet, count: int, seed: int) -> ImageSet:
    """Return a set of as many images, whose channels are `count` images of the same part, drawn by `seed`.
    Their class is the row of the classes of the channels.

    Raises:
        DataError: too many classes.
    """
    if len(image_set.classes) ** count > _MOST_CLASSES:
        raise DataError(
            f"{count} stacked images of {len(image_set.classes)} classes are "
            f"{len(image_set.classes) ** count:,} classes, more than {_MOST_CLASSES:,}",
            where="data.stack",
            hint="stack fewer images",
        )
    rng = np.random.default_rng([seed, count])
    parts = [part for part in (image_set.train, image_set.val, image_set.test) if part is not None]
    chosen = [rng.integers(len(part), size=(len(part), count)) for part in parts]
    for places, part in zip(chosen, parts, strict=True):
        places[:, 0] = np.arange(len(part))  # every image is used
    stacked = [
        _stacked(part, places, len(image_set.classes)) for part, places in zip(parts, chosen, strict=True)
    ]
    names = image_set.classes
    for _ in range(count - 1):
        names = tuple(f"{first}-{second}" for first in names for second in image_set.classes)
    return replace(
        image_set,
        train=stacked[0],
        val=stacked[1],
        test=stacked[2] if image_set.test is not None else None,
        classes=names,
        split=f"{image_set.split}; {count} images of a part stacked as channels by seed {seed}",
    )


def _stacked(part: Images, places: NDArray[np.int64], classes: int) -> Images:
    labels = None
    if part.labels is not None:
        labels = np.zeros(len(places), np.int64)
        for column in range(places.shape[1]):
            labels = labels * classes + part.labels[places[:, column]]
    return Images(StackedImages(part.stored, part.indices[places]), np.arange(len(places)), labels)


def _checked(parts: Sequence[L]) -> Sequence[L]:
    """Return images that can be channels of one.

    Raises:
        BadImage: they are not gray, or of several sizes.
    """
    if len({part.shape for part in parts}) > 1 or parts[0].shape[2] != 1:
        raise BadImage("odd-shape", "stacked images must be gray and of one size")
    return parts
