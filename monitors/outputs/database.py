"""The journal's SQLite file: its tables, opening it whatever became of it, and its errors by name."""

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
APPLICATION = 0x6765_6367  # "gecg": tells a journal from another program's database
CONDITION_HOLDS = ("onset", "escalated", "resumed")
"""Changes of an alarm at which its condition holds: what was measured then explains it."""
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
# In version 1 no name could come again.
_FROM_1 = f"""
ALTER TABLE transitions RENAME TO before;
DROP INDEX by_stream;
{_TRANSITIONS}
INSERT INTO transitions SELECT * FROM before;
DROP TABLE before;
"""
_BATCH_ROWS = 250  # that are looked at in one go
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# A quota or a file size limit comes as a failed write.
_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def open_database(path: Path) -> tuple[sqlite3.Connection, str | None]:
    """The database at `path`, made if it is not there, readable by its owner alone.

    Nobody else may have it open. One that is damaged is renamed aside, and a new one is begun.

    Returns:
        The connection, usable from any thread by one at a time; and what was wrong, if anything.

    Raises:
        DataError: it is another program's database, or of a later version.
        StorageFull: no room.
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
        return _open(path), f"the journal was damaged ({damage}): it is kept as {aside.name}, a new one begun"


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into those of genray."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code in _FULL_CODES or getattr(error, "errno", None) == errno.ENOSPC:
            raise StorageFull(
                f"no room left to write the journal {path.name} "
                f"({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free)",
                where=str(path),
                hint="free some space: the monitor goes on, and writes what waits as soon as it can",
            ) from error
        raise GenrayError(
            f"the journal {path.name} cannot be used: {error}",
            where=str(path),
            hint="check the disk and the rights of the file; if it is damaged, start again: it is put aside",
        ) from error


def delete_batch(
    database: sqlite3.Connection, *, after: int, last: int, recorded_before: float, surplus_to: int
) -> tuple[int | None, int]:
    """Delete the old transitions of a batch of rows whose alarms have ended.

    Args:
        after, last: the batch begins behind row `after` and does not go beyond row `last`.
        recorded_before: unix time; rows that were recorded earlier are old,
        surplus_to: and so are rows up to this number.

    Returns:
        After which row to go on, None when nothing old is left, and how many rows were deleted.
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
        return None, 0  # what follows is newer
    deleted = database.execute(
        f"DELETE FROM transitions WHERE {old} AND 'ended' = "
        "(SELECT state FROM transitions AS t WHERE t.alarm = transitions.alarm ORDER BY id DESC LIMIT 1)",
        bounds,
    )
    return end, deleted.rowcount


def _open(path: Path) -> sqlite3.Connection:
    # The owner's alone, whatever the umask: it holds what is known of patients. Before SQLite makes it, for
    # what SQLite puts beside it gets the same rights.
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
            hint="give the journal another path",
        )
    if version > VERSION:
        raise DataError(
            f"the journal {path.name} is of version {version}, this genray writes {VERSION}",
            where=str(path),
            hint="use the genray that wrote it, or give the journal another path",
        )
    if version == 1:
        # The table `sent` goes on to refer to the name.
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
    # The low byte; the rest is the extended code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _set_aside(path: Path) -> Path:
    free_numbers = (n for n in count(1) if not path.with_name(f"{path.name}.damaged-{n}").exists())
    aside = path.with_name(f"{path.name}.damaged-{next(free_numbers)}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        # A log of the old file would be played into the new one.
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    return aside
