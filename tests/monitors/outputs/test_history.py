"""The history says what the journal holds, and leaves no trace beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from genray.errors import DataError, GenrayError
from monitors.alarms.events import Transition
from monitors.alarms.state import AlarmState
from monitors.outputs.history import HistoryLimits, known_streams, read_history
from monitors.outputs.journal import Journal
from monitors.patient.output import SavedBed
from monitors.patient.resume import SavedState
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.shard import Moment
from monitors.sources.replay import ReplaySettings
from tests.monitors.transitions import ONSET

ACKNOWLEDGED = replace(ONSET, change="acknowledged", state="acknowledged", time=1010.0, why={})
ENDED = replace(ONSET, change="ended", state="ended", time=1020.0, why={"reason": "discharged"})
ROOT = Path(__file__).parents[3]


def numbered(number: int, of: Transition = ONSET) -> Transition:
    return replace(of, alarm=f"a{number}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def write(path: Path, *transitions: Transition) -> None:
    with Journal.open(path) as journal:
        journal.record(transitions)


def in_another_process(path: Path, code: str) -> subprocess.Popen[bytes]:
    head = (
        "import os, sys\nfrom pathlib import Path\nfrom dataclasses import replace\n"
        "from monitors.outputs.journal import Journal\nfrom tests.monitors.transitions import ONSET\n"
        "path = Path(sys.argv[1])\n"
    )
    return subprocess.Popen([sys.executable, "-c", head + code, str(path)], cwd=ROOT)


def ago(path: Path, alarm: str, seconds: float) -> None:
    """Have all changes of an alarm recorded so long ago."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE transitions SET recorded = ? WHERE alarm = ?", (time.time() - seconds, alarm)
        )


@contextmanager
def nothing_is_made(folder: Path) -> Iterator[None]:
    def files() -> dict[str, tuple[bytes, int]]:
        # The shared memory is what readers and writers know of each other: it is not kept.
        found = [each for each in folder.iterdir() if not each.name.endswith("-shm")]
        return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in found}

    before, names = files(), sorted(os.listdir(folder))
    yield
    assert sorted(os.listdir(folder)) == names
    assert files() == before


def test_an_alarm_is_one_entry_with_what_became_of_it(path: Path) -> None:
    medium = replace(ONSET, kind="tachycardia", priority="medium", why={"measured": {"heart_rate": 150}})
    high = replace(
        medium, priority="high", change="escalated", time=1030.0, why={"measured": {"heart_rate": 190}}
    )
    again = replace(high, change="resumed", time=1035.0, why={"measured": {"heart_rate": 185}})
    write(path, medium, high, replace(ACKNOWLEDGED, priority="high"), again, replace(ENDED, time=1040.0))
    (only,) = read_history(path).episodes
    assert (only.priority, only.state, only.reason) == ("high", "ended", "discharged")
    assert only.why["measured"] == {"heart_rate": 190}, "of the change that made it high"
    assert only.onset == 1000.0
    assert only.lasted(time.time()) == 40.0
    assert only.acknowledged is not None
    assert abs(only.acknowledged - time.time()) < 60
    assert only.announced


def test_the_newest_alarm_is_first_and_an_open_one_lasts_until_now(path: Path) -> None:
    write(path, numbered(1), numbered(2))
    ago(path, "a1", 300)
    ago(path, "a2", 20)
    first, second = read_history(path).episodes
    assert (first.alarm, second.alarm) == ("a2", "a1")
    assert first.lasted(time.time()) == pytest.approx(20, abs=5)


def test_a_name_that_comes_again_is_another_alarm_and_one_that_resumes_is_the_same(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.record([ONSET, ENDED])
        journal.record([replace(ONSET, change="resumed", time=1030.0), replace(ENDED, time=1050.0)])
    assert len(read_history(path).episodes) == 1
    with Journal.open(path) as journal:
        journal.record([ONSET])  # of a device that counts from 0 at each start
    now, before = read_history(path).episodes
    assert (now.state, before.state) == ("active", "ended")
    assert before.lasted(time.time()) == 50.0


def test_one_that_nobody_is_told_of_says_so(path: Path) -> None:
    write(path, replace(ONSET, announced=False))
    assert not read_history(path).episodes[0].announced


def test_a_journal_is_read_while_it_is_held(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.record([ONSET])
        with nothing_is_made(path.parent):
            assert [each.state for each in read_history(path).episodes] == ["active"]
        journal.record([ENDED])
        assert [each.state for each in read_history(path).episodes] == ["ended"]


def test_a_journal_is_read_after_a_good_end_without_a_trace(path: Path) -> None:
    write(path, ONSET, ENDED)
    assert not path.with_name(path.name + "-wal").exists()
    with nothing_is_made(path.parent):
        assert len(read_history(path).episodes) == 1
        assert known_streams(path) == ["bed-1"]


def test_what_was_recorded_before_a_kill_is_read(path: Path) -> None:
    write(path, numbered(1))
    killed = in_another_process(path, "Journal.open(path).record([ONSET])\nos._exit(9)")
    assert killed.wait(60) == 9
    with nothing_is_made(path.parent):
        assert len(read_history(path).episodes) == 2


def test_changes_that_are_written_meanwhile_are_there_together_or_not_at_all(path: Path) -> None:
    write(path, ONSET)
    code = (
        "with Journal.open(path) as journal:\n  for n in range(400):\n    journal.record([replace(ONSET, "
        "alarm=f'b{n}'), replace(ONSET, alarm=f'b{n}', change='ended', state='ended', time=1020.0)])\n"
    )
    writer, seen = in_another_process(path, code), set()
    while writer.poll() is None:
        episodes = read_history(path).episodes
        seen.add(len(episodes))
        assert {each.state for each in episodes if each.alarm != ONSET.alarm} <= {"ended"}
    assert writer.returncode == 0
    assert len(seen) > 2
    assert len(read_history(path).episodes) == 401


def test_a_monitor_may_begin_and_end_while_it_is_read(path: Path) -> None:
    write(path, ONSET)
    code = (
        "for n in range(60):\n  with Journal.open(path) as journal:\n"
        "    journal.record([replace(ONSET, alarm=f'b{n}')])\n"
    )
    writer, before = in_another_process(path, code), 0
    while writer.poll() is None:
        now = len(read_history(path).episodes)
        assert now >= before
        before = now
    assert writer.returncode == 0
    assert len(read_history(path).episodes) == 61


def test_since_leaves_out_what_had_ended_and_keeps_what_is_open(path: Path) -> None:
    write(path, *(numbered(n) for n in range(3)), numbered(0, ENDED), numbered(1, ENDED))
    ago(path, "a0", 7200)
    ago(path, "a2", 7200)
    found = read_history(path, since=time.time() - 3600)
    assert {each.alarm for each in found.episodes} == {"a1", "a2"}
    assert found.until - found.began == pytest.approx(3600, abs=60)


def test_streams_and_kinds_are_picked(path: Path) -> None:
    other = replace(ONSET, alarm="b", stream="bed-2", kind="gap")
    write(path, ONSET, other)
    assert [each.alarm for each in read_history(path, streams=["bed-2"]).episodes] == ["b"]
    assert [each.alarm for each in read_history(path, kind="asystole").episodes] == [ONSET.alarm]
    assert read_history(path, streams=["bed-2"], kind="asystole").episodes == []
    assert read_history(path, streams=["' OR 1=1 --"]).episodes == []


def test_an_open_alarm_lasts_by_the_clock_of_the_samples_also_where_they_are_faster(path: Path) -> None:
    lost = replace(ONSET, alarm="lost", kind="stream-lost", category="technical")
    with Journal.open(path) as journal:
        journal.record([ONSET, lost])
        state = SavedState(AlarmState(ONSET.stream, time=ONSET.onset + 600)).as_bytes()
        checkpoint = MonitorCheckpoint.load(journal, ReplaySettings(), 1, print)
        asyncio.run(checkpoint.save(0, Moment({ONSET.stream: SavedBed(state, b"")})))
        found = {each.kind: each.lasted(time.time() + 7) for each in read_history(path).episodes}
    assert found["asystole"] == 600
    assert 7 <= found["stream-lost"] < 60, "samples that do not come have no clock"


def test_beds_without_alarms_count_in_the_rate(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.record([ONSET, numbered(1), replace(ONSET, alarm="quiet", announced=False)])
        checkpoint = MonitorCheckpoint.load(journal, ReplaySettings(), 1, print)
        asyncio.run(checkpoint.save_watched({"bed-1": 1000.0, "bed-2": 1000.0}))
        asyncio.run(checkpoint.save(0, Moment({"bed-3": SavedBed(b"", b"{}")}, {"at": 1})))
    for alarm in (ONSET.alarm, "a1", "quiet"):
        ago(path, alarm, 43_200)
    found = read_history(path)
    assert known_streams(path) == ["bed-1", "bed-2", "bed-3"]
    assert found.beds == 3
    assert found.until - found.began == pytest.approx(43_200, abs=60)
    assert found.per_bed_and_day == pytest.approx(2 / (3 * 0.5), rel=0.01)
    assert read_history(path, streams=["bed-1"]).beds == 1


def test_no_rate_is_told_of_less_than_an_hour(path: Path) -> None:
    write(path, ONSET)
    assert read_history(path).per_bed_and_day is None
    ago(path, ONSET.alarm, 86_400)  # and the monitor wrote nothing since
    assert read_history(path).per_bed_and_day is None


def test_no_more_is_read_than_is_allowed(path: Path) -> None:
    write(path, *(numbered(n) for n in range(10)))
    assert not read_history(path).cut
    assert [each.why == {} for each in read_history(path, explained=4).episodes].count(False) == 4
    found = read_history(path, limits=HistoryLimits(changes=6))
    assert found.cut
    assert {each.alarm for each in found.episodes} == {f"a{n}" for n in range(4, 10)}
    short = read_history(path, limits=HistoryLimits(text=10))
    assert {str(each.why) for each in short.episodes} == {"{}"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("why", b"\xff\x00"),
        ("why", "[" * 100_000),
        ("why", '{"measured": ' + "9" * 5000 + "}"),
        ("stream", b"\xff\xfe"),
        ("priority", "\x1b[2J"),
        ("onset", float("inf")),
        ("onset", "yesterday"),
        ("time", -1e300),
        ("alarm", "x" * 1_000_000),
    ],
)
def test_what_no_monitor_writes_is_read_without_harm(path: Path, column: str, value: object) -> None:
    write(path, ONSET, numbered(1))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE transitions SET {column} = ? WHERE alarm = 'a1'", (value,))
    found = read_history(path).episodes
    assert len(found) == 2
    assert max(len(each.alarm) for each in found) <= 256
    assert all(each.lasted(time.time()) >= 0 for each in found)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE transitions (id)")


def later(path: Path) -> None:
    write(path, ONSET)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "error", "expected"),
    [
        (lambda path: None, DataError, "no journal of alarms"),
        (lambda path: path.mkdir(), DataError, "no journal of alarms"),
        (lambda path: path.touch(), DataError, "no journal of alarms"),
        (foreign, DataError, "is a database, but not a journal"),
        (later, DataError, "has version 99, this genray reads versions up to 2"),
        (lambda path: path.write_text("no database" * 1000), GenrayError, "cannot be read or written"),
    ],
)
def test_what_is_no_journal_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], None], error: type[GenrayError], expected: str
) -> None:
    make(path)
    before = sorted(os.listdir(path.parent))
    with pytest.raises(error, match=expected) as raised:
        read_history(path)
    assert raised.value.where == str(path)
    assert raised.value.hint
    assert sorted(os.listdir(path.parent)) == before


def test_a_log_without_its_shared_memory_is_not_ignored(path: Path) -> None:
    killed = in_another_process(path, "Journal.open(path).record([ONSET])\nos._exit(9)")
    assert killed.wait(60) == 9
    path.with_name(path.name + "-shm").unlink()
    with nothing_is_made(path.parent), pytest.raises(GenrayError, match="but its -shm file does not"):
        read_history(path, limits=HistoryLimits(tries=2))


def test_a_journal_in_a_folder_of_any_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%41 &mode=rwc" / "journal.sqlite"
    write(path, ONSET)
    assert len(read_history(path).episodes) == 1
