"""What a store of single images holds: idx files, Parquet or image files, in parts that are trained and
judged on.

Image files in folders: flat, nested, or a folder per class, with or without train, val and test.

Encoded images in Parquet files: a column of bytes, or of {bytes, path} as Hugging Face writes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from genray.datasets import idx
from genray.datasets.splits import below_split, split_of
from genray.errors import DataError
from genray.images import decode as images
from genray.images.decode import MAX_FILE_BYTES, decode, image_size, is_gray, read_image_file
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage
from genray.io.store import Entry, Store

Layout = Literal["idx", "parquet", "folder"]
_SUFFIXES: dict[Layout, tuple[str, ...]] = {
    "idx": idx.SUFFIXES,
    "parquet": (".parquet",),
    "folder": images.SUFFIXES,
}
_LOOKED_FOR: dict[Layout, str] = {
    "idx": "train-images-idx3-ubyte(.gz)",
    "parquet": "*.parquet",
    "folder": " ".join(f"*{suffix}" for suffix in images.SUFFIXES),
}


class Origin(Protocol):
    """Images by index, wherever they lie."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The path that stands for the image in lists."""

    def header(self, index: int) -> tuple[int, int, bool]:
        """(width, height, whether it is gray); BadImage or OSError if that cannot be read."""

    def pixels(self, index: int, channels: int, max_pixels: int) -> Pixels:
        """(H, W, channels) uint8.

        Raises:
            BadImage: with its reason.
        """


@dataclass(frozen=True)
class Content:
    """What a store holds."""

    layout: Layout
    parts: dict[str, tuple[Origin, NDArray[Any] | None]]
    """By name (train, val, test, "" for none of them), none of them empty: the images, and the class of each
    (whole numbers or text), if that is known."""
    listed: list[Entry]
    """The files that they lie in."""
    unused: int = 0
    """Files beside the folder train, which are not part of the set."""


def read_store(store: Store, layout: Literal["auto"] | Layout, apart: str = "") -> Content:
    """List the images of `store`, without decoding them (but for idx files).

    Args:
        store: where they lie.
        layout: how; auto: idx files if there are some, else Parquet, else image files.
        apart: a folder in `store` that is passed over.

    Raises:
        DataError: no images, or files that are damaged as a whole.
    """
    layouts = [name for name in _SUFFIXES if layout in ("auto", name)]
    # One listing for all layouts: for a remote store of millions it is what takes time.
    listed = store.list(suffix for name in layouts for suffix in _SUFFIXES[name])
    if apart:
        listed = [entry for entry in listed if not entry.path.startswith(f"{apart}/")]
    _refuse_odd_names(listed, store.root)
    for name in layouts:
        mine = [entry for entry in listed if entry.path.lower().endswith(_SUFFIXES[name])]
        content = _READERS[name](store, mine) if mine else None
        if content is not None:
            return content
    raise DataError(
        f"no images under {store.root}: looked for {', '.join(_LOOKED_FOR[name] for name in layouts)}",
        where="data.path",
        hint="check the path, or download a set into it: data.download=mnist",
    )


def _refuse_odd_names(listed: Sequence[Entry], root: str) -> None:
    try:
        "".join(entry.path for entry in listed).encode()
    except UnicodeEncodeError as error:
        odd = error.object[max(0, error.start - 20) : error.end].encode("utf-8", "backslashreplace").decode()
        raise DataError(f"a file's name is not UTF-8: ...{odd}", where=root, hint="rename it") from error


def _read_idx(store: Store, listed: list[Entry]) -> Content | None:
    found = idx.find_idx(store, listed)
    return Content("idx", {**found}, listed) if found else None


def _read_parquet(store: Store, listed: list[Entry]) -> Content:
    grouped, unused = _grouped(listed, [_split_of_file(entry.path) for entry in listed])
    read = {part: read_parquet(store, files) for part, files in grouped.items()}
    parts: dict[str, tuple[Origin, NDArray[Any] | None]] = {p: r for p, r in read.items() if len(r[0])}
    if not parts:
        raise DataError(f"the Parquet files under {store.root} have no rows", where="data.path")
    return Content("parquet", parts, [e for files in grouped.values() for e in files], unused)


def _read_folder(store: Store, listed: list[Entry]) -> Content:
    grouped, unused = _grouped(listed, [split_of(entry.path) for entry in listed])
    paths = {part: [entry.path for entry in files] for part, files in grouped.items()}
    classes = classes_of(paths)
    parts: dict[str, tuple[Origin, NDArray[Any] | None]] = {
        part: (FolderImages(store, paths[part]), classes[part]) for part in paths
    }
    return Content("folder", parts, [e for files in grouped.values() for e in files], unused)


_READERS = {"idx": _read_idx, "parquet": _read_parquet, "folder": _read_folder}


def _grouped(listed: Sequence[Entry], splits: Sequence[str]) -> tuple[dict[str, list[Entry]], int]:
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry, split in zip(listed, splits, strict=True):
        grouped[split].append(entry)
    unused = grouped.pop("", []) if "train" in grouped else []
    return dict(grouped), len(unused)


def _split_of_file(path: str) -> str:
    # train/0.parquet, or train-00000-of-00001.parquet as Hugging Face names them
    return split_of(path) or split_of(f"{path.rsplit('/', 1)[-1].replace('.', '-').split('-')[0]}/x")


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
