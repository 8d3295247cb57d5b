"""The history: what the journal of a monitor says, an entry for each alarm, also while it is being written.

Nothing here writes, and no lock of the journal is taken. While a monitor runs, or after a kill, its log lies
beside the file (`-wal`), and SQLite reads both (`mode=ro`; what changes is the shared memory by which readers
and writers know of each other). After a good end there is no log, and SQLite would make one even to read: so
the file is read as one that does not change, and again if it did.
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
from typing import Any, TypeVar

from genray.errors import DataError, GenrayError
from monitors.outputs.database import APPLICATION, VERSION, database_errors

T = TypeVar("T")
_Database = sqlite3.Connection

_PRIORITIES = ("low", "medium", "high")
_MOST_CHANGES = 500_000  # that are read, the newest
_MOST_STREAMS = 10_000
_MOST_TEXT = 1 << 20  # characters of one reason: longer than any that a monitor writes
_TRIES, _PAUSE = 40, 0.05  # times, and s between them
_ALIVE = 180.0  # s: a monitor writes once a minute which streams it watches
_HOUR, _DAY = 3600.0, 86400.0
_STATE = "give --state, the folder that `genray monitor ecg` names at its end as its state"
_HELD = ("onset", "escalated", "resumed")  # changes at which the condition of an alarm holds

# SQLite keeps whatever it was given: types and lengths are made sure of here.
_NAMES = ("alarm", "stream", "kind", "category", "priority", "change", "state")
_TEXTS = ", ".join(f"CAST(substr({name}, 1, 256) AS TEXT)" for name in _NAMES)
_CHANGES = f"CAST(recorded AS REAL), {_TEXTS}, CAST(time AS REAL), CAST(onset AS REAL), announced"
# What else says that a stream was watched: see keeping.py.
_STREAMS = "SELECT stream FROM states WHERE name IN ('reference', 'alarms') AND time >= ? LIMIT ?"
_WATCHED = "SELECT CAST(substr(data, 1, ?) AS TEXT) FROM states WHERE name = 'watched' AND time >= ?"


@dataclass(slots=True, kw_only=True)
class AlarmEpisode:
    """An alarm, from its onset on.

    Attributes:
        stream: pseudonym.
        priority: the highest that it had.
        state: the last that was recorded.
        onset, changed: when it began, and when it last changed; unix seconds by the clock of the samples.
        recorded, written: when the same was recorded, unix seconds by the clock of the monitor.
        announced: whether anybody was to be told.
        acknowledged: when somebody first did so, unix seconds by the clock of the monitor; None: nobody.
        why: what was measured and the limits when it came to its priority; empty if that was not read.
        reason: of its last change, in words; empty if there is none, or it was not read.
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
    _last: int = 0  # rows of its last change, and of the one that says why
    _says: int | None = None
    _whole: bool = False  # whether its onset was read

    def lasted(self, until: float) -> float:
        """Seconds until its end, by the clock of the samples unless that fell back; of one that is open until
        the monitor last wrote: `until`, unix seconds by the clock of the monitor."""
        if self.state != "ended":
            return max(0.0, until - self.recorded)
        lasted = self.changed - self.onset
        return lasted if lasted >= 0 else max(0.0, self.written - self.recorded)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was read at one moment.

    Attributes:
        episodes: alarms that were open at some time of the period, the newest first.
        beds: streams that were watched in it, as far as the journal knows.
        began, until: the period, unix seconds: as it was asked for but not before the first alarm, until
            the monitor last wrote, or now if it runs.
        cut: whether there are older changes that were not read, as there are too many.
    """

    episodes: Sequence[AlarmEpisode]
    beds: int
    began: float
    until: float
    cut: bool

    @property
    def per_bed_and_day(self) -> float | None:
        """Announced alarms that began in the period, a bed and day. None: it is too short, or had no beds."""
        seconds = self.until - self.began
        if seconds < _HOUR or not self.beds:
            return None
        begun = sum(each.announced and each.recorded >= self.began for each in self.episodes)
        return begun / (self.beds * seconds / _DAY)


def read_history(
    path: Path,
    *,
    since: float | None = None,
    streams: Collection[str] = (),
    kind: str | None = None,
    explained: int = 100,
) -> History:
    """What the journal at `path` says.

    Args:
        since: unix seconds by the clock of the monitor: of alarms that ended earlier nothing is said.
        streams: of these alone, by pseudonym; none given: of all.
        kind: of this kind alone.
        explained: of so many alarms `why` and `reason` are read, the newest.

    Raises:
        DataError: it is not there, another program's database, or of a later version.
        GenrayError: it cannot be read.
    """
    return _read(path, lambda database: _history(database, since, streams, kind, explained))


def known_streams(path: Path) -> list[str]:
    """Pseudonyms of the streams of which the journal at `path` knows, in order; raises as `read_history`."""

    def read(database: _Database) -> list[str]:
        alarmed = "SELECT DISTINCT substr(stream, 1, 256) FROM transitions LIMIT ?"
        rows = database.execute(alarmed, (_MOST_STREAMS,))
        return sorted({str(stream) for (stream,) in rows} | _watched(database, 0.0))

    return _read(path, read)


def _history(
    database: _Database, since: float | None, streams: Collection[str], kind: str | None, explained: int
) -> History:
    now, began = time.time(), since or 0.0
    where = [f"stream IN ({', '.join('?' * len(streams))})"] if streams else []
    where += ["kind = ?"] if kind else []
    asked = (*streams, *([kind] if kind else []), _MOST_CHANGES + 1)
    only = f"WHERE {' AND '.join(where)}" if where else ""
    query = f"SELECT id, {_CHANGES} FROM transitions {only} ORDER BY id DESC LIMIT ?"
    episodes, cut = _episodes(database.execute(query, asked))
    episodes = [each for each in episodes if each.state != "ended" or each.written >= began]
    episodes.sort(key=lambda each: each.recorded, reverse=True)
    for each in episodes[:explained]:
        each.why = _why(database, each._says)
        each.reason = str(_why(database, each._last).get("reason", ""))[:256]
    beds = {each.stream for each in episodes} | _watched(database, began)
    (first, last, kept) = database.execute(
        "SELECT (SELECT recorded FROM transitions ORDER BY id LIMIT 1), "
        "(SELECT recorded FROM transitions ORDER BY id DESC LIMIT 1), (SELECT max(time) FROM states)"
    ).fetchone()
    written = max(_seconds(last), _seconds(kept))
    return History(
        episodes=episodes,
        beds=len(beds & set(streams) if streams else beds),
        began=max(began, _seconds(first)) or now,
        until=now if now - written < _ALIVE else written,
        cut=cut,
    )


def _episodes(rows: Iterable[Any]) -> tuple[list[AlarmEpisode], bool]:
    """The alarms of changes that come newest first, and whether there were more than are read. A name that
    comes again after its end with an onset of its own (see `Journal`) is another alarm."""
    found: list[AlarmEpisode] = []
    latest: dict[str, AlarmEpisode] = {}
    for count, row in enumerate(rows):
        if count == _MOST_CHANGES:
            return found, True
        number, recorded, alarm, stream, kind, category, priority, change, state, at, onset, announced = row
        each = latest.get(alarm)
        if each is None or (each._whole and state == "ended"):
            each = latest[alarm] = AlarmEpisode(
                alarm=alarm, stream=stream, kind=kind, category=category, priority=priority, state=state,
                onset=onset, changed=at, recorded=recorded, written=recorded, _last=number,
            )  # fmt: skip
            found.append(each)
        each.onset, each.recorded, each._whole = onset, recorded, change == "onset"
        each.announced |= bool(announced)
        if rank(priority) > rank(each.priority):
            each.priority, each._says = priority, None
        if change == "acknowledged":
            each.acknowledged = recorded
        if change in _HELD and priority == each.priority:
            each._says = number
    return found, False


def _why(database: _Database, row: int | None) -> Mapping[str, Any]:
    query = "SELECT CAST(substr(why, 1, ?) AS TEXT) FROM transitions WHERE id = ?"
    (text,) = database.execute(query, (_MOST_TEXT, row)).fetchone() or ("",)
    return _parsed(text)


def _watched(database: _Database, since: float) -> set[str]:
    """Streams that were watched since a unix time, whether they raised alarms or not."""
    streams = {str(stream)[:256] for (stream,) in database.execute(_STREAMS, (since, 2 * _MOST_STREAMS))}
    for (text,) in database.execute(_WATCHED, (_MOST_TEXT, since)):
        now = _parsed(text).get("streams")
        streams.update(stream[:256] for stream in islice(now if isinstance(now, dict) else (), _MOST_STREAMS))
    return streams


def _read(path: Path, use: Callable[[_Database], T]) -> T:
    """What `use` makes of the journal, all of it as of one moment."""
    if not path.is_file():
        raise _missing(path)
    for _ in range(_TRIES):
        _, log, shared = before = _files(path)
        with database_errors(path):
            if log and shared:
                return _once(path, "ro", use)
            # A log alone: a monitor that is just beginning, or an incomplete copy.
            if not log or not log[1]:
                try:
                    found = _once(path, "ro&immutable=1", use)
                except sqlite3.DatabaseError:
                    if _files(path) == before:
                        raise
                else:
                    if _files(path) == before:
                        return found
        time.sleep(_PAUSE)
    raise GenrayError(
        "the journal cannot be read without changing it: its log (-wal) is there without its -shm",
        where=str(path),
        hint=f"copy {path.name} with all files whose names begin so, or start the monitor once",
    )


def _files(path: Path) -> list[tuple[int, int, int] | None]:
    """What the file, its log and their shared memory are now."""
    found: list[tuple[int, int, int] | None] = [None] * 3
    for i, tail in enumerate(("", "-wal", "-shm")):
        with suppress(FileNotFoundError):
            status = path.with_name(path.name + tail).stat()
            found[i] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def _once(path: Path, mode: str, use: Callable[[_Database], T]) -> T:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as database:
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        asked = ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
        tables, application, version = (database.execute(each).fetchone()[0] for each in asked)
        if not tables:
            raise _missing(path)  # or it is just being made
        if application != APPLICATION:
            what, hint = f"{path.name} is a database, but not a journal of alarms", _STATE
        elif version > VERSION:
            what = f"the journal {path.name} is of version {version}, this genray reads up to {VERSION}"
            hint = "use the genray that wrote it"
        else:
            return use(database)
        raise DataError(what, where=str(path), hint=hint)


def _missing(path: Path) -> DataError:
    return DataError("there is no journal of alarms", where=str(path), hint=_STATE)


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float:
    return value if isinstance(value, float) and isfinite(value) else 0.0


def rank(priority: str) -> int:
    """How urgent a priority is; the higher, the more."""
    return _PRIORITIES.index(priority) if priority in _PRIORITIES else -1
