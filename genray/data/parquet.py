"""Encoded images in Parquet files: a column of bytes, or of {bytes, path} as Hugging Face writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.data.images import BadImage, decode, image_size, is_gray
from genray.data.loader import Pixels
from genray.data.store import Entry, Store
from genray.errors import DataError

_IMAGE = ("image", "img", "bytes", "jpg", "png", "webp", "data", "content")
_LABEL = ("label", "labels", "class", "fine_label")


class ParquetImages:
    """The encoded images of a Parquet file: an `Origin`, see `genray/data/image_set.py`. They stay encoded;
    in Ray's object store, where a stream puts them, they may be larger than the memory."""

    def __init__(self, files: list[str], starts: list[int], images: Any) -> None:
        self._files, self._starts, self._images = files, starts, images

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._files[file]}#{index - self._starts[file]}"

    def header(self, index: int) -> tuple[int, int, bool]:
        data = self._read(index)
        return *image_size(data), is_gray(data)

    def pixels(self, index: int, channels: int, max_pixels: int) -> Pixels:
        return decode(self._read(index), channels=channels, max_pixels=max_pixels)

    def _read(self, index: int) -> bytes:
        data: bytes | None = self._images[index].as_py()
        if not data:
            raise BadImage("empty", "null" if data is None else "0 bytes")
        return data


def read_parquet(store: Store, entries: list[Entry]) -> tuple[ParquetImages, NDArray[np.int64] | None]:
    """The images of several files as one, and their labels if every file has a column of whole numbers for
    them.

    Raises:
        DataError: no Parquet, or no column of encoded images.
    """
    import pyarrow as pa

    parts, labels, starts = [], [], [0]
    for entry in entries:
        images, label = _read_file(store, entry)
        parts.append(images)
        labels.append(label)
        starts.append(starts[-1] + len(images))
    known = [label for label in labels if label is not None]
    joined = np.concatenate(known) if len(known) == len(labels) else None
    return ParquetImages([e.path for e in entries], starts, pa.chunked_array(parts)), joined


def _read_file(store: Store, entry: Entry) -> tuple[Any, NDArray[np.int64] | None]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(store.read(entry.path)))
        schema = file.schema_arrow
        image = next((f for f in schema if f.name in _IMAGE and _holds_bytes(f.type)), None)
        image = image or next((f for f in schema if _holds_bytes(f.type)), None)
        if image is None:
            raise DataError(
                f"{entry.path} has no column of encoded images, only: {', '.join(schema.names)}",
                where=store.root,
                hint="the column must be of type binary, or struct with a field bytes",
            )
        label = next((f.name for f in schema if f.name in _LABEL and pa.types.is_integer(f.type)), None)
        table = file.read([image.name] + ([label] if label else []))
        column = table[image.name]
        if pa.types.is_struct(image.type):
            column = pc.struct_field(column, "bytes")
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{entry.path} is no Parquet file that can be read: {error}", where=store.root
        ) from None
    images = pa.concat_arrays(column.cast(pa.large_binary()).chunks or [pa.array([], pa.large_binary())])
    return images, table[label].to_numpy().astype(np.int64) if label else None


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
