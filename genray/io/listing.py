"""Listing of a location (folder, pattern or file): image files or shards, and counts of the other files.

Bulk runs and trainings use this one listing. Image files are:

- files with a suffix of `READ_SUFFIXES` (or of the user's list), in upper or lower case;
- files without a suffix (see `type_of`) whose first bytes are those of an image. Files with another suffix
  are never opened: there may be millions of captions.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, cast

from genray.errors import DataError
from genray.io.file_types import IDX_SUFFIXES, FileCounts, type_of
from genray.io.kinds import ARRAY_SUFFIXES, HEAD_BYTES, READ_SUFFIXES, kind_of_bytes
from genray.io.patterns import PathFilter
from genray.io.store import Entry, Store, Wanted, is_file, open_store
from genray.text import visible

Container = Literal["files", "parquet", "webdataset", "idx", "list"]
OnError = Callable[[str, str], None]  # takes the path of a folder that could not be listed, and the reason

SHARD_SUFFIXES: Mapping[Container, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    "idx": IDX_SUFFIXES,
}
CONTAINER_NAMES: Mapping[Container, tuple[str, str]] = {
    "files": ("image file", "image files"),
    "parquet": ("Parquet file", "Parquet files"),
    "webdataset": ("tar shard", "tar shards"),
    "idx": ("idx file of images", "idx files of images"),
    "list": ("list of images", "lists of images"),
}
_IDX_IMAGES = re.compile(r"(train|t10k)-images[-.]idx3-ubyte(\.gz)?")
_MAGIC = re.compile(r"[*?[]")
_OPENED_AT_ONCE = 32  # concurrent reads of first bytes from a remote store
_MOST_OPENED = 1000  # files without a suffix that a survey opens


class Readable(Protocol):
    """Files that can be read in part: a store, or the tars of one."""

    def read_range(self, path: str, position: int, size: int, /) -> bytes:
        """Read `size` bytes at `position` of the file `path`."""


@dataclass(frozen=True)
class Place:
    """Location of files: all or some of the files below the root of a store.

    Attributes:
        store: store of the files.
        pattern: pattern of their paths below the root, with `**` for any folders ("": all files).
        name: name of the only file ("": all files).
        apart: folder that is not listed ("": none).
    """

    store: Store
    pattern: str = ""
    name: str = ""
    apart: str = ""

    @property
    def location(self) -> str:
        """The location as text, for errors."""
        below = self.name or self.pattern
        return f"{self.store.root}/{below}" if below else self.store.root

    def walk(
        self, wanted: Wanted, on_error: OnError | None, counts: FileCounts, *, sizes: bool = True
    ) -> Iterator[Entry]:
        """Yield the files that are `wanted`, in the order of `Store.walk`; see there for `sizes`. Hidden
        files are counted, not listed."""
        if self.name:
            if wanted("", self.name):
                yield self.store.entry(self.name)
            return
        matches = self._matches
        if matches is None:
            yield from self.store.walk(
                wanted,
                on_error=on_error,
                enter=self._enters,
                on_hidden=lambda path: counts.add_unread("hidden"),
                sizes=sizes,
            )
            return
        yield from self.store.walk(
            lambda folder, name: matches(folder + name) is not None and wanted(folder, name),
            on_error=on_error,
            enter=self._enters,
            sizes=sizes,
        )

    def _enters(self, folder: str) -> bool:
        if self.pattern and "**" not in self.pattern and folder.count("/") >= self.pattern.count("/"):
            return False
        return folder != self.apart

    @cached_property
    def _matches(self) -> Callable[[str], object] | None:
        if not self.pattern:
            return None
        from fsspec.utils import glob_translate  # glob.translate needs Python 3.13

        return re.compile(glob_translate(self.pattern)).match


def find_place(location: str | os.PathLike[str], apart: str = "") -> Place:
    """Return the place at `location`.

    Args:
        location: a folder, a file, a URI of either, or a pattern such as photos/**/*.png (in URIs only with *
            and []: a ? begins their query).
        apart: folder there that is not listed.

    Raises:
        DataError: the location is missing.
    """
    location = os.fspath(location)
    if is_file(location):
        path, mark, query = location.partition("?") if "://" in location else (location, "", "")
        folder, slash, name = path.rpartition("/")
        return Place(open_store((folder or (slash or ".")) + mark + query), name=name)
    root, pattern = _split_pattern(location)
    return Place(open_store(root), pattern, apart=apart)


def root_of(location: str) -> str:
    """Return the folder that contains all matches of the pattern `location`; `location` itself if it is no
    pattern."""
    return _split_pattern(location)[0]


def _split_pattern(location: str) -> tuple[str, str]:
    """Return the folder before the first part with a wildcard, and the pattern below it ("": none)."""
    path, mark, query = location.partition("?") if "://" in location else (location, "", "")
    if not _MAGIC.search(path) or ("://" not in path and Path(path).expanduser().exists()):
        return location, ""
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    folder = "/".join(parts[:first]) or ("/" if path.startswith("/") else ".")
    return folder + mark + query, "/".join(parts[first:])


@dataclass(frozen=True)
class ImageFiles:
    """Rule for which files are images.

    Attributes:
        suffixes: suffixes of image files, lower case (None: all that can be read; files without a suffix are
            known by their content).
        paths: filter of their paths.
        arrays: true if arrays (.npy) are images, too.
    """

    suffixes: tuple[str, ...] | None = None
    paths: PathFilter = field(default_factory=PathFilter)
    arrays: bool = False

    @property
    def wanted_suffixes(self) -> tuple[str, ...]:
        """Suffixes of files that are listed without opening them."""
        if self.suffixes is not None:
            return self.suffixes
        return (*READ_SUFFIXES, *ARRAY_SUFFIXES) if self.arrays else READ_SUFFIXES

    def list(
        self, place: Place, counts: FileCounts, on_error: OnError | None = None, *, sizes: bool = True
    ) -> Iterator[Entry]:
        """Yield the image files at `place`, and count all files. Among them are files without a suffix that
        cannot be opened: reading them gives the reason. See `Store.walk` for `sizes`."""
        suffixes = self.wanted_suffixes
        by_content = self.suffixes is None or bool(place.name)
        unknown = set[str]()  # paths of files whose first bytes must be read
        keeps = self.paths.keeps if self.paths != PathFilter() else None

        def wanted(prefix: str, name: str) -> bool:
            lower = name.lower()
            if keeps is not None and not keeps(prefix + name):
                counts.add_filtered()
                return False
            if lower.endswith(suffixes):
                counts.read[lower[lower.rfind(".") :]] += 1
                return True
            kind = type_of(name)
            if by_content and (not kind or place.name):
                unknown.add(prefix + name)
                return True
            counts.add_unread(kind)
            return False

        files = place.walk(wanted, on_error, counts, sizes=sizes)
        for entry, head in _with_heads(place.store, files, unknown):
            if head is None:
                yield entry
                continue
            kind = type_of(entry.path)
            found = kind_of_bytes(head)
            if found is not None and found.is_read and (self.arrays or not found.is_array):
                counts.read[kind] += 1
                yield entry
            else:
                counts.add_unread(found.suffixes[0] if found is not None else kind)


def list_shards(
    place: Place,
    container: Container,
    counts: FileCounts,
    on_error: OnError | None = None,
    allows: Callable[[str], bool] = lambda path: True,
) -> Iterator[Entry]:
    """Yield the Parquet files, tar shards or idx files at `place` whose path `allows` accepts, and count all
    files."""
    suffixes = SHARD_SUFFIXES[container]

    def wanted(prefix: str, name: str) -> bool:
        is_shard = name.lower().endswith(suffixes)
        if not allows(prefix + name):
            counts.add_filtered()
            return False
        if is_shard:
            counts.read[type_of(name)] += 1
        else:
            counts.add_unread(type_of(name))
        return is_shard

    return place.walk(wanted, on_error, counts)


def shard_stem(path: str) -> str:
    """Return the path of a shard without its suffix: a/b.tar.gz -> a/b."""
    lower = path.lower()
    longest = max(
        (each for each in SHARD_SUFFIXES["webdataset"] if lower.endswith(each)), key=len, default=""
    )
    return path[: -len(longest)] if longest else str(PurePosixPath(path).with_suffix(""))


def read_head(store: Readable, path: str, position: int = 0, size: int = HEAD_BYTES) -> bytes | None:
    """Read the first bytes of the file `path`, or of the `size` bytes at `position` in it; None if it cannot
    be read."""
    try:
        return store.read_range(path, position, min(size, HEAD_BYTES))
    except Exception:  # fsspec's file systems have errors of their own
        return None


def _with_heads(
    store: Store, entries: Iterable[Entry], unknown: set[str]
) -> Iterator[tuple[Entry, bytes | None]]:
    """Yield each file with its first bytes if it is among `unknown` (None for the others, and for files that
    cannot be read). Files of a remote store are read concurrently."""
    if store.is_local:
        for entry in entries:
            if unknown and entry.path in unknown:
                unknown.remove(entry.path)
                yield entry, read_head(store, entry.path)
            else:
                yield entry, None
        return
    waiting: deque[tuple[Entry, Future[bytes | None] | None]] = deque()
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
        for entry in entries:
            head = None
            if entry.path in unknown:
                unknown.remove(entry.path)
                head = pool.submit(read_head, store, entry.path)
            waiting.append((entry, head))
            while waiting and (waiting[0][1] is None or len(waiting) >= 2 * _OPENED_AT_ONCE):
                yield _with_result(*waiting.popleft())
        for first in waiting:
            yield _with_result(*first)


def _with_result(entry: Entry, head: Future[bytes | None] | None) -> tuple[Entry, bytes | None]:
    return entry, None if head is None else head.result()


@dataclass
class Survey:
    """Contents of a place by names only. Files without a suffix are opened until one is an image.

    Attributes:
        containers: number of files of each container.
        examples: first path of each container.
        counts: counts of the other files.
    """

    containers: Counter[Container] = field(default_factory=Counter)
    examples: dict[Container, str] = field(default_factory=dict)
    counts: FileCounts = field(default_factory=FileCounts)

    def add(self, container: Container, path: str) -> None:
        """Count one more file of `container`."""
        self.containers[container] += 1
        self.examples[container] = min(path, self.examples.get(container, path))


def survey(place: Place, images: ImageFiles) -> Survey:
    """Survey all names at `place`."""
    found = Survey()
    unnamed: list[str] = []
    tars: list[str] = []
    suffixes = images.wanted_suffixes
    paths = images.paths
    has_patterns = paths != PathFilter()

    def look(prefix: str, name: str) -> bool:
        lower = name.lower()
        if not has_patterns and lower.endswith(suffixes):  # most files
            found.add("files", prefix + name)
        elif not paths.allows(prefix + name):
            found.counts.add_filtered()
        elif lower.endswith(suffixes):
            if not paths.keeps(prefix + name):
                found.counts.add_filtered()
                return False
            found.add("files", prefix + name)
        elif lower.endswith(SHARD_SUFFIXES["parquet"]):
            found.add("parquet", prefix + name)
        elif lower.endswith(SHARD_SUFFIXES["webdataset"][1:]):
            tars.append(prefix + name)
        elif lower.endswith(".tar"):
            found.add("webdataset", prefix + name)
        elif _IDX_IMAGES.fullmatch(lower):
            found.add("idx", prefix + name)
        else:
            kind = type_of(name)
            if (not kind or place.name) and images.suffixes is None and len(unnamed) < _MOST_OPENED:
                unnamed.append(prefix + name)
            else:
                found.counts.add_unread(kind)
        return False

    for _ in place.walk(look, lambda path, detail: None, found.counts):
        pass
    for path in unnamed:
        kind = None
        if "files" not in found.containers:
            kind = kind_of_bytes(read_head(place.store, path) or b"")
            if kind is not None and kind.is_read and (images.arrays or not kind.is_array):
                found.add("files", path)
                continue
        found.counts.add_unread(kind.suffixes[0] if kind is not None else type_of(path))
    if tars and found.containers:
        # A compressed tar beside other inputs is a backup, most likely: it is counted as not read.
        found.counts.unread.update(type_of(path) for path in tars)
    else:
        for path in tars:
            found.add("webdataset", path)
    return found


def images_of(entries: Sequence[Entry], counts: FileCounts, *, beside: bool = False) -> list[Entry]:
    """Return the images among `entries` without arrays that belong to other images, which are counted.

    Args:
        entries: files that `ImageFiles(arrays=True)` listed.
        counts: counts of the files, changed.
        beside: leave out only arrays that have the folder and stem of another image; else all arrays, if
            there are other images.
    """
    arrays = {entry.path for entry in entries if entry.path.lower().endswith(ARRAY_SUFFIXES)}
    if not arrays:
        return list(entries)
    others = {entry.path.rpartition(".")[0] for entry in entries if entry.path not in arrays}
    left_out = {path for path in arrays if path.rpartition(".")[0] in others or not beside} if others else ()
    for path in left_out:
        counts.read[type_of(path)] -= 1
        counts.add_unread(type_of(path))
    counts.read += Counter()  # drops zeros
    return [entry for entry in entries if entry.path not in left_out]


def find_inputs(
    location: str, place: Place, choices: Mapping[Container, str], *, where: str
) -> tuple[Container, list[Entry], FileCounts]:
    """Find the inputs at `place` in one walk: their container, its files, and the counts of all files.

    Arrays (.npy) are images only where there is nothing else.

    Args:
        location: location of the place, for errors.
        place: place to walk.
        choices: containers that can be read, each with the setting that selects it.
        where: setting that gave `location`, for errors.

    Raises:
        DataError: there are no inputs, or inputs in several containers.
    """
    found = Survey()
    groups: dict[_Group, list[Entry]] = defaultdict(list)

    def wanted(prefix: str, name: str) -> bool:
        group = _group_of(name, opens=bool(place.name))
        if not group:
            found.counts.add_unread(type_of(name))
        return bool(group)

    for entry in place.walk(wanted, None, found.counts):
        groups[_group_of(entry.path.rpartition("/")[2], opens=bool(place.name))].append(entry)
    unnamed = groups.pop("unnamed", [])
    for entry, head in _with_heads(place.store, unnamed, {entry.path for entry in unnamed}):
        kind = kind_of_bytes(head or b"")
        if head is None or (kind is not None and kind.is_read):
            groups["arrays" if kind is not None and kind.is_array else "files"].append(entry)
        else:
            found.counts.add_unread(kind.suffixes[0] if kind is not None else type_of(entry.path))
    idx = [entry for entry in groups.get("idx", ()) if _is_idx_images(entry.path)]
    if "idx" in groups and not idx:
        found.counts.unread["idx"] += len(groups.pop("idx"))
    for group, container in _ONLY_WITHOUT_OTHERS.items():
        if group in groups and not groups.keys() - {group}:
            groups[container] = groups.pop(group)
    for group in _ONLY_WITHOUT_OTHERS:
        for entry in groups.pop(group, ()):
            found.counts.add_unread(type_of(entry.path))
    by_container = cast(dict[Container, list[Entry]], groups)
    for name, entries in by_container.items():
        shown = idx if name == "idx" else entries
        found.containers[name] = len(shown)
        found.examples[name] = min(entry.path for entry in shown)
    chosen = _choose(location, found, choices, where)
    for name, entries in by_container.items():
        for entry in entries:
            kind_of_file = type_of(entry.path)
            if name == chosen:
                found.counts.read[kind_of_file] += 1
            else:
                found.counts.add_unread(kind_of_file)
    return chosen, by_container[chosen], found.counts


_Group = Literal["", "files", "parquet", "webdataset", "idx", "list", "packed", "arrays", "unnamed"]
_ONLY_WITHOUT_OTHERS: dict[_Group, Container] = {"arrays": "files", "packed": "webdataset"}
"""Groups of files that are inputs only where there are no others: features or backups, most likely."""


def _group_of(name: str, *, opens: bool) -> _Group:
    """Return the group of a file by its name; "" for files that are no inputs.

    Args:
        name: name of the file.
        opens: true if the first bytes decide over unknown suffixes, too.
    """
    lower = name.lower()
    if lower.endswith(READ_SUFFIXES):
        return "files"
    if lower.endswith(ARRAY_SUFFIXES):
        return "arrays"
    if lower.endswith(SHARD_SUFFIXES["parquet"]):
        return "parquet"
    if lower.endswith(".tar"):
        return "webdataset"
    if lower.endswith(SHARD_SUFFIXES["webdataset"]):
        return "packed"
    if lower.endswith(SHARD_SUFFIXES["idx"]):
        return "idx"
    return "unnamed" if opens or not type_of(name) else ""


def _is_idx_images(path: str) -> bool:
    return _IDX_IMAGES.fullmatch(path.rpartition("/")[2].lower()) is not None


def choose_container(
    location: str,
    place: Place,
    images: ImageFiles,
    choices: Mapping[Container, str],
    *,
    where: str = "input",
) -> Container:
    """Return the container of the inputs at `place`.

    Args:
        location: location of the place, for errors.
        place: place to survey.
        images: rule for which files are images.
        choices: containers that can be read, each with the setting that selects it.
        where: setting that gave `location`, for errors.

    Raises:
        DataError: there are no inputs, or inputs in several containers.
    """
    return _choose(location, survey(place, images), choices, where)


def _choose(location: str, found: Survey, choices: Mapping[Container, str], where: str) -> Container:
    """Return the only container of `choices` that was found; see `choose_container`."""
    there = [container for container in choices if container in found.containers]
    if not there:
        raise nothing_to_read(location, choices, found.counts, where=where)
    if len(there) == 1:
        return there[0]
    parts = []
    for container in there:
        count = found.containers[container]
        name = CONTAINER_NAMES[container][count > 1]
        example = visible(found.examples[container])
        parts.append(f"{count:,} {name} ({example}{', ...' * (count > 1)})")
    ways = [f"{choices[container]} for the {CONTAINER_NAMES[container][1]}" for container in there]
    raise DataError(
        f"{location} holds {' and '.join(parts)}: which of them are the inputs?",
        where=choices[there[0]].partition("=")[0],
        hint=f"set {', or '.join(ways)}; the others are counted as not read",
    )


def nothing_to_read(
    location: str, containers: Iterable[Container], counts: FileCounts, *, where: str = "input"
) -> DataError:
    """Return the error that `location` has no `containers`, with the counts of its files."""
    names = " or ".join(CONTAINER_NAMES[container][1] for container in containers)
    unread = f"; {counts.unread_text}" if counts.unread_text else ""
    return DataError(
        f"there are no {names} at {location}{unread}",
        where=where,
        hint=f"give a folder, a pattern or a file of images ({' '.join(READ_SUFFIXES)}), or Parquet files or "
        "tar shards of them, or a list of paths or URLs (.txt, .csv, .parquet)",
    )
