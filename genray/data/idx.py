"""idx files: the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist, "file formats")."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genray.data.loader import Pixels
from genray.data.store import Store
from genray.errors import DataError

_MAX_BYTES = 4 * 2**30
_FOLDERS = (
    "",
    "raw",
    "MNIST/raw",
    "FashionMNIST/raw",
    "KMNIST/raw",
)  # the latter as torchvision lays them out
_PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxImages:
    """The images of one idx file, decoded: an `Origin`, see `genray/data/image_set.py`."""

    file: str
    images: NDArray[np.uint8]  # (N, H, W)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{self.file}#{index}"

    def header(self, index: int) -> tuple[int, int, bool]:
        return self.images.shape[2], self.images.shape[1], True

    def pixels(self, index: int, channels: int, max_pixels: int) -> Pixels:
        image = self.images[index][:, :, None]
        return image if channels == 1 else np.repeat(image, channels, axis=2)


def find_idx(store: Store) -> dict[str, tuple[IdxImages, NDArray[np.int64] | None]]:
    """The images and labels of "train" and "test" in `store`, plain or gzipped, with or without torchvision's
    folders; empty if there are none.

    Raises:
        DataError: a file that is damaged, or labels that are not those of the images.
    """
    files = {entry.path for entry in store.list(("ubyte", "ubyte.gz"))}
    found: dict[str, tuple[IdxImages, NDArray[np.int64] | None]] = {}
    for part, prefix in _PARTS.items():
        images = _first(files, f"{prefix}-images-idx3-ubyte")
        if images is None:
            continue
        array = read_idx(store, images)
        if array.ndim != 3:
            raise DataError(f"{images} holds {array.ndim} dimensions, images have 3", where=store.root)
        name, labels = _first(files, f"{prefix}-labels-idx1-ubyte"), None
        if name is not None:
            labels = read_idx(store, name).astype(np.int64)
            if labels.shape != (len(array),):
                raise DataError(
                    f"{name} has {labels.size} labels, {images} {len(array)} images", where=store.root
                )
        found[part] = IdxImages(images, array), labels
    return found


def read_idx(store: Store, path: str) -> NDArray[np.uint8]:
    """The array in the idx file `path`, gzipped or not; only unsigned bytes.

    Raises:
        DataError: damaged, of another type, or of absurd size.
    """

    def refuse(why: str) -> DataError:
        hint = "download it again: data.download=mnist (or fashion-mnist) does"
        return DataError(f"{path} is no idx file of images or labels: {why}", where=store.root, hint=hint)

    try:
        data = store.read(path, _MAX_BYTES)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(_MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(str(error)) from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 4:
        raise refuse(f"it begins with {data[:4].hex()}")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4"))
    if len(shape) < dimensions or len(data) - start != np.prod(shape, dtype=object):
        raise refuse(f"its header says {shape}, it has {len(data) - start} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _first(files: set[str], name: str) -> str | None:
    paths = [f"{folder}/{name}{suffix}".lstrip("/") for folder in _FOLDERS for suffix in ("", ".gz")]
    return next((path for path in paths if path in files), None)
