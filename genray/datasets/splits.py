"""Which samples of a store are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")

CYCLEGAN = {f"{split}{side}" for split in ("train", "val", "test") for side in "AB"}  # trainA, trainB ...
_VAL = ("val", "valid", "validation")


def split_of(path: str) -> str:
    """train, val, test or "" (none of them) by the folders of `path`."""
    return _split_and_rest(path.rpartition("/")[0])[0]


def below_split(folder: str) -> tuple[str, ...]:
    """The names of the folders in `folder` below the one that says train, val or test; all, if none does."""
    return _split_and_rest(folder)[1]


@lru_cache(maxsize=2**16)  # many files lie in few folders
def _split_and_rest(folder: str) -> tuple[str, tuple[str, ...]]:
    parts = tuple(folder.split("/")) if folder else ()
    for i, part in enumerate(parts):
        name = (part[:-1] if part in CYCLEGAN else part).lower()
        if name in ("train", "test"):
            return name, parts[i + 1 :]
        if name in _VAL:
            return "val", parts[i + 1 :]
    return "", parts


def hold_out(samples: Sequence[T], share: float, seed: int) -> tuple[list[T], list[T]]:
    """(those that remain, those held out): `share` of `samples`, drawn with `seed`; both in order, and at
    least one each. Fewer than two samples cannot be split: none is held out."""
    if len(samples) < 2:
        return list(samples), []
    count = min(max(1, round(len(samples) * share)), len(samples) - 1)
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(samples))
    chosen = set(order[:count].tolist())
    remaining = [sample for i, sample in enumerate(samples) if i not in chosen]
    held_out = [sample for i, sample in enumerate(samples) if i in chosen]
    return remaining, held_out
