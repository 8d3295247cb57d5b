"""Download of well-known image sets, by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from genray.errors import DataError

_SETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def download(name: str, path: str, note: Callable[[str], None]) -> None:
    """Download the set `name` into the folder `path`, unless that contains files already.

    Files of an interrupted download are kept beside the folder, and the next attempt uses them.

    Raises:
        DataError: the download failed.
    """
    folder = Path(path).expanduser().resolve()
    try:
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            return
        note(f"downloading {name} into {folder}")
        partial = folder.with_name(f".{folder.name}.download")
        partial.mkdir(parents=True, exist_ok=True)
        from torchvision import datasets

        getattr(datasets, _SETS[name])(partial, download=True)
        folder.mkdir(exist_ok=True)
        for entry in partial.iterdir():
            entry.rename(folder / entry.name)
        partial.rmdir()
    except (OSError, RuntimeError, ValueError, EOFError, HTTPException) as error:
        raise DataError(
            f"cannot download {name}: {error}",
            where=str(folder),
            hint="check the network, or put its files into the folder yourself",
        ) from error
