from __future__ import annotations

import json
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from genray.cli import main
from genray.models.unet import UNet
from monitors.journal import Journal
from tests.genray.test_bundle import SMALL, save
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


def test_seconds_end_a_source_that_never_does(beat_bundle: Path, tmp_path: Path) -> None:
    values = given(sets(beat_bundle, tmp_path / "state", "source.kind=demo", "source.speed=10"))
    done = genray("monitor", "ecg", "--seconds", "2", "--json", *values)
    assert done.exit_code == 0
    assert json.loads(done.stdout.splitlines()[-1])["streams"] == 4


def test_a_signal_ends_it_well(beat_bundle: Path, tmp_path: Path) -> None:
    values = sets(beat_bundle, tmp_path / "state", "source.kind=demo", "source.speed=10")
    with Process(values, tmp_path) as monitor:
        monitor.says(lambda lines: any(" alarm: " in line for line in lines))
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


def test_a_state_that_another_monitor_has_is_refused(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with Journal(state / "journal.sqlite"):
        refused = genray("monitor", "ecg", *given(sets(beat_bundle, state, *replay(patients))))
    assert refused.exit_code == 2
    assert "in use" in refused.stderr


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("bundle=nowhere", 1, "nowhere"),
        ("source.kind=carrier-pigeon", 2, "carrier-pigeon"),
        ("source.path=nowhere", 2, "nowhere"),
        ("source.sped=2", 2, "speed"),
    ],
)
def test_what_cannot_work_is_refused(
    beat_bundle: Path, patients: Path, tmp_path: Path, value: str, code: int, said: str
) -> None:
    values = [*sets(beat_bundle, tmp_path / "state", *replay(patients)), value]
    refused = genray("monitor", "ecg", *given(values))
    assert refused.exit_code == code
    assert said in refused.stderr


def test_a_bundle_of_images_is_refused(patients: Path, tmp_path: Path) -> None:
    bundle = save(tmp_path / "bundle", UNet(3, 1, size=64, settings=SMALL).eval())
    refused = genray("monitor", "ecg", *given(sets(bundle, tmp_path / "state", *replay(patients))))
    assert refused.exit_code == 1
    assert "beats" in refused.stderr
