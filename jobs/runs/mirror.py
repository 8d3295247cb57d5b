"""Working copy of a run that lies in a remote store: files are written here, and uploaded whole.

Trainings write files of many libraries (safetensors, TensorBoard, pictures), which need a folder. An object
of a store is replaced at once, so that a reader sees the old or the new one; `bundle.json`, which names the
weights and their checksum, and `outcome.json`, which marks the run as finished, are uploaded last.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import mmap
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

from genray.errors import DataError, TrainingError
from genray.io.files import lock_file
from genray.io.store import Entry, Store, create_store
from genray.uris import last_name

T = TypeVar("T")

_PREFIX = "genray-runs-"
_LOCK = ".lock"
_YOUNG_S = 60.0  # seconds in which a new folder may not be locked yet
_PAUSES_S = (1.0, 4.0)  # seconds before the next try after an error of the store
_LARGEST = 64 * 2**30  # bytes of a checkpoint or weights
_LARGEST_SMALL = 64 * 2**20  # bytes of any other file that is downloaded
_MOST_FILES = 20_000
_NOT_FETCHED = {"checkpoints", "tensorboard", "wandb", "trials"}  # fetched one by one, or never
_LAST = ("bundle.json", "outcome.json")  # files that name the others, in the order of their upload


class RunMirror:
    """Run at the URI `location`, and its working copy on this machine; making one opens nothing.

    Responsible for: uploads of files that changed, downloads of files that another process wrote, and new
    tries after errors of the store. Which files there are, and what they mean, is `Run`'s.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        digest = hashlib.sha256(location.encode()).hexdigest()[:16]
        # One working copy for each run and process: another process may be on another node.
        self.folder = _working_folder().path / digest / last_name(location)
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of local files when last transferred
        self._fetched: dict[str, tuple[int, int]] = {}  # size and time of remote files when last downloaded
        self._lock = threading.RLock()

    @cached_property
    def store(self) -> Store:
        """The store of the run.

        Raises:
            DataError: it cannot be opened.
        """
        return create_store(self.location)

    def discard(self) -> None:
        """Delete the working copy."""
        with self._lock:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._sent.clear()
            self._fetched.clear()

    def publish(self) -> None:
        """Upload every file that changed since the last call; then delete those that were deleted here.

        Raises:
            TrainingError: the store did not take a file; what it has is intact.
        """
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(self._local_files(), key=_order):
                self.send(file)
            for path in [path for path in self._sent if not (self.folder / path).exists()]:
                self.remove(self.folder / path)

    def send(self, file: Path) -> None:
        """Upload one file of the working copy if it changed.

        Raises:
            TrainingError: the store did not take it.
        """
        path = file.relative_to(self.folder).as_posix()
        with self._lock:
            version = _version(file)
            if self._sent.get(path) != version:
                self._tried("write", path, lambda: _upload(self.store, path, file))
                self._sent[path] = version

    def refresh(self) -> None:
        """Download every file that another process changed, except checkpoints, logs of trackers, weights,
        and files of an implausible size.

        Raises:
            TrainingError: the store does not answer.
        """
        with self._lock:
            entries = self._tried("list", "", self._remote_files)
            names = {entry.path for entry in entries}
            for path in [path for path in self._fetched if path not in names and not _is_apart(path)]:
                self._forget(path)
            for entry in entries:
                self._download(entry)

    def fetch(self, file: Path) -> None:
        """Download one file if another process changed it, or delete it here if it is not in the store.

        Raises:
            TrainingError: the store does not answer, or the file has an implausible size.
        """
        path = file.relative_to(self.folder).as_posix()
        with self._lock:
            entry = self._tried("read", path, lambda: _entry(self.store, path))
            if entry is None:
                self._forget(path)
            elif entry.size <= _LARGEST:
                self._download(entry)
            else:
                raise self.failed("read", path, OSError(f"{entry.size} bytes"))

    def exists(self, file: Path) -> bool:
        """Return whether a file of the working copy exists in the store.

        Raises:
            TrainingError: the store does not answer.
        """
        path = file.relative_to(self.folder).as_posix()
        return self._tried("read", path, lambda: self.store.exists(path))

    def remove(self, file: Path) -> None:
        """Delete a file here and in the store.

        Raises:
            TrainingError: the store does not answer.
        """
        path = file.relative_to(self.folder).as_posix()
        with self._lock:
            self._forget(path)
            self._tried("delete", path, lambda: self.store.delete(path))

    def failed(self, doing: str, path: str, error: OSError) -> TrainingError:
        """Return the error of a store that did not let genray do something to a file ("": its folder)."""
        return TrainingError(
            f"the store of the run does not let genray {doing} {path or 'its folder'} ({error})",
            where=self.location,
            hint="check the network, the credentials and their permissions; what the store has is intact;"
            " the same command with --name resumes from it",
        )

    def _download(self, entry: Entry) -> None:
        version = (entry.size, entry.modified)
        if self._fetched.get(entry.path) == version:
            return
        file = self.folder / entry.path
        self._tried("read", entry.path, lambda: self.store.download(entry.path, file))
        if entry.modified:
            os.utime(file, ns=(entry.modified, entry.modified))
        self._sent[entry.path] = _version(file)
        self._fetched[entry.path] = version

    def _forget(self, path: str) -> None:
        (self.folder / path).unlink(missing_ok=True)
        self._sent.pop(path, None)
        self._fetched.pop(path, None)

    def _local_files(self) -> Iterator[Path]:
        pending = [self.folder]
        while pending:
            for each in pending.pop().iterdir():
                if each.name.startswith("."):
                    continue
                if each.is_dir():
                    pending.append(each)
                else:
                    yield each

    def _remote_files(self) -> list[Entry]:
        entries = islice(self.store.walk([""], enter=lambda folder: folder not in _NOT_FETCHED), _MOST_FILES)
        return [e for e in entries if not _is_apart(e.path) and e.size <= _LARGEST_SMALL]

    def _tried(self, doing: str, path: str, work: Callable[[], T]) -> T:
        """Do `work`, again after an error of the store."""
        for pause in (*_PAUSES_S, None):
            try:
                return work()
            except OSError as error:
                if pause is None:
                    raise self.failed(doing, path, error) from error
                time.sleep(pause)
            except DataError as error:
                if isinstance(error.__cause__, OSError):  # of a listing
                    raise self.failed(doing, path, error.__cause__) from error
                raise
        raise AssertionError


@dataclass(frozen=True)
class _WorkingFolder:
    """Folder of this process's working copies, and the lock that says that the process lives."""

    path: Path
    lock: ExitStack


@functools.cache
def _working_folder() -> _WorkingFolder:
    """Make the folder of this process, which is deleted at its end; delete those of killed processes."""
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _YOUNG_S:
                with lock_file(old / _LOCK) as is_dead:
                    if is_dead:
                        shutil.rmtree(old)
    path = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = ExitStack()
    lock.enter_context(lock_file(path / _LOCK))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return _WorkingFolder(path, lock)


def _order(file: Path) -> tuple[int, bool, Path]:
    """Return the place of a file in the order of uploads: checkpoints early, files that name others last."""
    last = _LAST.index(file.name) + 1 if file.name in _LAST else 0
    return last, file.parent.name != "checkpoints", file


def _is_apart(path: str) -> bool:
    """Return whether a file is fetched one by one: checkpoints, logs and weights may be large."""
    return path.split("/")[0] in _NOT_FETCHED or path.endswith(".safetensors")


def _version(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _entry(store: Store, path: str) -> Entry | None:
    with suppress(FileNotFoundError):
        return store.entry(path)
    return None


def _upload(store: Store, path: str, file: Path) -> None:
    with file.open("rb") as source:
        if not file.stat().st_size:  # an empty file cannot be mapped
            store.write(path, b"")
            return
        store.write(path, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
