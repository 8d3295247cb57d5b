"""Image pairs of a store, split.

Pairs are halves of a file (side by side, or one above the other), or two files: in two folders, with two
endings of the names, or in two columns of a table. See docs/training.md, "How pairs are found".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genray.datasets.finding.finder import FoundPairs, Pair, PairLayout, PairSearch, search_pairs
from genray.datasets.finding.split_words import SPLIT_NAMES
from genray.datasets.overlap import find_overlap, note_overlap, refuse_overlap
from genray.datasets.pairs.settings import PairedSettings
from genray.datasets.splits import hold_out
from genray.errors import DataError
from genray.images.decode import read_header, read_image
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, resize
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts
from genray.io.kinds import READ_TITLES
from genray.io.listing import Place
from genray.io.store import Store
from genray.text import parent_folders

CHECKED = 16
"""Pairs that are looked at before a training."""

_COMPARED = 64  # height and width at which pairs of equal names are compared


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
        pixels=_check_headers(place.store, train[:CHECKED], found.layout, settings),
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
