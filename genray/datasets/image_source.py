"""Single images as a loader's samples: decoded, made square, and varied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genray.datasets.image_set import Images
from genray.datasets.loader import Pixels, Sample
from genray.images.decode import BadImage
from genray.images.resizing import fitted

Flips = Literal["none", "mirror", "all"]
Key = Sequence[int]


def whole(image: Pixels, key: Key) -> Sample:
    """The image as it is."""
    return (image,)


@dataclass(frozen=True)
class Patch:
    """A random part of an image, turned and mirrored: what restoration networks are trained on.

    Args:
        size: height and width.
        flips: none; mirror (left to right, for what has an up and a down); all (and quarter turns).
    """

    size: int
    flips: Flips = "all"

    def __call__(self, image: Pixels, key: Key) -> Sample:
        rng = np.random.default_rng(key)
        top, left = (int(rng.integers(side - self.size + 1)) for side in image.shape[:2])
        part = image[top : top + self.size, left : left + self.size]
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        if self.flips == "all":
            part = np.rot90(part, turns)
        return (part[:, ::-1] if mirrored and self.flips != "none" else part,)


@dataclass(frozen=True)
class ImageSource:
    """Images as samples of a `Loader`.

    Args:
        images: which.
        channels: 1 or 3.
        size: (height, width) that every image has or is made to have; None: any.
        fit: how an image of another size is made to have it: cut its middle out, stretch it, or not at all.
        least: the fewest pixels that a side must have.
        max_pixels: larger images are refused before they are decoded.
        most: larger images are cut to their middle of so many pixels; 0: never.
        variant: what is trained on, of an image.
    """

    images: Images
    channels: int
    size: tuple[int, int] | None
    fit: Literal["crop", "stretch"] | None
    least: int
    max_pixels: int
    most: int = 0
    variant: Callable[[Pixels, Key], Sample] = whole

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return self.images.origin.name(int(self.images.indices[index]))

    def load(self, index: int) -> Sample:
        image = self.images.origin.pixels(int(self.images.indices[index]), self.channels, self.max_pixels)
        height, width = image.shape[:2]
        if self.size is not None and self.size != (height, width):
            if self.fit is None:
                wanted = f"{self.size[1]}x{self.size[0]}"
                raise BadImage("odd-shape", f"{width}x{height}, the others are {wanted}: set data.size")
            image = fitted(image, self.size[0], self.fit)
            height, width = image.shape[:2]
        if min(height, width) < self.least:
            raise BadImage("odd-shape", f"{width}x{height} is smaller than {self.least} pixels")
        if self.most and max(height, width) > self.most:
            top, left = max(0, height - self.most) // 2, max(0, width - self.most) // 2
            image = image[
                top : top + self.most, left : left + self.most
            ].copy()  # not a view: it would keep all
        return (image,)

    def vary(self, images: Sample, key: Key) -> Sample:
        return self.variant(images[0], key)
