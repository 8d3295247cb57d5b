"""Paired images: their settings, and pairs as two arrays, resized and jittered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from genray.datasets.loader import Pixels, Sample
from genray.images.decode import BadImage, decode, read_image_file
from genray.images.resizing import resize
from genray.io.store import Store
from genray.settings.base import Location, Settings


class PairedSettings(Settings):
    """Settings of a store of image pairs."""

    path: Location = Field("data/fronts", description="folder or URI of the pairs")
    layout: Literal["auto", "side-by-side", "folders"] = Field(
        "auto", description="A|B in one file, or folders A and B matched by file stem"
    )
    direction: Literal["AtoB", "BtoA"] = Field(
        "BtoA", description="which half is the input; the paper's facades are photo|labels, so BtoA"
    )
    input_channels: Literal[1, 3, 4] = Field(3, description="1 gray, 3 RGB, 4 RGBA")
    target_channels: Literal[1, 3, 4] = Field(3, description="1 gray, 3 RGB, 4 RGBA")
    size: int = Field(
        256, ge=64, le=1024, multiple_of=32, description="pixels that are trained on (the crop)"
    )
    resize: int | None = Field(
        None,
        ge=0,
        le=2048,
        description="pixels before the crop; null: size * 286 / 256, 0: leave as they are",
    )
    flip: bool = Field(True, description="mirror half of the training pairs")
    val_share: float = Field(
        0.1, gt=0, lt=0.9, description="share held out where there is no val (or test) folder"
    )
    val_max: int = Field(1000, ge=1, description="score at most so many held-out pairs")
    max_bad_share: float = Field(
        0.05, ge=0, le=1, description="stop if more of the files than this are broken"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="refuse larger images before decoding them")
    loader: Literal["auto", "memory", "stream"] = Field(
        "auto", description="memory: decode once, in process; stream: Ray Data, every epoch"
    )
    memory_gb: float = Field(
        2.0, gt=0, description="decoded pairs larger than this are streamed (loader: auto)"
    )

    @property
    def load_size(self) -> int | None:
        """Pixels that an image is resized to before the crop; None: not resized."""
        if self.resize is None:
            return round(self.size * 286 / 256)
        return self.resize or None

    def for_validation(self) -> PairedSettings:
        """The same, but resized to the crop at once: a held-out pair is scored whole."""
        return self if self.resize == 0 else self.model_copy(update={"resize": self.size})

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize and self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) is smaller than the crop, size ({self.size})")
        return self


@dataclass(frozen=True)
class Pair:
    """Where a pair lies: one file side by side, or two files. `name` is the file of the input."""

    input: str
    target: str | None = None

    @property
    def name(self) -> str:
        """The path that stands for the pair in lists."""
        return self.input


class PairSource:
    """Pairs of a store as a loader's samples: (input, target).

    Args:
        store: where they lie.
        pairs: which.
        settings: how they are decoded, resized and jittered.
    """

    def __init__(self, store: Store, pairs: Sequence[Pair], settings: PairedSettings) -> None:
        import pyarrow as pa

        self._store, self._settings = store, settings
        self._inputs: Any = pa.array([pair.input for pair in pairs], pa.string())
        self._targets: Any = pa.array([pair.target for pair in pairs], pa.string())

    def __len__(self) -> int:
        return len(self._inputs)

    def name(self, index: int) -> str:
        return str(self._inputs[index])

    def load(self, index: int) -> Sample:
        pair = Pair(self._inputs[index].as_py(), self._targets[index].as_py())
        return load_pair(self._store, pair, self._settings)

    def vary(self, images: Sample, key: Sequence[int]) -> Sample:
        first, second = images
        return jitter((first, second), self._settings.size, self._settings.flip, key)


def load_pair(store: Store, pair: Pair, settings: PairedSettings) -> tuple[Pixels, Pixels]:
    """Read and decode one pair: (input, target), each (H, W, C) uint8, resized to `load_size` if set.

    Resizing is bicubic and ignores the aspect ratio, as the pix2pix paper's code does.

    Raises:
        BadImage: with its reason; the pair is to be set aside.
    """
    a_channels, b_channels = settings.input_channels, settings.target_channels
    if settings.direction == "BtoA":
        a_channels, b_channels = b_channels, a_channels
    if pair.target is None:
        both = _read(store, pair.input, max(a_channels, b_channels), settings.max_pixels)
        if both.shape[1] % 2:
            raise BadImage(
                "odd-shape", f"{both.shape[1]} pixels wide: two halves side by side need an even width"
            )
        half = both.shape[1] // 2
        a = _with_channels(both[:, :half], a_channels)
        b = _with_channels(both[:, half:], b_channels)
        first, second = (a, b) if settings.direction == "AtoB" else (b, a)
    else:
        first = _read(store, pair.input, settings.input_channels, settings.max_pixels)
        second = _read(store, pair.target, settings.target_channels, settings.max_pixels)
        if first.shape[:2] != second.shape[:2] and settings.load_size is None:
            raise BadImage(
                "odd-shape", f"{first.shape[1]}x{first.shape[0]} and {second.shape[1]}x{second.shape[0]}"
            )
    size = settings.load_size
    if size is None:
        if min(first.shape[:2]) < settings.size:
            raise BadImage(
                "odd-shape", f"{first.shape[1]}x{first.shape[0]} is smaller than the crop {settings.size}"
            )
        return first, second
    return resize(first, size), resize(second, size)


def jitter(pair: tuple[Pixels, Pixels], size: int, flip: bool, key: Sequence[int]) -> tuple[Pixels, Pixels]:
    """The paper's random jitter: the same random crop of `size` and mirroring for both images.

    `key` seeds it; the loaders use (seed, epoch, index), so a sample is the same whichever loader,
    worker or attempt makes it.
    """
    rng = np.random.default_rng(key)
    height, width = pair[0].shape[:2]
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    step = -1 if flip and rng.random() < 0.5 else 1
    first, second = (image[top : top + size, left : left + size][:, ::step] for image in pair)
    return first, second


def _read(store: Store, path: str, channels: int, max_pixels: int) -> Pixels:
    return decode(read_image_file(store, path), channels=channels, max_pixels=max_pixels)


def _with_channels(image: Pixels, channels: int) -> Pixels:
    if image.shape[-1] == channels:
        return np.ascontiguousarray(image)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    array = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert(mode))
    return array.reshape(*image.shape[:2], channels)
