"""A set of single images, split into train, val and test: from idx files, folders or Parquet."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genray.data.folder import FolderImages, classes_of
from genray.data.idx import find_idx
from genray.data.images import SUFFIXES, BadImage
from genray.data.loader import Pixels
from genray.data.parquet import read_parquet
from genray.data.splits import hold_out, split_of
from genray.data.store import Entry, Store
from genray.errors import DataError
from genray.settings import Location, Settings

Layout = Literal["idx", "folder", "parquet"]
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
    channels: Literal[1, 3] | None = Field(None, description="1 gray, 3 RGB; null: as the first images are")
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


class Origin(Protocol):
    """Images by index, wherever they lie."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The path that stands for the image in lists."""

    def header(self, index: int) -> tuple[int, int, bool]:
        """(width, height, whether it is gray); BadImage or OSError if that cannot be read."""

    def pixels(self, index: int, channels: int, max_pixels: int) -> Pixels:
        """(H, W, channels) uint8.

        Raises:
            BadImage: with its reason.
        """


@dataclass(frozen=True)
class Images:
    """Some images of an origin: which, and their labels if they have any."""

    origin: Origin
    indices: NDArray[np.int64]
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, places: Sequence[int] | NDArray[np.int64] | slice) -> Images:
        """Those at `places`."""
        where = places if isinstance(places, slice) else np.asarray(places, np.int64)
        return Images(self.origin, self.indices[where], None if self.labels is None else self.labels[where])


@dataclass(frozen=True)
class ImageSet:
    """A set of images, split. `classes` are the names that labels stand for."""

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

    Raises:
        DataError: no images, or none to train on.
    """
    store = Store(settings.path)
    parts, classes, layout, listed = _read(store, settings.layout)
    if settings.test is not None:
        there = Store(settings.test)
        others, _, _, more = _read(there, "auto")
        parts["test"] = next(others[part] for part in ("test", "val", "", "train") if part in others)
        listed = [*listed, *more]
    train, val, split = parts.get("train") or parts.get(""), parts.get("val"), "by folders"
    if train is None:
        raise DataError(
            f"no images to train on under {settings.path}, only {', '.join(sorted(parts))}",
            where="data.path",
            hint="put them into a folder train beside the others",
        )
    if val is None:
        remaining, held = hold_out(range(len(train)), settings.val_share, seed)
        if not held:
            raise DataError(f"one image under {settings.path}: at least 2 are needed", where="data.path")
        train, val = train.take(remaining), train.take(held)
        split = f"{settings.val_share:g} held out by seed {seed}"
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in listed).encode()).hexdigest()
    return ImageSet(
        train, val, parts.get("test"), classes, layout, fingerprint=f"sha256:{digest}", split=split
    )


def look_at_headers(images: Images, most: int = 16) -> tuple[list[tuple[int, int]], bool]:
    """(width, height) of the first few images that can be read, and whether all of them are gray.

    Raises:
        DataError: none can be read.
    """
    sizes, gray = [], True
    for index in images.indices[:most]:
        try:
            width, height, is_gray = images.origin.header(int(index))
        except (BadImage, OSError):
            continue
        sizes.append((width, height))
        gray &= is_gray
    if not sizes:
        name = images.origin.name(int(images.indices[0]))
        raise DataError(
            f"none of the first {min(most, len(images))} images can be read, {name} for one",
            hint="check that they are PNG, JPEG or WebP files and open in a viewer",
        )
    return sizes, gray


Parts = dict[str, Images]


def _read(store: Store, layout: str) -> tuple[Parts, tuple[str, ...], Layout, list[Entry]]:
    """Parts by name (train, val, test, "" for neither), the classes, the layout, and what was listed."""
    readers: dict[str, Callable[[Store], tuple[Parts, tuple[str, ...], list[Entry]] | None]] = {
        "idx": _read_idx,
        "parquet": _read_parquet,
        "folder": _read_folder,
    }
    for name, reader in readers.items():
        if layout in ("auto", name) and (found := reader(store)) is not None:
            return found[0], found[1], name, found[2]  # type: ignore[return-value]
    kinds = {"idx": "*-images-idx3-ubyte(.gz)", "parquet": "*.parquet", "folder": " ".join(SUFFIXES)}
    looked = ", ".join(kinds[name] for name in kinds if layout in ("auto", name))
    raise DataError(
        f"no images under {store.root}: looked for {looked}",
        where="data.path",
        hint="check the path, or download a set into it: data.download=mnist",
    )


def _read_idx(store: Store) -> tuple[Parts, tuple[str, ...], list[Entry]] | None:
    found = find_idx(store)
    if not found:
        return None
    parts = {part: Images(o, np.arange(len(o)), labels) for part, (o, labels) in found.items()}
    top = max((int(i.labels.max()) for i in parts.values() if i.labels is not None), default=-1)
    listed = store.list(("ubyte", "ubyte.gz"))
    return parts, tuple(str(i) for i in range(top + 1)), listed


def _read_parquet(store: Store) -> tuple[Parts, tuple[str, ...], list[Entry]] | None:
    entries = store.list((".parquet",))
    if not entries:
        return None
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[_split_of_file(entry.path)].append(entry)
    parts = {}
    for part, files in grouped.items():
        origin, labels = read_parquet(store, files)
        if len(origin):
            parts[part] = Images(origin, np.arange(len(origin)), labels)
    top = max((int(i.labels.max()) for i in parts.values() if i.labels is not None), default=-1)
    return parts, tuple(str(i) for i in range(top + 1)), entries


def _split_of_file(path: str) -> str:
    # train/0.parquet, or train-00000-of-00001.parquet as Hugging Face names them
    return split_of(path) or split_of(f"{path.rsplit('/', 1)[-1].replace('.', '-').split('-')[0]}/x")


def _read_folder(store: Store) -> tuple[Parts, tuple[str, ...], list[Entry]] | None:
    entries = store.list(SUFFIXES)
    if not entries:
        return None
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[split_of(entry.path)].append(entry)
    if "train" in grouped:
        grouped.pop("", None)  # beside the folder train: not part of the set
    names = {part: classes_of([entry.path for entry in files]) for part, files in grouped.items()}
    known = {name for part in names.values() for name in part}
    classes = tuple(sorted(known)) if "" not in known else ()
    number = {name: i for i, name in enumerate(classes)}
    parts = {}
    for part, files in grouped.items():
        labels = np.array([number[name] for name in names[part]], np.int64) if classes else None
        origin = FolderImages(store, [e.path for e in files])
        parts[part] = Images(origin, np.arange(len(files)), labels)
    return parts, classes, entries
