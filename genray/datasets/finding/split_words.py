"""Names of folders that are splits."""

from __future__ import annotations

CYCLEGAN = {f"{split}{side}" for split in ("train", "val", "test") for side in "AB"}  # trainA, trainB ...
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
SPLIT_NAMES = ", ".join(_SPLITS)
"""Names of folders that are splits, for people."""


def split_word(name: str) -> str:
    """Return train, val or test if `name` is a name of that split, in any case, else ""."""
    return _SPLITS.get(name.lower(), "")
