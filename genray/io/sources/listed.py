"""Source of listed inputs: files below a root, http(s) URLs, and objects in buckets.

What a listed input is called, in the ledger and in the output:

- a path: its path relative to the root, which is the folder of the list or `read.root`;
- a URL or URI: host or bucket, then the path, without query and fragment. URLs that differ only in their
  query are numbered in the order of the list: a.jpg, a-2.jpg.

A query may be a signature or a token. It exists only in the list: a worker reads it there, by the number of
the row.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import type_of
from genray.io.listing import Place, root_of
from genray.io.sources.base import Item, ItemSource, OnError, checked, is_safe, reason_and_detail
from genray.io.sources.fetch import Fetcher
from genray.io.sources.inventory import InventoryPlace, is_manifest
from genray.io.sources.lists import LIST_SUFFIXES, ListFile, ListRow
from genray.io.store import OWN, LocalStore, Store, open_store

_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "memory")  # schemes of object stores
_RECENT_ROWS = 4096  # rows in memory: threads read slightly out of order
_MOST_AHEAD = 100_000  # rows that are read over to reach a later one


@dataclass(frozen=True)
class _Locator:
    """Location of a listed input: its path in the run, and either a URL or a path in a store.

    `root` is the URI of the store's root ("": the root of the list).
    """

    path: str
    key: str = ""
    root: str = ""
    url: str = field(default="", repr=False)


class ListSource(ItemSource):
    """Inputs that a list names, one in each row; see the module for their paths."""

    container = "list"

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._fetcher = Fetcher(self.settings.fetch)
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}
        self._lists: dict[str, _RowReader] = {}

    def items(self, on_error: OnError) -> Iterator[Item]:
        place, on_folder = self._begin(on_error)
        numbers = _Numbers()
        kept = self._images.paths.keeps
        for entry in place.walk(_is_list, on_folder, self.counts):
            self.counts.read[type_of(entry.path)] += 1
            try:
                for number, row in enumerate(self._list(entry.path).file.rows()):
                    try:
                        located = self._locate(row, number)
                    except BadImage as bad:
                        on_error(BadInput(f"{entry.path}:{number + 1}", bad.reason, bad.detail))
                        continue
                    if row.bucket and not self._is_image(row):
                        continue
                    if not kept(located.path):
                        self.counts.add_filtered()
                    elif path := numbers.assign(located):
                        if located.url or located.root:
                            yield Item(path, row.size, row.modified, entry.path, number)
                        else:
                            yield Item(path, 0, 0)
                    else:
                        self.counts.left_out["listed twice"] += 1
            except BadImage as bad:
                on_error(BadInput(entry.path, bad.reason, bad.detail))

    def read(self, item: Item, limit: int) -> bytes:
        if not item.container:
            return checked(self._read_from("", item.path, limit + 1), limit)
        row = self._list(item.container).read(item.position)
        located = None if row is None else self._locate(row, item.position)
        if located is None or not _is_numbered(item.path, located.path):
            raise BadImage("unreadable", f"{item.container} has changed since it was listed")
        if located.url:
            return checked(self._fetcher.read(located.url, limit), limit)
        return checked(self._read_from(located.root, located.key, limit + 1), limit)

    def nothing_there(self) -> DataError:
        location = (self.place or Place(self.store)).location
        unread = self.counts.unread_text
        return DataError(
            f"the list {location} names no inputs" + f"; {unread}" * bool(unread),
            where="input",
            hint="give a list with a path, a URL, or a bucket and a key in each row",
        )

    def _is_image(self, row: ListRow) -> bool:
        """Return whether an object of an inventory, which lists a whole bucket, is an image by its name."""
        if not row.is_object:
            self.counts.left_out["a folder, or a version that was replaced or deleted"] += 1
            return False
        if row.text.lower().endswith(self._images.wanted_suffixes):
            return True
        self.counts.add_unread(type_of(row.text.rpartition("/")[2]))
        return False

    def _locate(self, row: ListRow, number: int) -> _Locator:
        """Return the location of a row.

        Raises:
            BadImage: `bad-name`: the row names nothing that may be read.
        """
        if row.bucket:
            return self._object(f"s3://{row.bucket}", row.text, number)
        if not row.text:
            raise BadImage("bad-name", "the row names no input")
        if "://" not in row.text:
            return self._below_root(row.text)
        try:
            parts = urlsplit(row.text)
            has_user = parts.username is not None
        except ValueError:
            raise BadImage("bad-name", "not a valid URL") from None
        scheme = parts.scheme.lower()
        if scheme == "file":
            return self._below_root(unquote(parts.path))
        if has_user:
            raise BadImage(
                "bad-name", "a URL with a user or password, which is not supported: use a signed query"
            )
        if scheme in ("http", "https") and parts.hostname:
            return _Locator(_url_path(parts, number), url=parts._replace(fragment="").geturl())
        if scheme in _BUCKETS:
            _, _, rest = row.text.partition("://")
            bucket, _, key = rest.partition("/")
            return self._object(f"{scheme}://{bucket}", key, number)
        raise BadImage(
            "bad-name", f"{scheme[:20]}:// is not read from lists (http, https, {', '.join(_BUCKETS)} are)"
        )

    def _object(self, root: str, key: str, number: int) -> _Locator:
        # The bucket is opened with the options (region, endpoint) of the list's own URI.
        mark, _, options = self.store.root.partition("?")
        same = mark.partition("://")[0] == root.partition("://")[0]
        path = _safe_path(root.partition("://")[2], key, number)
        return _Locator(path, key, f"{root}?{options}" if options and same else root)

    def _below_root(self, text: str) -> _Locator:
        root = self._file_root
        path = os.path.normpath(text)
        if isinstance(root, LocalStore) and path.startswith(("/", "..")):
            folder = root.folder.absolute()
            path = os.path.relpath(folder / text, folder)
        if path.startswith(("../", "/")):
            raise BadImage(
                "bad-name", f"it is not below {root.root}: set read.root to a folder that contains it"
            )
        if path in (".", "..") or "\0" in path or path.split("/")[0] == OWN:
            raise BadImage("bad-name", "the row names no file")
        return _Locator(path, path)

    @property
    def _file_root(self) -> Store:
        return self.store if self.settings.root is None else self._store(self.settings.root)

    def _store(self, root: str) -> Store:
        with self._lock:
            if root not in self._stores:
                self._stores[root] = open_store(root)
            return self._stores[root]

    def _list(self, path: str) -> _RowReader:
        with self._lock:
            if path not in self._lists:
                columns = self.place.columns if isinstance(self.place, InventoryPlace) else ()
                self._lists[path] = _RowReader(ListFile(self.store, path, self.settings.path_column, columns))
            return self._lists[path]

    def _read_from(self, root: str, key: str, length: int) -> bytes:
        try:
            store = self._store(root) if root else self._file_root
            return store.read_range(key, 0, length)
        except DataError as error:
            raise BadImage("unreadable", error.what) from error
        except Exception as error:  # fsspec's file systems have errors of their own
            raise BadImage("unreadable", reason_and_detail(error)[1]) from error


class _RowReader:
    """Reads single rows of a list, by any thread; quick where they are asked for in order."""

    def __init__(self, file: ListFile) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._rows: Iterator[ListRow] = iter(())
        self._next = 0
        self._recent: OrderedDict[int, ListRow] = OrderedDict()

    def read(self, number: int) -> ListRow | None:
        """Read the row `number`; None if the list has fewer."""
        with self._lock:
            if number in self._recent:
                return self._recent[number]
            if not self._next <= number < self._next + _MOST_AHEAD or not self._recent:
                self._rows = self.file.rows(number)
                self._next = number
            while self._next <= number:
                row = next(self._rows, None)
                if row is None:
                    self._recent.clear()
                    return None
                self._recent[self._next] = row
                self._next += 1
                if len(self._recent) > _RECENT_ROWS:
                    self._recent.popitem(last=False)
            return self._recent[number]


class _Numbers:
    """Paths of listed inputs, each once: the same input twice is left out, and URLs that differ only in their
    query are numbered. Holds hashes, not paths."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._urls = set[int]()

    def assign(self, located: _Locator) -> str:
        """Return the path of an input; "" if it was listed before."""
        key = hash(located.path)
        count = self._counts.get(key, 0)
        if located.url:
            url = hash(located.url)
            if url in self._urls:
                return ""
            self._urls.add(url)
        elif count:
            return ""
        self._counts[key] = count + 1
        return _numbered(located.path, count + 1)


def is_list(location: str) -> bool:
    """Return whether `location` is a list by its name: text, CSV or an inventory's manifest. Parquet files
    may be lists, too."""
    path = location.partition("?")[0] if "://" in location else location
    return path.lower().endswith(LIST_SUFFIXES[:-1]) or is_manifest(path)


def list_root(location: str, root: str | None) -> str:
    """Return the folder of the files that the list at `location` names."""
    if root is not None:
        return root
    folder = root_of(location)
    return folder.rpartition("/")[0] or "/" if is_list(folder) else folder


def _is_list(folder: str, name: str) -> bool:
    return name.lower().endswith(LIST_SUFFIXES)


def _url_path(parts: SplitResult, number: int) -> str:
    host = parts.netloc.lower().replace(":", "_")
    return _safe_path(host, unquote(parts.path, errors="surrogateescape").lstrip("/"), number)


def _safe_path(folder: str, name: str, number: int) -> str:
    """Return the path of the input `name` of a host or bucket (an unsafe name becomes the row's number)."""
    path = "/".join(part for part in name.split("/") if part not in ("", "."))
    if not is_safe(name, path):
        suffix = PurePosixPath(name.rpartition("/")[2]).suffix
        path = f"{number:08}{suffix if suffix[1:].isalnum() and len(suffix) < 8 else ''}"
    return f"{folder}/{path}"


def _numbered(path: str, number: int) -> str:
    if number == 1:
        return path
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return f"{folder}{slash}{stem}-{number}{dot}{suffix}" if dot else f"{path}-{number}"


def _is_numbered(path: str, base: str) -> bool:
    """Return whether `path` is `base`, or one of its numbered paths."""
    if path == base:
        return True
    stem = base.rpartition(".")[0] if "." in base.rpartition("/")[2] else base
    number = path.removeprefix(f"{stem}-").partition(".")[0]
    return number.isdigit() and path == _numbered(base, int(number))
