"""Data sets of single images: found, split into train, val and test, and as samples of a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genray.datasets.defects import DefectMasks
from genray.datasets.drawn.drawing import DrawnImages, DrawnKind, DrawnShare
from genray.datasets.idx import IdxImages
from genray.datasets.layouts import Content, ParquetReading, StoredImages, StoredPart, read_place
from genray.datasets.loader import Sample
from genray.datasets.overlap import find_overlap, note_overlap, refuse_overlap
from genray.datasets.splits import hold_out, hold_out_of_classes, split_of
from genray.datasets.values import WindowSetting
from genray.errors import DataError
from genray.images.arrays import MOST_CHANNELS
from genray.images.decode import ImageHeader
from genray.images.image_file import Levels
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, Window, crop_middle, fit_square
from genray.io.bad_input import BadImage
from genray.io.file_types import FileCounts
from genray.io.kinds import READ_TITLES
from genray.io.listing import find_place, root_of
from genray.io.store import Entry
from genray.settings.base import Location, Settings

Labels = NDArray[np.int64]
Flips = Literal["none", "mirror", "all"]
LABEL_SHAPE = (1, 1, 4)
"""Shape of `label_part`."""
Key = Sequence[int]
"""Seed of a variant of a sample, such as (seed, epoch, index)."""


class _SetSettings(Settings):
    """Settings of the images, of their size and channels, and of loading."""

    path: Location = Field(
        "data/images",
        description="images to train on: a folder, a pattern (photos/**/*.png), one file, or a URI",
    )
    test: Location | None = Field(
        None,
        description="images to judge on: another folder or URI (null: the test part of path, if it has one)",
    )
    layout: Literal["auto", "idx", "folder", "parquet", "webdataset"] = Field(
        "auto",
        description="layout of the data (idx: as MNIST; folder: image files at any depth; parquet: rows "
        "of encoded "
        "images; webdataset: tar shards; auto: the one that is there; several are refused)",
    )
    column: str | None = Field(
        None,
        description="Parquet column that contains the images (null: the one whose values are images; several "
        "are refused)",
    )
    max_unfolded_gb: float = Field(
        4.0,
        gt=0,
        description="gigabytes in memory above which a Parquet file is refused, if they are also more "
        "than 100 "
        "times its size",
    )
    drawn: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the training images that the program draws, new ones in every epoch (0: none; "
        "1: all, path is not read)",
    )
    drawn_kind: DrawnKind = Field(
        "scenes",
        description="kind of the drawn images (scenes: in place of photographs; pages: text, tables and line "
        "art)",
    )
    drawn_images: int = Field(
        1000, ge=2, description="number of images of which val_share is held out, if all are drawn"
    )
    drawn_size: int = Field(
        256,
        ge=16,
        le=4096,
        description="height and width of held-out drawn images in pixels, and of all where size is null and "
        "the network takes one size",
    )
    download: Literal["mnist", "fashion-mnist", "kmnist"] | None = Field(
        None,
        description="data set to download into path first, if that is empty (null: none)",
    )
    channels: int | None = Field(
        None,
        ge=1,
        le=MOST_CHANNELS,
        description="channels (1: gray, 3: RGB, 4: RGBA, others: those of the files; null: gray if all of a "
        "sample of the images are, RGB for colour, and the number of other channels if all have the same)",
    )
    window: WindowSetting | None = Field(
        None,
        description="levels that become black and white, such as [0, 4095] (percentiles: the 0.1 % and "
        "99.9 % levels of a sample of the training images; null: 0 and the largest level, of floats 0 and 1)",
    )
    size: int | None = Field(
        None, ge=8, le=4096, description="height and width in pixels (null: those of the images)"
    )
    fit: Literal["crop", "stretch"] = Field(
        "crop",
        description="way to make an image square (crop: cut from the middle, stretch: resize both sides)",
    )
    val_share: float = Field(
        0.1,
        gt=0,
        lt=0.9,
        description="share of the images that is held out (0 to 1), where there is no val folder",
    )
    val_max: int = Field(
        5000, ge=1, description="largest number of held-out images that are scored each epoch"
    )
    test_max: int = Field(
        50_000, ge=1, description="largest number of images that the final weights are judged on"
    )
    allow_shared: bool = Field(
        False, description="train although an image to judge on is also trained on, byte for byte"
    )
    max_bad_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="largest share of broken files (0 to 1); with more the training does not start",
    )
    loader: Literal["auto", "memory", "stream"] = Field(
        "auto",
        description="way to load samples (memory: decode once, in this process; stream: decode in every "
        "epoch, by Ray Data; auto: by memory_gb)",
    )
    memory_gb: float = Field(
        2.0, gt=0, description="gigabytes of decoded images above which loader=auto streams them"
    )

    @model_validator(mode="after")
    def _nothing_drawn_is_labelled(self) -> Self:
        if self.drawn == 1 and self.download:
            raise ValueError("download has no use with drawn=1, which reads no images from path")
        return self

    @model_validator(mode="after")
    def _local_download(self) -> Self:
        if self.download and "://" in self.path:
            raise ValueError("download needs a local folder as path")
        return self


class ImageSetSettings(ReadLimits, _SetSettings):
    """Settings of a set of single images."""

    has_defects: ClassVar[bool] = False
    """True for sets of normal images and images with defects, whose masks are no images."""


@dataclass(frozen=True)
class Images:
    """Selection of stored images, with their labels if they have any."""

    stored: StoredImages
    indices: NDArray[np.int64]
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, most: int, seed: int) -> Images:
        """Return at most `most` of the images, drawn with `seed`, in order."""
        if len(self) <= most:
            return self
        return self.select(np.sort(np.random.default_rng([seed, most]).permutation(len(self))[:most]))

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self.stored.name(int(self.indices[index]))

    def size(self, index: int) -> int:
        """Return the stored bytes of an image."""
        return self.stored.size(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """Return the stored image; an OSError or BadImage if it cannot be read."""
        return self.stored.data(int(self.indices[index]), ReadLimits())

    def picture(self, index: int) -> Pixels:
        """Return the image (H, W, 3); BadImage if it cannot be decoded."""
        return self.stored.pixels(int(self.indices[index]), 3, ReadLimits())

    def levels(self, most: int, limits: ReadLimits) -> list[Levels]:
        """Return the levels of at most `most` readable images, spread over the set."""
        found = []
        for index in self.spread(most):
            try:
                found.append(self.stored.levels(index, limits))
            except BadImage:
                continue
        return found

    def spread(self, most: int) -> list[int]:
        """Return the stored indices of at most `most` images, spread over the set."""
        places = np.unique(np.linspace(0, len(self) - 1, most).round().astype(np.int64))
        spread: list[int] = self.indices[places].tolist()
        return spread

    def select(self, places: Sequence[int] | NDArray[np.int64] | slice) -> Images:
        """Return the images at `places`."""
        where = places if isinstance(places, slice) else np.asarray(places, np.int64)
        return Images(self.stored, self.indices[where], None if self.labels is None else self.labels[where])


@dataclass(frozen=True)
class ImageSet:
    """Data set of images, split. Labels are indices of `classes`, in every part that has labels."""

    train: Images
    val: Images
    test: Images | None
    classes: tuple[str, ...]
    layout: str
    fingerprint: str
    split: str
    """Rule of the split, for the bundle."""
    counts: FileCounts = field(default_factory=FileCounts)
    """Number of files of each type at the place."""
    defects: DefectMasks | None = None
    """Masks of the defects in the images that judge."""

    def without_shared(self, *, allowed: bool) -> tuple[ImageSet, list[str]]:
        """Return the set without images that the seed held out although they are also trained on, and notes.

        Args:
            allowed: accept images that the data has on both sides of its own split.

        Raises:
            DataError: the data has an image on both sides of its own split, which is not allowed.
        """
        notes: list[str] = []
        parts: dict[str, Images] = {}
        if isinstance(self.train.stored, DrawnImages):
            return self, notes
        for part, images in (("val", self.val), ("test", self.test)):
            if images is None:
                continue
            if images.stored is self.train.stored:  # the seed split them
                overlap = find_overlap(self.train, images, pictures=False)
                if overlap.same:
                    kept = np.setdiff1d(np.arange(len(images)), [held for held, _ in overlap.same])
                    parts[part] = images.select(kept) if len(kept) else images
                    notes.append(note_overlap(overlap, removed=len(kept) > 0))
            elif not allowed:
                notes += refuse_overlap(find_overlap(self.train, images), self.train, images, part)
        return replace(self, val=parts.get("val", self.val), test=parts.get("test", self.test)), notes


def open_image_set(settings: ImageSetSettings, seed: int) -> ImageSet:
    """List the images of `settings` without decoding them (idx files are decoded).

    Images of `settings.test` that lie below `settings.path` are not trained on, unless they lie in its
    folder train.

    Raises:
        DataError: no images, none to train on, or none at `settings.test`.
    """
    if settings.drawn == 1:
        return _drawn_set(settings, seed)
    inside = None if settings.test is None else _inside(settings.path, settings.test)
    apart = inside if inside and not split_of(f"{inside}/x") else ""
    parquet = ParquetReading(settings.column, settings.max_unfolded_gb)
    defects = settings.has_defects
    content = read_place(find_place(settings.path, apart), settings.layout, parquet, defects=defects)
    counts = content.counts
    stored = dict(content.parts)
    listed = list(content.listed)
    masks = content.defects
    if settings.test is not None and inside != "":
        others = _read_test(settings.test, parquet, defects=defects)
        counts.add(others.counts)
        stored["test"] = next(others.parts[p] for p in ("test", "val", "", "train") if p in others.parts)
        listed += others.listed
        masks = others.defects
        if inside and split_of(f"{inside}/x") == "val":
            # Images to judge on must not also choose the weights: others are held out for that.
            stored.pop("val", None)
    elif settings.test is not None and "test" not in stored:
        raise DataError(
            f"data.test is data.path, {settings.path}, which has no test part",
            where="data.test",
            hint="give another folder, or set data.test=null to judge on held-out images",
        )
    parts, classes = _labelled(stored)
    train = parts.get("train", parts.get(""))
    if train is None:
        raise DataError(
            f"no images to train on under {settings.path}, only {', '.join(sorted(content.parts))}",
            where="data.path",
            hint="put them into a folder train beside the others",
        )
    test = parts.get("test")
    fingerprint = _fingerprint(listed, train, test)
    val = parts.get("val")
    split = "by folders"
    if val is None:
        remaining, held_out = hold_out_of_classes(len(train), train.labels, settings.val_share, seed)
        if not held_out:
            raise DataError(f"one image under {settings.path}: at least 2 are needed", where="data.path")
        val = train.select(held_out)
        train = train.select(remaining)
        of_each = " of each class" if len(classes) > 1 and train.labels is not None else ""
        split = f"{settings.val_share:g}{of_each} held out by seed {seed}"
    if content.unused:
        split += f"; {content.unused} files beside the folder train left out, in {content.unused_in}"
    if content.masks:
        split += f"; {content.masks} masks of defects are not images"
    if settings.drawn:
        split += f"; {settings.drawn:.0%} of the training images are drawn ({settings.drawn_kind})"
    return ImageSet(train, val, test, classes, content.layout, fingerprint, split, counts, masks)


def _drawn_set(settings: ImageSetSettings, seed: int) -> ImageSet:
    """Return the set of which every image is drawn, but for those of `settings.test`."""
    count, kind = settings.drawn_images, settings.drawn_kind
    drawn = DrawnImages(count, kind, settings.size or settings.drawn_size, seed)
    remaining, held_out = hold_out(range(count), settings.val_share, seed)
    images = Images(drawn, np.arange(count))
    parts: dict[str, Images] = {}
    counts = FileCounts()
    listed: list[Entry] = []
    if settings.test is not None:
        others = _read_test(
            settings.test, ParquetReading(settings.column, settings.max_unfolded_gb), defects=False
        )
        counts, listed = others.counts, others.listed
        stored = next(others.parts[part] for part in ("test", "val", "", "train") if part in others.parts)
        parts["test"] = Images(stored.images, np.arange(len(stored.images)))
    return ImageSet(
        images.select(remaining),
        images.select(held_out),
        parts.get("test"),
        (),
        "drawn",
        _fingerprint(listed, parts.get("test")),
        f"all training images are drawn ({kind}, seed {seed}), {len(held_out)} held out",
        counts,
    )


def look_at_headers(images: Images, most: int = 16) -> tuple[list[tuple[int, int]], int]:
    """Return (width, height) of up to `most` readable images spread over the set, and their channels.

    Returns:
        the sizes, and 1 if all images are gray, 3 if they are gray or RGB, else the number of channels.

    Raises:
        DataError: none of them can be read, or they have several numbers of channels other than 1 and 3.
    """
    headers: dict[int, ImageHeader] = {}
    looked_at = images.spread(most)
    for index in looked_at:
        try:
            headers[index] = images.stored.header(index)
        except BadImage:
            continue
    if not headers:
        raise DataError(
            f"none of {len(looked_at)} images can be read, {images.name(0)} for one",
            hint=f"check that they are {READ_TITLES} files and open in a viewer",
        )
    sizes = [(header.width, header.height) for header in headers.values()]
    examples = {header.channels: images.stored.name(index) for index, header in headers.items()}
    if len(examples) > 1 and not examples.keys() <= {1, 3}:
        each = ", ".join(f"{channels} ({name})" for channels, name in sorted(examples.items()))
        raise DataError(
            f"the images have several numbers of channels: {each}",
            where="data.channels",
            hint=f"set data.channels={max(examples)}, or another of them; the others are set aside "
            "(data.max_bad_share)",
        )
    return sizes, max(examples)


def whole_image(image: Pixels, key: Key) -> Sample:
    """Return the image unchanged, for trainings without augmentation."""
    return (image,)


@dataclass(frozen=True)
class Patch:
    """Random crop of an image, rotated and mirrored, to train restoration networks on.

    Args:
        size: height and width in pixels.
        flips: mirroring (none; mirror: left to right; all: also quarter turns).
    """

    size: int
    flips: Flips = "all"

    def __call__(self, image: Pixels, key: Key) -> Sample:
        rng = np.random.default_rng(key)
        top, left = (int(rng.integers(side - self.size + 1)) for side in image.shape[:2])
        part = image[top : top + self.size, left : left + self.size]
        turns = int(rng.integers(4))
        mirrored = rng.random() < 0.5
        if self.flips == "all":
            part = np.rot90(part, turns)
        return (part[:, ::-1] if mirrored and self.flips != "none" else part,)


@dataclass(frozen=True)
class SingleImageSource:
    """Images as samples of a `Loader`: reads one, checks its size, and makes its variant.

    Args:
        images: the images.
        channels: number of channels.
        size: (height, width) of every sample (None: that of the image).
        fit: way to bring an image to `size` (crop its middle, stretch it; None: refuse it).
        least: smallest side in pixels.
        limits: limits on files, checked before they are decoded.
        most: side in pixels above which an image is cropped to its middle (0: never).
        variant: makes the sample to train on from an image.
        window: levels that become black and white.
        drawn: images that are drawn in place of those read (None: none).
        labelled: whether the class of an image is the last part of its samples, see `label_part`.
    """

    images: Images
    channels: int
    size: tuple[int, int] | None
    fit: Literal["crop", "stretch"] | None
    least: int
    limits: ReadLimits
    most: int = 0
    variant: Callable[[Pixels, Key], Sample] = whole_image
    window: Window | None = None
    drawn: DrawnShare | None = None
    labelled: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return self.images.stored.name(int(self.images.indices[index]))

    def load(self, index: int) -> Sample:
        if self.drawn is not None and self.drawn.is_all:
            return (np.empty((0, 0, self.channels), np.uint8),)  # every variant is drawn
        place = int(self.images.indices[index])
        image = self.images.stored.pixels(place, self.channels, self.limits, self.window)
        if self.size is not None and self.size != image.shape[:2]:
            if self.fit is None:
                height, width = self.size
                raise BadImage(
                    "odd-shape",
                    f"{image.shape[1]}x{image.shape[0]}, the others are {width}x{height}: set data.size",
                )
            image = fit_square(image, self.size[0], self.fit)
        height, width = image.shape[:2]
        if min(height, width) < self.least:
            raise BadImage("odd-shape", f"{width}x{height} is smaller than {self.least} pixels")
        if self.most and max(height, width) > self.most:
            image = crop_middle(image, self.most).copy()  # a view would keep the whole image in memory
        if self.labelled:
            assert self.images.labels is not None, "images without classes have no labels"
            return image, label_part(int(self.images.labels[index]))
        return (image,)

    def vary(self, images: Sample, key: Key) -> Sample:
        drawn = None if self.drawn is None else self.drawn.draw(key)
        return (*self.variant(images[0] if drawn is None else drawn, key), *images[1:])


def label_part(label: int) -> Pixels:
    """Return a class as a part of a sample, which loaders pass on as they do images: its four bytes, lowest
    first, as the channels of one pixel."""
    return np.array([[[label]]], "<i4").view(np.uint8)


def labels_of(part: NDArray[np.uint8]) -> Labels:
    """Return the classes in a batch of `label_part`, (N, 1, 1, 4) -> (N,)."""
    return np.ascontiguousarray(part).view("<i4").reshape(len(part)).astype(np.int64)


def _inside(path: str, test: str) -> str | None:
    """Return the folder `test` relative to `path` ("": the same folder, None: not inside it)."""
    path = root_of(path)
    if "://" in path or "://" in test:
        outer, inner = PurePosixPath(path), PurePosixPath(test)  # drops a slash at the end
    else:
        outer, inner = (PurePosixPath(Path(p).expanduser().resolve()) for p in (path, test))
    if inner == outer:
        return ""
    return inner.relative_to(outer).as_posix() if inner.is_relative_to(outer) else None


def _read_test(path: str, parquet: ParquetReading, *, defects: bool) -> Content:
    try:
        return read_place(find_place(path), "auto", parquet, defects=defects)
    except DataError as error:
        hint = "give a folder of images, or set data.test=null to judge on the test part of data.path"
        raise DataError(error.what, where=f"data.test={path}", hint=hint) from error


def _fingerprint(listed: Sequence[Entry], *parts: Images | None) -> str:
    """Return a hash of names and sizes, and of the pixels of idx files, whose names and sizes are always
    the same."""
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in listed).encode())
    for images in parts:
        if images is not None and isinstance(images.stored, IdxImages):
            digest.update(images.stored.images.tobytes())
    return f"sha256:{digest.hexdigest()}"


def _labelled(parts: Mapping[str, StoredPart]) -> tuple[dict[str, Images], tuple[str, ...]]:
    """Return the parts with labels from 0 on, and the class names, common to all parts."""
    values = {
        name: np.unique(part.classes, return_inverse=True)
        for name, part in parts.items()
        if part.classes is not None
    }
    names = {str(value) for of_part, _ in values.values() for value in of_part}
    classes = sorted(names, key=lambda name: (int(name), name) if name.isdecimal() else (np.inf, name))
    number = {name: i for i, name in enumerate(classes)}
    images = {}
    for name, part in parts.items():
        labels = None
        if name in values:
            of_part, places = values[name]
            labels = np.array([number[str(value)] for value in of_part], np.int64)[places]
        images[name] = Images(part.images, np.arange(len(part.images)), labels)
    return images, tuple(classes)
