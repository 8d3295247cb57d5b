"""The trackers of extras; each test skips where its library is not installed."""

import json
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genray.errors import SettingsError
from jobs.runs.trackers.base import Expendable, TrackedRun
from jobs.runs.trackers.opening import check_trackers, open_trackers
from tests.servers import mlflow_server

needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="the extra mlflow is not installed")
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="the extra wandb is not installed")
# Their own code warns on import.
quiet = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def notes() -> list[str]:
    return []


def log_twice(name: Any, folder: Path, notes: list[str]) -> None:
    """Log as a run does that was killed after step 1 and resumed."""
    folder.mkdir()
    for step in (1, 2):
        (tracker,) = open_trackers([name], TrackedRun(folder, step - 1, {"loop.epochs": 2}), notes.append)
        tracker.scalars(step, {"loss": 1 / step})
        tracker.picture(step, "samples", np.zeros((8, 8, 3), np.uint8))
        tracker.close(finished=step == 2)


@quiet
def test_mlflow_gets_one_run_whatever_interrupts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    with mlflow_server(tmp_path) as server:
        from mlflow.tracking import MlflowClient

        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
        log_twice("mlflow", tmp_path / "first", notes)
        client = MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("genray").experiment_id])
        logged = client.get_metric_history(run.info.run_id, "loss")
        pictures = client.list_artifacts(run.info.run_id, "samples")
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {"loop.epochs": "2"}
    assert [(metric.step, metric.value) for metric in logged] == [(1, 1.0), (2, 0.5)]
    assert len(pictures) == 2
    assert not notes


@quiet
@needs_wandb
def test_wandb_leaves_files_to_upload_and_needs_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    log_twice("wandb", tmp_path / "first", notes)
    identity = json.loads((tmp_path / "first" / "trackers.json").read_text())["wandb"]
    files = sorted((tmp_path / "first" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.stem for file in files] == [f"run-{identity}"] * 2
    end = time.monotonic() + 60
    while b"samples" not in files[-1].read_bytes():  # its own process writes it
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not notes


@quiet
@needs_mlflow
def test_a_server_that_is_gone_costs_a_note_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log_twice("mlflow", tmp_path / "first", notes)
    assert len(notes) == 2, "one for each start"
    assert "mlflow failed, and the training continues without it" in notes[0]


def test_what_fails_once_is_left_alone(notes: list[str]) -> None:
    class Full:
        calls = 0

        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            self.calls += 1
            raise ConnectionError("no route\nto host")

        def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None: ...

        def close(self, *, finished: bool) -> None: ...

    full = Full()
    tracker = Expendable.begin("mlflow", lambda: full, notes.append)
    for step in range(3):
        tracker.scalars(step, {"loss": 1.0})
    tracker.close(finished=True)
    assert full.calls == 1
    assert notes == [
        "mlflow failed, and the training continues without it: ConnectionError: no route to host"
    ]


@needs_mlflow
def test_mlflow_without_the_address_of_a_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI"):
        check_trackers(["tensorboard", "mlflow"])


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.runs.trackers.opening.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="wandb is not installed") as caught:
        check_trackers(["wandb"])
    assert "genray[wandb]" in caught.value.hint
    check_trackers(["tensorboard"])
