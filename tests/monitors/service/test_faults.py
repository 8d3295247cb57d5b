"""The monitor is killed at any moment, and goes on as if it had not been."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from shutil import copy

import pytest

from monitors.outputs.strips import read_strip
from tests.monitors.alerting import Pager, alertmanager_server
from tests.monitors.running import Process, high, recorded, replay, run_here, sets, wait_for, write_patients


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="module")
def undisturbed(beat_bundle: Path, patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a monitor to which nothing happened."""
    state = tmp_path_factory.mktemp("undisturbed")
    run_here(sets(beat_bundle, state, *replay(patients)))
    return state


def learned(state: Path) -> dict[str, bytes]:
    """The patients' references."""
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT stream, data FROM states WHERE name = 'reference'").fetchall())


def without_strip(state: Path) -> set[str]:
    """The alarms in the journal without a strip."""
    alarms = {alarm for alarm, _, _ in recorded(state)}
    return {alarm for alarm in alarms if read_strip(state / "strips", alarm) is None}


def onsets(lines: list[str]) -> int:
    return sum(" alarm: " in line for line in lines)


def enough(alarms: int, lines: list[str]) -> bool:
    return onsets(lines) >= alarms


def test_after_every_kill_the_same_alarms_come_and_nobody_is_told_twice(
    beat_bundle: Path, patients: Path, undisturbed: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    copy(undisturbed / "stream.key", state)  # so that streams have the same names

    async def test() -> list[tuple[str, str]]:
        async with Pager() as pager:
            with alertmanager_server(tmp_path, pager) as alertmanager:
                values = [
                    *replay(patients, 60),
                    f"alertmanager.urls=[http://127.0.0.1:{alertmanager.port}]",
                ]
                await asyncio.to_thread(killed_and_begun_again, sets(beat_bundle, state, *values))
                await pager.receives(lambda received: len(received) >= 2)
                return [
                    (alert["status"], alert["labels"]["alarm"])
                    for call in pager.calls
                    for alert in call["alerts"]
                ]

    def killed_and_begun_again(values: list[str]) -> None:
        with Process(values, tmp_path) as monitor:
            monitor.metrics_address()
            wait_for(lambda: bool(learned(state)))  # or what was collected to learn it
            monitor.kill()
        for alarms in (2, 4):
            with Process(values, tmp_path) as monitor:
                monitor.wait_for_lines(partial(enough, alarms))
                monitor.kill()
            assert onsets(monitor.lines) >= alarms, monitor.lines
            assert without_strip(state) == set()
        with Process(values, tmp_path) as monitor:
            assert monitor.end(180)[0] == 0

    notifications = asyncio.run(test())
    assert sorted(recorded(state)) == sorted(recorded(undisturbed))
    assert learned(state) == learned(undisturbed)
    assert without_strip(state) == without_strip(undisturbed) == set()
    assert Counter(notifications) == {("firing", alarm): 1 for alarm in high(undisturbed)}
