"""Which files of a store make pairs, and which of the pairs are held out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from genray.datasets.pairs import Pair, PairedSettings
from genray.datasets.splits import CYCLEGAN, hold_out, split_of
from genray.errors import DataError
from genray.images.decode import MAX_FILE_BYTES, SUFFIXES, BadImage, BadInput, image_size
from genray.io.store import Entry, Store

_A_NAMES, _B_NAMES = ("A", "a", "input"), ("B", "b", "target")


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
        layout = "folders" if folders & {*_A_NAMES, *_B_NAMES, *CYCLEGAN} else "side-by-side"
    by_split: dict[str, list[Pair]] = defaultdict(list)
    bad: list[BadInput] = []
    if layout == "folders":
        bad += _match_folders(entries, by_split, settings.direction)
    else:
        for entry in entries:
            by_split[split_of(entry.path)].append(Pair(entry.path))
        if by_split["train"]:
            bad += [BadInput(p.input, "unused", "beside the folder train") for p in by_split.pop("", [])]
    train, val = _split(by_split, settings.val_share, seed)
    if not train or not val:
        raise DataError(
            f"no pairs for {'training' if not train else 'validation'} under {store.root} "
            f"({len(entries)} images, layout {layout}; at least 2 pairs are needed)",
            where="data.path",
            hint="side by side: one file holds A|B; folders: A/name.png and B/name.png; see data.layout",
        )
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in entries).encode()).hexdigest()
    pixels = _check_headers(store, train, layout, settings)
    return Pairs(tuple(train), tuple(val), tuple(bad), f"sha256:{digest}", layout, pixels)


def _side_of(path: str) -> tuple[str, str]:
    """("A" or "B" or "", what remains of the path without that folder and the suffix)."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    for i, part in enumerate(parts[:-1]):
        if part in _A_NAMES or part in _B_NAMES:
            side = "A" if part in _A_NAMES else "B"
            return side, "/".join(parts[:i] + parts[i + 1 :])
        if part in CYCLEGAN:
            return part[-1], "/".join([*parts[:i], part[:-1], *parts[i + 1 :]])
    return "", ""


def _match_folders(
    entries: Sequence[Entry], by_split: dict[str, list[Pair]], direction: str
) -> list[BadInput]:
    bad: list[BadInput] = []
    sides: dict[str, dict[str, str]] = {"A": {}, "B": {}}
    for entry in entries:
        side, key = _side_of(entry.path)
        if not side:
            bad.append(BadInput(entry.path, "unused", "in neither of the two folders"))
        elif key in sides[side]:
            bad.append(BadInput(entry.path, "unpaired", f"{sides[side][key]} has the same stem"))
        else:
            sides[side][key] = entry.path
    first, second = (sides["A"], sides["B"]) if direction == "AtoB" else (sides["B"], sides["A"])
    for key in sorted(first.keys() & second.keys()):
        by_split[split_of(first[key])].append(Pair(first[key], second[key]))
    alone = sorted(first.keys() ^ second.keys())
    bad += [BadInput(first.get(k) or second[k], "unpaired", "no partner of the same stem") for k in alone]
    return bad


def _split(by_split: dict[str, list[Pair]], val_share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    train, val = by_split["train"], by_split["val"] or by_split["test"]
    if not train and not val:
        train = by_split[""]
    if not val:
        train, val = hold_out(train, val_share, seed)
    return train, val


def _check_headers(
    store: Store, train: Sequence[Pair], layout: str, settings: PairedSettings, most: int = 16
) -> float:
    """Read a few headers, so that a wrong layout or size is found in a second, not in an hour.

    Returns the mean number of pixels of an image.
    """
    sizes: list[int] = []
    for pair in train[:most]:
        try:
            # A WebP shows its size only whole.
            limit = MAX_FILE_BYTES if pair.input.lower().endswith(".webp") else 2**20
            width, height = image_size(store.read(pair.input, limit))
        except (BadImage, OSError):
            continue
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
            f"none of the first {min(most, len(train))} images can be read",
            where=store.root,
            hint="check that they are PNG, JPEG or WebP files and open in a viewer",
        )
    return sum(sizes) / len(sizes)
