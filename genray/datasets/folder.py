"""Image files in folders: flat, nested, or a folder per class, with or without train, val and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.datasets.loader import Pixels
from genray.datasets.splits import below_split
from genray.images.decode import MAX_FILE_BYTES, decode, image_size, is_gray, read_image_file
from genray.io.store import Store


class FolderImages:
    """Image files of a store: an `Origin`, see `genray/data/layouts.py`."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        import pyarrow as pa

        self._store = store
        self._paths: Any = pa.array(paths, pa.string())

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def header(self, index: int) -> tuple[int, int, bool]:
        path = self.name(index)
        # A WebP shows its size only whole.
        data = self._store.read(path, MAX_FILE_BYTES if path.lower().endswith(".webp") else 2**20)
        return *image_size(data), is_gray(data)

    def pixels(self, index: int, channels: int, max_pixels: int) -> Pixels:
        data = read_image_file(self._store, self.name(index))
        return decode(data, channels=channels, max_pixels=max_pixels)


def classes_of(parts: Mapping[str, Sequence[str]]) -> dict[str, NDArray[Any] | None]:
    """The class of each path in `parts` (train, val, test, ""), or None for a part in which an image lies in
    no folder that could say it.

    It is the first folder below train, val or test, if there is one, and below the folders that all images
    share: of lfw/train/lfw_funneled/Ada_Lovelace/1.jpg it is Ada_Lovelace.
    """
    folders = {part: [path.rpartition("/")[0] for path in paths] for part, paths in parts.items()}
    below = {folder: below_split(folder) for listed in folders.values() for folder in set(listed)}
    known = {part for part, listed in folders.items() if all(below[folder] for folder in set(listed))}
    chains = {below[folder] for part in known for folder in folders[part]}
    shared = 0
    while chains and min(map(len, chains)) > shared + 1 and len({chain[shared] for chain in chains}) == 1:
        shared += 1
    return {
        part: np.array([below[folder][shared] for folder in listed], np.str_) if part in known else None
        for part, listed in folders.items()
    }
