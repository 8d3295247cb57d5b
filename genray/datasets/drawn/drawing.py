"""Drawn images as a data set, and in place of a share of the images of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from genray.datasets.drawn.pages import draw_page
from genray.datasets.drawn.scenes import draw_scene
from genray.images.decode import ImageHeader
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels

DrawnKind = Literal["scenes", "pages"]

_DRAWERS = {"scenes": draw_scene, "pages": draw_page}
_HELD_OUT = 0x4E1D  # first word of the seeds of images by index, which no variant's key begins with


def draw_image(kind: DrawnKind, shape: tuple[int, int, int], key: Sequence[int]) -> Pixels:
    """Draw an image of `shape` (height, width, 1 or 3), uint8; the same for the same `key`."""
    height, width, channels = shape
    image = _DRAWERS[kind](height, width, key)
    return image if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]


@dataclass(frozen=True)
class DrawnShare:
    """Share of the training images that is drawn, new ones in every epoch.

    Args:
        share: 0 to 1.
        kind: what is drawn.
        shape: height, width and channels of an image.
    """

    share: float
    kind: DrawnKind
    shape: tuple[int, int, int]

    @property
    def is_all(self) -> bool:
        """Whether every training image is drawn."""
        return self.share == 1

    def draw(self, key: Sequence[int]) -> Pixels | None:
        """Draw the image of `key`; None: this one is not drawn."""
        words = (1, *key)  # the variant of the image draws from the key itself
        if np.random.default_rng(words).random() >= self.share:
            return None
        return draw_image(self.kind, self.shape, (2, *key))


@dataclass(frozen=True)
class DrawnImages:
    """Drawn images by index: `StoredImages`, see `genray/datasets/layouts.py`.

    Args:
        count: number of images.
        kind: what is drawn.
        side: height and width in pixels.
        seed: seed of the images.
    """

    count: int
    kind: DrawnKind
    side: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"drawn/{self.kind}-{index}"

    def header(self, index: int) -> ImageHeader:
        return ImageHeader(self.side, self.side, is_gray=False)

    def size(self, index: int) -> int:
        return self.side * self.side * 3

    def data(self, index: int, limits: ReadLimits) -> bytes:
        return self.pixels(index, 3, limits).tobytes()

    def pixels(self, index: int, channels: int, limits: ReadLimits) -> Pixels:
        return draw_image(self.kind, (self.side, self.side, channels), (_HELD_OUT, self.seed, index))
