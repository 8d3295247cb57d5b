"""What a person sees of the record of alarms, and of pseudonyms."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genray.cli.alarms import default_state
from genray.cli.main import main
from monitors.alarms.events import Transition
from monitors.outputs.journal import Journal
from monitors.settings import EcgSettings
from monitors.sources.pseudonyms import Pseudonyms, load_or_make_key

HOSTILE = "\x1b[2Jbed\n\u202e[red]9[/red]\t=1+1"


def genray(*arguments: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(main, ["monitor", *arguments], catch_exceptions=False)


def transition(kind: str = "asystole", **more: Any) -> Transition:
    at = time.time()
    given = {
        **{"alarm": f"{kind}:1", "stream": "bed-1", "category": "physiological", "priority": "high"},
        **{"change": "onset", "state": "active", "time": at, "onset": at},
        **{"why": {"measured": {"silence": 4.94}, "limits": {"silence": 4.0}}},
    }
    return Transition(**{"kind": kind, **given, **more})


def write(state: Path, *transitions: Transition) -> None:
    with Journal.open(state / "journal.sqlite") as journal:
        journal.record(transitions)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_alarms_are_a_table_with_a_reason_and_a_summary(state: Path) -> None:
    alarm = transition()
    seen = replace(alarm, change="acknowledged", state="acknowledged", time=alarm.onset + 8, why={})
    end = replace(seen, change="ended", state="ended", time=alarm.onset + 75, why={"reason": "discharged"})
    write(state, alarm, seen, end)
    result = genray("alarms", "--state", str(state))
    assert result.exit_code == 0
    head, row, *_ = result.stdout.splitlines()
    assert head.split() == [
        "ONSET",
        "STREAM",
        "ALARM",
        "PRIORITY",
        "STATE",
        "LASTED",
        "ANNOUNCED",
        "ACK",
        "WHY",
    ]
    assert "bed-1" in row
    assert "ended (discharged)" in row
    assert "1 min 15 s" in row
    assert row.endswith("no QRS complex for 4.9 s; limit 4 s")
    assert "recorded" not in row
    assert row.count(time.strftime("%H:%M")[:2]) >= 2, "its onset, and when it was acknowledged"
    last = result.stdout.splitlines()[-1]
    assert last.startswith("alarms 1, announced 1, open 0; asystole 1 (1 high); beds 1, ")


def test_what_was_open_when_the_monitor_ended_is_not_said_to_last_since(state: Path) -> None:
    write(state, transition(), transition("gap"))
    with closing(sqlite3.connect(state / "journal.sqlite")) as database, database:
        for kind, ago in (("asystole", 600), ("gap", 500)):
            when = (time.time() - ago, f"{kind}:1")
            database.execute("UPDATE transitions SET recorded = ? WHERE alarm = ?", when)
    alarms = json.loads(genray("alarms", "--state", str(state), "--json").stdout)["alarms"]
    assert {each["kind"]: round(each["seconds"], -1) for each in alarms} == {"asystole": 100, "gap": 0}


@pytest.mark.parametrize(
    ("kind", "priority", "measured", "limits", "words"),
    [
        ("asystole", "high", {"silence": 4.94}, {"silence": 4.0}, "no QRS complex for 4.9 s; limit 4 s"),
        (
            *("bradycardia", "high", {"heart_rate": 28.4}, {"medium": 40.0, "high": 30.0}),
            "heart rate 28/min; limit 30/min",
        ),
        (
            *("tachycardia", "medium", {"heart_rate": 151}, {"medium": 140.0, "high": 180.0}),
            "heart rate 151/min; limit 140/min",
        ),
        ("anomaly", "high", {"burden": 0.55}, {"begin": 0.4}, "55 % of the last beats anomalous; limit 40 %"),
        ("lead-off", "low", {"off": ["II", "V\x1b5"]}, {}, "II, V?5: electrode off, flat line or saturated"),
        ("poor-signal", "low", {"poor": []}, {}, "all leads: signal too noisy"),
        ("gap", "low", {"missing": 8.0}, {"begin": 6.0}, "8.0 s of the last minute missing; limit 6 s"),
        ("stream-lost", "high", {"lost": 75.0}, {"high": 60.0}, "no data for 1 min 15 s; limit 60 s"),
        ("behind", "medium", {"behind": 7.25}, {"begin": 5.0}, "monitor 7.2 s behind; limit 5 s"),
        ("asystole", "high", {"silence": None}, {}, ""),
        ("asystole", "high", {"silence": "x"}, [1], ""),
        ("asystole", "high", [], "no limits", ""),
        ("asystole", "high", {"silence": 1e300}, {}, ""),
    ],
)
def test_each_kind_says_what_was_measured_and_its_limit(
    state: Path, kind: str, priority: str, measured: object, limits: object, words: str
) -> None:
    write(state, transition(kind, priority=priority, why={"measured": measured, "limits": limits}))
    (alarm,) = json.loads(genray("alarms", "--state", str(state), "--json").stdout)["alarms"]
    assert alarm["why"] == words


def test_json_is_one_document_with_plain_values(state: Path) -> None:
    write(state, transition(), transition("gap", priority="low", announced=False))
    result = genray("alarms", "--state", str(state), "--json")
    (line,) = result.stdout.splitlines()
    output = json.loads(line)
    assert [each["kind"] for each in output["alarms"]] == ["gap", "asystole"]
    assert output["alarms"][1] | {"value": 4.94, "unit": "s", "limit": 4.0} == output["alarms"][1]
    assert output["summary"]["kinds"] == {"asystole": {"high": 1}, "gap": {"low": 1}}
    assert output["summary"]["announced_per_bed_and_day"] is None


def test_csv_is_read_back_and_its_summary_is_beside_it(state: Path) -> None:
    write(state, transition(stream="=cmd()"))
    result = genray("alarms", "--state", str(state), "--csv")
    (row,) = csv.DictReader(StringIO(result.stdout))
    assert (row["stream"], row["value"], row["limit"]) == ("'=cmd()", "4.94", "4.0")
    assert "alarms 1" in result.stderr


def test_both_times_are_told_if_the_clock_of_the_samples_is_another(state: Path) -> None:
    write(state, transition(onset=1000.0))
    assert " (recorded " in genray("alarms", "--state", str(state)).stdout
    write(state, transition(alarm="b", onset=1e300))
    assert "1e+300 s (recorded " in genray("alarms", "--state", str(state)).stdout
    assert json.loads(genray("alarms", "--state", str(state), "--json").stdout)


def test_a_terminal_gets_a_table_in_which_nothing_is_lost(state: Path) -> None:
    write(state, transition(stream=HOSTILE))
    for columns in ("60", "110", "200"):
        drawn = genray("alarms", "--state", str(state), FORCE_COLOR="1", COLUMNS=columns, TERM="xterm").stdout
        assert "\x1b[2J" not in drawn
        assert "\u202e" not in drawn
        if columns != "110":  # folded there
            assert "?[2Jbed??[red]9[/red]?=1+1" in drawn
            assert "no QRS complex for 4.9 s; limit 4 s" in drawn


def test_hostile_text_breaks_no_line(state: Path) -> None:
    write(state, transition(stream=HOSTILE), transition("gap", stream="x" * 5000))
    lines = genray("alarms", "--state", str(state)).stdout.splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) < 300
    (row, _) = csv.DictReader(StringIO(genray("alarms", "--state", str(state), "--csv").stdout))
    assert row["stream"] == "x" * 256
    known = json.loads(genray("alarms", "--state", str(state), "--json").stdout)["alarms"][1]
    assert known["stream"] == HOSTILE


def test_it_is_read_while_a_monitor_writes(state: Path) -> None:
    with Journal.open(state / "journal.sqlite") as journal:
        for number in range(3):
            journal.record([transition(alarm=f"a{number}")])
            before = sorted(os.listdir(state))
            output = json.loads(genray("alarms", "--state", str(state), "--json").stdout)
            assert output["summary"]["alarms"] == number + 1
            assert sorted(os.listdir(state)) == before


def test_the_newest_are_shown_and_all_are_counted(state: Path) -> None:
    write(state, *(transition(alarm=f"a{n}") for n in range(5)))
    result = genray("alarms", "--state", str(state), "--limit", "2")
    assert len(result.stdout.splitlines()) == 5
    assert "alarms 5," in result.stdout
    assert "3 more alarms: show all with --limit 5" in result.stderr
    for limit, more in ((2, 3), (5, 0)):
        line = json.loads(genray("alarms", "--state", str(state), "--limit", str(limit), "--json").stdout)
        assert (len(line["alarms"]), line["more"], line["summary"]["alarms"]) == (limit, more, 5)


def test_a_stream_is_found_by_its_name_or_its_pseudonym(state: Path) -> None:
    pseudonym = Pseudonyms(load_or_make_key(state / "stream.key")).of("bed-7")
    write(state, transition(stream=pseudonym), transition("gap", stream="other"))
    for name in ("bed-7", pseudonym):
        output = json.loads(genray("alarms", "--state", str(state), "--stream", name, "--json").stdout)
        assert [each["stream"] for each in output["alarms"]] == [pseudonym]
    unknown = genray("alarms", "--state", str(state), "--stream", "bed-8")
    assert unknown.stdout == "no alarms\n"
    assert "contains no stream bed-8" in unknown.stderr
    quiet = genray("alarms", "--state", str(state), "--stream", "bed-7", "--kind", "behind")
    assert "contains no stream" not in quiet.stderr


def test_since_takes_lengths_of_time(state: Path) -> None:
    alarm = transition()
    write(state, alarm, replace(alarm, change="ended", state="ended"))
    with closing(sqlite3.connect(state / "journal.sqlite")) as database, database:
        database.execute("UPDATE transitions SET recorded = recorded - 5400")
    for given, count in (("1h", 0), ("90s", 0), ("1h45m", 1), ("1.75h", 1), ("2d", 1)):
        output = json.loads(genray("alarms", "--state", str(state), "--since", given, "--json").stdout)
        assert len(output["alarms"]) == count, given


def test_nothing_recorded_is_no_error(state: Path) -> None:
    write(state)
    assert genray("alarms", "--state", str(state)).stdout == "no alarms\n"
    output = json.loads(genray("alarms", "--state", str(state), "--json").stdout)
    assert output["alarms"] == []
    assert list(csv.reader(StringIO(genray("alarms", "--state", str(state), "--csv").stdout)))[1:] == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--since", "8"], "is not a duration"),
        (["--since", "-1h"], "is not a duration"),
        (["--since", "0h"], "is not a duration"),
        (["--since", "8h "], "is not a duration"),
        (["--kind", "asystol"], "asystole, ventricular-fibrillation"),
        (["--json", "--csv"], "cannot be used together"),
        (["--stream", "\udcff"], "is not UTF-8"),
    ],
)
def test_what_is_asked_for_wrongly_is_said(state: Path, given: list[str], expected: str) -> None:
    load_or_make_key(state / "stream.key")
    write(state, transition())
    result = genray("alarms", "--state", str(state), *given)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "next:" in result.stderr


def test_a_name_that_no_stream_can_have_is_refused(state: Path) -> None:
    load_or_make_key(state / "stream.key")
    assert "is not UTF-8" in genray("names", "\udcff", "--state", str(state)).stderr


def test_a_state_that_is_not_there_is_not_made(state: Path) -> None:
    for command in (["alarms"], ["names", "bed-7"], ["names", "bed-7", "--known"]):
        result = genray(*command, "--state", str(state))
        assert result.exit_code == 2
        assert str(state) in result.stderr
        assert "--state" in result.stderr
        assert not state.exists()
    line = genray("alarms", "--state", str(state), "--json").stdout
    assert "no journal" in json.loads(line)["error"]["what"]


def test_other_databases_and_later_versions_are_refused(state: Path) -> None:
    write(state, transition())
    journal = state / "journal.sqlite"
    with closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA user_version = 7")
    assert "has version 7" in genray("alarms", "--state", str(state)).stderr
    with closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA application_id = 7")
    assert "not a journal of alarms" in genray("alarms", "--state", str(state)).stderr


def test_names_are_told_their_pseudonyms_and_back(state: Path) -> None:
    of = Pseudonyms(load_or_make_key(state / "stream.key")).of
    write(state, transition(stream=of("bed-7")), transition("gap", stream=of("bed-8")))
    plain = genray("names", "bed-7", "bed-9", "--state", str(state)).stdout
    assert plain.splitlines() == [f"bed-7  {of('bed-7')}", f"bed-9  {of('bed-9')}"]
    known = genray("names", "bed-7", "bed-9", "--known", "--state", str(state)).stdout
    assert f"{of('bed-7')}  bed-7\n" in known
    assert f"{of('bed-8')}  -\n" in known
    output = json.loads(genray("names", "bed-7", "--known", "--json", "--state", str(state)).stdout)
    assert output["names"] == {"bed-7": of("bed-7")}
    assert {each["stream"]: each["name"] for each in output["known"]} == {
        of("bed-7"): "bed-7",
        of("bed-8"): None,
    }


def test_a_key_that_is_not_there_is_not_made(state: Path) -> None:
    write(state, transition())
    before = sorted(os.listdir(state))
    result = genray("names", "bed-7", "--state", str(state))
    assert result.exit_code == 2
    assert "no key for pseudonyms found" in result.stderr
    assert genray("alarms", "--stream", "bed-1", "--state", str(state)).exit_code == 0
    assert sorted(os.listdir(state)) == before


def test_the_usual_state_is_that_of_the_monitor() -> None:
    assert str(default_state()) == EcgSettings().state
