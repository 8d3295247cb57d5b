"""Paired images: which files of a store make pairs, which of the pairs are held out, and pairs as samples
of a loader, resized and jittered as in the pix2pix paper."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from genray.datasets.loader import Sample
from genray.datasets.splits import CYCLEGAN, hold_out, split_of
from genray.errors import DataError
from genray.images.decode import read_header, read_image, to_channels
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, resize
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts
from genray.io.kinds import READ_TITLES
from genray.io.listing import ImageFiles, Place, nothing_to_read
from genray.io.store import Entry, Store
from genray.settings.base import Location, Settings

_A_FOLDERS = ("A", "a", "input")
_B_FOLDERS = ("B", "b", "target")
_CHECKED = 16  # pairs whose headers are looked at before a training


class _PairSettings(Settings):
    """Settings of the pairs: which, their form, and how they are loaded."""

    path: Location = Field(
        "data/fronts", description="pairs to train on: a folder, a pattern (photos/**/*.png), or a URI"
    )
    layout: Literal["auto", "side-by-side", "folders"] = Field(
        "auto",
        description="layout of the pairs (side-by-side: A and B in one file, folders: A and B matched by "
        "file stem, auto: by the names)",
    )
    direction: Literal["AtoB", "BtoA"] = Field(
        "BtoA",
        description="direction of the translation (AtoB: A is the input; BtoA: B is, as in the facades of "
        "the paper)",
    )
    input_channels: Literal[1, 3, 4] = Field(
        3, description="channels of the input (1: gray, 3: RGB, 4: RGBA)"
    )
    target_channels: Literal[1, 3, 4] = Field(
        3, description="channels of the target (1: gray, 3: RGB, 4: RGBA)"
    )
    size: int = Field(
        256,
        ge=64,
        le=1024,
        multiple_of=32,
        description="height and width of the crop that is trained on, in pixels",
    )
    resize: int | None = Field(
        None,
        ge=0,
        le=2048,
        description="height and width before the crop, in pixels (null: size * 286 / 256, 0: as they are)",
    )
    flip: bool = Field(True, description="mirror half of the training pairs left to right")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=0.9,
        description="share of the pairs that is held out (0 to 1), where there is no val or test folder",
    )
    val_max: int = Field(1000, ge=1, description="largest number of held-out pairs that are scored")
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
        2.0, gt=0, description="gigabytes of decoded pairs above which loader=auto streams them"
    )

    @property
    def load_size(self) -> int | None:
        """Pixels that an image is resized to before the crop; None: not resized."""
        if self.resize is None:
            return round(self.size * 286 / 256)
        return self.resize or None

    def for_validation(self) -> Self:
        """The same, but resized to the crop at once: a held-out pair is scored whole."""
        return self if self.resize == 0 else self.model_copy(update={"resize": self.size})

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize and self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) is smaller than the crop, size ({self.size})")
        return self


class PairedSettings(ReadLimits, _PairSettings):
    """Settings of a store of image pairs."""


@dataclass(frozen=True)
class Pair:
    """Where a pair lies: one file side by side, or two files."""

    input: str
    target: str | None = None

    @property
    def name(self) -> str:
        """The path that stands for the pair in lists: the file of the input."""
        return self.input


@dataclass(frozen=True)
class Pairs:
    """The pairs of a store, split, and those already known to be bad."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    bad: tuple[BadInput, ...]
    fingerprint: str
    layout: str
    pixels: float
    """Of one image, the mean of a few."""
    counts: FileCounts
    """The files where they lie, by type."""


def find_pairs(place: Place, settings: PairedSettings, seed: int) -> Pairs:
    """List the pairs at `place`, reading names and a few headers only.

    Folders `train` and `val` (or `test`) give the split; without them `val_share` of the pairs is
    drawn with `seed`. Two folders are `A` and `B` (or `input` and `target`), above or below the split.

    Raises:
        DataError: no pairs, or images smaller than the crop.
    """
    store = place.store
    counts = FileCounts()
    entries = sorted(ImageFiles().list(place, counts), key=lambda entry: entry.path)
    if not entries:
        missing = nothing_to_read(place.location, ["files"], counts, where="data.path")
        raise DataError(
            missing.what,
            where=missing.where,
            hint="point data.path at the folder of train and val, or make pairs to try: genray fronts FOLDER",
        )
    layout = _layout_of(entries) if settings.layout == "auto" else settings.layout
    matched = _side_by_side(entries) if layout == "side-by-side" else _by_folder(entries, settings.direction)
    train, val = _split(matched.by_split, settings.val_share, seed)
    if not train or not val:
        raise DataError(
            f"no pairs for {'training' if not train else 'validation'} under {store.root} "
            f"({len(entries)} images, layout {layout}; at least 2 pairs are needed)",
            where="data.path",
            hint="side by side: one file holds A|B; folders: A/name.png and B/name.png; see data.layout",
        )
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in entries).encode()).hexdigest()
    pixels = _check_headers(store, train[:_CHECKED], layout, settings)
    return Pairs(tuple(train), tuple(val), tuple(matched.bad), f"sha256:{digest}", layout, pixels, counts)


@dataclass(frozen=True)
class PairSource:
    """Pairs of a store as a loader's samples: (input, target).

    Args:
        store: where they lie.
        inputs: the path of each input, an Arrow array, see `SampleSource`.
        targets: that of each target; null where it is the other half of the input's file.
        settings: how they are decoded, resized and jittered.
    """

    store: Store
    inputs: Any
    targets: Any
    settings: PairedSettings

    @classmethod
    def of_pairs(cls, store: Store, pairs: Sequence[Pair], settings: PairedSettings) -> PairSource:
        """The samples that `pairs` of `store` are."""
        import pyarrow as pa

        inputs = pa.array([pair.input for pair in pairs], pa.string())
        targets = pa.array([pair.target for pair in pairs], pa.string())
        return cls(store, inputs, targets, settings)

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        return str(self.inputs[index])

    def load(self, index: int) -> Sample:
        pair = Pair(self.inputs[index].as_py(), self.targets[index].as_py())
        return load_pair(self.store, pair, self.settings)

    def vary(self, images: Sample, key: Sequence[int]) -> Sample:
        first, second = images
        return jitter((first, second), self.settings.size, key, flip=self.settings.flip)


def load_pair(store: Store, pair: Pair, settings: PairedSettings) -> tuple[Pixels, Pixels]:
    """Read and decode one pair: (input, target), each (H, W, C) uint8, resized to `load_size` if set.

    Resizing is bicubic and ignores the aspect ratio, as the pix2pix paper's code does.

    Raises:
        BadImage: with its reason; the pair is to be set aside.
    """
    if pair.target is None:
        first, second = _load_halves(store, pair.input, settings)
    else:
        first = read_image(store, pair.input, channels=settings.input_channels, limits=settings)
        second = read_image(store, pair.target, channels=settings.target_channels, limits=settings)
        if first.shape[:2] != second.shape[:2] and settings.load_size is None:
            raise BadImage(
                "odd-shape", f"{first.shape[1]}x{first.shape[0]} and {second.shape[1]}x{second.shape[0]}"
            )
    size = settings.load_size
    if size is not None:
        return resize(first, size), resize(second, size)
    if min(first.shape[:2]) < settings.size:
        raise BadImage(
            "odd-shape", f"{first.shape[1]}x{first.shape[0]} is smaller than the crop {settings.size}"
        )
    return first, second


def jitter(
    pair: tuple[Pixels, Pixels], size: int, key: Sequence[int], *, flip: bool
) -> tuple[Pixels, Pixels]:
    """The paper's random jitter: the same random crop of `size` and mirroring for both images.

    `key` seeds it; the loaders use (seed, epoch, index), so a sample is the same whichever loader,
    worker or attempt makes it.
    """
    rng = np.random.default_rng(key)
    height, width = pair[0].shape[:2]
    top = rng.integers(height - size + 1)
    left = rng.integers(width - size + 1)
    step = -1 if flip and rng.random() < 0.5 else 1
    first, second = (image[top : top + size, left : left + size][:, ::step] for image in pair)
    return first, second


def _load_halves(store: Store, path: str, settings: PairedSettings) -> tuple[Pixels, Pixels]:
    """Input and target of the file `path`, which holds A|B."""
    channels = max(settings.input_channels, settings.target_channels)
    both = read_image(store, path, channels=channels, limits=settings)
    if both.shape[1] % 2:
        raise BadImage(
            "odd-shape", f"{both.shape[1]} pixels wide: two halves side by side need an even width"
        )
    middle = both.shape[1] // 2
    first, second = both[:, :middle], both[:, middle:]
    if settings.direction == "BtoA":
        first, second = second, first
    return to_channels(first, settings.input_channels), to_channels(second, settings.target_channels)


@dataclass
class _Matched:
    """Pairs by their part (train, val, test, "" for none), and what belongs to no pair."""

    by_split: dict[str, list[Pair]] = field(default_factory=lambda: defaultdict(list))
    bad: list[BadInput] = field(default_factory=list)


def _layout_of(entries: Sequence[Entry]) -> Literal["folders", "side-by-side"]:
    folders = {part for entry in entries for part in PurePosixPath(entry.path).parts[:-1]}
    return "folders" if folders & {*_A_FOLDERS, *_B_FOLDERS, *CYCLEGAN} else "side-by-side"


def _side_by_side(entries: Sequence[Entry]) -> _Matched:
    matched = _Matched()
    for entry in entries:
        matched.by_split[split_of(entry.path)].append(Pair(entry.path))
    if matched.by_split["train"]:
        for pair in matched.by_split.pop("", []):
            matched.bad.append(BadInput(pair.input, "unused", "beside the folder train"))
    return matched


def _by_folder(entries: Sequence[Entry], direction: Literal["AtoB", "BtoA"]) -> _Matched:
    matched = _Matched()
    sides: dict[str, dict[str, str]] = {"A": {}, "B": {}}
    for entry in entries:
        side, key = _side_of(entry.path)
        if not side:
            matched.bad.append(BadInput(entry.path, "unused", "in neither of the two folders"))
        elif key in sides[side]:
            matched.bad.append(BadInput(entry.path, "unpaired", f"{sides[side][key]} has the same stem"))
        else:
            sides[side][key] = entry.path
    inputs, targets = sides["A"], sides["B"]
    if direction == "BtoA":
        inputs, targets = targets, inputs
    for key in sorted(inputs.keys() & targets.keys()):
        matched.by_split[split_of(inputs[key])].append(Pair(inputs[key], targets[key]))
    for key in sorted(inputs.keys() ^ targets.keys()):
        path = inputs.get(key) or targets[key]
        matched.bad.append(BadInput(path, "unpaired", "no partner of the same stem"))
    return matched


def _side_of(path: str) -> tuple[str, str]:
    """("A" or "B" or "", what remains of the path without that folder and the suffix)."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    for i, part in enumerate(parts[:-1]):
        if part in _A_FOLDERS:
            return "A", "/".join(parts[:i] + parts[i + 1 :])
        if part in _B_FOLDERS:
            return "B", "/".join(parts[:i] + parts[i + 1 :])
        if part in CYCLEGAN:
            return part[-1], "/".join([*parts[:i], part[:-1], *parts[i + 1 :]])
    return "", ""


def _split(by_split: Mapping[str, list[Pair]], val_share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    train = by_split["train"]
    val = by_split["val"] or by_split["test"]
    if not train and not val:
        train = by_split[""]
    if not val:
        train, val = hold_out(train, val_share, seed)
    return train, val


def _check_headers(store: Store, pairs: Sequence[Pair], layout: str, settings: PairedSettings) -> float:
    """Read a few headers, so that a wrong layout or size is found in a second, not in an hour.

    Returns the mean number of pixels of an image.
    """
    sizes: list[int] = []
    for pair in pairs:
        try:
            header = read_header(store, pair.input, settings)
        except BadImage:
            continue
        width, height = header.width, header.height
        if pair.target is None:
            if width % 2:
                raise DataError(
                    f"{pair.input} is {width} pixels wide, which is odd: it cannot hold two halves",
                    where=f"data.layout={layout}",
                    hint="for two folders use data.layout=folders with A/ and B/ below data.path",
                )
            width //= 2
        if settings.load_size is None and min(width, height) < settings.size:
            raise DataError(
                f"{pair.input} is {width}x{height}, smaller than the crop of {settings.size} pixels",
                where="data.size",
                hint=f"set data.size={max(64, min(width, height) // 32 * 32)}, or let data.resize enlarge it",
            )
        sizes.append(width * height)
    if not sizes:
        raise DataError(
            f"none of the first {len(pairs)} images can be read",
            where=store.root,
            hint=f"check that they are {READ_TITLES} files and open in a viewer",
        )
    return sum(sizes) / len(sizes)
