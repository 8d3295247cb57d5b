"""Splits: samples to train on, to validate on and to test on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from genray.datasets.finding.split_words import CYCLEGAN, split_word

T = TypeVar("T")


def split_of(path: str) -> str:
    """Return train, val, test or "" (none of them) by the folders of `path`."""
    return _split_and_rest(path.rpartition("/")[0])[0]


def below_split(folder: str) -> tuple[str, ...]:
    """Return the names of the folders in `folder` below the one that names a split (all, if none does)."""
    return _split_and_rest(folder)[1]


@lru_cache(maxsize=2**16)  # many files share a folder
def _split_and_rest(folder: str) -> tuple[str, tuple[str, ...]]:
    parts = tuple(folder.split("/")) if folder else ()
    for i, part in enumerate(parts):
        split = split_word(part[:-1] if part in CYCLEGAN else part)
        if split:
            return split, parts[i + 1 :]
    return "", parts


def hold_out_of_classes(
    count: int, labels: NDArray[np.int64] | None, share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split the indices of samples into those that remain and those held out, a `share` of each class.

    One sample of each class remains. The others, class after class in an order drawn with `seed`, are held
    out at equal distances (systematic sampling), so that the shares of small classes add up.

    Args:
        count: number of samples.
        labels: class of each (None: unknown, and all are of one).
    """
    if labels is None or len(np.unique(labels)) in (1, count):
        return hold_out(range(count), share, seed)
    draw = np.random.default_rng([seed, 0x5EED])
    order = draw.permutation(count)
    place_of_class = draw.permutation(int(labels.max()) + 1)
    order = order[np.argsort(place_of_class[labels[order]], kind="stable")]
    first_of_class = np.r_[True, np.diff(labels[order]) != 0]  # these remain
    candidates = order[~first_of_class]
    wanted = min(max(1, round(count * share)), len(candidates))
    chosen = candidates[((np.arange(wanted) + draw.random()) * len(candidates) / wanted).astype(np.int64)]
    is_held_out = np.zeros(count, bool)
    is_held_out[chosen] = True
    return np.flatnonzero(~is_held_out).tolist(), np.flatnonzero(is_held_out).tolist()


def hold_out(samples: Sequence[T], share: float, seed: int) -> tuple[list[T], list[T]]:
    """Split `samples` into those that remain and those held out, a `share` drawn with `seed`.

    Both keep their order and have one sample at least. Of fewer than two samples none is held out."""
    if len(samples) < 2:
        return list(samples), []
    count = min(max(1, round(len(samples) * share)), len(samples) - 1)
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(samples))
    chosen = set(order[:count].tolist())
    remaining = [sample for i, sample in enumerate(samples) if i not in chosen]
    held_out = [sample for i, sample in enumerate(samples) if i in chosen]
    return remaining, held_out
