"""Layouts of stores of single images: idx files, Parquet files, tar shards or image files, in parts (train,
val, test).

- idx files: the format of MNIST, see `genray/datasets/idx.py`.
- Parquet files: a column of encoded images, of bytes or of {bytes, path} as Hugging Face writes it.
- Tar shards: images without classes.
- Image files in folders: flat, nested, or a folder for each class, with or without train, val and test.

Files are listed, and the column of images is found, as in bulk runs: see `genray/io/listing.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from genray.datasets import idx
from genray.datasets.defects import DefectFiles, DefectMasks, classes_by_masks, is_normal_name, separate_masks
from genray.datasets.splits import below_split, split_of
from genray.datasets.tars import TarImages
from genray.errors import DataError
from genray.images.decode import (
    ImageHeader,
    decode,
    decode_header,
    decode_levels,
    read_header,
    read_image,
    read_levels,
)
from genray.images.image_file import Levels
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, Window
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts
from genray.io.listing import (
    Container,
    ImageFiles,
    Place,
    find_inputs,
    images_of,
    list_shards,
    nothing_to_read,
)
from genray.io.parquet import check_unfolding, find_columns
from genray.io.sources import ContainerSettings, Item, TarSource
from genray.io.store import Entry, Store
from genray.text import parent_folders

Layout = Literal["idx", "folder", "parquet", "webdataset"]

_CONTAINERS: dict[Layout, Container] = {
    "idx": "idx",
    "folder": "files",
    "parquet": "parquet",
    "webdataset": "webdataset",
}
_CHOICES = {container: f"data.layout={layout}" for layout, container in _CONTAINERS.items()}
_LONGEST_CLASS = 1000  # bytes of a class name
_CLASS_COLUMNS = ("label", "labels", "class", "fine_label")


class StoredImages(Protocol):
    """Images by index, independent of how they are stored."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the path of the image, for lists and messages."""

    def header(self, index: int) -> ImageHeader:
        """Return the header of the image; raises BadImage if it cannot be read."""

    def size(self, index: int) -> int:
        """Return the number of bytes of the image as it is stored."""

    def data(self, index: int, limits: ReadLimits) -> bytes:
        """Return the stored bytes of the image; an OSError or BadImage if it cannot be read."""

    def pixels(self, index: int, channels: int, limits: ReadLimits, window: Window | None = None) -> Pixels:
        """Return the image as (H, W, channels) uint8; the levels of `window` become black and white.

        Raises:
            BadImage: the image cannot be used; says why.
        """

    def levels(self, index: int, limits: ReadLimits) -> Levels:
        """Return the image as (H, W, C) with its own levels; raises BadImage if it cannot be used."""


@dataclass(frozen=True)
class StoredPart:
    """Images of a part, and the class of each (whole numbers or text; None: unknown)."""

    images: StoredImages
    classes: NDArray[Any] | None


@dataclass(frozen=True)
class Content:
    """Images in a store, by part.

    Attributes:
        layout: layout of the store.
        parts: non-empty parts by name (train, val, test, "" for none of them).
        listed: files that contain the images.
        unused: number of files beside the folder train, which are not used.
        unused_in: folders of these files, in words.
        counts: number of files of each type at the place.
        masks: number of masks of defects, which are no images.
        defects: the masks that belong to images.
    """

    layout: Layout
    parts: dict[str, StoredPart]
    listed: list[Entry]
    unused: int = 0
    unused_in: str = ""
    counts: FileCounts = field(default_factory=FileCounts)
    masks: int = 0
    defects: DefectMasks | None = None


@dataclass(frozen=True)
class ParquetReading:
    """Options of reading Parquet files.

    Attributes:
        column: column of images (None: the one whose values are images).
        max_unfolded_gb: largest size of a file's rows in memory, in gigabytes, see `check_unfolding`.
    """

    column: str | None = None
    max_unfolded_gb: float = 4.0


def read_place(
    place: Place,
    layout: Literal["auto"] | Layout = "auto",
    parquet: ParquetReading | None = None,
    *,
    defects: bool = False,
) -> Content:
    """List the images at `place` without decoding them (idx files are decoded).

    Args:
        place: place of the images.
        layout: layout to read (auto: the only one that is there).
        parquet: options of reading Parquet files.
        defects: the set has normal images and images with defects, see `genray/datasets/defects.py`.

    Raises:
        DataError: no images, images of several layouts, or a damaged container.
    """
    root = place.location
    container: Container
    if layout == "auto":
        container, entries, counts = find_inputs(root, place, _CHOICES, where="data.path")
    else:
        container, counts = _CONTAINERS[layout], FileCounts()
        if container == "files":
            entries = images_of(list(ImageFiles(arrays=True).list(place, counts)), counts)
        else:
            entries = list(list_shards(place, container, counts))
    entries = sorted(entries, key=lambda entry: entry.path)
    _refuse_odd_names(entries, root)
    content = None
    if entries and container == "files":
        content = _read_folder(place.store, entries, defects=defects)
    elif entries and container == "idx":
        content = _read_idx(place.store, entries)
    elif entries and container == "webdataset":
        content = _read_tars(place, counts)
    elif entries:
        content = _read_parquet(place.store, entries, parquet or ParquetReading(), counts)
    if content is None:
        raise nothing_to_read(root, [container], counts, where="data.path")
    return replace(content, counts=counts)


@dataclass(frozen=True)
class FolderImages:
    """Image files of a store: `StoredImages`. `paths` is an Arrow array, which Ray shares without copies, and
    `sizes` are their bytes, if the listing has them."""

    store: Store
    paths: Any
    sizes: Any = None

    @classmethod
    def of_paths(cls, store: Store, paths: Sequence[str], sizes: Sequence[int] | None = None) -> FolderImages:
        """Return the images at `paths`."""
        import pyarrow as pa

        return cls(
            store, pa.array(paths, pa.string()), None if sizes is None else pa.array(sizes, pa.int64())
        )

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def header(self, index: int) -> ImageHeader:
        return read_header(self.store, self.name(index))

    def size(self, index: int) -> int:
        if self.sizes is None:
            return self.store.size(self.name(index))
        return int(self.sizes[index].as_py())

    def data(self, index: int, limits: ReadLimits) -> bytes:
        return self.store.read(self.name(index), limits.max_bytes)

    def pixels(self, index: int, channels: int, limits: ReadLimits, window: Window | None = None) -> Pixels:
        return read_image(self.store, self.name(index), channels=channels, limits=limits, window=window)

    def levels(self, index: int, limits: ReadLimits) -> Levels:
        return read_levels(self.store, self.name(index), limits)


@dataclass(frozen=True)
class ParquetImages:
    """Encoded images of Parquet files: `StoredImages`. They stay encoded in memory; a stream puts them into
    Ray's object store, which may spill to disk.

    Args:
        files: paths of the files.
        starts: index of the first image of each file, and the number of images.
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
        return decode_header(self.data(index, ReadLimits()))

    def size(self, index: int) -> int:
        return len(self.encoded[index].as_buffer() or b"")

    def pixels(self, index: int, channels: int, limits: ReadLimits, window: Window | None = None) -> Pixels:
        return decode(self.data(index, limits), channels=channels, limits=limits, window=window)

    def levels(self, index: int, limits: ReadLimits) -> Levels:
        return decode_levels(self.data(index, limits), limits)

    def data(self, index: int, limits: ReadLimits) -> bytes:
        data: bytes | None = self.encoded[index].as_py()
        if not data:
            raise BadImage("empty", "null" if data is None else "0 bytes")
        return data


def classes_of(
    parts: Mapping[str, Sequence[str]], is_known: Callable[[str], bool] = lambda name: False
) -> dict[str, NDArray[Any] | None]:
    """Return the class of each path in `parts` (train, val, test, ""); None for a part with an image that
    lies in no class folder.

    The class is the first folder below train, val or test and below the folders that all images share: that
    of lfw/train/lfw_funneled/Ada_Lovelace/1.jpg is Ada_Lovelace. If `is_known` holds for a folder, the
    classes are the folders at its depth.
    """
    folders = {part: [path.rpartition("/")[0] for path in paths] for part, paths in parts.items()}
    below = {folder: below_split(folder) for listed in folders.values() for folder in set(listed)}
    classified = {part for part, listed in folders.items() if all(below[folder] for folder in set(listed))}
    chains = {below[folder] for part in classified for folder in folders[part]}
    shared = 0
    known = Counter(i for chain in chains for i, name in enumerate(chain) if is_known(name))
    if known and (depth := known.most_common(1)[0][0]) < min(map(len, chains)):
        shared = depth
    else:
        while chains and min(map(len, chains)) > shared + 1 and len({chain[shared] for chain in chains}) == 1:
            shared += 1
    return {
        part: np.array([below[folder][shared] for folder in listed], np.str_) if part in classified else None
        for part, listed in folders.items()
    }


def read_parquet(
    store: Store, entries: Sequence[Entry], reading: ParquetReading, counts: FileCounts
) -> StoredPart:
    """Read the images of several files as one part, with classes if every file has a class column of whole
    numbers or text without null or negative values (Hugging Face marks unknown classes so).

    Names of columns that are not read are added to `counts`.

    Raises:
        DataError: a file that is no Parquet, no column of images or several, or rows beyond the limit on
            memory.
    """
    import pyarrow as pa

    chunks: list[Any] = []
    classes: list[NDArray[Any] | None] = []
    starts = [0]
    for entry in entries:
        cells, classes_of_file = _read_parquet_file(store, entry, reading, counts)
        chunks += cells.chunks
        classes.append(classes_of_file)
        starts.append(starts[-1] + len(cells))
    encoded = pa.chunked_array(chunks, pa.large_binary())
    images = ParquetImages([entry.path for entry in entries], starts, encoded)
    known = [of_file for of_file in classes if of_file is not None]
    if len(known) < len(classes) or len({of_file.dtype.kind for of_file in known}) != 1:
        return StoredPart(images, None)
    return StoredPart(images, np.concatenate(known))


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


def _read_parquet(store: Store, entries: list[Entry], reading: ParquetReading, counts: FileCounts) -> Content:
    grouped, unused = _grouped(entries, [_split_of_file(entry.path) for entry in entries])
    parts = {name: read_parquet(store, files, reading, counts) for name, files in grouped.items()}
    parts = {name: part for name, part in parts.items() if len(part.images)}
    if not parts:
        raise DataError(f"the Parquet files under {store.root} have no rows", where="data.path")
    listed = [entry for files in grouped.values() for entry in files]
    return Content("parquet", parts, listed, len(unused), parent_folders(unused))


def _read_folder(store: Store, entries: list[Entry], *, defects: bool) -> Content:
    files_of = separate_masks(entries) if defects else DefectFiles(entries)
    grouped, unused = _grouped(files_of.images, [split_of(entry.path) for entry in files_of.images])
    paths = {name: [entry.path for entry in files] for name, files in grouped.items()}
    classes = classes_of(paths, is_normal_name if defects else lambda name: False)
    if not files_of.images:
        raise DataError(
            f"all {files_of.count} images under {store.root} are in folders of masks, labels or ground truth",
            where="data.path",
            hint="set data.path to the folder that contains the images beside them",
        )
    names = {str(name) for known in classes.values() if known is not None for name in np.unique(known)}
    if files_of.masks and not any(map(is_normal_name, names)):
        for part, images in paths.items():
            if not files_of.masks.keys().isdisjoint(images):
                classes[part] = np.array(classes_by_masks(store, images, files_of.masks), np.str_)
    parts = {
        name: StoredPart(
            FolderImages.of_paths(store, paths[name], [entry.size for entry in files]), classes[name]
        )
        for name, files in grouped.items()
    }
    listed = [entry for files in grouped.values() for entry in files]
    return Content(
        "folder",
        parts,
        listed,
        len(unused),
        parent_folders(unused),
        masks=files_of.count,
        defects=DefectMasks(store, files_of.masks) if files_of.masks else None,
    )


def _read_tars(place: Place, counts: FileCounts) -> Content | None:
    source = TarSource(place.store, ContainerSettings(container="webdataset"), place)
    bad: list[BadInput] = []
    items: list[Item] = []
    for item in source.items(bad.append):
        if not item.container.lower().endswith(".tar"):
            raise DataError(
                f"{item.container} is a compressed tar, whose images cannot be read in random order",
                where=place.store.root,
                hint="unpack it to a plain .tar, for example with gzip -d",
            )
        items.append(item)
    items.sort(key=lambda item: item.path)
    counts.unread = source.counts.unread
    if bad:
        raise DataError(
            f"{bad[0].path} cannot be read as a tar shard: {bad[0].detail}", where=place.store.root
        )
    grouped: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        grouped[split_of(item.path) or _split_of_file(item.container)].append(item)
    unused = grouped.pop("", []) if "train" in grouped else []
    parts = {
        name: StoredPart(TarImages.of_items(source, part), None) for name, part in grouped.items() if part
    }
    listed = [Entry(item.path, item.size) for part in grouped.values() for item in part]
    unused_in = parent_folders(item.path for item in unused)
    return Content("webdataset", parts, listed, len(unused), unused_in) if parts else None


def _grouped(entries: Sequence[Entry], splits: Sequence[str]) -> tuple[dict[str, list[Entry]], list[str]]:
    """Return the files of each part, and the paths of the files beside the folder train."""
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry, split in zip(entries, splits, strict=True):
        grouped[split].append(entry)
    unused = grouped.pop("", []) if "train" in grouped else []
    return dict(grouped), [entry.path for entry in unused]


def _split_of_file(path: str) -> str:
    # train/0.parquet, or train-00000-of-00001.parquet as Hugging Face names them
    return split_of(path) or split_of(f"{path.rsplit('/', 1)[-1].replace('.', '-').split('-')[0]}/x")


def _read_parquet_file(
    store: Store, entry: Entry, reading: ParquetReading, counts: FileCounts
) -> tuple[Any, NDArray[Any] | None]:
    """Return the column of images (a chunked array of large_binary) and the classes."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    limit = max(reading.max_unfolded_gb * 1e9, 100 * entry.size)
    try:
        opened = pa.BufferReader(store.read(entry.path))
        file = pq.ParquetFile(opened)
        columns = find_columns(file, reading.column, "data.column")
        label = next((name for name in _CLASS_COLUMNS if name in columns.others), None)
        counts.columns.update(name for name in columns.others if name != label)
        chunks: list[Any] = []
        unfolded = 0
        for group in range(file.num_row_groups):
            check_unfolding(opened, file, group, columns.images, limit - unfolded)
            table = file.read_row_group(group, columns=[columns.images])
            cells = table.column(0)
            if pa.types.is_struct(cells.type):
                cells = pc.struct_field(cells, "bytes")
            cells = cells.cast(pa.large_binary())  # 64-bit offsets: all row groups fit into one array
            chunks += cells.chunks
            unfolded += cells.nbytes
        labels = None if label is None else _read_classes(opened, label)
        return pa.chunked_array(chunks, pa.large_binary()), labels
    except BadImage as bad:
        hint = "name the column with data.column" if bad.reason == "ambiguous" else "see data.column"
        raise DataError(f"{entry.path}: {bad.detail}", where=store.root, hint=hint) from bad
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{entry.path} is no Parquet file that can be read: {reason}", where=store.root
        ) from error


def _read_classes(opened: Any, label: str) -> NDArray[Any] | None:
    """Read the column `label` of a Parquet file as classes."""
    import pyarrow.parquet as pq

    # As a dictionary, which contains each class once however many rows have it.
    column = pq.ParquetFile(opened, read_dictionary=[label]).read([label])[label]
    return _classes_in(column)


def _classes_in(column: Any) -> NDArray[Any] | None:
    """Return a column as classes: whole numbers or text (None: another type, or some are unknown)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        for chunk in column.chunks if pa.types.is_string(column.type.value_type) else ():
            if (pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0) > _LONGEST_CLASS:
                return None
        column = column.cast(column.type.value_type)
    if column.null_count:
        return None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist(), np.str_)
    if not pa.types.is_integer(column.type):
        return None
    values: NDArray[Any] = column.to_numpy().astype(np.int64)
    return values if values.min(initial=0) >= 0 else None
