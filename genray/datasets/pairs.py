"""Image pairs of a store: split, and as samples of a loader, resized and jittered as in the pix2pix paper.

Pairs are halves of a file (side by side, or one above the other), or two files: in two folders, with two
endings of the names, or in two columns of a table. See docs/training.md, "How pairs are found".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from genray.datasets.finding.finder import (
    HALVES,
    Direction,
    FoundPairs,
    Pair,
    PairLayout,
    PairSearch,
    search_pairs,
)
from genray.datasets.finding.split_words import SPLIT_NAMES
from genray.datasets.loader import Sample
from genray.datasets.overlap import find_overlap, note_overlap, refuse_overlap
from genray.datasets.splits import hold_out
from genray.datasets.values import (
    WindowSetting,
    check_numbers,
    note_labels,
    note_values,
    note_window,
    window_of,
)
from genray.errors import DataError
from genray.images.arrays import MOST_CHANNELS
from genray.images.decode import read_header, read_image, read_levels, to_channels
from genray.images.image_file import Levels
from genray.images.labels import MOST_CLASSES, Classes, class_map, count_classes, resize_indices
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, Window, resize
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts
from genray.io.kinds import READ_TITLES
from genray.io.listing import Place
from genray.io.store import Store
from genray.settings.base import Location, Settings
from genray.text import parent_folders

__all__ = [
    "Pair",
    "PairNames",
    "PairSource",
    "PairedSettings",
    "Pairs",
    "find_pairs",
    "jitter",
    "load_pair",
    "measured",
]

_CHECKED = 16  # pairs whose headers are looked at before a training
_ENLARGED = 1.5  # factor above which enlarging is warned of; the paper's is 286 / 256
_COUNTED = 2000  # label maps whose classes are counted
_SHOWN_CLASSES = 12
_COMPARED = 64  # height and width at which pairs of equal names are compared


class PairNames(Settings):
    """Settings of the two sides of image pairs in two files."""

    input: str = Field(
        min_length=1,
        description="side of the inputs: folder below data.path (labels, or train/labels for all splits), "
        "pattern of names (*_mask), both (gtFine/*_color), or column of a table",
    )
    target: str = Field(min_length=1, description="side of the targets: folder, pattern or column")


class _PairSettings(Settings):
    """Settings of the pairs: which, their form, and how they are loaded."""

    path: Location = Field(
        "data/fronts", description="pairs to train on: a folder, a pattern (photos/**/*.png), or a URI"
    )
    layout: Literal["auto"] | PairLayout = Field(
        "auto",
        description="layout of the pairs (side-by-side: A|B in one file; above-below: A over B; folders: two "
        "folders of equal file names; suffixes: two endings of the names; table: CSV or Parquet with two "
        "columns of paths; auto: by names and pixels)",
    )
    pairs: PairNames | None = Field(
        None, description="folders, name patterns or table columns of inputs and targets (null: by names)"
    )
    direction: Direction = Field(
        "BtoA",
        description="direction of the translation (BtoA: B is the input, AtoB: A is; A is the left or upper "
        "half or the folder A, as in the facades of the paper; under other names B is what sounds like an "
        "input: labels, masks, noisy, lq)",
    )
    input_channels: int = Field(
        3,
        ge=1,
        le=MOST_CHANNELS,
        description="channels of the input (1: gray, 3: RGB, 4: RGBA, others: those of the files)",
    )
    target_channels: int = Field(
        3,
        ge=1,
        le=MOST_CHANNELS,
        description="channels of the target (1: gray, 3: RGB, 4: RGBA, others: those of the files)",
    )
    input_window: WindowSetting | None = Field(
        None,
        description="levels of the inputs that become black and white, such as [0, 4] for maps of 5 classes "
        "(percentiles: the 0.1 % and 99.9 % levels of a sample; null: the whole range, of floats 0 and 1)",
    )
    target_window: WindowSetting | None = Field(
        None, description="levels of the targets that become black and white, likewise"
    )
    labels: Literal["values", "one-hot"] = Field(
        "values",
        description="form of the inputs (values: images; one-hot: label maps, of which each class, a level "
        "or a colour, becomes a channel; the classes are counted in the training pairs)",
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
    allow_shared: bool = Field(
        False, description="train although a held-out pair is also trained on, byte for byte"
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

    @model_validator(mode="after")
    def _labels_have_no_window(self) -> Self:
        if self.labels == "one-hot" and self.input_window is not None:
            raise ValueError("labels=one-hot needs no input_window: classes have no levels")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.pairs is not None and self.direction == "AtoB":
            raise ValueError(
                "pairs says which side is the input: exchange input and target instead of direction=AtoB"
            )
        if self.pairs is not None and self.layout in HALVES:
            raise ValueError(f"pairs names two files, but layout={self.layout} means two halves of one file")
        return self


class PairedSettings(ReadLimits, _PairSettings):
    """Settings of a store of image pairs."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of a store, split, with everything that was assumed to find them.

    Attributes:
        train, val: pairs to train on, and pairs that are held out.
        bad: files that are in no pair.
        fingerprint: hash of names and sizes of all files.
        layout: layout in which they were found.
        pixels: mean number of pixels of an image.
        counts: number of files of each type at the place.
        chosen_by: setting that says the direction.
        sides: the side of the inputs and that of the targets, in words.
        split: rule of the split, in words.
        is_drawn: true if the seed held out the validation pairs.
        sizes: bytes of the files by path, as far as they are known.
        notes: what else was assumed or left out, in words.
    """

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    bad: tuple[BadInput, ...]
    fingerprint: str
    layout: PairLayout
    pixels: float
    counts: FileCounts
    chosen_by: str
    sides: tuple[str, str]
    split: str
    is_drawn: bool
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def without_shared(self, store: Store, *, allowed: bool) -> Pairs:
        """Return the pairs without those that the seed held out although they are also trained on.

        Args:
            store: store of the files.
            allowed: accept pairs that the data has on both sides of its own split.

        Raises:
            DataError: the data has a pair on both sides of its own split, which is not allowed.
        """
        if (allowed and not self.is_drawn) or not self.sizes:
            return self
        train, val = PairFiles(store, self.train, self.sizes), PairFiles(store, self.val, self.sizes)
        overlap = find_overlap(train, val, pictures=not self.is_drawn)
        if not self.is_drawn:
            return replace(self, notes=(*self.notes, *refuse_overlap(overlap, train, val, "val")))
        if not overlap.same:
            return self
        shared = {held for held, _ in overlap.same}
        kept = tuple(pair for index, pair in enumerate(self.val) if index not in shared)
        note = note_overlap(overlap, removed=bool(kept))
        return replace(self, val=kept or self.val, notes=(*self.notes, note))

    def fitted(self, store: Store, settings: PairedSettings) -> FittedPairs:
        """Look at a few pairs, and count the classes of label maps.

        Raises:
            DataError: numbers of which black and white are not known, channels other than those of the
                settings, or label maps without classes.
        """
        sides: tuple[list[Levels], list[Levels]] = ([], [])
        for pair in self.train[:_CHECKED]:
            try:
                for side, levels in zip(sides, _levels(store, pair, self.layout, settings), strict=True):
                    side.append(levels)
            except BadImage:
                continue
        notes = [note_labels(*sides), *_notes_on_sizes(*sides, settings)]
        classes = None
        if settings.labels == "one-hot":
            classes, note = self._count_classes(store, settings)
            notes.append(note)
            source = _FittedSide(None)
        else:
            source = _fit_side(sides[0], "input", settings.input_window, settings.input_channels)
        target = _fit_side(sides[1], "target", settings.target_window, settings.target_channels)
        updates = {"layout": self.layout, "input_window": source.window, "target_window": target.window}
        notes += [*source.notes, *target.notes]
        noted = replace(self, notes=(*self.notes, *filter(None, notes)))
        return FittedPairs(noted, settings.model_copy(update=updates), classes)

    def _count_classes(self, store: Store, settings: PairedSettings) -> tuple[Classes, str]:
        """Return the classes of the training inputs, and a note that counts them."""
        step = max(1, len(self.train) // _COUNTED)

        def levels_of(pair: Pair) -> Levels | None:
            try:
                return _levels(store, pair, self.layout, settings)[0]
            except BadImage:
                return None

        with ThreadPoolExecutor() as pool:
            maps = [each for each in pool.map(levels_of, self.train[::step]) if each is not None]
        classes = count_classes(maps)
        if classes is None or len(classes) < 2:
            few = f"one class, {classes[0]}" if classes else f"more than {MOST_CLASSES} different colours"
            raise DataError(
                f"{len(maps)} inputs are no label maps: they have {few}",
                where="data.labels",
                hint="label maps are stored without loss (PNG, not JPEG), a level or colour for each class; "
                "set data.labels=values for other images",
            )
        shown = ", ".join(map(_class_name, classes[:_SHOWN_CLASSES]))
        more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
        return classes, f"classes: {len(classes)} in {len(maps)} label maps ({shown}{more})"

    @property
    def example(self) -> str:
        """First pair by name."""
        pair = self.train[0]
        source, target = self.sides
        if pair.target is None:
            return f"{pair.input}, {source} -> {target}"
        return f"{pair.input} -> {pair.target}"

    @property
    def lines(self) -> list[str]:
        """Lines that say what was assumed."""
        return [
            f"layout: {self.layout}",
            f"direction: {self.sides[0]} -> {self.sides[1]} ({self.chosen_by})",
            f"pair: {self.example}",
            f"split: {self.split}",
            *self.notes,
        ]

    @property
    def record(self) -> dict[str, Any]:
        """What was assumed, for the run and the bundle."""
        return {
            "fingerprint": self.fingerprint,
            "layout": self.layout,
            "direction": f"{self.sides[0]} -> {self.sides[1]}",
            "pair": self.example,
            "split": self.split,
            **({"notes": "; ".join(self.notes)} if self.notes else {}),
        }


@dataclass(frozen=True)
class FittedPairs:
    """Pairs after a look at their images.

    Attributes:
        pairs: the pairs, with what was noticed.
        settings: the settings with the layout and the windows that were found.
        classes: classes of the inputs, if they are label maps.
    """

    pairs: Pairs
    settings: PairedSettings
    classes: Classes | None


def find_pairs(place: Place, settings: PairedSettings, seed: int) -> Pairs:
    """List the pairs at `place`; reads names and headers, and a few images where only pixels show halves.

    Raises:
        DataError: no pairs, several ways to read the files as pairs, or images smaller than the crop.
    """
    counts = FileCounts()
    names = None if settings.pairs is None else (settings.pairs.input, settings.pairs.target)
    search = PairSearch(settings.layout, settings.direction, names, settings)
    found = search_pairs(place, search, counts)
    train, val, split = _split(found, settings.val_share, seed)
    if not train or not val:
        there = ", ".join(f"{len(pairs)} {name or 'of no split'}" for name, pairs in found.by_split.items())
        raise DataError(
            f"no pairs for {'training' if not train else 'validation'} under {place.location} "
            f"(layout {found.layout}; pairs: {there}; at least 2 are needed)",
            where="data.path",
            hint=f"folders of splits are called {SPLIT_NAMES}, in any case",
        )
    return Pairs(
        train=tuple(train),
        val=tuple(val),
        bad=tuple(found.bad),
        fingerprint=found.fingerprint,
        layout=found.layout,
        pixels=_check_headers(place.store, train[:_CHECKED], found.layout, settings),
        counts=counts,
        chosen_by=f"data.direction={settings.direction}" if names is None else "data.pairs",
        sides=found.sides,
        split=split,
        is_drawn=found.by_split.keys() <= {"", "train"},
        sizes=found.sizes,
        notes=tuple(found.notes),
    )


@dataclass(frozen=True)
class PairFiles:
    """Files of pairs, to compare them: `Comparable`, see `genray/datasets/overlap.py`.

    Args:
        store: store of the files.
        pairs: the pairs.
        sizes: bytes of the files by path, as far as they are known.
    """

    store: Store
    pairs: Sequence[Pair]
    sizes: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def size(self, index: int) -> int:
        return sum(self.sizes.get(path, 0) for path in self._paths(index))

    def read(self, index: int) -> bytes:
        return b"".join(self.store.read(path, ReadLimits().max_bytes) for path in self._paths(index))

    def picture(self, index: int) -> Pixels:
        limits = ReadLimits()
        images = [read_image(self.store, path, channels=3, limits=limits) for path in self._paths(index)]
        return np.concatenate([resize(image, _COMPARED) for image in images], axis=1)

    def _paths(self, index: int) -> list[str]:
        pair = self.pairs[index]
        return [pair.input] if pair.target is None else [pair.input, pair.target]


@dataclass(frozen=True)
class PairSource:
    """Pairs of a store as a loader's samples: (input, target).

    Args:
        store: where they lie.
        inputs: the path of each input, an Arrow array, see `SampleSource`.
        targets: that of each target; null where it is the other half of the input's file.
        settings: how they are decoded, resized and jittered.
        classes: classes of the inputs, which are then maps of their indices (None: no label maps).
    """

    store: Store
    inputs: Any
    targets: Any
    settings: PairedSettings
    classes: Classes | None = None

    @classmethod
    def of_pairs(
        cls,
        store: Store,
        pairs: Sequence[Pair],
        settings: PairedSettings,
        classes: Classes | None = None,
    ) -> PairSource:
        """The samples that `pairs` of `store` are."""
        import pyarrow as pa

        inputs = pa.array([pair.input for pair in pairs], pa.string())
        targets = pa.array([pair.target for pair in pairs], pa.string())
        return cls(store, inputs, targets, settings, classes)

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        return str(self.inputs[index])

    def load(self, index: int) -> Sample:
        pair = Pair(self.inputs[index].as_py(), self.targets[index].as_py())
        return load_pair(self.store, pair, self.settings, self.classes)

    def vary(self, images: Sample, key: Sequence[int]) -> Sample:
        first, second = images
        return jitter((first, second), self.settings.size, key, flip=self.settings.flip)


def load_pair(
    store: Store, pair: Pair, settings: PairedSettings, classes: Classes | None = None
) -> tuple[Pixels, Pixels]:
    """Read and decode one pair: (input, target), each (H, W, C) uint8, resized to `load_size` if set.

    Resizing is bicubic and ignores the aspect ratio, as the pix2pix paper's code does. With `classes` the
    input is a map of their indices (H, W, 1), resized to the nearest pixel.

    Raises:
        BadImage: with its reason; the pair is to be set aside.
    """
    if classes is not None:
        first = class_map(_levels(store, pair, settings.layout, settings)[0], classes)
        second = _load_target(store, pair, settings)
    elif pair.target is None:
        first, second = _load_halves(store, pair.input, settings)
    else:
        first = read_image(
            store,
            pair.input,
            channels=settings.input_channels,
            limits=settings,
            window=measured(settings.input_window),
        )
        second = _load_target(store, pair, settings)
    if first.shape[:2] != second.shape[:2] and settings.load_size is None:
        raise BadImage(
            "odd-shape", f"{first.shape[1]}x{first.shape[0]} and {second.shape[1]}x{second.shape[0]}"
        )
    size = settings.load_size
    if size is not None:
        resized = resize(first, size) if classes is None else resize_indices(first, size, size)
        return resized, resize(second, size)
    if min(first.shape[:2]) < settings.size:
        raise BadImage(
            "odd-shape", f"{first.shape[1]}x{first.shape[0]} is smaller than the crop {settings.size}"
        )
    return first, second


def _load_target(store: Store, pair: Pair, settings: PairedSettings) -> Pixels:
    if pair.target is None:
        return _load_halves(store, pair.input, settings)[1]
    window = measured(settings.target_window)
    return read_image(store, pair.target, channels=settings.target_channels, limits=settings, window=window)


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
    """Return input and target of the file `path`, which contains A|B, or A over B."""
    channels = max(settings.input_channels, settings.target_channels)
    windows = dict.fromkeys(map(measured, (settings.input_window, settings.target_window)))
    files = [read_image(store, path, channels=channels, limits=settings, window=each) for each in windows]
    axis = 0 if settings.layout == "above-below" else 1
    if files[0].shape[axis] % 2:
        side, place = ("high", "one above the other") if axis == 0 else ("wide", "side by side")
        raise BadImage(
            "odd-shape", f"{files[0].shape[axis]} pixels {side}: two halves {place} need an even number"
        )
    source = 1 if settings.direction == "BtoA" else 0
    first = np.split(files[0], 2, axis=axis)[source]
    second = np.split(files[-1], 2, axis=axis)[1 - source]
    return to_channels(first, settings.input_channels), to_channels(second, settings.target_channels)


@dataclass(frozen=True)
class _FittedSide:
    """Window of one side of the pairs, and notes on its values."""

    window: Window | None
    notes: tuple[str, ...] = ()


def _fit_side(
    levels: Sequence[Levels], side: str, setting: Window | Literal["percentiles"] | None, channels: int
) -> _FittedSide:
    """Return the window of a side from the levels of some images."""
    name = f"data.{side}_window"
    one_hot = "data.labels=one-hot" if side == "input" else ""
    odd = [each for each in (image.shape[-1] for image in levels) if each not in (1, 3, channels)]
    if odd:
        raise DataError(
            f"{len(odd)} of {len(levels)} {side}s have {odd[0]} channels, not {channels}",
            where=f"data.{side}_channels",
            hint=f"set data.{side}_channels={odd[0]}",
        )
    if setting is None:
        check_numbers(levels, f"the {side}s", name)
        return _FittedSide(None, (note_values(levels, f"the {side}s", name, one_hot=one_hot),))
    window = window_of(setting, levels, name)
    return _FittedSide(window, (note_window(setting, window, name),))


def _class_name(colour: Sequence[int]) -> str:
    return str(colour[0]) if len(colour) == 1 else "#" + "".join(f"{level:02x}" for level in colour)


def measured(window: Window | Literal["percentiles"] | None) -> Window | None:
    """Return the window of settings that `Pairs.fitted` returned."""
    if window == "percentiles":
        raise ValueError("percentiles are not measured yet")
    return window


def _levels(
    store: Store, pair: Pair, layout: Literal["auto"] | PairLayout, settings: PairedSettings
) -> tuple[Levels, Levels]:
    """Return the levels of input and target as they are stored."""
    source = read_levels(store, pair.input, settings)
    if pair.target is not None:
        return source, read_levels(store, pair.target, settings)
    middle = source.shape[0 if layout == "above-below" else 1] // 2
    first, second = (
        (source[:middle], source[middle:])
        if layout == "above-below"
        else (source[:, :middle], source[:, middle:])
    )
    return (second, first) if settings.direction == "BtoA" else (first, second)


def _notes_on_sizes(
    inputs: Sequence[Levels], targets: Sequence[Levels], settings: PairedSettings
) -> list[str]:
    """Return warnings on pairs of unequal sizes, and on images that are much enlarged."""
    size = settings.load_size
    if size is None or not inputs:
        return []
    notes = []
    sizes = [
        (f"{a.shape[1]}x{a.shape[0]}", f"{b.shape[1]}x{b.shape[0]}")
        for a, b in zip(inputs, targets, strict=True)
    ]
    unequal = [pair for pair in sizes if pair[0] != pair[1]]
    if unequal:
        notes.append(
            f"warning: {len(unequal)} of {len(sizes)} pairs have images of unequal sizes, such as "
            f"{' and '.join(unequal[0])}: both are resized to {size} pixels"
        )
    shorter = min(min(image.shape[:2]) for image in (*inputs, *targets))
    if size > _ENLARGED * shorter:
        notes.append(
            f"warning: images of {shorter} pixels are enlarged to {size}; "
            f"data.size={max(64, shorter // 32 * 32)} is nearer to their own size"
        )
    return notes


def _split(found: FoundPairs, val_share: float, seed: int) -> tuple[list[Pair], list[Pair], str]:
    """Return the pairs to train on, those held out, and the rule; notes what is left out.

    Test pairs are never trained on. They are held out where there is no part val."""
    parts = found.by_split
    unnamed, test = parts.get("", []), parts.get("test", [])
    train = parts.get("train", [])
    if train and unnamed:
        paths = [pair.input for pair in unnamed]
        found.bad += [BadInput(path, "unused", "beside the folder train") for path in paths]
        found.notes.append(
            f"not used: {len(unnamed)} pairs beside the folder train, in {parent_folders(paths)}"
        )
    elif unnamed and len(parts) > 1:
        folders = parent_folders(pair.input for pair in unnamed)
        found.notes.append(f"trained on: {len(unnamed)} pairs in no folder of a split, in {folders}")
    train = train or unnamed
    kept_apart = "by the table" if found.layout == "table" else "by folders"
    if val := parts.get("val", []):
        if test:
            found.notes.append(f"not used: {len(test)} test pairs, which are never trained on")
        return train, val, f"{kept_apart}, val is held out"
    if test:
        return train, test, f"{kept_apart}, test is held out"
    train, val = hold_out(train, val_share, seed)
    return train, val, f"{val_share:g} held out by seed {seed}"


def _check_headers(
    store: Store, pairs: Sequence[Pair], layout: PairLayout, settings: PairedSettings
) -> float:
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
        if layout == "side-by-side":
            if width % 2:
                raise DataError(
                    f"{pair.input} is {width} pixels wide, which is odd: it cannot hold two halves",
                    where=f"data.layout={layout}",
                    hint="for pairs in two files name the sides with data.pairs",
                )
            width //= 2
        elif layout == "above-below":
            height //= 2
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
