"""The journal: every change of an alarm, on disk before it is sent, and who was told; small states beside it.

SQLite in WAL mode with `synchronous=FULL`: a commit returns when the log is synced, so that neither a kill
nor a power cut loses a change that was announced. NORMAL syncs at checkpoints alone, and would lose the last
ones with the power (https://www.sqlite.org/pragma.html#pragma_synchronous). Alarms are rare: a sync each is
cheap.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from genray.errors import GenrayError, RunError
from genray.files import hold_file
from genray.settings import Settings
from monitors.database import database_errors, open_database
from monitors.observation import Transition

_COLUMNS = "alarm, stream, kind, category, priority, change, state, time, onset, announced, why"
_INSERT = (
    f"INSERT OR IGNORE INTO transitions (recorded, millisecond, {_COLUMNS}) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_OPEN = (
    "SELECT id FROM transitions WHERE id IN (SELECT max(id) FROM transitions GROUP BY alarm) "
    "AND state != 'ended'"
)
_LATE = 20_000  # statements that wait for the disk; more are forgotten, the oldest first

_Statement = tuple[str, tuple[Any, ...]]
_Key = tuple[str, str, int]


class JournalSettings(Settings):
    """Settings of the journal."""

    days: float = Field(90.0, gt=0, le=36500, description="for which alarms that have ended are kept")
    max_rows: int = Field(1_000_000, ge=1000, le=100_000_000, description="changes of alarms that are kept")


class Journal:
    """The journal at `path`, held alone by this process until `close`. May be used from any thread.

    A file that is damaged is renamed aside and begun anew, which `notes` says.

    Args:
        path: its file; its folder is made.
        channels: that are told of alarms. One that is new is owed nothing of what was before.
        settings: how much is kept.

    Raises:
        RunError: another process holds it.
        DataError: it is another program's database, or of a later version.
    """

    def __init__(
        self, path: Path, channels: Sequence[str] = (), settings: JournalSettings | None = None
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        """What was found when it was opened."""
        self.trouble: GenrayError | None = None
        """Why the last write failed. What it was to write waits in memory and goes with the next."""
        self._settings = settings or JournalSettings()
        self._late: list[_Statement] = []
        self._waiting: set[_Key] = set()
        self._lock = threading.RLock()
        with ExitStack() as stack:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(hold_file(path.with_name(path.name + ".lock"))):
                raise RunError(
                    f"the journal {path.name} is in use by another process",
                    where=str(path),
                    hint="end the other monitor, or give this one another journal",
                )
            self._database, note = open_database(path)
            stack.callback(self._database.close)
            if note:
                self.notes.append(note)
            with database_errors(path), self._database:
                self._database.executemany(
                    "INSERT OR IGNORE INTO channels SELECT ?, coalesce(max(id), 0) FROM transitions",
                    [(channel,) for channel in channels],
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; what waits is tried once more."""
        with self._lock:
            self._write([])
            self._stack.close()

    def record(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Write `transitions`, together or not at all.

        Never raises for the disk's sake: alarms must be sent even so. `trouble` then says why, and what
        could not be written is written with the next that can.

        Returns:
            Those that are new, to be sent. One that is there already (of the same alarm, change and
            millisecond) was sent before, or is owed and `unsent` gives it.
        """
        now = time.time()
        with self._lock:
            known = self._known(transitions)
            new: dict[_Key, Transition] = {}
            for each in transitions:
                if _key(each) not in known:
                    new.setdefault(_key(each), each)
            if new:
                self._waiting |= new.keys()
                self._write([(_INSERT, (now, *_row(each))) for each in new.values()])
        return list(new.values())

    def unsent(self, channel: str) -> list[Transition]:
        """What `channel` has not been told of, oldest first."""
        return self._read(
            f"SELECT {_COLUMNS} FROM transitions AS t WHERE id > (SELECT since FROM channels WHERE name = ?) "
            "AND NOT EXISTS (SELECT 1 FROM sent WHERE channel = ? AND id = t.id) ORDER BY id",
            (channel, channel),
        )

    def mark_sent(self, channel: str, transitions: Sequence[Transition]) -> None:
        """Note that `channel` was told of `transitions`; like `record` it waits for a disk that is full."""
        statement = (
            "INSERT OR IGNORE INTO sent SELECT ?, id FROM transitions "
            "WHERE alarm = ? AND change = ? AND millisecond = ?"
        )
        with self._lock:
            self._write([(statement, (channel, *_key(each))) for each in transitions])

    def open_alarms(self) -> list[Transition]:
        """The last transition of each alarm that has not ended, oldest first."""
        return self._read(f"SELECT {_COLUMNS} FROM transitions WHERE id IN ({_OPEN}) ORDER BY id")

    def recent(self, limit: int, stream: str | None = None) -> list[Transition]:
        """The last transitions, of all streams or of one, newest first."""
        where = "" if stream is None else "WHERE stream = ?"
        return self._read(
            f"SELECT {_COLUMNS} FROM transitions {where} ORDER BY id DESC LIMIT ?",
            (limit,) if stream is None else (stream, limit),
        )

    def prune(self, before: float | None = None) -> int:
        """Forget alarms that were recorded before a unix time (null: as `days` says) and what is beyond
        `max_rows`, but none that is still open; gives how many transitions."""
        before = time.time() - self._settings.days * 86400 if before is None else before
        with self._lock:
            (rows,) = self._fetch("SELECT count(*) FROM transitions")[0]
            self._write(
                [
                    (
                        "DELETE FROM transitions WHERE (recorded < ? OR id <= (SELECT id FROM transitions "
                        "ORDER BY id DESC LIMIT 1 OFFSET ?)) AND alarm NOT IN "
                        f"(SELECT alarm FROM transitions WHERE id IN ({_OPEN}))",
                        (before, self._settings.max_rows),
                    )
                ]
            )
            return int(rows - self._fetch("SELECT count(*) FROM transitions")[0][0])

    def save_state(self, stream: str, name: str, data: bytes, time: float) -> None:
        """As `save_states`, of one stream."""
        self.save_states(name, {stream: data}, time)

    def save_states(self, name: str, states: Mapping[str, bytes], time: float) -> None:
        """Keep the state `name` of several streams, in one transaction and so with one sync.

        Raises:
            StorageFull: no room. The states of before are whole.
        """
        with self._lock, database_errors(self.path), self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO states (name, stream, time, data) VALUES (?, ?, ?, ?)",
                [(name, stream, time, data) for stream, data in states.items()],
            )

    def load_states(self, name: str) -> dict[str, bytes]:
        """The state `name` of all streams that have one."""
        return dict(self._fetch("SELECT stream, data FROM states WHERE name = ?", (name,)))

    def delete_state(self, stream: str, name: str | None = None) -> None:
        """Forget the state `name` of `stream`, or all that it has."""
        with self._lock, database_errors(self.path), self._database:
            self._database.execute(
                "DELETE FROM states WHERE stream = ? AND name = coalesce(?, name)", (stream, name)
            )

    def _known(self, transitions: Sequence[Transition]) -> set[_Key]:
        known = set(self._waiting)
        for each in transitions:
            try:
                found = self._fetch(
                    "SELECT 1 FROM transitions WHERE alarm = ? AND change = ? AND millisecond = ?", _key(each)
                )
            except GenrayError as error:  # better told twice than not at all
                self.trouble = error
                break
            if found:
                known.add(_key(each))
        return known

    def _write(self, statements: Iterable[_Statement]) -> None:
        self._late = [*self._late, *statements][-_LATE:]
        try:
            with database_errors(self.path), self._database:
                for sql, parameters in self._late:
                    self._database.execute(sql, parameters)
        except GenrayError as error:
            self.trouble = error
        else:
            self._late.clear()
            self._waiting.clear()
            self.trouble = None

    def _fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock, database_errors(self.path):
            return self._database.execute(sql, parameters).fetchall()

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Transition]:
        names = _COLUMNS.split(", ")
        rows = (dict(zip(names, row, strict=True)) for row in self._fetch(sql, parameters))
        return [
            Transition(**row | {"announced": bool(row["announced"]), "why": json.loads(row["why"])})
            for row in rows
        ]


def _key(transition: Transition) -> _Key:
    return transition.alarm, transition.change, round(transition.time * 1000)


def _row(transition: Transition) -> tuple[Any, ...]:
    t = transition
    head = (round(t.time * 1000), t.alarm, t.stream, t.kind, t.category, t.priority, t.change, t.state)
    return (*head, t.time, t.onset, t.announced, json.dumps(dict(t.why), default=str))
