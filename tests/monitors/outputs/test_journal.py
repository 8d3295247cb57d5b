"""The journal loses nothing that was recorded and gives nothing twice, whatever ends the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genray.errors import DataError, GenrayError, RunError, StorageFull
from monitors.outputs.journal import Journal
from tests.monitors.journals import no_room, opened_journal, recent, save_place
from tests.monitors.transitions import ENDED, LATCHED, ONSET, numbered

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


def test_what_was_recorded_is_there_again(path: Path) -> None:
    with opened_journal(path) as first:
        assert first.record([ONSET, LATCHED]) == [ONSET, LATCHED]
    with opened_journal(path) as second:
        assert recent(second, 10) == [LATCHED, ONSET]
        assert recent(second, 1, "bed-1") == [LATCHED]
        assert recent(second, 10, "bed-2") == []
        assert second.notes == []


def test_an_alarm_is_open_until_it_has_ended(path: Path) -> None:
    other = replace(ONSET, alarm="bed-2 gap 1", stream="bed-2")
    with opened_journal(path) as opened:
        opened.record([ONSET, other, LATCHED])
        assert opened.open_alarms() == [other, LATCHED]
        opened.record([ENDED])
        assert opened.open_alarms() == [other]


def test_what_was_not_sent_is_owed_after_a_restart(path: Path) -> None:
    with opened_journal(path) as first:
        first.record([ONSET, LATCHED, ENDED])
        first.mark_sent("page", [LATCHED])
        first.mark_sent("page", [LATCHED])
    with opened_journal(path) as second:
        assert second.unsent("page") == [ONSET, ENDED]
        second.mark_sent("page", [ENDED, ONSET])
        assert second.unsent("page") == []


def test_a_new_channel_is_owed_nothing_of_what_was_before(path: Path) -> None:
    with opened_journal(path) as first:
        first.record([ONSET])
    with Journal.open(path, ["page", "mail"]) as second:
        second.record([LATCHED])
        assert second.unsent("mail") == [LATCHED]
        assert second.unsent("page") == [ONSET, LATCHED]


def test_pruning_forgets_alarms_that_have_ended_and_no_open_one(path: Path) -> None:
    still = replace(ONSET, alarm="bed-2 gap 1", stream="bed-2")
    with opened_journal(path) as opened:
        opened.record([ONSET, LATCHED, ENDED, still])
        assert opened.prune() == 0
        assert opened.prune(before=4e9) == 3
        assert recent(opened, 10) == opened.open_alarms() == [still]
        assert opened.unsent("page") == [still]


def test_pruning_keeps_at_most_so_many_rows(path: Path) -> None:
    ended = [replace(numbered(n), state="ended") for n in range(1500)]
    with opened_journal(path, max_rows=1000) as opened:
        opened.record(ended)
        assert opened.prune() == 500
        assert recent(opened, 2000) == ended[:499:-1]


def test_an_alarm_does_not_wait_until_old_ones_are_forgotten(path: Path) -> None:
    ended = [replace(numbered(n), state="ended", why={"note": "x" * 200}) for n in range(20_000)]
    with opened_journal(path) as opened:
        opened.record(ended)
        whole = time.monotonic()
        pruning = threading.Thread(target=opened.prune, args=(4e9,))
        pruning.start()
        waits: list[float] = []
        while pruning.is_alive():
            began = time.monotonic()
            opened.record([replace(numbered(20_000 + len(waits)), state="ended")])
            waits.append(time.monotonic() - began)
            time.sleep(0.001)  # a lock that is taken again at once lets nobody in
        whole = time.monotonic() - whole
        assert max(waits) < whole / 2
        assert len(waits) > 10
        # The first few may have come before it looked what there is.
        assert len(recent(opened, 20_000)) > len(waits) / 2, "what came meanwhile is not forgotten"


def test_states_are_kept_by_stream_and_name(path: Path) -> None:
    with opened_journal(path) as first:
        first.save_states({"reference": {"bed-1": b"\0one", "bed-2": b"two"}}, 5.0)
        first.save_states({"alarms": {"bed-1": b"{}"}}, 5.0)
        first.save_states({"reference": {"bed-1": b"three"}}, 6.0)
    with opened_journal(path) as second:
        assert second.load_states("reference") == {"bed-1": b"three", "bed-2": b"two"}
        assert second.load_states("alarms") == {"bed-1": b"{}"}
        second.discharge("bed-1")
        assert second.load_states("reference") == {"bed-2": b"two"}
        assert second.load_states("alarms") == {}


def test_a_second_process_is_refused(path: Path) -> None:
    with opened_journal(path), pytest.raises(RunError, match="in use by another process"):
        Journal.open(path)
    with opened_journal(path):
        pass


@pytest.mark.parametrize("damage", [b"not a database, but long enough to look" * 30, "half"])
def test_a_damaged_journal_is_put_aside_and_a_new_one_begun(path: Path, damage: bytes | str) -> None:
    with opened_journal(path) as first:
        first.record([numbered(n) for n in range(500)])
    data = bytearray(path.read_bytes())
    data[8192:20000] = b"\xff" * len(data[8192:20000])
    path.write_bytes(damage if isinstance(damage, bytes) else bytes(data))
    with opened_journal(path) as second:
        assert "is now journal.db.damaged-1" in second.notes[0]
        assert recent(second, 1) == []
        assert second.record([ONSET]) == [ONSET]
    assert path.with_name("journal.db.damaged-1").exists()


def test_a_later_version_and_a_foreign_database_are_refused_and_left_alone(path: Path) -> None:
    with opened_journal(path):
        pass
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 7")
    later.close()
    with pytest.raises(DataError, match="has version 7"):
        Journal.open(path)
    with sqlite3.connect(path.with_name("other.db")) as other:
        other.execute("CREATE TABLE patients (name TEXT)")
    other.close()
    with pytest.raises(DataError, match="not a journal of alarms"):
        Journal.open(path.with_name("other.db"))


def test_only_the_owner_may_read_it(path: Path) -> None:
    with opened_journal(path) as opened:
        opened.record([ONSET])
        assert {f.stat().st_mode & 0o777 for f in path.parent.glob("journal.db*") if f.suffix != ".lock"} == {
            0o600
        }


def test_alarms_go_on_while_the_disk_is_full_and_are_written_later(path: Path) -> None:
    large = [replace(numbered(n), why={"note": "x" * 5000}) for n in range(40)]
    with opened_journal(path) as opened:
        opened.record([ONSET])
        save_place(opened)
        with no_room(path):
            assert opened.record(large) == large, "what cannot be written is sent all the same"
            assert isinstance(opened.write_error, StorageFull)
            assert opened.record([ONSET, *large, LATCHED]) == [LATCHED], "and only once"
            opened.mark_sent("page", [large[0]])
            with pytest.raises(GenrayError, match="the disk is full: the journal"):
                opened.save_states({"reference": {"bed-1": b"x" * 500_000}}, 1.0)
        opened.retry()
        assert opened.write_error is None, "no new event is needed"
        assert recent(opened, 100) == [LATCHED, *large[::-1], ONSET]
        assert opened.record([ENDED]) == [ENDED]
    with opened_journal(path) as again:
        assert recent(again, 100) == [ENDED, LATCHED, *large[::-1], ONSET]
        assert again.unsent("page") == [ONSET, *large[1:], LATCHED, ENDED]


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(GenrayError, match=r"the journal journal\.db cannot be read or written"):
        Journal.open(tmp_path / "journal.db")


WRITER = """
import sys
from pathlib import Path
from monitors.outputs.journal import Journal
from tests.monitors.journals import save_place
from tests.monitors.transitions import numbered
path, first = Path(sys.argv[1]), int(sys.argv[2])
with Journal.open(path, ["page"]) as journal:
    save_place(journal)
    for number in range(first, first + 100_000):
        # Announced only after it is recorded; marked only after it is announced.
        for transition in journal.record([numbered(number)]):
            print("sent", number, flush=True)
        journal.mark_sent("page", [numbered(number)])
        print("marked", number, flush=True)
"""


def test_kills_lose_nothing_that_was_sent_and_leave_at_most_the_last_unmarked(path: Path) -> None:
    first, sent, marked = 0, set[int](), set[int]()
    for kill in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(first)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == 5 + 7 * kill:
                process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        for word, number in (line.split() for line in lines if line.endswith("\n")):
            (sent if word == "sent" else marked).add(int(number))
        with opened_journal(path) as opened:
            there = {int(each.alarm[1:]) for each in recent(opened, 100_000)}
            unsent = [int(each.alarm[1:]) for each in opened.unsent("page")]
            assert sent <= there
            assert not marked & set(unsent)
            assert len(unsent) <= 1, "the rest was marked"
            assert opened.record([numbered(n) for n in there]) == []
            opened.mark_sent("page", opened.unsent("page"))
            first = max(there) + 1
            sent, marked = set(there), set(there)
    assert sorted(sent) == list(range(first)), "no gap in between"
