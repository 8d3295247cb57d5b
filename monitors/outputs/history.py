"""History of alarms: reads the journal of a monitor, one entry per alarm, also while the monitor runs.

Nothing is written, and the lock of the journal is not taken. While a monitor runs, or after a kill, its log
(`-wal`) lies beside the file, and SQLite reads both (`mode=ro`; only the memory shared by readers and writers
changes). After a regular stop there is no log, and SQLite would create one even to read: so the file is
opened as immutable, and read again if it changed meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from genray.errors import DataError, GenrayError
from monitors.alarms.events import Priority
from monitors.outputs.database import APPLICATION, CONDITION_TRUE, VERSION, database_errors

T = TypeVar("T")

_PRIORITIES: tuple[str, ...] = get_args(Priority)  # from low to high
_PAUSE = 0.05  # s between tries to read a file that changes
_ALIVE = 180.0  # s since the last write within which a monitor counts as running: it writes every minute
_HOUR = 3600.0
_DAY = 86400.0
STATE_HINT = (
    "set --state to the folder that `genray monitor ecg` prints as its state when it stops "
    "(the demo's is runs/ecg-demo/monitor)"
)

# SQLite columns accept any type: types and lengths are enforced here.
_NAMES = ("alarm", "stream", "kind", "category", "priority", "change", "state")
_NAMES_AS_TEXT = ", ".join(f"CAST(substr({name}, 1, 256) AS TEXT)" for name in _NAMES)
_CHANGE_COLUMNS = (
    f"id, CAST(recorded AS REAL), {_NAMES_AS_TEXT}, CAST(time AS REAL), CAST(onset AS REAL), announced"
)
# States that show which streams were monitored, see `MonitorCheckpoint`.
_STREAMS_WITH_STATES = "SELECT stream FROM states WHERE name IN ('reference', 'alarms') AND time >= ? LIMIT ?"
_ALARM_STATES = "SELECT stream, CAST(substr(data, 1, ?) AS TEXT) FROM states WHERE name = 'alarms' LIMIT ?"
_WATCHED_STREAMS = "SELECT CAST(substr(data, 1, ?) AS TEXT) FROM states WHERE name = 'watched' AND time >= ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLimits:
    """Limits on what is read of a journal, as the file may contain anything.

    Attributes:
        changes: most alarm changes, the newest.
        streams: most streams that are counted.
        text: most characters of one reason; more than any monitor writes.
        tries: attempts to read a file that changes meanwhile.
    """

    changes: int = 500_000
    streams: int = 10_000
    text: int = 1 << 20
    tries: int = 40


@dataclass(slots=True, kw_only=True)
class AlarmEpisode:
    """One alarm, from its onset to its last recorded change.

    Attributes:
        stream: pseudonym.
        priority: highest priority that it had.
        state: last recorded state.
        onset, changed: unix times of the onset and of the last change, seconds, by the clock of the samples.
        recorded, written: unix times at which these were recorded, seconds, by the clock of the monitor.
        announced: whether somebody was to be notified.
        acknowledged: unix time of the first acknowledgement, seconds, by the clock of the monitor; None: not
            acknowledged.
        why: measured values and limits when it reached its priority; empty if not read.
        reason: reason of its last change, for a person; empty if there is none or it was not read.
        sampled: unix time of the last samples of its stream that were analysed, seconds, as of the last save;
            None: not known, or it has ended.
    """

    alarm: str
    stream: str
    kind: str
    category: str
    priority: str
    state: str
    onset: float
    changed: float
    recorded: float
    written: float
    announced: bool = False
    acknowledged: float | None = None
    why: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    sampled: float | None = None

    def lasted(self, until: float) -> float:
        """Return its duration in seconds by the clock of the samples: of an open alarm, up to the last ones
        that were analysed. If no samples arrive or their clock was set back, by the clock of the monitor, up
        to `until` (unix time at which it last wrote, seconds)."""
        if self.state == "ended":
            seconds = self.changed - self.onset
            return seconds if seconds >= 0 else max(0.0, self.written - self.recorded)
        last = None if self.sampled is None else max(self.sampled, self.changed)
        if last is None or last < self.onset or self.kind == "stream-lost":
            return max(0.0, until - self.recorded)
        return last - self.onset


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Alarms of a period, read at one moment.

    Attributes:
        episodes: alarms that were open at some time in the period, the newest first.
        beds: number of streams that were monitored in the period, as far as the journal shows.
        began, until: start and end of the period, unix seconds: from the time asked for, but not before the
            first alarm, until the monitor last wrote, or now if it is running.
        cut: whether older changes were not read because there are too many.
    """

    episodes: Sequence[AlarmEpisode]
    beds: int
    began: float
    until: float
    cut: bool

    @property
    def per_bed_and_day(self) -> float | None:
        """Announced alarms per bed and day; None: the period is shorter than an hour, or there are no
        beds."""
        seconds = self.until - self.began
        if seconds < _HOUR or not self.beds:
            return None
        count = sum(episode.announced and episode.recorded >= self.began for episode in self.episodes)
        return count / (self.beds * seconds / _DAY)


def read_history(
    path: Path,
    *,
    since: float | None = None,
    streams: Collection[str] = (),
    kind: str | None = None,
    explained: int = 100,
    limits: HistoryLimits | None = None,
) -> History:
    """Read the alarms from the journal at `path`.

    Args:
        since: unix time in seconds, by the clock of the monitor; alarms that ended earlier are left out.
        streams: pseudonyms of the streams to read; empty: all.
        kind: kind of alarm to read; None: all.
        explained: number of alarms, the newest, whose `why` and `reason` are read.

    Raises:
        DataError: there is no journal, it is the database of another program, or it has a newer version.
        GenrayError: it cannot be read.
    """
    wanted = _Selection(since or 0.0, tuple(streams), kind, explained)
    limits = limits or HistoryLimits()
    return _read(path, lambda database: _history(database, wanted, limits), limits.tries)


def known_streams(path: Path) -> list[str]:
    """Return the pseudonyms of the streams in the journal at `path`, sorted; raises like `read_history`."""
    limits = HistoryLimits()

    def read(database: sqlite3.Connection) -> list[str]:
        query = "SELECT DISTINCT substr(stream, 1, 256) FROM transitions LIMIT ?"
        with_alarms = {str(stream) for (stream,) in database.execute(query, (limits.streams,))}
        return sorted(with_alarms | _watched_streams(database, 0.0, limits))

    return _read(path, read, limits.tries)


def priority_rank(priority: str) -> int:
    """Return the rank of a priority: 0 for low to 2 for high; -1 for an unknown one."""
    return _PRIORITIES.index(priority) if priority in _PRIORITIES else -1


@dataclass(frozen=True, slots=True)
class _Selection:
    """Arguments of `read_history`."""

    since: float
    streams: tuple[str, ...]
    kind: str | None
    explained: int


class _Change(NamedTuple):
    """One row of `_CHANGE_COLUMNS`."""

    row: int
    recorded: float
    alarm: str
    stream: str
    kind: str
    category: str
    priority: str
    change: str
    state: str
    time: float
    onset: float
    announced: int


@dataclass(slots=True)
class _EpisodeRows:
    """An episode while its changes are read, the newest first.

    Attributes:
        last: row of its last change.
        explaining: row of the change by which it reached its priority, if that was read already.
        complete: whether its onset was read.
    """

    episode: AlarmEpisode
    last: int
    explaining: int | None = None
    complete: bool = False

    @classmethod
    def ending_with(cls, change: _Change) -> _EpisodeRows:
        """Begin an episode whose last change is `change`."""
        episode = AlarmEpisode(
            alarm=change.alarm,
            stream=change.stream,
            kind=change.kind,
            category=change.category,
            priority=change.priority,
            state=change.state,
            onset=change.onset,
            changed=change.time,
            recorded=change.recorded,
            written=change.recorded,
        )
        return cls(episode, last=change.row)

    def add_earlier(self, change: _Change) -> None:
        """Add `change`, which is earlier than all that were added, or the last one itself."""
        episode = self.episode
        episode.onset = change.onset
        episode.recorded = change.recorded
        episode.announced |= bool(change.announced)
        self.complete = change.change == "onset"
        if priority_rank(change.priority) > priority_rank(episode.priority):
            episode.priority = change.priority
            self.explaining = None
        if change.change == "acknowledged":
            episode.acknowledged = change.recorded
        if change.change in CONDITION_TRUE and change.priority == episode.priority:
            self.explaining = change.row


def _history(database: sqlite3.Connection, wanted: _Selection, limits: HistoryLimits) -> History:
    now = time.time()
    read, cut = _episodes(_changes(database, wanted, limits), limits)
    shown = [rows for rows in read if rows.episode.state != "ended" or rows.episode.written >= wanted.since]
    shown.sort(key=lambda rows: rows.episode.recorded, reverse=True)
    for rows in shown[: wanted.explained]:
        rows.episode.why = _why(database, rows.explaining, limits)
        rows.episode.reason = str(_why(database, rows.last, limits).get("reason", ""))[:256]
    episodes = [rows.episode for rows in shown]
    opened = [episode for episode in episodes if episode.state != "ended"]
    sampled = _sampled_times(database, {episode.stream for episode in opened}, limits)
    for episode in opened:
        episode.sampled = sampled.get(episode.stream)
    beds = {episode.stream for episode in episodes} | _watched_streams(database, wanted.since, limits)
    if wanted.streams:
        beds &= set(wanted.streams)
    first, last, saved = database.execute(
        "SELECT (SELECT recorded FROM transitions ORDER BY id LIMIT 1), "
        "(SELECT recorded FROM transitions ORDER BY id DESC LIMIT 1), (SELECT max(time) FROM states)"
    ).fetchone()
    written = max(_seconds(last), _seconds(saved))
    return History(
        episodes=episodes,
        beds=len(beds),
        began=max(wanted.since, _seconds(first)) or now,
        until=now if now - written < _ALIVE else written,
        cut=cut,
    )


def _changes(database: sqlite3.Connection, wanted: _Selection, limits: HistoryLimits) -> Iterable[_Change]:
    """Yield the selected changes, the newest first; one more than the limit, to notice that there are
    more."""
    conditions: list[str] = []
    values: list[Any] = []
    if wanted.streams:
        conditions.append(f"stream IN ({', '.join('?' * len(wanted.streams))})")
        values += wanted.streams
    if wanted.kind:
        conditions.append("kind = ?")
        values.append(wanted.kind)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT {_CHANGE_COLUMNS} FROM transitions {where} ORDER BY id DESC LIMIT ?"
    return map(_Change._make, database.execute(query, (*values, limits.changes + 1)))


def _episodes(changes: Iterable[_Change], limits: HistoryLimits) -> tuple[list[_EpisodeRows], bool]:
    """Group changes (newest first) into alarms; also return whether there were more than the limit. A name
    that is used again after its end, with a new onset (see `Journal`), is another alarm."""
    episodes: list[_EpisodeRows] = []
    by_name: dict[str, _EpisodeRows] = {}
    for count, change in enumerate(changes):
        if count == limits.changes:
            return episodes, True
        rows = by_name.get(change.alarm)
        if rows is None or (rows.complete and change.state == "ended"):
            rows = _EpisodeRows.ending_with(change)
            by_name[change.alarm] = rows
            episodes.append(rows)
        rows.add_earlier(change)
    return episodes, False


def _why(database: sqlite3.Connection, row: int | None, limits: HistoryLimits) -> Mapping[str, Any]:
    query = "SELECT CAST(substr(why, 1, ?) AS TEXT) FROM transitions WHERE id = ?"
    (text,) = database.execute(query, (limits.text, row)).fetchone() or ("",)
    return _parsed(text)


def _sampled_times(
    database: sqlite3.Connection, streams: Collection[str], limits: HistoryLimits
) -> dict[str, float]:
    """Return the unix time of the last samples of each of `streams` with a saved alarm state."""
    times = {}
    for stream, text in database.execute(_ALARM_STATES, (limits.text, 2 * limits.streams)):
        if stream in streams and (time_of_samples := _seconds(_parsed(text).get("time"))):
            times[str(stream)] = time_of_samples
    return times


def _watched_streams(database: sqlite3.Connection, since: float, limits: HistoryLimits) -> set[str]:
    """Return the streams that were monitored since a unix time, with or without alarms."""
    rows = database.execute(_STREAMS_WITH_STATES, (since, 2 * limits.streams))
    streams = {str(stream)[:256] for (stream,) in rows}
    for (text,) in database.execute(_WATCHED_STREAMS, (limits.text, since)):
        watched = _parsed(text).get("streams")
        if isinstance(watched, dict):
            streams.update(stream[:256] for stream in islice(watched, limits.streams))
    return streams


def _read(path: Path, query: Callable[[sqlite3.Connection], T], tries: int) -> T:
    """Return the result of `query` on the journal, all of it from one moment."""
    if not path.is_file():
        raise _missing_journal(path)
    for _ in range(tries):
        before = _FileStates.of(path)
        with database_errors(path):
            if before.log and before.shared_memory:
                return _read_once(path, "ro", query)
            # A log without shared memory: a monitor that is just starting, or an incomplete copy.
            if not before.log or not before.log.size:
                try:
                    result = _read_once(path, "ro&immutable=1", query)
                except sqlite3.DatabaseError:
                    if _FileStates.of(path) == before:
                        raise
                else:
                    if _FileStates.of(path) == before:
                        return result
        time.sleep(_PAUSE)
    raise GenrayError(
        "the journal cannot be read without changing it: its -wal file exists, but its -shm file does not",
        where=str(path),
        hint=f"copy {path.name} together with its -wal and -shm files, or start the monitor once",
    )


@dataclass(frozen=True, slots=True)
class _FileState:
    inode: int
    size: int
    modified: int  # ns


@dataclass(frozen=True, slots=True)
class _FileStates:
    """State of the journal file, its log and their shared memory at one moment; None: no such file."""

    file: _FileState | None
    log: _FileState | None
    shared_memory: _FileState | None

    @classmethod
    def of(cls, path: Path) -> _FileStates:
        return cls(*(_file_state(path.with_name(path.name + suffix)) for suffix in ("", "-wal", "-shm")))


def _file_state(path: Path) -> _FileState | None:
    with suppress(FileNotFoundError):
        status = path.stat()
        return _FileState(status.st_ino, status.st_size, status.st_mtime_ns)
    return None


def _read_once(path: Path, mode: str, query: Callable[[sqlite3.Connection], T]) -> T:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as database:
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if not tables:
            raise _missing_journal(path)  # or it is just being created
        if application != APPLICATION:
            raise DataError(
                f"{path.name} is a database, but not a journal of alarms", where=str(path), hint=STATE_HINT
            )
        if version > VERSION:
            raise DataError(
                f"the journal {path.name} has version {version}, this genray reads versions up to {VERSION}",
                where=str(path),
                hint="use the newer genray that wrote it",
            )
        return query(database)


def _missing_journal(path: Path) -> DataError:
    return DataError("no journal of alarms found", where=str(path), hint=STATE_HINT)


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float:
    return value if isinstance(value, float) and isfinite(value) else 0.0
