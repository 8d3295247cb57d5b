"""What comes again is told once, and a new episode of an old name is told."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.monitors.journals import opened_journal, recent, save_place
from tests.monitors.transitions import ENDED, LATCHED, ONSET


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_samples_that_come_again_after_a_place_was_kept_give_nothing_new(path: Path) -> None:
    with opened_journal(path) as first:
        first.record([ONSET])
        save_place(first)
    with opened_journal(path) as second:
        shaken = replace(LATCHED, time=LATCHED.time + 1e-5)  # sums of another order
        assert second.record([ONSET, LATCHED, LATCHED, shaken]) == [LATCHED]
        save_place(second)
        assert second.record([LATCHED]) == [], "a part of the monitor was begun anew"
        assert len(recent(second, 10)) == 2


def test_without_a_place_the_same_name_is_a_new_episode(path: Path) -> None:
    # A device without a clock was started again, and so was the monitor.
    for boot in range(1, 4):
        with opened_journal(path) as opened:
            assert opened.record([ONSET, ENDED]) == [ONSET, ENDED]
            assert len(recent(opened, 10)) == 2 * boot
            assert opened.unsent("page") == [ONSET, ENDED] * boot
            assert opened.open_alarms() == []


@pytest.mark.parametrize("minutes", [6, 600])
def test_what_was_recorded_long_before_or_after_the_last_place_does_not_come_again(
    path: Path, minutes: float
) -> None:
    for ago in (minutes, -minutes):
        with opened_journal(path) as first:
            first.record([ONSET])
            save_place(first, ago)
        with opened_journal(path) as second:
            assert second.record([ONSET]) == [ONSET]


def test_what_was_recorded_before_a_discharge_does_not_come_again(path: Path) -> None:
    other = replace(ONSET, stream="bed-2", alarm="bed-2 asystole 1")
    with opened_journal(path) as first:
        save_place(first)
        first.record([ONSET, ENDED, other])
        first.discharge("bed-1")
        # The next patient's device counts from where that of the last did.
        assert first.record([ONSET, other]) == [ONSET]
    with opened_journal(path) as second:
        assert second.record([ONSET, ENDED, other]) == [ENDED], "of these the first was told since"
        save_place(second)
        second.prune()
        assert second.record([ENDED]) == []


def test_a_journal_of_the_first_version_is_taken_over(path: Path) -> None:
    with opened_journal(path) as first:
        first.record([ONSET, LATCHED])
        first.mark_sent("page", [ONSET])
    with sqlite3.connect(path) as older:
        older.executescript(
            """
            PRAGMA legacy_alter_table = ON;
            DROP INDEX by_alarm; DROP INDEX by_stream;
            ALTER TABLE transitions RENAME TO newer;
            CREATE TABLE transitions (
                id INTEGER PRIMARY KEY AUTOINCREMENT, recorded REAL NOT NULL, millisecond INTEGER NOT NULL,
                alarm TEXT NOT NULL, stream TEXT NOT NULL, kind TEXT NOT NULL, category TEXT NOT NULL,
                priority TEXT NOT NULL, change TEXT NOT NULL, state TEXT NOT NULL,
                time REAL NOT NULL, onset REAL NOT NULL, announced INTEGER NOT NULL, why TEXT NOT NULL,
                UNIQUE (alarm, change, millisecond)
            );
            CREATE INDEX by_stream ON transitions (stream, id);
            INSERT INTO transitions SELECT * FROM newer;
            DROP TABLE newer;
            PRAGMA user_version = 1;
            """
        )
    older.close()
    for boot in range(1, 3):
        with opened_journal(path) as opened:
            assert opened.record([ONSET]) == [ONSET]
            assert opened.unsent("page") == [LATCHED, *[ONSET] * boot]
            assert opened.notes == []
