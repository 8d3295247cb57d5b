from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from genray.cli.main import main
from monitors.outputs.journal import Journal
from tests.monitors.bundles import save_image_bundle
from tests.monitors.running import Process, recorded, replay, sets, write_patients


def genray(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def given(values: Sequence[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("patients"), seconds=70)


def test_it_is_a_target_among_others(beat_bundle: Path, patients: Path, tmp_path: Path) -> None:
    assert "ecg " in genray("targets").output
    assert yaml.safe_load(genray("config", "ecg", "--set", "page.port=7").output)["page"]["port"] == 7
    values = given(sets(beat_bundle, tmp_path / "state", *replay(patients)))
    dry = genray("submit", "ecg", "--dry-run", "--json", *values)
    assert dry.exit_code == 0
    assert recorded(tmp_path / "state") == []
    done = genray("submit", "ecg", "--json", *values)
    assert done.exit_code == 0
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["target"] == "ecg"
    assert outcome["run"] == str(tmp_path / "state")
    assert outcome["alarms"] == {"asystole": 1}
    assert (outcome["streams"], outcome["open"]) == (3, 1)
    assert outcome["beats"] > 100
    assert "bundle  None" not in done.stderr
    assert "asystole 1" in done.stderr
    assert "not for the care of patients" in done.stderr


def test_a_model_that_is_worse_than_a_trivial_detector_is_said_before_anything_starts(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(beat_bundle, bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    verdict = "worse than guessing: auc 0.4 against 0.5"
    judged = manifest | {"quality": "worse-than-trivial", "verdict": verdict}
    (bundle / "bundle.json").write_text(json.dumps(judged))
    dry = genray("submit", "ecg", "--dry-run", *given(sets(bundle, tmp_path / "state", *replay(patients))))
    assert dry.exit_code == 0
    assert f"warning: the model was {verdict}" in dry.stderr


def test_seconds_end_a_source_that_never_does(beat_bundle: Path, tmp_path: Path) -> None:
    values = given(sets(beat_bundle, tmp_path / "state", "source.kind=demo", "source.speed=10"))
    done = genray("monitor", "ecg", "--seconds", "2", "--json", *values)
    assert done.exit_code == 0
    assert json.loads(done.stdout.splitlines()[-1])["streams"] == 4


def test_a_signal_ends_it_well(beat_bundle: Path, tmp_path: Path) -> None:
    values = sets(beat_bundle, tmp_path / "state", "source.kind=demo", "source.speed=10")
    with Process(values, tmp_path) as monitor:
        monitor.wait_for_lines(lambda lines: any(" alarm: " in line for line in lines))
        monitor.signal(signal.SIGINT)
        code, outcome = monitor.end()
    assert code == 0
    assert sum(outcome["alarms"].values()) >= 1
    assert len(recorded(tmp_path / "state")) >= 1


@pytest.mark.parametrize("setting", ["metrics.port", "page.port"])
def test_a_port_that_is_taken_is_found_before_anything_starts(
    beat_bundle: Path, patients: Path, tmp_path: Path, setting: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        values = sets(beat_bundle, tmp_path / "state", *replay(patients), f"{setting}={port}")
        refused = genray("submit", "ecg", "--dry-run", *given(values))
    assert refused.exit_code == 2
    assert setting in refused.stderr
    assert str(port) in refused.stderr


def waits(lines: list[str]) -> bool:
    return any("waiting to take over" in line for line in lines)


def test_a_second_monitor_waits_for_the_state_and_the_ports_of_the_first_and_takes_over(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with ExitStack() as first, ExitStack() as rest:
        first.enter_context(Journal.open(state / "journal.sqlite"))
        port = first.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        values = [*sets(beat_bundle, state, *replay(patients)), f"metrics.port={port}"]
        second = rest.enter_context(Process(values, tmp_path))
        assert "--set state=FOLDER" in "\n".join(second.wait_for_lines(waits))
        first.close()
        began = time.monotonic()
        assert str(port) in second.metrics_address()
        assert time.monotonic() - began < 15
        assert any("taking over" in line for line in second.lines)
        assert second.end()[0] == 0


def test_a_monitor_that_waits_for_another_can_be_stopped(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    values = sets(beat_bundle, state, *replay(patients))
    with Journal.open(state / "journal.sqlite"), Process(values, tmp_path) as second:
        second.wait_for_lines(waits)
        second.signal(signal.SIGTERM)
        code, outcome = second.end()
    assert (code, outcome["streams"]) == (0, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bundle=nowhere", ["no bundle at", "nowhere", "train one: genray submit train-ecg", "--demo"]),
        ("source.kind=carrier-pigeon", ["carrier-pigeon"]),
        ("source.kind=mqqt", ["did you mean mqtt?"]),
        ("source.path=nowhere", ["nowhere does not exist", "where: source.path", "a folder of records"]),
        ("source.sped=2", ["speed"]),
    ],
)
def test_what_cannot_work_is_refused(
    beat_bundle: Path, patients: Path, tmp_path: Path, value: str, expected: list[str]
) -> None:
    values = [*sets(beat_bundle, tmp_path / "state", *replay(patients)), value]
    refused = genray("monitor", "ecg", *given(values))
    assert refused.exit_code == 2
    assert [text for text in expected if text not in refused.stderr] == []


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "no records in the folder"),
        ({"notes.txt": "of a patient"}, "no records in the folder"),
        ({"a.csv": "".join(["time,HR\n", *(f"{n / 250},70\n" for n in range(999))])}, "a.csv"),
        ({"a.csv": "time,II\n2024-01-01T00:00:00,0\n0,0\n", "b.csv": ""}, "and 1 more cannot be read"),
    ],
    ids=["empty", "no records", "heart rates only", "all broken"],
)
def test_records_that_can_never_be_replayed_are_found_before_anything_starts(
    beat_bundle: Path, tmp_path: Path, files: dict[str, str], expected: str, shards: int
) -> None:
    records = tmp_path / "records"
    records.mkdir()
    for name, text in files.items():
        (records / name).write_text(text)
    values = sets(beat_bundle, tmp_path / "state", *replay(records), f"shards={shards}")
    refused = genray("monitor", "ecg", *given(values))
    assert refused.exit_code == 2
    assert expected in refused.stderr
    assert "metrics:" not in refused.stderr
    assert not (tmp_path / "state").exists()


def test_a_run_and_a_damaged_bundle_are_wrong_input(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "run" / "bundle"
    shutil.copytree(beat_bundle, bundle)
    values = sets(bundle.parent, tmp_path / "state", *replay(patients))
    refused = genray("monitor", "ecg", *given(values))
    assert refused.exit_code == 2
    assert f"did you mean {bundle}?" in refused.stderr
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused = genray("monitor", "ecg", *given(sets(bundle, tmp_path / "state", *replay(patients))))
    assert refused.exit_code == 2
    assert "copy it again, or train it again" in refused.stderr


def test_a_state_that_cannot_be_written_is_refused_by_its_setting(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for state in (tmp_path / "file", tmp_path / "file" / "state"):
        refused = genray("monitor", "ecg", *given(sets(beat_bundle, state, *replay(patients))))
        assert refused.exit_code == 2
        assert f"the folder {state} cannot be written" in refused.stderr
        assert "where: state" in refused.stderr


def test_a_bundle_of_images_is_refused(patients: Path, tmp_path: Path) -> None:
    bundle = save_image_bundle(tmp_path / "bundle")
    refused = genray("monitor", "ecg", *given(sets(bundle, tmp_path / "state", *replay(patients))))
    assert refused.exit_code == 2
    assert "beats" in refused.stderr
