"""Encoded images in Parquet files: a column of bytes, or of {bytes, path} as Hugging Face writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.datasets.loader import Pixels
from genray.errors import DataError
from genray.images.decode import BadImage, decode, image_size, is_gray
from genray.io.store import Entry, Store

_IMAGE = ("image", "img", "bytes", "jpg", "png", "webp", "data", "content")
_LABEL = ("label", "labels", "class", "fine_label")


class ParquetImages:
    """The encoded images of Parquet files: an `Origin`, see `genray/data/layouts.py`. They stay encoded;
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


def read_parquet(store: Store, entries: Sequence[Entry]) -> tuple[ParquetImages, NDArray[Any] | None]:
    """The images of several files as one, and the class of each if every file has a column for it: of whole
    numbers or text, none of them null or negative (as Hugging Face marks the unknown).

    Raises:
        DataError: no Parquet, or no column of encoded images.
    """
    import pyarrow as pa

    chunks: list[Any] = []
    classes, starts = [], [0]
    for entry in entries:
        images, known = _read_file(store, entry)
        chunks += images.chunks
        classes.append(known)
        starts.append(starts[-1] + len(images))
    origin = ParquetImages([e.path for e in entries], starts, pa.chunked_array(chunks, pa.large_binary()))
    if len({None if known is None else known.dtype.kind for known in classes}) != 1 or classes[0] is None:
        return origin, None
    return origin, np.concatenate([known for known in classes if known is not None])


def _read_file(store: Store, entry: Entry) -> tuple[Any, NDArray[Any] | None]:
    """The column of images (a chunked array of large_binary), and that of classes."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(store.read(entry.path)))
        schema = file.schema_arrow
        images = {field.name: field.type for field in schema if _holds_bytes(field.type)}
        if not images:
            raise DataError(
                f"{entry.path} has no column of encoded images, only: {', '.join(schema.names)}",
                where=store.root,
                hint="it must be of type binary, or struct with a field bytes; for image files beside "
                "it set data.layout=folder",
            )
        image = next((name for name in _IMAGE if name in images), next(iter(images)))
        label = next((name for name in _LABEL if name in schema.names and name != image), None)
        table = file.read([image] + ([label] if label else []))
        column = table[image]
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        column = column.cast(pa.large_binary())  # in which the cells of many row groups fit, uncopied
        return column, _known(table[label]) if label else None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{entry.path} is no Parquet file that can be read: {reason}", where=store.root
        ) from error


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _known(column: Any) -> NDArray[Any] | None:
    """A column of classes as whole numbers or text; None if some are unknown, or it is neither."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        return None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist(), np.str_)
    if not pa.types.is_integer(column.type):
        return None
    values: NDArray[Any] = column.to_numpy().astype(np.int64)
    return values if values.min(initial=0) >= 0 else None
