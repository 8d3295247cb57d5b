"""Writing files so that a crash, a kill or a full disk never leaves half of one behind."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genray.errors import StorageFull

TEMPORARY_NAME = ".genray-{}.tmp"
"""What a file is called until it is whole: hidden, and short, whatever it will be called."""

# EFBIG is what a file size limit (ulimit -f) gives; to the user it is the same problem.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_write(path: Path, *, durable: bool = True, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`, for whom the
    umask says, whichever library wrote it.

    A reader sees the old file or the new one, never a part. On any error the temporary file is
    removed and `path` is left as it was; a process that is killed leaves one, see `remove_leftovers`.

    Args:
        path: the file to write.
        durable: sync, so that it survives a power cut; not needed for what is only of use now.
        make_folder: make the folder that it lies in, and those above; False: it is there.

    Raises:
        StorageFull: there was no room for the file.
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


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left in `folder`. Nobody else may be writing there."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' while writing `path` into `StorageFull`, whichever library says it."""
    try:
        yield
    except Exception as error:
        # safetensors reports I/O errors from Rust, with the number only in the text.
        number = getattr(error, "errno", None)
        if number not in _NO_ROOM and not any(f"(os error {n})" in str(error) for n in _NO_ROOM):
            raise
        free = shutil.disk_usage(path.parent).free
        raise StorageFull(
            f"no room left to write {path.name} ({free / 1e6:.0f} MB free)",
            where=str(path),
            hint="free some space (or raise the quota), then give the same command again: what was "
            "recorded is whole, and it goes on from there",
        ) from error


@contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Lock the file `path` for this process; yields False if another process has locked it.

    The kernel lets go of it whenever the process ends.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def sync_file_system(folder: Path) -> None:
    """Make all that was written to the file system of `folder` survive a power cut."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):  # Linux alone has it
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
    """Give `file` the mode of one that a plain `open` makes, if its writer kept it to its owner.

    Libraries that write to a temporary name of their own, as safetensors does, leave it at 0600: others could
    not load a bundle from a shared folder. What holds secrets, or what is known of patients, is not written
    through here: the journal, the key of the pseudonyms and Ray's token are the owner's on purpose.
    """
    if stat.S_IMODE(file.stat().st_mode) != 0o600:
        return
    # A file tells the umask, and what the folder's access list makes of it; the call that returns the umask
    # sets it too, for all threads.
    probe = file.with_name(TEMPORARY_NAME.format(secrets.token_hex(8)))
    try:
        with open(probe, "xb") as plain:
            file.chmod(stat.S_IMODE(os.fstat(plain.fileno()).st_mode))
    finally:
        probe.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Without this a rename can be lost with the power, although the file's bytes are safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
