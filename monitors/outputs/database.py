"""SQLite file of the journal: its tables, opening and repairing it, and its errors as errors of genray."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from genray.errors import DataError, GenrayError, StorageFull

VERSION = 2
APPLICATION = 0x6765_6367  # "gecg": marks a journal among other SQLite databases
CONDITION_TRUE = ("onset", "escalated", "resumed")
"""Changes of an alarm at which its condition is true, so that the values measured then explain it."""
_TRANSITIONS = """
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    recorded REAL NOT NULL,
    millisecond INTEGER NOT NULL,
    alarm TEXT NOT NULL, stream TEXT NOT NULL, kind TEXT NOT NULL, category TEXT NOT NULL,
    priority TEXT NOT NULL, change TEXT NOT NULL, state TEXT NOT NULL,
    time REAL NOT NULL, onset REAL NOT NULL, announced INTEGER NOT NULL, why TEXT NOT NULL
);
CREATE INDEX by_alarm ON transitions (alarm, id);
CREATE INDEX by_stream ON transitions (stream, id);
"""
_SCHEMA = f"""
{_TRANSITIONS}
CREATE TABLE channels (name TEXT PRIMARY KEY, since INTEGER NOT NULL);
CREATE TABLE sent (
    channel TEXT NOT NULL, id INTEGER NOT NULL REFERENCES transitions ON DELETE CASCADE,
    PRIMARY KEY (channel, id)
) WITHOUT ROWID;
CREATE INDEX sent_by_id ON sent (id);
CREATE TABLE states (
    name TEXT NOT NULL, stream TEXT NOT NULL, time REAL NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (name, stream)
);
"""
# Migration from version 1, in which an alarm name had to be unique.
_FROM_1 = f"""
ALTER TABLE transitions RENAME TO before;
DROP INDEX by_stream;
{_TRANSITIONS}
INSERT INTO transitions SELECT * FROM before;
DROP TABLE before;
"""
_BATCH_ROWS = 250  # rows of one batch
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# A quota or a file size limit shows as a failed write.
_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def open_database(path: Path) -> tuple[sqlite3.Connection, str | None]:
    """Open the database at `path`, readable only by its owner; create it if there is none.

    No other process may have it open. A damaged file is renamed, and a new one is created.

    Returns:
        The connection, usable from any thread but by one at a time; and what was wrong with the file, or
        None.

    Raises:
        DataError: it is the database of another program, or has a newer version.
        StorageFull: the disk is full.
        GenrayError: it cannot be opened.
    """
    with database_errors(path):
        try:
            return _open(path), None
        except sqlite3.DatabaseError as error:
            if _primary_code(error) not in _DAMAGE_CODES:
                raise
            damage = str(error)
        aside = _set_aside(path)
        return _open(
            path
        ), f"the journal was damaged and is now {aside.name}; a new one was created ({damage})"


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the file system as errors of genray."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code in _FULL_CODES or getattr(error, "errno", None) == errno.ENOSPC:
            raise StorageFull(
                f"the disk is full: the journal {path.name} cannot be written "
                f"({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free)",
                where=str(path),
                hint="free some space: the monitor keeps running and writes the waiting changes after that",
            ) from error
        raise GenrayError(
            f"the journal {path.name} cannot be read or written: {error}",
            where=str(path),
            hint="check the disk and the file's permissions; a damaged file is replaced at the next start",
        ) from error


def delete_batch(
    database: sqlite3.Connection, *, after: int, last: int, recorded_before: float, surplus_to: int
) -> tuple[int | None, int]:
    """Delete the old transitions of ended alarms in one batch of rows.

    Args:
        after, last: the batch starts after row `after` and ends at row `last` at most.
        recorded_before: unix time; rows that were recorded earlier are old.
        surplus_to: number of the last row that is beyond the most that are stored; rows up to it are old.

    Returns:
        The row after which to continue, None when no old row is left; and the number of rows deleted.
    """
    (end,) = database.execute(
        "SELECT max(id) FROM (SELECT id FROM transitions WHERE id > ? AND id <= ? ORDER BY id LIMIT ?)",
        (after, last, _BATCH_ROWS),
    ).fetchone()
    if end is None:
        return None, 0
    old = "id > ? AND id <= ? AND (recorded < ? OR id <= ?)"
    bounds = (after, end, recorded_before, surplus_to)
    if not database.execute(f"SELECT 1 FROM transitions WHERE {old} LIMIT 1", bounds).fetchone():
        return None, 0  # all later rows are newer
    deleted = database.execute(
        f"DELETE FROM transitions WHERE {old} AND 'ended' = "
        "(SELECT state FROM transitions AS t WHERE t.alarm = transitions.alarm ORDER BY id DESC LIMIT 1)",
        bounds,
    )
    return end, deleted.rowcount


def _open(path: Path) -> sqlite3.Connection:
    # Only the owner may read it, whatever the umask: it holds what is known of patients. Created before
    # SQLite does it, as the files that SQLite adds beside it get the same permissions.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION:
        raise DataError(
            f"{path.name} is a database, but not a journal of alarms",
            where=str(path),
            hint="set another folder for the monitor: --set state=FOLDER",
        )
    if version > VERSION:
        raise DataError(
            f"the journal {path.name} has version {version}, but this genray writes version {VERSION}",
            where=str(path),
            hint="use the newer genray that wrote it, or set another folder: --set state=FOLDER",
        )
    if version == 1:
        # Without this the references of the table `sent` would follow the renamed table.
        database.execute("PRAGMA legacy_alter_table = ON")
        database.executescript(f"BEGIN; {_FROM_1} PRAGMA user_version = {VERSION}; COMMIT;")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    if not tables:
        database.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};{_SCHEMA} COMMIT;"
        )
    (health,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if health != "ok":
        damage = sqlite3.DatabaseError(health)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _primary_code(error: sqlite3.Error) -> int:
    # The low byte is the primary code; the rest is the extended code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _set_aside(path: Path) -> Path:
    free_numbers = (n for n in count(1) if not path.with_name(f"{path.name}.damaged-{n}").exists())
    aside = path.with_name(f"{path.name}.damaged-{next(free_numbers)}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        # SQLite would apply a log of the old file to the new one.
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    return aside
