"""Trainings whose run lies in a store, and workers that do not see the run: on a real S3 server."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genray.bundle import load_bundle
from genray.errors import Interrupted, RunError
from genray.io.store import Store, open_store
from genray.progress import LineDisplay, Tick
from genray.targets import Resources
from genray.uris import below
from jobs.runs.run import Run
from jobs.train_pix2pix import TARGET
from jobs.training.target import PreparedTraining

Settings = Callable[..., Any]


def prepared(settings: Settings, runs: str, *more: str) -> PreparedTraining:
    """A training of the run `far`, as `genray submit` prepares it."""
    chosen = settings("track=[]", *more).model_copy(update={"runs": runs})
    return TARGET.prepare(chosen, "train-pix2pix", "far", lambda text: None)


class StopAt(LineDisplay):
    """Asks the run to stop after a step, as Ctrl-C does."""

    def __init__(self, run: Run, step: int) -> None:
        super().__init__()
        self._run = run
        self._step = step

    def tick(self, tick: Tick) -> None:
        if tick.step >= self._step and not self._run.stop_requested():
            self._run.request_stop()


def epochs(store: Store) -> list[int]:
    return [json.loads(line)["epoch"] for line in store.read("runs/far/history.jsonl").splitlines()]


@pytest.mark.usefixtures("embedded_ray")
def test_a_training_into_a_store_is_resumed_by_two_workers(
    settings: Settings, s3_root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = below(s3_root, "runs")
    store = open_store(s3_root)
    first = replace(prepared(settings, runs), tick_seconds=0.0)
    with pytest.raises(Interrupted, match="with a checkpoint"):
        first.run(StopAt(first.training_run, 7), Resources(2, 0), attached=False)
    assert epochs(store) == [1]
    assert store.exists("runs/far/checkpoints/last.safetensors")
    assert not store.exists("runs/far/bundle/bundle.json")

    again = prepared(settings, runs, "loop.workers=2", "loop.cpus_per_worker=1")
    outcome = again.run(LineDisplay(), Resources(4, 0), attached=True)
    assert "resuming at epoch 2, step 8" in capsys.readouterr().err
    assert epochs(store) == [1, 2]
    assert outcome.run == below(runs, "far")
    assert load_bundle(outcome.bundle).manifest.metrics == outcome.metrics.as_json()
    for file in ("outcome.json", "report.html", "samples/validation.png", "loss_curves.png"):
        assert store.size(f"runs/far/{file}") > 100
    left = {entry.path.split("/")[2] for entry in store.walk([""], under="runs/far")}
    assert not {".proof", "stop"} & left
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("embedded_ray")
def test_a_folder_that_the_worker_does_not_see_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = prepared(settings, "/proc/self/cwd/runs")  # the same path, in each process another folder
    with pytest.raises(RunError, match="the workers do not see the folder") as caught:
        ready.run(LineDisplay(), Resources(4, 0), attached=True)
    assert "/proc/self/cwd/runs/far" in str(caught.value)
    assert "runs=s3://" in str(caught.value.hint)
    assert not list(tmp_path.rglob("*.safetensors"))
