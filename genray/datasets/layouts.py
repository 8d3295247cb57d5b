"""What a store of single images holds: idx files, Parquet files or image files, in parts that are trained and
judged on.

- idx files: as MNIST has them, see `genray/datasets/idx.py`.
- Parquet files: a column of encoded images, of bytes or of {bytes, path} as Hugging Face writes it.
- Image files in folders: flat, nested, or a folder per class, with or without train, val and test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from genray.datasets import idx
from genray.datasets.splits import below_split, split_of
from genray.errors import DataError
from genray.images import decode as images
from genray.images.decode import ImageHeader, decode, decode_header, read_header, read_image
from genray.images.limits import ReadLimits
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
_IMAGE_COLUMNS = ("image", "img", "bytes", "jpg", "png", "webp", "data", "content")
_CLASS_COLUMNS = ("label", "labels", "class", "fine_label")


class StoredImages(Protocol):
    """Images by index, wherever they lie."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The path that stands for the image in lists."""

    def header(self, index: int) -> ImageHeader:
        """What its header says; BadImage if that cannot be read."""

    def pixels(self, index: int, channels: int, limits: ReadLimits) -> Pixels:
        """(H, W, channels) uint8.

        Raises:
            BadImage: with its reason.
        """


@dataclass(frozen=True)
class StoredPart:
    """The images of a part, and the class of each (whole numbers or text), if that is known."""

    images: StoredImages
    classes: NDArray[Any] | None


@dataclass(frozen=True)
class Content:
    """What a store holds.

    Attributes:
        layout: how.
        parts: by name (train, val, test, "" for none of them), none of them empty.
        listed: the files that the images lie in.
        unused: files beside the folder train, which are not part of the set.
    """

    layout: Layout
    parts: dict[str, StoredPart]
    listed: list[Entry]
    unused: int = 0


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
        entries = [entry for entry in listed if entry.path.lower().endswith(_SUFFIXES[name])]
        content = _READERS[name](store, entries) if entries else None
        if content is not None:
            return content
    raise DataError(
        f"no images under {store.root}: looked for {', '.join(_LOOKED_FOR[name] for name in layouts)}",
        where="data.path",
        hint="check the path, or download a set into it: data.download=mnist",
    )


@dataclass(frozen=True)
class FolderImages:
    """Image files of a store: `StoredImages`. `paths` is an Arrow array, which nobody copies."""

    store: Store
    paths: Any

    @classmethod
    def of_paths(cls, store: Store, paths: Sequence[str]) -> FolderImages:
        """The images at `paths`."""
        import pyarrow as pa

        return cls(store, pa.array(paths, pa.string()))

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def header(self, index: int) -> ImageHeader:
        return read_header(self.store, self.name(index))

    def pixels(self, index: int, channels: int, limits: ReadLimits) -> Pixels:
        return read_image(self.store, self.name(index), channels=channels, limits=limits)


@dataclass(frozen=True)
class ParquetImages:
    """The encoded images of Parquet files: `StoredImages`. They stay encoded; in Ray's object store, where a
    stream puts them, they may be larger than the memory.

    Args:
        files: the files' paths.
        starts: the index of the first image of each, and of the end.
        encoded: the images, an Arrow array of binary cells.
    """

    files: list[str]
    starts: list[int]
    encoded: Any

    def __len__(self) -> int:
        return len(self.encoded)

    def name(self, index: int) -> str:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"{self.files[file]}#{index - self.starts[file]}"

    def header(self, index: int) -> ImageHeader:
        return decode_header(self._read(index))

    def pixels(self, index: int, channels: int, limits: ReadLimits) -> Pixels:
        return decode(self._read(index), channels=channels, limits=limits)

    def _read(self, index: int) -> bytes:
        data: bytes | None = self.encoded[index].as_py()
        if not data:
            raise BadImage("empty", "null" if data is None else "0 bytes")
        return data


def classes_of(parts: Mapping[str, Sequence[str]]) -> dict[str, NDArray[Any] | None]:
    """The class of each path in `parts` (train, val, test, ""), or None for a part in which an image lies in
    no folder that could say it.

    It is the first folder below train, val or test, if there is one, and below the folders that all images
    share: of lfw/train/lfw_funneled/Ada_Lovelace/1.jpg it is Ada_Lovelace.
    """
    folders = {part: [path.rpartition("/")[0] for path in paths] for part, paths in parts.items()}
    below = {folder: below_split(folder) for listed in folders.values() for folder in set(listed)}
    classified = {part for part, listed in folders.items() if all(below[folder] for folder in set(listed))}
    chains = {below[folder] for part in classified for folder in folders[part]}
    shared = 0
    while chains and min(map(len, chains)) > shared + 1 and len({chain[shared] for chain in chains}) == 1:
        shared += 1
    return {
        part: np.array([below[folder][shared] for folder in listed], np.str_) if part in classified else None
        for part, listed in folders.items()
    }


def read_parquet(store: Store, entries: Sequence[Entry]) -> StoredPart:
    """The images of several files as one part. It has classes if every file has a column for them: of whole
    numbers or text, none of them null or negative (as Hugging Face marks the unknown).

    Raises:
        DataError: no Parquet, or no column of encoded images.
    """
    import pyarrow as pa

    chunks: list[Any] = []
    classes: list[NDArray[Any] | None] = []
    starts = [0]
    for entry in entries:
        cells, classes_of_file = _read_parquet_file(store, entry)
        chunks += cells.chunks
        classes.append(classes_of_file)
        starts.append(starts[-1] + len(cells))
    encoded = pa.chunked_array(chunks, pa.large_binary())
    parquet = ParquetImages([entry.path for entry in entries], starts, encoded)
    known = [of_file for of_file in classes if of_file is not None]
    if len(known) < len(classes) or len({of_file.dtype.kind for of_file in known}) != 1:
        return StoredPart(parquet, None)
    return StoredPart(parquet, np.concatenate(known))


def _refuse_odd_names(listed: Sequence[Entry], root: str) -> None:
    try:
        "".join(entry.path for entry in listed).encode()
    except UnicodeEncodeError as error:
        odd = error.object[max(0, error.start - 20) : error.end].encode("utf-8", "backslashreplace").decode()
        raise DataError(f"a file's name is not UTF-8: ...{odd}", where=root, hint="rename it") from error


def _read_idx(store: Store, entries: list[Entry]) -> Content | None:
    parts = idx.find_idx(store, entries)
    if not parts:
        return None
    return Content(
        "idx", {name: StoredPart(part.images, part.labels) for name, part in parts.items()}, entries
    )


def _read_parquet(store: Store, entries: list[Entry]) -> Content:
    grouped, unused = _grouped(entries, [_split_of_file(entry.path) for entry in entries])
    parts = {name: read_parquet(store, files) for name, files in grouped.items()}
    parts = {name: part for name, part in parts.items() if len(part.images)}
    if not parts:
        raise DataError(f"the Parquet files under {store.root} have no rows", where="data.path")
    return Content("parquet", parts, [entry for files in grouped.values() for entry in files], unused)


def _read_folder(store: Store, entries: list[Entry]) -> Content:
    grouped, unused = _grouped(entries, [split_of(entry.path) for entry in entries])
    paths = {name: [entry.path for entry in files] for name, files in grouped.items()}
    classes = classes_of(paths)
    parts = {name: StoredPart(FolderImages.of_paths(store, paths[name]), classes[name]) for name in paths}
    return Content("folder", parts, [entry for files in grouped.values() for entry in files], unused)


_READERS: dict[Layout, Callable[[Store, list[Entry]], Content | None]] = {
    "idx": _read_idx,
    "parquet": _read_parquet,
    "folder": _read_folder,
}


def _grouped(entries: Sequence[Entry], splits: Sequence[str]) -> tuple[dict[str, list[Entry]], int]:
    """The files of each part, and how many lie beside the folder train."""
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry, split in zip(entries, splits, strict=True):
        grouped[split].append(entry)
    unused = grouped.pop("", []) if "train" in grouped else []
    return dict(grouped), len(unused)


def _split_of_file(path: str) -> str:
    # train/0.parquet, or train-00000-of-00001.parquet as Hugging Face names them
    return split_of(path) or split_of(f"{path.rsplit('/', 1)[-1].replace('.', '-').split('-')[0]}/x")


def _read_parquet_file(store: Store, entry: Entry) -> tuple[Any, NDArray[Any] | None]:
    """The column of images (a chunked array of large_binary), and that of classes."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(store.read(entry.path)))
        schema = file.schema_arrow
        candidates = [field.name for field in schema if _holds_bytes(field.type)]
        if not candidates:
            raise DataError(
                f"{entry.path} has no column of encoded images, only: {', '.join(schema.names)}",
                where=store.root,
                hint="it must be of type binary, or struct with a field bytes; for image files beside "
                "it set data.layout=folder",
            )
        image = next((name for name in _IMAGE_COLUMNS if name in candidates), candidates[0])
        label = next((name for name in _CLASS_COLUMNS if name in schema.names and name != image), None)
        table = file.read([image] if label is None else [image, label])
        cells = table[image]
        if pa.types.is_struct(cells.type):
            cells = pc.struct_field(cells, "bytes")
        cells = cells.cast(pa.large_binary())  # in which the cells of many row groups fit, uncopied
        return cells, None if label is None else _classes_in(table[label])
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


def _classes_in(column: Any) -> NDArray[Any] | None:
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
