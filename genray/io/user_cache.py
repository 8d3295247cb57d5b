"""The user's cache of models: folders in `~/.cache/genray/models`, or below XDG_CACHE_HOME.

It has converted networks, as converting takes seconds of every process that uses one, and bundles of stores.
Models are read only if their digests are those that were written, and every runner compares its first result
with PyTorch's, so that a wrong model in the cache is not used. `GENRAY_MODEL_CACHE` names another folder, or
"" for none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

_VARIABLE = "GENRAY_MODEL_CACHE"
_MOST = 20  # models that are kept


def folder_of(key: str) -> Path | None:
    """Return the folder of the model of `key`, which need not exist; None: there is no cache."""
    chosen = os.environ.get(_VARIABLE)
    if chosen == "":
        return None
    root = Path(chosen) if chosen else _home() / "genray" / "models"
    with suppress(OSError):
        # Nobody else may put a model there.
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return root / hashlib.sha256(key.encode()).hexdigest()[:32]
    return None


def mark_used(folder: Path) -> None:
    """Note that the model in `folder` was used now."""
    with suppress(OSError):
        os.utime(folder)


def remove_oldest(folder: Path) -> None:
    """Delete the models that were not used for longest, if there are many beside the one in `folder`."""
    with suppress(OSError):
        others = [each for each in folder.parent.iterdir() if each != folder and each.is_dir()]
        by_use = sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)
        for old in by_use[_MOST - 1 :]:
            shutil.rmtree(old, ignore_errors=True)


def _home() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    return Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".cache"
