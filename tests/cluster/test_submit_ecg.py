"""A monitor as a job on a cluster: it watches a replay to its end, or until it is stopped."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genray.cli.main import main
from genray.ecg.synthesis import Episode
from tests.monitors.bundles import fit_beats
from tests.monitors.running import recorded, replay, run_here, sets, write_patients

Genray = Callable[..., Result]
SCRIPTS = ((Episode("asystole", 50, 8),), (Episode("lead-off", 55, 10),))


@pytest.fixture
def genray(head: Any, client_env: None) -> Genray:
    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--address", head.address], catch_exceptions=False)

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_beats(tmp_path_factory.mktemp("beats") / "bundle")


@pytest.fixture
def values(bundle: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Values for `--set` of a monitor of two patients."""
    records = write_patients(tmp_path / "records", SCRIPTS, 80)
    return lambda state, *more, speed=0: sets(bundle, tmp_path / state, *replay(records, speed), *more)


@pytest.fixture
def submit(genray: Genray) -> Genray:
    def run(*words: str, values: list[str]) -> Result:
        options = [word for text in values for word in ("--set", text)]
        return genray("submit", "ecg", "--name", "ward", "--json", *words, *options)

    return run


def place(state: Path) -> int:
    """The number of the chunk with which the source goes on."""
    if not (state / "journal.sqlite").exists():
        return 0
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        if not database.execute("SELECT name FROM sqlite_master WHERE name = 'states'").fetchall():
            return 0  # the journal is just being made
        rows = database.execute("SELECT data FROM states WHERE name = 'place'").fetchall()
    return max((int(json.loads(data)["place"].get("chunk", 0)) for (data,) in rows), default=0)


def test_a_replay_is_watched_to_its_end_with_the_alarms_that_it_has_here(
    submit: Genray, values: Callable[..., list[str]], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    alarms = run_here(values("here"))[0]["alarms"]
    there.mkdir()
    copy(here / "stream.key", there)  # so that streams have the same names
    result = submit(values=values("there", "shards=1"))
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    outcome = json.loads(line)
    assert (outcome["target"], outcome["run"]) == ("ecg", str(there))
    assert outcome["streams"] == 2
    assert outcome["alarms"] == alarms == {"asystole": 1, "lead-off": 1}
    assert "high priority alarm: asystole" in result.stderr
    assert sorted(recorded(there)) == sorted(recorded(here))


def test_one_that_goes_on_for_ever_is_stopped_in_an_orderly_way_and_can_go_on(
    submit: Genray, genray: Genray, values: Callable[..., list[str]], tmp_path: Path
) -> None:
    state, loop = tmp_path / "state", "source.loop=true"
    result = submit("--detach", values=values("state", loop, speed=30))
    job = json.loads(result.stdout)["job"]
    end = time.monotonic() + 90
    while not place(state):
        assert time.monotonic() < end, genray("jobs", "logs", job).output
        time.sleep(0.1)
    kept = place(state)
    assert genray("jobs", "stop", job).exit_code == 0
    assert json.loads(genray("jobs", "status", job, "--json").stdout)["status"] == "STOPPED"
    log = genray("jobs", "logs", job).output
    (line,) = [each for each in log.splitlines() if each.startswith('{"target": "ecg"')]
    told = recorded(state)
    onsets = [alarm for alarm, change, _ in told if change == "onset"]
    assert json.loads(line)["alarms"] == Counter(alarm.split(":")[1] for alarm in onsets)
    stopped = place(state)
    assert stopped >= kept
    # Nobody holds the journal any more. From the beginning half a second would lead nowhere near.
    run_here(values("state", loop, "seconds=0.5", speed=30))
    assert place(state) >= stopped > 0.5 * 30
    assert recorded(state)[: len(told)] == told
