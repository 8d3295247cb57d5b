"""Well-known image sets from their homes, by torchvision's downloader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from genray.errors import DataError

_SETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def download(name: str, path: str, note: Callable[[str], None]) -> None:
    """Download the set `name` into the folder `path`, unless that holds anything already.

    Raises:
        DataError: it cannot be downloaded.
    """
    folder = Path(path)
    if folder.is_dir() and any(folder.iterdir()):
        return
    from torchvision import datasets

    note(f"downloading {name} into {folder}")
    partial = folder.with_name(f".{folder.name}.download")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        getattr(datasets, _SETS[name])(partial, download=True)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"cannot download {name}: {error}",
            where=str(folder),
            hint="check the network, or put its files into the folder yourself",
        ) from error
