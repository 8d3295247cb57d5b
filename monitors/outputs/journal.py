"""The journal: every change of an alarm, on disk before it is sent; what was sent; small states beside it.

SQLite in WAL mode with `synchronous=FULL`: a commit returns when the log is synced, so that neither a kill
nor a power cut loses a change that was announced. NORMAL syncs at checkpoints alone, and would lose the last
ones with the power (https://www.sqlite.org/pragma.html#pragma_synchronous). Alarms are rare: a sync each is
cheap.

A source that is resumed after a kill repeats samples, and they give changes that are here already: these are
dropped. But the same name, change and millisecond can also be a new episode: a device without a clock counts
from 0 at each start. While a stream is watched its clock is in the names (see `alarms`), and where a source
keeps its place, that is saved with it. Else no samples are repeated, and nothing is dropped. So a change is
taken for a repeated one only if samples can have been repeated since it was recorded:

- a place was saved (a state of that name, written every few seconds while samples come), and
- the change was recorded within minutes of the last place before this journal was opened, and that is no
  more than an hour ago; or by this journal, minutes ago, as a shard of the monitor may be started again; and
- the stream was not discharged since.

Beyond that a change is sent once too often rather than not at all.
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
"""Name of the states that say from where a source goes on."""

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
_DISCHARGED = "discharged"  # name of the state of a stream that says when
_REPEATED_SECONDS = 300.0  # about a place, in which changes can come again
_RESUMED_SECONDS = (
    3600.0  # after opening, in which they do; also the time after which a silent bed is given up
)
_PRUNE_PAUSE = 0.005  # s between batches: a lock that is taken again at once lets nobody else in
_MOST_PENDING = 20_000  # statements that wait for the disk; of more the oldest are dropped

_Statement = tuple[str, tuple[Any, ...]]
_Key = tuple[str, str, int]


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
    """The record of alarms in one file, held by this process alone from `open` to `close`.

    It is responsible for:

    - writing changes of alarms before they are sent, each once (see above),
    - knowing what each channel was not sent yet,
    - going on in memory while the disk refuses to be written, and catching up,
    - small states of streams and shards, saved and loaded as bytes,
    - dropping old alarms that have ended.

    May be used from any thread.

    Args:
        database: open; `held` closes it and lets go of the lock of the file.
        notes: what was wrong with the file when it was opened.
        last_place: unix time at which the last place was saved; None: never.
        discharges: unix times at which streams were discharged.
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
        """Why the last write failed. What it was to write waits in memory and goes with the next."""
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
        """Open the journal at `path`, or begin one. A file that is damaged is set aside and a new one begun,
        which `notes` says.

        Args:
            path: its file; its folder is made.
            channels: that alarms are sent by. A new one is not owed what was recorded before.
            settings: how much is kept.

        Raises:
            RunError: another process holds it.
            DataError: it is another program's database, or of a later version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if not stack.enter_context(lock_file(path.with_name(path.name + ".lock"))):
                raise RunError(
                    f"the journal {path.name} is in use by another process",
                    where=str(path),
                    hint="end the other monitor, or give this one a folder of its own: --set state=FOLDER",
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
        """Let go of it; what waits is tried once more."""
        with self._lock:
            self._write([])
            self._held.close()

    def record(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Write `transitions`, together or not at all.

        Never raises for the disk's sake: alarms must be sent even so. `write_error` then says why, and what
        could not be written is written with the next that can.

        Returns:
            Those that are new, to be sent. One that is repeated (see above) was sent before, or is owed and
            `unsent` gives it.
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

    def unsent(self, channel: str) -> list[Transition]:
        """What was not sent by `channel` yet, oldest first."""
        return self._select(
            f"{_SELECT} AS t WHERE id > (SELECT since FROM channels WHERE name = ?) "
            "AND NOT EXISTS (SELECT 1 FROM sent WHERE channel = ? AND id = t.id) ORDER BY id",
            (channel, channel),
        )

    def mark_sent(self, channel: str, transitions: Sequence[Transition]) -> None:
        """Note that `transitions` were sent by `channel`; like `record` it waits for a disk that is full."""
        statement = (
            "INSERT OR IGNORE INTO sent SELECT ?, id FROM transitions "
            "WHERE alarm = ? AND change = ? AND millisecond = ?"
        )
        with self._lock:
            self._write([(statement, (channel, *_key(transition))) for transition in transitions])

    def open_alarms(self) -> list[Transition]:
        """The last transition of each alarm that has not ended, oldest first."""
        return self._select(
            f"{_SELECT} AS t WHERE state != 'ended' AND NOT EXISTS "
            "(SELECT 1 FROM transitions WHERE alarm = t.alarm AND id > t.id) ORDER BY id"
        )

    def last_transition(self, alarm: str, changes: Sequence[str]) -> Transition | None:
        """The last of an alarm's transitions whose change is one of `changes`."""
        where = f"WHERE alarm = ? AND change IN ({', '.join('?' * len(changes))})"
        rows = self._select(f"{_SELECT} {where} ORDER BY id DESC LIMIT 1", (alarm, *changes))
        return rows[0] if rows else None

    def prune(self, before: float | None = None) -> int:
        """Drop alarms that were recorded before a unix time (None: as `days` says) and what is beyond
        `max_rows`, but none that is still open; gives how many transitions. It takes its time, a batch of
        rows at once: an alarm that is to be recorded meanwhile waits for no more than a batch, and is kept.

        Raises:
            GenrayError: the disk refuses it.
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

    def save_states(self, name: str, states: Mapping[str, bytes], saved_at: float) -> None:
        """Save the state `name` of several streams, in one transaction and so with one sync.

        Raises:
            StorageFull: no room. The states of before are whole.
        """
        with self._lock, database_errors(self.path), self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO states (name, stream, time, data) VALUES (?, ?, ?, ?)",
                [(name, stream, saved_at, data) for stream, data in states.items()],
            )
            if name == PLACE:
                self._place_saved = True

    def load_states(self, name: str) -> dict[str, bytes]:
        """The state `name` of all streams that have one."""
        return dict(self._fetch("SELECT stream, data FROM states WHERE name = ?", (name,)))

    def discharge(self, stream: str) -> None:
        """Delete all states of `stream`: who comes next is another patient, of whom nothing is known here."""
        with self._lock, database_errors(self.path), self._database:
            now = time.time()
            self._discharges[stream] = now
            self._database.execute("DELETE FROM states WHERE stream = ?", (stream,))
            self._database.execute("INSERT INTO states VALUES (?, ?, ?, ?)", (_DISCHARGED, stream, now, b""))

    def _repeated(self, transitions: Sequence[Transition], now: float) -> set[_Key]:
        """Which of `transitions` are recorded already, and come again with repeated samples."""
        repeated = set(self._pending_keys) if self._place_saved else set()
        for transition in transitions:
            try:
                rows = self._fetch(
                    "SELECT recorded FROM transitions WHERE alarm = ? AND change = ? AND millisecond = ?",
                    _key(transition),
                )
            except GenrayError as error:  # better sent twice than not at all
                self.write_error = error
                break
            discharged = self._discharges.get(transition.stream, 0.0)
            if any(recorded > discharged and self._can_repeat(recorded, now) for (recorded,) in rows):
                repeated.add(_key(transition))
        return repeated

    def _can_repeat(self, recorded: float, now: float) -> bool:
        """Whether a change that was recorded at that time can come again now."""
        if recorded >= self._opened:
            return self._place_saved and now - recorded < _REPEATED_SECONDS
        return (
            self._last_place is not None
            and abs(recorded - self._last_place) < _REPEATED_SECONDS
            and now - self._opened < _RESUMED_SECONDS
        )

    def _prune_discharges(self) -> None:
        """Drop discharges so old that no change of before can come again."""
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
    """Millisecond and `_COLUMNS`."""
    t = transition
    names = (t.alarm, t.stream, t.kind, t.category, t.priority, t.change, t.state)
    why = json.dumps(dict(t.why), default=str)
    return (round(t.time * 1000), *names, t.time, t.onset, t.announced, why)


def _transition(row: Sequence[Any]) -> Transition:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["announced"] = bool(values["announced"])
    values["why"] = json.loads(values["why"])
    return Transition(**values)
