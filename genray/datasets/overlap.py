"""Images on both sides of a split: the same bytes, or nearly the same pixels under the same name.

A network that was trained on an image that judges it looks better than it is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image

from genray.errors import DataError
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage

_MOST_HELD_OUT = 20_000  # held-out samples that are compared
_MOST_BYTES = 4 * 2**30  # that are read to compare
_MOST_PICTURES = 32  # samples of equal names whose pixels are compared
_SMALL = 16  # height and width at which they are compared
_ALIKE = 2  # levels
_THREADS = 16
_CHUNK = 64  # samples that a thread hashes at once


class Comparable(Protocol):
    """Samples that can be compared by their bytes."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the path of the sample."""

    def size(self, index: int) -> int:
        """Return the number of bytes of the sample."""

    def read(self, index: int) -> bytes:
        """Return the bytes of the sample; an OSError or BadImage if it cannot be read."""

    def picture(self, index: int) -> Pixels:
        """Return the decoded sample (H, W, 3); BadImage if it cannot be decoded."""


@dataclass(frozen=True)
class Overlap:
    """Held-out samples that are also among the training samples.

    Attributes:
        same: held-out and training sample of equal bytes, by index.
        alike: names of those of equal names and nearly equal pixels.
        compared: number of held-out samples that were compared.
    """

    same: list[tuple[int, int]]
    alike: list[tuple[str, str]]
    compared: int


def find_overlap(train: Comparable, held_out: Comparable, *, pictures: bool = True) -> Overlap:
    """Compare held-out samples with the training samples; reads those whose sizes occur on both sides.

    Of more than 20,000 held-out samples the first are compared, and at most 4 GiB are read.

    Args:
        train, held_out: samples of the two sides.
        pictures: also compare the pixels of a few samples of equal names.
    """
    count = min(len(held_out), _MOST_HELD_OUT)
    by_size: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        if size := held_out.size(index):  # empty files are broken, not equal
            by_size[size].append(index)
    candidates = [index for index in range(len(train)) if train.size(index) in by_size]
    sizes = {train.size(index) for index in candidates}
    wanted = [index for size, indices in by_size.items() if size in sizes for index in indices]
    hashes = _hashes(held_out, wanted)
    same: dict[int, int] = {}
    by_hash: dict[bytes, list[int]] = defaultdict(list)
    for index, value in hashes.items():
        by_hash[value].append(index)
    for index, value in _hashes(train, candidates).items():
        for held in by_hash.get(value, ()):
            same.setdefault(held, index)
    alike = _alike(train, held_out, count, set(same)) if pictures else []
    return Overlap(sorted(same.items()), alike, count)


def refuse_overlap(overlap: Overlap, train: Comparable, held_out: Comparable, side: str) -> list[str]:
    """Return notes on samples that look alike.

    Args:
        side: name of the held-out part.

    Raises:
        DataError: samples of equal bytes on both sides.
    """
    if overlap.same:
        held, index = overlap.same[0]
        raise DataError(
            f"{len(overlap.same)} of {len(held_out)} images of the part {side} are also trained on, such as "
            f"{held_out.name(held)}, which is {train.name(index)}",
            where="data.path",
            hint="remove them from one of the two parts, or set data.allow_shared=true to train although the "
            "figures will look better than they are",
        )
    if not overlap.alike:
        return []
    first, second = overlap.alike[0]
    return [
        f"warning: {len(overlap.alike)} of the part {side} look like training images of the same name, such "
        f"as {first} and {second}: the figures may look better than they are"
    ]


def note_overlap(overlap: Overlap, *, removed: bool) -> str:
    """Return the note on held-out samples that the seed chose, and that are also trained on."""
    count = len(overlap.same)
    if removed:
        return f"not used: {count} of the held-out images, which are also trained on"
    return f"warning: all {count} held-out images are also trained on: the figures look better than they are"


def _hashes(samples: Comparable, indices: Sequence[int]) -> dict[int, bytes]:
    """Return the hash of each sample that can be read, up to 4 GiB."""

    def hashed(index: int) -> bytes | None:
        try:
            return hashlib.blake2b(samples.read(index), digest_size=16).digest()
        except (OSError, BadImage):
            return None

    left = _MOST_BYTES
    chosen = []
    for index in indices:
        left -= samples.size(index)
        if left < 0:
            break
        chosen.append(index)
    chunks = [chosen[i : i + _CHUNK] for i in range(0, len(chosen), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed_chunks = pool.map(lambda chunk: [hashed(index) for index in chunk], chunks)
        values = [value for chunk in hashed_chunks for value in chunk]
    return {index: value for index, value in zip(chosen, values, strict=True) if value is not None}


def _alike(train: Comparable, held_out: Comparable, count: int, known: set[int]) -> list[tuple[str, str]]:
    """Return the names of samples that look alike: equal stems, and small pixels within 2 levels."""
    by_stem = {_stem(held_out.name(index)): index for index in range(count) if index not in known}
    pairs = []
    for index in range(len(train)):
        held = by_stem.get(_stem(train.name(index)))
        if held is not None:
            pairs.append((held, index))
            if len(pairs) == _MOST_PICTURES:
                break
    return [
        (held_out.name(held), train.name(index))
        for held, index in pairs
        if _look_alike(held_out, held, train, index)
    ]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem if "#" not in name else name


def _look_alike(held_out: Comparable, held: int, train: Comparable, index: int) -> bool:
    try:
        first, second = (
            np.asarray(Image.fromarray(side.picture(place)).resize((_SMALL, _SMALL)), np.int16)
            for side, place in ((held_out, held), (train, index))
        )
    except BadImage:
        return False
    is_flat = np.ptp(first) <= _ALIKE  # all flat images of a colour look alike
    return not is_flat and bool(np.abs(first - second).max() <= _ALIKE)
