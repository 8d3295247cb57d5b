"""Atomic writes, locks and syncs: a crash, a kill or a full disk never leaves half a file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path
from typing import Any

from genray.errors import StorageFull

TEMPORARY_NAME = ".genray-{}.tmp"
"""Name of a file until it is complete: hidden and short, however long the final name is."""

# A file size limit (ulimit -f) gives EFBIG; for the user it is the same problem.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_write(path: Path, *, durable: bool = True, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, sync it and rename it to `path`, with the mode of the
    umask whichever library wrote it.

    A reader sees the old file or the new one, never a part. On an error the temporary file is removed and
    `path` keeps its content; a killed process leaves the temporary file, see `remove_leftovers`.

    Args:
        path: file to write.
        durable: sync, so that the file survives a power cut (False for files of short use).
        make_folder: make the folder and its parents (False if they exist).

    Raises:
        StorageFull: no space for the file.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY_NAME.format(secrets.token_hex(8)))
    try:
        with storage_errors(path):
            yield temporary
            _open_to_others(temporary)
            if durable:
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            if durable:
                _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str, data: bytes | mmap, *, durable: bool = False) -> None:
    """Write `data` to `path` atomically, as `atomic_write` does, in a folder that exists; for many small
    files, with a third of its cost.

    Raises:
        StorageFull: no space for the file.
        OSError: the file cannot be written (FileNotFoundError: the folder is missing).
    """
    folder = os.path.dirname(path)  # noqa: PTH120
    temporary = f"{folder}/{TEMPORARY_NAME.format(secrets.token_hex(8))}"
    try:
        with storage_errors(path):
            with open(temporary, "xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    if durable:
        _sync_folder(folder)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically. NaN, which JSON lacks, raises a ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of killed writers in `folder`. No process may write there meanwhile."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turn the error of a full disk, from any library, into a `StorageFull` that names `path`."""
    try:
        yield
    except Exception as error:
        # safetensors reports I/O errors from Rust, with the error number only in the text.
        number = getattr(error, "errno", None)
        if number not in _NO_ROOM and not any(f"(os error {n})" in str(error) for n in _NO_ROOM):
            raise
        path = Path(path)
        free = shutil.disk_usage(path.parent).free
        raise StorageFull(
            f"no room left to write {path.name} ({free / 1e6:.0f} MB free)",
            where=str(path),
            hint="free some space or raise the quota, then give the same command again: everything recorded "
            "is complete, and the command resumes from there",
        ) from error


@contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Lock the file `path` for this process; yields False if another process holds the lock.

    The kernel releases the lock when the process ends.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def sync_file_system(folder: Path) -> None:
    """Sync the file system of `folder`, so that everything written there survives a power cut."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):  # only Linux has it
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _open_to_others(file: Path) -> None:
    """Give `file` the mode that a plain `open` gives, if only its owner can read it.

    Libraries that write to a temporary name of their own, such as safetensors, leave the mode at 0600: other
    users could not load a bundle from a shared folder. Secrets and patient data (journal, key of the
    pseudonyms, Ray's token) are readable by the owner only on purpose, and are not written by this function.
    """
    if stat.S_IMODE(file.stat().st_mode) != 0o600:
        return
    # A new file shows the effect of the umask and of the folder's access list. The call that returns the
    # umask would also set it, for all threads.
    probe = file.with_name(TEMPORARY_NAME.format(secrets.token_hex(8)))
    try:
        with open(probe, "xb") as plain:
            file.chmod(stat.S_IMODE(os.fstat(plain.fileno()).st_mode))
    finally:
        probe.unlink(missing_ok=True)


def _sync_folder(folder: Path | str) -> None:
    # Without this a power cut can undo the rename, although the file's bytes are safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
