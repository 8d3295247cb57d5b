"""idx files: the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist, "file formats")."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genray.errors import DataError
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage
from genray.io.store import Entry, Store

SUFFIXES = ("ubyte", "ubyte.gz")
_MAX_BYTES = 4 * 2**30
_MAX_RATIO = 1100  # gzip makes nothing smaller than by 1032
_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")  # the latter as torchvision's
_PARTS = {"train": "train", "test": "t10k"}

IdxPart = tuple["IdxImages", NDArray[np.uint8] | None]


@dataclass(frozen=True)
class IdxImages:
    """The images of one idx file, decoded: an `Origin`, see `genray/data/layouts.py`."""

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
        if image.size > max_pixels:
            raise BadImage("too-large", f"{image.size} pixels, the limit is {max_pixels}")
        return image if channels == 1 else np.repeat(image, channels, axis=2)


def find_idx(store: Store, entries: Iterable[Entry]) -> dict[str, IdxPart]:
    """The images and labels of "train" and "test" among `entries`, plain or gzipped, with or without
    torchvision's folders; empty if there are none.

    Raises:
        DataError: a file that is damaged, labels that are not those of the images, or several sets.
    """
    files = {entry.path: entry for entry in entries}
    folders = [
        folder for folder in _FOLDERS if any(_named(files, folder, p, "images-idx3") for p in _PARTS.values())
    ]
    if len(folders) > 1:
        raise DataError(
            f"several sets of idx files under {store.root}: {', '.join(f or '.' for f in folders)}",
            where="data.path",
            hint="point it at the folder of one of them",
        )
    found: dict[str, IdxPart] = {}
    for part, prefix in _PARTS.items() if folders else ():
        images = _named(files, folders[0], prefix, "images-idx3")
        if images is None:
            continue
        array = read_idx(store, images)
        if array.ndim != 3 or not array.size:
            raise DataError(f"{images.path} holds no images: its shape is {array.shape}", where=store.root)
        entry, labels = _named(files, folders[0], prefix, "labels-idx1"), None
        if entry is not None:
            labels = read_idx(store, entry)
            if labels.shape != (len(array),):
                raise DataError(
                    f"{entry.path} has {labels.size} labels, {images.path} {len(array)} images",
                    where=store.root,
                )
        found[part] = IdxImages(images.path, array), labels
    return found


def read_idx(store: Store, entry: Entry) -> NDArray[np.uint8]:
    """The array in the idx file `entry`, gzipped or not; only unsigned bytes.

    No more is unpacked than the header promises, and no promise is believed that the file cannot keep.

    Raises:
        DataError: damaged, of another type, or of absurd size.
    """

    def refuse(why: str) -> DataError:
        hint = "download it again: data.download=mnist (or fashion-mnist) does"
        return DataError(
            f"{entry.path} is no idx file of images or labels: {why}", where=store.root, hint=hint
        )

    if entry.size > _MAX_BYTES:
        raise refuse(f"{entry.size} bytes, the limit is {_MAX_BYTES}")
    try:
        data = store.read(entry.path)
        zipped = data[:2] == b"\x1f\x8b"
        with gzip.open(io.BytesIO(data)) if zipped else io.BytesIO(data) as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\x00\x00\x08" or not 1 <= start[3] <= 4:
                raise refuse(f"it begins with {start.hex() or 'nothing'}")
            sizes = file.read(4 * start[3])
            shape = tuple(int(n) for n in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
            promised = math.prod(shape)
            if len(shape) < start[3] or promised > min(_MAX_BYTES, len(data) * (_MAX_RATIO if zipped else 1)):
                raise refuse(f"its header says {shape}, it has {len(data)} bytes")
            values = file.read(promised + 1)  # one more: to notice it, and to come to gzip's checksum
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(str(error)) from error
    if len(values) != promised:
        more = "more" if len(values) > promised else len(values)
        raise refuse(f"its header says {shape}, which is {promised} bytes, it has {more}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _named(files: Mapping[str, Entry], folder: str, prefix: str, kind: str) -> Entry | None:
    # train-images-idx3-ubyte, or with a dot as some copies have it; unpacked rather than packed
    names = [
        f"{prefix}-{name}-ubyte{suffix}" for name in (kind, kind.replace("-", ".")) for suffix in ("", ".gz")
    ]
    paths = [f"{folder}/{name}".lstrip("/") for name in names]
    return next((files[path] for path in paths if path in files), None)
