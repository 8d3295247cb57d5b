"""A set of single images, split into train, val and test: from idx files, folders or Parquet.

Single images as a loader's samples: decoded, made square, and varied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genray.datasets.idx import IdxImages
from genray.datasets.layouts import Content, Origin, read_store
from genray.datasets.loader import Sample
from genray.datasets.splits import hold_out, split_of
from genray.errors import DataError
from genray.images.pixels import Pixels, fit_square
from genray.io.bad_input import BadImage
from genray.io.store import open_store
from genray.settings.base import Location, Settings

Labels = NDArray[np.int64]


class ImageSetSettings(Settings):
    """Settings of a set of single images."""

    path: Location = Field("data/images", description="folder or URI of the images")
    test: Location | None = Field(
        None, description="another folder or URI, to judge on; null: the test part of path, if it has one"
    )
    layout: Literal["auto", "idx", "folder", "parquet"] = Field(
        "auto", description="idx: as MNIST; folder: image files at any depth; parquet: encoded images"
    )
    download: Literal["mnist", "fashion-mnist", "kmnist"] | None = Field(
        None,
        description="download this set into path first, if that is empty (torchvision's downloader)",
    )
    channels: Literal[1, 3] | None = Field(None, description="1 gray, 3 RGB; null: as some of the images are")
    size: int | None = Field(
        None, ge=8, le=4096, description="height and width in pixels; null: as the images are"
    )
    fit: Literal["crop", "stretch"] = Field(
        "crop", description="to a square: cut from the middle, or stretch"
    )
    val_share: float = Field(0.1, gt=0, lt=0.9, description="share held out where there is no val folder")
    val_max: int = Field(5000, ge=1, description="score at most so many held-out images each epoch")
    test_max: int = Field(50_000, ge=1, description="judge the final weights on at most so many images")
    max_bad_share: float = Field(
        0.05, ge=0, le=1, description="stop if more of the files than this are broken"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="refuse larger images before decoding them")
    loader: Literal["auto", "memory", "stream"] = Field(
        "auto", description="memory: decode once, in process; stream: Ray Data, every epoch"
    )
    memory_gb: float = Field(
        2.0, gt=0, description="decoded images larger than this are streamed (loader: auto)"
    )

    @model_validator(mode="after")
    def _local_download(self) -> Self:
        if self.download and "://" in self.path:
            raise ValueError("download needs a local folder as path")
        return self


@dataclass(frozen=True)
class Images:
    """Some images of an origin: which, and their labels if they have any."""

    origin: Origin
    indices: NDArray[np.int64]
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def some(self, most: int, seed: int) -> Images:
        """At most so many, drawn with `seed`, in order."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng([seed, most]).permutation(len(self))[:most]))

    def take(self, places: Sequence[int] | NDArray[np.int64] | slice) -> Images:
        """Those at `places`."""
        where = places if isinstance(places, slice) else np.asarray(places, np.int64)
        return Images(self.origin, self.indices[where], None if self.labels is None else self.labels[where])


@dataclass(frozen=True)
class ImageSet:
    """A set of images, split. `classes` are the names that labels stand for, in any part that has labels."""

    train: Images
    val: Images
    test: Images | None
    classes: tuple[str, ...]
    layout: str
    fingerprint: str
    split: str
    """How it was split, for the bundle."""


def open_image_set(settings: ImageSetSettings, seed: int) -> ImageSet:
    """List the images that `settings` name, without decoding them (but for idx files).

    Images of `settings.test` that lie below `settings.path` are not trained on, unless they lie in its
    folder train.

    Raises:
        DataError: no images, none to train on, or none to judge on where `settings.test` says so.
    """
    inside = None if settings.test is None else _inside(settings.path, settings.test)
    apart = inside if inside and not split_of(f"{inside}/x") else ""
    content = read_store(open_store(settings.path), settings.layout, apart)
    known, listed = dict(content.parts), list(content.listed)
    if settings.test is not None and inside != "":
        others = _read_test(settings.test)
        known["test"] = next(others.parts[p] for p in ("test", "val", "", "train") if p in others.parts)
        listed += others.listed
        if inside and split_of(f"{inside}/x") == "val":
            known.pop("val", None)  # what judges must not choose; another part is held out for that
    elif settings.test is not None and "test" not in known:
        raise DataError(
            f"data.test is data.path, {settings.path}, which has no test part",
            where="data.test",
            hint="give another folder, or null to judge on images that are held out",
        )
    parts, classes = _numbered(known)
    train, val, split = parts.get("train", parts.get("")), parts.get("val"), "by folders"
    if train is None:
        raise DataError(
            f"no images to train on under {settings.path}, only {', '.join(sorted(content.parts))}",
            where="data.path",
            hint="put them into a folder train beside the others",
        )
    if val is None:
        remaining, held = hold_out(range(len(train)), settings.val_share, seed)
        if not held:
            raise DataError(f"one image under {settings.path}: at least 2 are needed", where="data.path")
        train, val = train.take(remaining), train.take(held)
        split = f"{settings.val_share:g} held out by seed {seed}"
    if content.unused:
        split += f"; {content.unused} files beside the folder train left out"
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in listed).encode())
    for images in (train, parts.get("test")):
        if images is not None and isinstance(images.origin, IdxImages):
            digest.update(images.origin.images.tobytes())  # such sets all have the same names and sizes
    name = f"sha256:{digest.hexdigest()}"
    return ImageSet(train, val, parts.get("test"), classes, content.layout, name, split)


def look_at_headers(images: Images, most: int = 16) -> tuple[list[tuple[int, int]], bool]:
    """(width, height) of a few images that can be read, from the first to the last, and whether all of them
    are gray.

    Raises:
        DataError: none can be read.
    """
    sizes, gray = [], True
    some = np.unique(np.linspace(0, len(images) - 1, most).round().astype(np.int64))
    for index in images.indices[some].tolist():
        try:
            width, height, is_gray = images.origin.header(index)
        except (BadImage, OSError):
            continue
        sizes.append((width, height))
        gray &= is_gray
    if not sizes:
        raise DataError(
            f"none of {len(some)} images can be read, {images.origin.name(int(images.indices[0]))} for one",
            hint="check that they are PNG, JPEG or WebP files and open in a viewer",
        )
    return sizes, gray


def _inside(path: str, test: str) -> str | None:
    """The folder `test` relative to `path`: "" if it is the same, None if it is not in it."""
    if "://" in path or "://" in test:
        outer, inner = PurePosixPath(path), PurePosixPath(test)  # which also drops a slash at the end
    else:
        outer, inner = (PurePosixPath(Path(p).expanduser().resolve()) for p in (path, test))
    if inner == outer:
        return ""
    return inner.relative_to(outer).as_posix() if inner.is_relative_to(outer) else None


def _read_test(path: str) -> Content:
    try:
        return read_store(open_store(path), "auto")
    except DataError as error:
        hint = "give a folder of images, or null to judge on the test part of data.path"
        raise DataError(error.what, where=f"data.test={path}", hint=hint) from error


def _numbered(
    parts: Mapping[str, tuple[Origin, NDArray[Any] | None]],
) -> tuple[dict[str, Images], tuple[str, ...]]:
    """The parts with labels from 0 on, and the names that these stand for: the same in all parts."""
    found = {
        part: np.unique(known, return_inverse=True) for part, (_, known) in parts.items() if known is not None
    }
    names = {str(value) for values, _ in found.values() for value in values}
    classes = sorted(names, key=lambda name: (int(name), name) if name.isdecimal() else (np.inf, name))
    number = {name: i for i, name in enumerate(classes)}
    images = {}
    for part, (origin, known) in parts.items():
        labels = None
        if known is not None:
            values, places = found[part]
            labels = np.array([number[str(value)] for value in values], np.int64)[places]
        images[part] = Images(origin, np.arange(len(origin)), labels)
    return images, tuple(classes)


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
class SingleImageSource:
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
            image = fit_square(image, self.size[0], self.fit)
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
