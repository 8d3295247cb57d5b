"""Which samples of a store are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np

T = TypeVar("T")

CYCLEGAN = {f"{split}{side}" for split in ("train", "val", "test") for side in "AB"}  # trainA, trainB ...
_VAL = ("val", "valid", "validation")


def split_of(path: str) -> str:
    """train, val, test or "" (none of them) by the folders of `path`."""
    for part in PurePosixPath(path).parts[:-1]:
        name = (part[:-1] if part in CYCLEGAN else part).lower()
        if name in ("train", "test"):
            return name
        if name in _VAL:
            return "val"
    return ""


def hold_out(samples: Sequence[T], share: float, seed: int) -> tuple[list[T], list[T]]:
    """(those that remain, those held out): `share` of `samples`, at least one, drawn with `seed`; both in
    order. Fewer than two samples cannot be split: none is held out."""
    if len(samples) < 2:
        return list(samples), []
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(samples))
    held = set(order[: max(1, round(len(samples) * share))].tolist())
    remaining = [sample for i, sample in enumerate(samples) if i not in held]
    return remaining, [sample for i, sample in enumerate(samples) if i in held]
