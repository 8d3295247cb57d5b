"""Image files in folders: flat, nested, or a folder per class, with or without train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from genray.data.images import MAX_FILE_BYTES, decode, image_size, is_gray, read_image_file
from genray.data.loader import Pixels
from genray.data.splits import split_of
from genray.data.store import Store


class FolderImages:
    """Image files of a store: an `Origin`, see `genray/data/image_set.py`."""

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


def classes_of(paths: Sequence[str]) -> list[str]:
    """For each of `paths`, the name of the folder that says what the image is: the first below train, val or
    test, if there is one, and below folders that all of them share; "" for an image that lies in none."""
    folders = [_below_split(PurePosixPath(path).parts[:-1]) for path in paths]
    shared = 0
    while len({parts[: shared + 1] for parts in folders}) == 1 and len(folders[0]) > shared + 1:
        shared += 1
    return [parts[shared] if len(parts) > shared else "" for parts in folders]


def _below_split(folders: tuple[str, ...]) -> tuple[str, ...]:
    for i, folder in enumerate(folders):
        if split_of(f"{folder}/x"):
            return folders[i + 1 :]
    return folders
