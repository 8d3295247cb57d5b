"""A training on a cluster, as its user sees it: submitted, followed, stopped, and gone on with."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genray.bundle import load_bundle
from genray.cli.main import main

Genray = Callable[..., Result]


@pytest.fixture
def genray(head: Any, client_env: None) -> Genray:
    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--address", head.address], catch_exceptions=False)

    return run


@pytest.fixture
def submit(genray: Genray, tiny: Callable[..., list[str]]) -> Genray:
    def run(*words: str, sets: tuple[str, ...] = ()) -> Result:
        given = [word for text in tiny(*sets) for word in ("--set", text)]
        return genray("submit", "train-pix2pix", "--name", "far", *words, *given)

    return run


def test_a_training_is_followed_to_its_bundle(submit: Genray, genray: Genray, tmp_path: Path) -> None:
    result = submit("--json")
    assert result.exit_code == 0, result.stderr
    assert "12 training pairs, 4 held out" in result.stderr
    assert "epoch 2/2" in result.stderr
    (line,) = result.stdout.splitlines()
    outcome = json.loads(line)
    assert outcome["run"] == str(tmp_path / "runs" / "far")
    assert load_bundle(outcome["bundle"]).manifest.metrics == outcome["metrics"]
    listed = genray("jobs", "list")
    assert listed.exit_code == 0
    assert "far" in listed.output
    assert "SUCCEEDED" in listed.output


def test_a_mistake_on_the_cluster_keeps_its_exit_code(submit: Genray) -> None:
    result = submit(sets=("loop.workers=3", "loop.cpus_per_worker=4"))
    assert result.exit_code == 2
    assert "3 workers with 4 CPUs each do not fit" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_says_what_would_be_submitted(submit: Genray, genray: Genray) -> None:
    before = genray("jobs", "list").output
    result = submit("--dry-run", sets=("loop.epochs=3",))
    assert "--config submitted.yaml" in result.stderr
    assert "loop:\n  epochs: 3\n" in result.stderr
    assert genray("jobs", "list").output == before


def test_a_stopped_training_writes_a_checkpoint_and_goes_on(
    submit: Genray, genray: Genray, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "far"
    result = submit("--detach", "--json", sets=("loop.epochs=5000", "loop.validate_every=5000"))
    job = json.loads(result.stdout)["job"]
    end = time.monotonic() + 90
    while not (run / "history.jsonl").exists():
        assert time.monotonic() < end, genray("jobs", "logs", job).output
        time.sleep(0.2)
    assert json.loads(genray("jobs", "status", job, "--json").stdout)["status"] == "RUNNING"
    assert genray("jobs", "stop", job).exit_code == 0
    assert "with a checkpoint" in genray("jobs", "logs", job).output
    assert (run / "checkpoints" / "last.safetensors").exists()
    done = len((run / "history.jsonl").read_text().splitlines())
    again = submit("--json", sets=(f"loop.epochs={done + 2}", "loop.validate_every=5000"))
    assert again.exit_code == 0, again.stderr
    assert f"loop.epochs: 5000 -> {done + 2}" in again.stderr
    assert "resuming at epoch" in again.stderr
    rows = [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert rows == list(range(1, done + 3))
