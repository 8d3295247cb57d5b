"""What a store of single images holds: idx files, Parquet or image files, in parts that are trained and
judged on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from genray.datasets import idx
from genray.datasets.folder import FolderImages, classes_of
from genray.datasets.loader import Pixels
from genray.datasets.parquet import read_parquet
from genray.datasets.splits import split_of
from genray.errors import DataError
from genray.images import decode as images
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
