"""The journal: stores every change of an alarm on disk before it is sent, what was sent, and small states.

SQLite in WAL mode with `synchronous=FULL`: a commit returns when the log is synced, so that neither a kill
nor a power cut loses a change that was announced. NORMAL syncs only at checkpoints and would lose the last
changes in a power cut (https://www.sqlite.org/pragma.html#pragma_synchronous). Alarms are rare, so a sync for
each is cheap.

A source that resumes after a kill repeats samples, which give changes that are in the journal already: these
are dropped. But the same name, change and millisecond can also be a new episode, as a device without a clock
counts from 0 at each start. While a stream is monitored, the number of its clock is part of alarm names (see
`monitors.alarms.machine`) and is saved together with the place of the source. A source that stores no place
repeats no samples. So a change counts as repeated only if samples can have been repeated since it was
recorded:

- a place was saved (a state of that name, written every few seconds while samples arrive), and
- the change was recorded within minutes of the last place before this journal was opened, at most an hour
  ago; or by this journal within the last minutes, as a shard of the monitor may have been restarted; and
- the stream was not discharged since.

In all other cases a change is rather sent twice than not at all.
"""

from __future__ import annotations

import json
import sqlite3
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
from monitors.outputs.database import database_errors, delete_batch, open_database

PLACE = "place"
"""Name of the states that store where a source resumes."""

_COLUMNS = (
    "alarm",
    "stream",
    "kind",
    "category",
    "priority",
    "change",
    "state",
    "time",
    "onset",
    "announced",
    "why",
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM transitions"
_INSERT = (
    f"INSERT INTO transitions (recorded, millisecond, {', '.join(_COLUMNS)}) "
    f"VALUES (?, ?, {', '.join('?' * len(_COLUMNS))})"
)
_DISCHARGED = "discharged"  # name of the state with the time at which a stream was discharged
_REPEATED_SECONDS = 300.0  # before and after a place, within which changes can repeat
_RESUMED_SECONDS = (
    3600.0  # after opening, within which changes repeat; also the default of ward.discharge_after
)
_PRUNE_PAUSE = 0.005  # s between batches: other threads get the lock only if it is free for a moment
_MOST_PENDING = 20_000  # statements that wait for the disk; beyond it the oldest are dropped

_Statement = tuple[str, tuple[Any, ...]]
_Key = tuple[str, str, int]


class JournalInUse(RunError):
    """The journal is open in another process."""


class JournalSettings(Settings):
    """Settings of the journal."""

    days: float = Field(90.0, gt=0, le=36500, description="days for which ended alarms are stored")
    max_rows: int = Field(
        1_000_000,
        ge=1000,
        le=100_000_000,
        description="most alarm changes that are stored (the oldest of ended alarms are deleted)",
    )


class Journal:
    """Journal of alarms in one file, locked by this process from `open` to `close`.

    It is responsible for:

    - writing each change of an alarm once, before it is sent (see above),
    - listing the changes that a channel has not sent yet,
    - buffering in memory while the disk cannot be written, and catching up later,
    - saving and loading small states of streams and shards as bytes,
    - deleting old alarms that have ended.

    It leaves sending to `Alertmanager`, and reading by other programs to `monitors.outputs.history`. May be
    used from any thread.

    Args:
        database: open connection; `held` closes it and releases the lock of the file.
        notes: problems of the file that were found when it was opened.
        last_place: unix time at which the last place was saved; None: never.
        discharges: unix time at which each stream was discharged.
    """

    def __init__(
        self,
        path: Path,
        settings: JournalSettings,
        database: sqlite3.Connection,
        *,
        held: ExitStack,
        notes: Sequence[str],
        last_place: float | None,
        discharges: Mapping[str, float],
    ) -> None:
        self.path = path
        self.notes = list(notes)
        self.write_error: GenrayError | None = None
        """Reason why the last write failed; its content waits in memory for `retry` or the next write."""
        self._settings = settings
        self._database = database
        self._held = held
        self._last_place = last_place
        self._discharges = dict(discharges)
        self._pending: list[_Statement] = []
        self._pending_keys: set[_Key] = set()
        self._opened = time.time()
        self._place_saved = False  # since it was opened
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path, channels: Sequence[str] = (), settings: JournalSettings | None = None) -> Self:
        """Open the journal at `path`, or create it. A damaged file is renamed and a new one created, with a
        line in `notes`.

        Args:
            path: file of the journal; its folder is created.
            channels: names of the channels that send alarms. A new channel does not send earlier changes.
            settings: how long and how many changes are stored.

        Raises:
            JournalInUse: another process has it open.
            DataError: it is the database of another program, or has a newer version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if not stack.enter_context(lock_file(path.with_name(path.name + ".lock"))):
                raise JournalInUse(
                    f"the journal {path.name} is in use by another process",
                    where=str(path),
                    hint="stop the other monitor, or set another folder for this one: --set state=FOLDER",
                )
            database, note = open_database(path)
            stack.callback(database.close)
            with database_errors(path), database:
                database.executemany(
                    "INSERT OR IGNORE INTO channels SELECT ?, coalesce(max(id), 0) FROM transitions",
                    [(channel,) for channel in channels],
                )
                (last_place,) = database.execute(
                    "SELECT max(time) FROM states WHERE name = ?", (PLACE,)
                ).fetchone()
                discharges = dict(
                    database.execute("SELECT stream, time FROM states WHERE name = ?", (_DISCHARGED,))
                )
            return cls(
                path,
                settings or JournalSettings(),
                database,
                held=stack.pop_all(),
                notes=[note] if note else [],
                last_place=last_place,
                discharges=discharges,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits once more, then close the file and release its lock."""
        with self._lock:
            self._write([])
            self._held.close()

    def record(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Write `transitions` in one transaction.

        Disk errors raise nothing, as alarms must be sent even then: `write_error` has the reason, and the
        next successful write includes these transitions.

        Returns:
            The new transitions, which are to be sent. A repeated one (see above) was sent before, or is
            listed by `unsent`.
        """
        now = time.time()
        with self._lock:
            repeated = self._repeated(transitions, now)
            new: dict[_Key, Transition] = {}
            for transition in transitions:
                if _key(transition) not in repeated:
                    new.setdefault(_key(transition), transition)
            if new:
                self._pending_keys |= new.keys()
                self._write([(_INSERT, (now, *_row(transition))) for transition in new.values()])
        return list(new.values())

    def retry(self) -> None:
        """Write what could not be written, if there is anything."""
        with self._lock:
            if self.write_error is not None:
                self._write([])

    def unsent(self, channel: str) -> list[Transition]:
        """Return the transitions that `channel` has not sent yet, oldest first."""
        return self._select(
            f"{_SELECT} AS t WHERE id > (SELECT since FROM channels WHERE name = ?) "
            "AND NOT EXISTS (SELECT 1 FROM sent WHERE channel = ? AND id = t.id) ORDER BY id",
            (channel, channel),
        )

    def mark_sent(self, channel: str, transitions: Sequence[Transition]) -> None:
        """Record that `channel` sent `transitions`; buffered while the disk is full, like `record`."""
        statement = (
            "INSERT OR IGNORE INTO sent SELECT ?, id FROM transitions "
            "WHERE alarm = ? AND change = ? AND millisecond = ?"
        )
        with self._lock:
            self._write([(statement, (channel, *_key(transition))) for transition in transitions])

    def open_alarms(self) -> list[Transition]:
        """Return the last transition of each alarm that has not ended, oldest first."""
        return self._select(
            f"{_SELECT} AS t WHERE state != 'ended' AND NOT EXISTS "
            "(SELECT 1 FROM transitions WHERE alarm = t.alarm AND id > t.id) ORDER BY id"
        )

    def last_transition(self, alarm: str, changes: Sequence[str]) -> Transition | None:
        """Return the last transition of an alarm whose change is one of `changes`; None: there is none."""
        where = f"WHERE alarm = ? AND change IN ({', '.join('?' * len(changes))})"
        rows = self._select(f"{_SELECT} {where} ORDER BY id DESC LIMIT 1", (alarm, *changes))
        return rows[0] if rows else None

    def prune(self, before: float | None = None) -> int:
        """Delete ended alarms recorded before a unix time (None: older than `days`) or beyond `max_rows`;
        return the number of transitions deleted. Rows are deleted in small batches, so that an alarm recorded
        meanwhile waits for one batch at most.

        Raises:
            GenrayError: the disk cannot be written.
        """
        self._prune_discharges()
        if before is None:
            before = time.time() - self._settings.days * 86400
        (last,) = self._fetch("SELECT coalesce(max(id), 0) FROM transitions")[0]
        surplus_to = last - self._settings.max_rows
        deleted = 0
        after: int | None = 0
        while after is not None:
            with self._lock, database_errors(self.path), self._database:
                after, count = delete_batch(
                    self._database, after=after, last=last, recorded_before=before, surplus_to=surplus_to
                )
            deleted += count
            time.sleep(_PRUNE_PAUSE)
        return deleted

    def save_states(self, states: Mapping[str, Mapping[str, bytes]], saved_at: float) -> None:
        """Save states, by name and stream, in one transaction, with one sync.

        Raises:
            StorageFull: the disk is full. The previous states are unchanged.
        """
        with self._lock, database_errors(self.path), self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO states (name, stream, time, data) VALUES (?, ?, ?, ?)",
                [
                    (name, stream, saved_at, data)
                    for name, rows in states.items()
                    for stream, data in rows.items()
                ],
            )
        if PLACE in states:
            self._place_saved = True

    def load_states(self, name: str) -> dict[str, bytes]:
        """Return the state `name` of all streams that have one."""
        return dict(self._fetch("SELECT stream, data FROM states WHERE name = ?", (name,)))

    def discharge(self, stream: str) -> None:
        """Delete all states of `stream`, as the next patient must not inherit them."""
        with self._lock, database_errors(self.path), self._database:
            now = time.time()
            self._discharges[stream] = now
            self._database.execute("DELETE FROM states WHERE stream = ?", (stream,))
            self._database.execute("INSERT INTO states VALUES (?, ?, ?, ?)", (_DISCHARGED, stream, now, b""))

    def _repeated(self, transitions: Sequence[Transition], now: float) -> set[_Key]:
        """Return the keys of the transitions that are recorded already and come from repeated samples."""
        repeated = set(self._pending_keys) if self._place_saved else set()
        for transition in transitions:
            try:
                rows = self._fetch(
                    "SELECT recorded FROM transitions WHERE alarm = ? AND change = ? AND millisecond = ?",
                    _key(transition),
                )
            except GenrayError as error:  # rather sent twice than not at all
                self.write_error = error
                break
            discharged = self._discharges.get(transition.stream, 0.0)
            if any(recorded > discharged and self._can_repeat(recorded, now) for (recorded,) in rows):
                repeated.add(_key(transition))
        return repeated

    def _can_repeat(self, recorded: float, now: float) -> bool:
        """Whether a change recorded at that time can come from repeated samples now."""
        if recorded >= self._opened:
            return self._place_saved and now - recorded < _REPEATED_SECONDS
        return (
            self._last_place is not None
            and abs(recorded - self._last_place) < _REPEATED_SECONDS
            and now - self._opened < _RESUMED_SECONDS
        )

    def _prune_discharges(self) -> None:
        """Delete discharges so old that no earlier change can be repeated."""
        old = time.time() - _RESUMED_SECONDS - _REPEATED_SECONDS
        with self._lock, database_errors(self.path), self._database:
            self._database.execute("DELETE FROM states WHERE name = ? AND time < ?", (_DISCHARGED, old))
            self._discharges = {stream: at for stream, at in self._discharges.items() if at >= old}

    def _write(self, statements: Iterable[_Statement]) -> None:
        self._pending = [*self._pending, *statements][-_MOST_PENDING:]
        try:
            with database_errors(self.path), self._database:
                for sql, parameters in self._pending:
                    self._database.execute(sql, parameters)
        except GenrayError as error:
            self.write_error = error
        else:
            self._pending.clear()
            self._pending_keys.clear()
            self.write_error = None

    def _fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock, database_errors(self.path):
            return self._database.execute(sql, parameters).fetchall()

    def _select(self, sql: str, parameters: Sequence[Any] = ()) -> list[Transition]:
        return [_transition(row) for row in self._fetch(sql, parameters)]


def _key(transition: Transition) -> _Key:
    return transition.alarm, transition.change, round(transition.time * 1000)


def _row(transition: Transition) -> tuple[Any, ...]:
    """Return the values of `millisecond` and `_COLUMNS`."""
    t = transition
    names = (t.alarm, t.stream, t.kind, t.category, t.priority, t.change, t.state)
    why = json.dumps(dict(t.why), default=str)
    return (round(t.time * 1000), *names, t.time, t.onset, t.announced, why)


def _transition(row: Sequence[Any]) -> Transition:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["announced"] = bool(values["announced"])
    values["why"] = json.loads(values["why"])
    return Transition(**values)
