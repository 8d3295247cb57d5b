"""The journal: every change of an alarm, on disk before it is sent, and who was told; small states beside it.

SQLite in WAL mode with `synchronous=FULL`: a commit returns when the log is synced, so that neither a kill
nor a power cut loses a change that was announced. NORMAL syncs at checkpoints alone, and would lose the last
ones with the power (https://www.sqlite.org/pragma.html#pragma_synchronous). Alarms are rare: a sync each is
cheap.

A source that is resumed after a kill brings samples again, and they give changes that are here already:
these are dropped. But the same name, change and millisecond can also be a new episode: a device without a
clock counts from 0 at each start. While a stream is watched its clock is in the names (see `alarms`), and
where a source keeps its place, that is kept with it. Else nothing comes again, and nothing is dropped. So
what is here is the same only if samples can have come again since:

- a place was kept (a state of that name, written every few seconds while samples come), and
- the change was recorded within minutes of the last place before this journal was opened, and that is no
  more than an hour ago; or by this journal, minutes ago, as a part of the monitor may be begun anew; and
- the stream was not discharged since.

Beyond that a change is told once too often rather than not at all.
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
from genray.io.files import lock_file
from genray.settings.base import Settings
from monitors.alarms.events import Transition
from monitors.outputs.database import database_errors, forget_some, open_database

_COLUMNS = "alarm, stream, kind, category, priority, change, state, time, onset, announced, why"
_INSERT = (
    f"INSERT INTO transitions (recorded, millisecond, {_COLUMNS}) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
PLACE = "place"
"""Name of the states that say from where a source goes on."""
_FORGOTTEN = "discharged"  # state of a stream that says when
_MINUTES = 300.0  # s about a place in which what was recorded can come again
_HOUR = 3600.0  # s after opening in which it does; also the time after which a silent bed is given up
_BREATH = 0.005  # s between old rows that are forgotten: a lock that is taken again at once lets nobody in
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
        self._opened = time.time()
        self._keeps = False  # whether a place was kept since
        self._lock = threading.RLock()
        with ExitStack() as stack:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(lock_file(path.with_name(path.name + ".lock"))):
                raise RunError(
                    f"the journal {path.name} is in use by another process",
                    where=str(path),
                    hint="end the other monitor, or give this one a folder of its own: --set state=FOLDER",
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
                (self._place,) = self._database.execute(
                    "SELECT max(time) FROM states WHERE name = ?", (PLACE,)
                ).fetchone()
                self._forgotten: dict[str, float] = dict(
                    self._database.execute("SELECT stream, time FROM states WHERE name = ?", (_FORGOTTEN,))
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
            Those that are new, to be sent. One that came again (see above) was sent before, or is owed and
            `unsent` gives it.
        """
        now = time.time()
        with self._lock:
            known = self._known(transitions, now)
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
        return self._read(
            f"SELECT {_COLUMNS} FROM transitions AS t WHERE state != 'ended' AND NOT EXISTS "
            "(SELECT 1 FROM transitions WHERE alarm = t.alarm AND id > t.id) ORDER BY id"
        )

    def held(self, alarm: str, changes: Sequence[str]) -> Transition | None:
        """The last of an alarm's transitions that is one of `changes`."""
        where = f"WHERE alarm = ? AND change IN ({', '.join('?' * len(changes))})"
        rows = self._read(
            f"SELECT {_COLUMNS} FROM transitions {where} ORDER BY id DESC LIMIT 1", (alarm, *changes)
        )
        return rows[0] if rows else None

    def recent(self, limit: int, stream: str | None = None) -> list[Transition]:
        """The last transitions, of all streams or of one, newest first."""
        where = "" if stream is None else "WHERE stream = ?"
        return self._read(
            f"SELECT {_COLUMNS} FROM transitions {where} ORDER BY id DESC LIMIT ?",
            (limit,) if stream is None else (stream, limit),
        )

    def prune(self, before: float | None = None) -> int:
        """Forget alarms that were recorded before a unix time (null: as `days` says) and what is beyond
        `max_rows`, but none that is still open; gives how many transitions. It takes its time, a few rows
        at once: an alarm that is to be recorded meanwhile waits for none but these, and is not looked at.

        Raises:
            GenrayError: the disk refuses it.
        """
        self._forget_discharges()
        before = time.time() - self._settings.days * 86400 if before is None else before
        (last,) = self._fetch("SELECT coalesce(max(id), 0) FROM transitions")[0]
        surplus, forgotten = last - self._settings.max_rows, 0
        at: int | None = 0
        while at is not None:
            with self._lock, database_errors(self.path), self._database:
                at, count = forget_some(self._database, (at, last), before, surplus)
            forgotten += count
            time.sleep(_BREATH)
        return forgotten

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
            self._keeps |= name == PLACE

    def load_states(self, name: str) -> dict[str, bytes]:
        """The state `name` of all streams that have one."""
        return dict(self._fetch("SELECT stream, data FROM states WHERE name = ?", (name,)))

    def forget(self, stream: str) -> None:
        """Forget all states of `stream`: who comes next is another patient, of whom nothing is known here."""
        with self._lock, database_errors(self.path), self._database:
            self._forgotten[stream] = now = time.time()
            self._database.execute("DELETE FROM states WHERE stream = ?", (stream,))
            self._database.execute("INSERT INTO states VALUES (?, ?, ?, ?)", (_FORGOTTEN, stream, now, b""))

    def _known(self, transitions: Sequence[Transition], now: float) -> set[_Key]:
        """Which of `transitions` are there already, as samples came again."""
        known = set(self._waiting) if self._keeps else set()
        for each in transitions:
            try:
                rows = self._fetch(
                    "SELECT recorded FROM transitions WHERE alarm = ? AND change = ? AND millisecond = ?",
                    _key(each),
                )
            except GenrayError as error:  # better told twice than not at all
                self.trouble = error
                break
            forgotten = self._forgotten.get(each.stream, 0.0)
            if any(recorded > forgotten and self._comes_again(recorded, now) for (recorded,) in rows):
                known.add(_key(each))
        return known

    def _forget_discharges(self) -> None:
        """Nothing of before comes again by now."""
        old = time.time() - _HOUR - _MINUTES
        with self._lock, database_errors(self.path), self._database:
            self._database.execute("DELETE FROM states WHERE name = ? AND time < ?", (_FORGOTTEN, old))
            self._forgotten = {stream: at for stream, at in self._forgotten.items() if at >= old}

    def _comes_again(self, recorded: float, now: float) -> bool:
        """Whether a change that was recorded then can be found once more now."""
        if recorded >= self._opened:
            return self._keeps and now - recorded < _MINUTES
        last = self._place
        return last is not None and abs(recorded - last) < _MINUTES and now - self._opened < _HOUR

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
