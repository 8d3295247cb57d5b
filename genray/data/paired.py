"""Paired images: where the pairs lie, which are for training, and one pair as two arrays."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from genray.data.images import MAX_FILE_BYTES, SUFFIXES, BadImage, decode, image_size
from genray.data.store import Entry, Store
from genray.errors import DataError
from genray.settings import Location, Settings

Pixels = NDArray[np.uint8]
_A_NAMES, _B_NAMES = ("A", "a", "input"), ("B", "b", "target")
_CYCLEGAN = {f"{split}{side}" for split in ("train", "val", "test") for side in "AB"}  # trainA, trainB ...


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


@dataclass(frozen=True)
class BadPair:
    """A pair that was set aside."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Pairs:
    """The pairs of a store, split, and those already known to be bad."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    bad: tuple[BadPair, ...]
    fingerprint: str
    layout: str


def find_pairs(store: Store, settings: PairedSettings, seed: int) -> Pairs:
    """List the pairs under the root of `store`, reading names and a few headers only.

    Folders `train` and `val` (or `test`) give the split; without them `val_share` of the pairs is
    drawn with `seed`. Two folders are `A` and `B` (or `input` and `target`), above or below the split.

    Raises:
        DataError: no pairs, or images smaller than the crop.
    """
    entries = store.list(SUFFIXES)
    if not entries:
        raise DataError(
            f"no images ({' '.join(SUFFIXES)}) under {store.root}",
            where="data.path",
            hint="point data.path at the folder of train and val, or make pairs to try: genray fronts FOLDER",
        )
    layout = settings.layout
    if layout == "auto":
        folders = {part for entry in entries for part in PurePosixPath(entry.path).parts[:-1]}
        layout = "folders" if folders & {*_A_NAMES, *_B_NAMES, *_CYCLEGAN} else "side-by-side"
    by_split: dict[str, list[Pair]] = defaultdict(list)
    bad: list[BadPair] = []
    if layout == "folders":
        bad += _match_folders(entries, by_split, settings.direction)
    else:
        for entry in entries:
            by_split[_split_of(entry.path)].append(Pair(entry.path))
    train, val = _split(by_split, settings.val_share, seed)
    if not train or not val:
        raise DataError(
            f"no pairs for {'training' if not train else 'validation'} under {store.root} "
            f"({len(entries)} images, layout {layout})",
            where="data.path",
            hint="side by side: one file holds A|B; folders: A/name.png and B/name.png; see data.layout",
        )
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in entries).encode()).hexdigest()
    pairs = Pairs(tuple(train), tuple(val), tuple(bad), f"sha256:{digest}", layout)
    _check_headers(store, pairs, settings)
    return pairs


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


def resize(image: Pixels, size: int) -> Pixels:
    """(H, W, C) uint8 -> (size, size, C) uint8, bicubic, with antialiasing when it shrinks."""
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    plain = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    array = np.asarray(plain.resize((size, size), Image.Resampling.BICUBIC))
    return array.reshape(size, size, image.shape[-1])


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
    try:
        data = store.read(path, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error
    if len(data) > MAX_FILE_BYTES:
        raise BadImage("too-large", f"more than {MAX_FILE_BYTES} bytes")
    return decode(data, channels=channels, max_pixels=max_pixels)


def _with_channels(image: Pixels, channels: int) -> Pixels:
    if image.shape[-1] == channels:
        return np.ascontiguousarray(image)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    array = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert(mode))
    return array.reshape(*image.shape[:2], channels)


def _split_of(path: str) -> str:
    """train, val or "" (neither) by the folders of `path`."""
    parts = PurePosixPath(path).parts[:-1]
    for part in parts:
        name = (part[:-1] if part in _CYCLEGAN else part).lower()
        if name == "train":
            return "train"
        if name in ("val", "valid", "validation", "test"):
            return "test" if name == "test" else "val"
    return ""


def _side_of(path: str) -> tuple[str, str]:
    """("A" or "B" or "", what remains of the path without that folder and the suffix)."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    for i, part in enumerate(parts[:-1]):
        if part in _A_NAMES or part in _B_NAMES:
            side = "A" if part in _A_NAMES else "B"
            return side, "/".join(parts[:i] + parts[i + 1 :])
        if part in _CYCLEGAN:
            return part[-1], "/".join([*parts[:i], part[:-1], *parts[i + 1 :]])
    return "", ""


def _match_folders(
    entries: Sequence[Entry], by_split: dict[str, list[Pair]], direction: str
) -> list[BadPair]:
    sides: dict[str, dict[str, str]] = {"A": {}, "B": {}}
    for entry in entries:
        side, key = _side_of(entry.path)
        if side:
            sides[side][key] = entry.path
    first, second = (sides["A"], sides["B"]) if direction == "AtoB" else (sides["B"], sides["A"])
    for key in sorted(first.keys() & second.keys()):
        by_split[_split_of(first[key])].append(Pair(first[key], second[key]))
    alone = sorted(first.keys() ^ second.keys())
    return [BadPair(first.get(k) or second[k], "odd-shape", "no partner of the same stem") for k in alone]


def _split(by_split: dict[str, list[Pair]], val_share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    train, val = by_split["train"], by_split["val"] or by_split["test"]
    if not train and not val:
        train = by_split[""]
    if train and not val and len(train) > 1:
        order = np.random.default_rng([seed, 0x5EED]).permutation(len(train))
        count = max(1, round(len(train) * val_share))
        held = set(order[:count].tolist())
        val = [pair for i, pair in enumerate(train) if i in held]
        train = [pair for i, pair in enumerate(train) if i not in held]
    return train, val


def _check_headers(store: Store, pairs: Pairs, settings: PairedSettings, most: int = 16) -> None:
    """Read a few headers, so that a wrong layout or size is found in a second, not in an hour."""
    readable = 0
    for pair in pairs.train[:most]:
        try:
            width, height = image_size(store.read(pair.input, MAX_FILE_BYTES))
        except (BadImage, OSError):
            continue
        readable += 1
        if pair.target is None:
            if width % 2:
                raise DataError(
                    f"{pair.input} is {width} pixels wide, which is odd: it cannot hold two halves",
                    where=f"data.layout={pairs.layout}",
                    hint="for two folders use data.layout=folders with A/ and B/ below data.path",
                )
            width //= 2
        if settings.load_size is None and min(width, height) < settings.size:
            raise DataError(
                f"{pair.input} is {width}x{height}, smaller than the crop of {settings.size} pixels",
                where="data.size",
                hint=f"set data.size={max(64, min(width, height) // 32 * 32)}, or let data.resize enlarge it",
            )
    if not readable:
        raise DataError(
            f"none of the first {min(most, len(pairs.train))} images can be read",
            where=store.root,
            hint="check that they are PNG, JPEG or WebP files and open in a viewer",
        )
