"""Journals of tests: opened, read beside the journal's own queries, and on a disk that is full."""

from __future__ import annotations

import json
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from monitors.alarms.events import Transition
from monitors.outputs.journal import Journal, JournalSettings

_COLUMNS = ("alarm", "stream", "kind", "category", "priority", "change", "state", "time", "onset")


@contextmanager
def opened_journal(path: Path, **settings: Any) -> Iterator[Journal]:
    """The journal at `path`, with one channel, "page"."""
    with Journal.open(path, ["page"], JournalSettings(**settings)) as journal:
        yield journal


def save_place(journal: Journal, minutes_ago: float = 0.0) -> None:
    """Save a place, from which samples can be repeated."""
    journal.save_states({"place": {"shard-0-of-1": b"{}"}}, time.time() - 60 * minutes_ago)


def recent(journal: Journal, limit: int, stream: str | None = None) -> list[Transition]:
    """The last transitions in the file of `journal`, of all streams or of one, newest first."""
    query = f"SELECT {', '.join(_COLUMNS)}, announced, why FROM transitions "
    query += "WHERE stream = coalesce(?, stream) ORDER BY id DESC LIMIT ?"
    with closing(sqlite3.connect(f"{journal.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute(query, (stream, limit)).fetchall()
    return [
        Transition(**dict(zip(_COLUMNS, row, strict=False)), announced=bool(announced), why=json.loads(why))
        for *row, announced, why in rows
    ]


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """The kernel refuses to let files grow beyond what the log of the journal at `path` has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
