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
from genray.images.decode import ImageHeader
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, Window, apply_window
from genray.io.store import Entry, Store

SUFFIXES = ("ubyte", "ubyte.gz")
_MAX_BYTES = 4 * 2**30
_MAX_RATIO = 1100  # gzip's largest ratio is 1032
_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")  # torchvision's
_PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxImages:
    """Decoded images of one idx file: `StoredImages`, see `genray/datasets/layouts.py`."""

    file: str
    images: NDArray[np.uint8]  # (N, H, W)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{self.file}#{index}"

    def header(self, index: int) -> ImageHeader:
        _, height, width = self.images.shape
        return ImageHeader(width, height, channels=1)

    def size(self, index: int) -> int:
        return int(self.images[index].size)

    def data(self, index: int, limits: ReadLimits) -> bytes:
        return bytes(self.images[index])

    def levels(self, index: int, limits: ReadLimits) -> Pixels:
        image: Pixels = self.images[index][:, :, None]
        limits.check_pixels(image.shape[1], image.shape[0])
        return image

    def pixels(self, index: int, channels: int, limits: ReadLimits, window: Window | None = None) -> Pixels:
        image = self.levels(index, limits)
        if window is not None:
            image = apply_window(image, window)
        return image if channels == 1 else np.repeat(image, channels, axis=2)


@dataclass(frozen=True)
class IdxPart:
    """Images of a part, with their labels if there is a file of labels."""

    images: IdxImages
    labels: NDArray[np.uint8] | None


def find_idx(store: Store, entries: Iterable[Entry]) -> dict[str, IdxPart]:
    """Return the images and labels of the parts "train" and "test" among `entries` (empty: no idx files).

    Files may be gzipped, and may lie in torchvision's folders.

    Raises:
        DataError: a damaged file, labels of another number than the images, or several sets.
    """
    files = {entry.path: entry for entry in entries}
    folders = [
        folder
        for folder in _FOLDERS
        if any(_find_file(files, folder, prefix, "images-idx3") for prefix in _PREFIXES.values())
    ]
    if not folders:
        return {}
    if len(folders) > 1:
        raise DataError(
            f"several sets of idx files under {store.root}: {', '.join(f or '.' for f in folders)}",
            where="data.path",
            hint="point it at the folder of one of them",
        )
    parts: dict[str, IdxPart] = {}
    for name, prefix in _PREFIXES.items():
        images = _find_file(files, folders[0], prefix, "images-idx3")
        if images is not None:
            parts[name] = _read_part(store, images, _find_file(files, folders[0], prefix, "labels-idx1"))
    return parts


def read_idx(store: Store, entry: Entry) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in the idx file `entry`, gzipped or not.

    At most the size in the header is unpacked, and a size that the file cannot have is refused first.

    Raises:
        DataError: a damaged file, another type, or a size beyond the limit.
    """

    def damaged(reason: str) -> DataError:
        return DataError(
            f"{entry.path} is no idx file of images or labels: {reason}",
            where=store.root,
            hint="download it again: data.download=mnist (or fashion-mnist) does",
        )

    if entry.size > _MAX_BYTES:
        raise damaged(f"{entry.size} bytes, the limit is {_MAX_BYTES}")
    try:
        data = store.read(entry.path)
        zipped = data[:2] == b"\x1f\x8b"
        with gzip.open(io.BytesIO(data)) if zipped else io.BytesIO(data) as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or not 1 <= magic[3] <= 4:
                raise damaged(f"it begins with {magic.hex() or 'nothing'}")
            dimensions = magic[3]
            sizes = file.read(4 * dimensions)
            shape = tuple(int(n) for n in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
            promised = math.prod(shape)
            if len(shape) < dimensions or promised > min(
                _MAX_BYTES, len(data) * (_MAX_RATIO if zipped else 1)
            ):
                raise damaged(f"its header says {shape}, it has {len(data)} bytes")
            values = file.read(promised + 1)  # one more shows a surplus, and makes gzip verify
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(str(error)) from error
    if len(values) != promised:
        more = "more" if len(values) > promised else len(values)
        raise damaged(f"its header says {shape}, which is {promised} bytes, it has {more}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_part(store: Store, images: Entry, labels: Entry | None) -> IdxPart:
    pixels = read_idx(store, images)
    if pixels.ndim != 3 or not pixels.size:
        raise DataError(f"{images.path} holds no images: its shape is {pixels.shape}", where=store.root)
    if labels is None:
        return IdxPart(IdxImages(images.path, pixels), None)
    values = read_idx(store, labels)
    if values.shape != (len(pixels),):
        raise DataError(
            f"{labels.path} has {values.size} labels, {images.path} {len(pixels)} images", where=store.root
        )
    return IdxPart(IdxImages(images.path, pixels), values)


def _find_file(files: Mapping[str, Entry], folder: str, prefix: str, kind: str) -> Entry | None:
    # train-images-idx3-ubyte, or train-images.idx3-ubyte in some copies; unpacked files come first
    names = [
        f"{prefix}-{name}-ubyte{suffix}" for name in (kind, kind.replace("-", ".")) for suffix in ("", ".gz")
    ]
    paths = [f"{folder}/{name}".lstrip("/") for name in names]
    return next((files[path] for path in paths if path in files), None)
