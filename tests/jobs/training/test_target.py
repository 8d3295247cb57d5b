"""Whole trainings in processes of their own: killed, resumed, and shared by several Ray workers."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle
from rich.console import Console

from genray.errors import Diverged, TrainingError
from genray.progress import LineDisplay, LiveDisplay
from genray.targets import Demand, Resources
from jobs.runs.run import Run
from jobs.train_pix2pix import TARGET
from jobs.training.target import PreparedTraining
from tests.jobs.conftest import same

Weights = Callable[[str], dict[str, torch.Tensor]]
RunOf = Callable[[str], Run]
Tiny = Callable[..., list[str]]


def start(name: str, sets: list[str]) -> subprocess.Popen[str]:
    """`genray submit` in a process of its own."""
    command = [sys.executable, "-m", "genray", "submit", "train-pix2pix", "--name", name, "--json"]
    for text in sets:
        command += ["--set", text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_run_killed_again_and_again_ends_with_the_weights_of_one_left_alone(
    tiny: Tiny, weights: Weights, run_of: RunOf
) -> None:
    sets = tiny("loop.epochs=16", "loop.checkpoint_steps=2", "loop.samples=1", "loop.validate_every=4")
    whole = start("whole", sets)
    last = run_of("killed").checkpoints / "last.safetensors"
    for kill in range(3):
        process = start("killed", sets)
        # At another moment of the step each time: while it writes, validates or computes.
        before = last.stat().st_mtime_ns if last.exists() else 0
        wait_for(lambda before=before: last.exists() and last.stat().st_mtime_ns > before)  # type: ignore[misc]
        time.sleep(0.037 * kill)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was killed before its end"
    process = start("killed", sets)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "resuming at epoch" in err
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    assert same(weights("killed"), weights("whole"))
    rows = [json.loads(line)["epoch"] for line in run_of("killed").history.read_text().splitlines()]
    assert rows == list(range(1, 17))
    assert json.loads(out.splitlines()[-1])["run"] == str(run_of("killed").folder)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(tiny: Tiny, run_of: RunOf) -> None:
    process = start("a", tiny("loop.epochs=400"))
    wait_for(lambda: run_of("a").history.exists())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["exit_code"] == 130
    assert "stopping after this step, with a checkpoint" in err
    assert "the same command with --name a resumes from there" in err
    assert "Traceback" not in err
    assert (run_of("a").checkpoints / "last.safetensors").exists()


def prepared(settings: Callable[..., Any], *more: str, name: str = "a") -> PreparedTraining:
    return TARGET.prepare(settings(*more), "train-pix2pix", name, lambda text: None)


def children() -> dict[int, str]:
    """Names of all processes of this session by number."""
    names = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                names[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
    return names


@pytest.mark.usefixtures("embedded_ray")
def test_two_workers_train_one_network_and_survive_the_death_of_one(
    settings: Callable[..., Any], weights: Weights, run_of: RunOf, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("loop.workers=2", "loop.epochs=6", "loop.cpus_per_worker=1", "loop.checkpoint_steps=1")
    left_alone = prepared(settings, *more, name="whole").run(LineDisplay(), Resources(4, 0), attached=True)
    before = set(children())

    def kill_a_worker() -> None:
        wait_for(
            lambda: (
                len(run_of("killed").history.read_text().splitlines()) > 2
                if run_of("killed").history.exists()
                else False
            )
        )
        victims = [p for p, name in children().items() if "RayTrainWorker" in name and p not in before]
        os.kill(victims[-1], signal.SIGKILL)
        killed.append(victims[-1])

    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    outcome = prepared(settings, *more, name="killed").run(LineDisplay(), Resources(4, 0), attached=True)
    killer.join()
    assert killed
    assert "resuming at epoch" in capsys.readouterr().err
    assert same(weights("killed"), weights("whole"))
    assert outcome.metrics == left_alone.metrics
    assert weights("whole")["net/generator/out.1.weight"].isfinite().all()


@pytest.mark.usefixtures("embedded_ray")
def test_an_error_in_a_worker_is_genrays_own_and_is_not_tried_again(
    settings: Callable[..., Any], run_of: RunOf
) -> None:
    ready = prepared(settings, "loop.workers=2", "loop.cpus_per_worker=1", "loop.loss_limit=0.01")
    with pytest.raises(Diverged, match="too large at step 1 "):
        ready.run(LineDisplay(), Resources(4, 0), attached=True)
    assert len(list((run_of("a").folder / "tensorboard").glob("events*"))) == 1, "every start begins a file"


@pytest.mark.usefixtures("embedded_ray")
def test_an_error_of_one_worker_alone_ends_the_others_too(
    settings: Callable[..., Any], tmp_path: Path, pairs: Path
) -> None:
    # The data changes between the check and the workers' start: what they see is not what was checked.
    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    ready = prepared(settings, f"data.path={copy}", "loop.workers=2", "loop.cpus_per_worker=1")
    (copy / "train" / "000.png").unlink()
    with pytest.raises(TrainingError, match=r"the data of a worker .* differs"):
        ready.run(LineDisplay(), Resources(4, 0), attached=True)


def test_what_is_sent_to_workers_holds_no_display_and_no_data(
    settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    class Trainer:
        """Stands in the way to Ray, to see what would be pickled."""

        def __init__(self, work: Any, **_: Any) -> None:
            sent.append(cloudpickle.dumps(work))

        def fit(self) -> Any:
            raise TrainingError("seen")

    monkeypatch.setattr("ray.train.torch.TorchTrainer", Trainer)
    display = LiveDisplay(Console(force_terminal=True, file=io.StringIO()))
    with pytest.raises(TrainingError, match="seen"):
        prepared(settings, "loop.workers=2").run(display, Resources(4, 0), attached=True)
    assert len(sent[0]) < 20_000


@pytest.mark.parametrize(
    ("workers", "have", "expected"),
    [
        ("1", Resources(8, 0), Demand((1, 1), 8, 0, 0)),
        ("2", Resources(2, 0), Demand((2, 2), 1, 0, 0)),
        ("4", Resources(32, 4, nodes=2), Demand((4, 4), 8, 1, 0)),
        ("[1, 4]", Resources(4, 0), Demand((1, 4), 1, 0, 0)),
        ("3", Resources(2, 0), Demand((3, 3), 0.5, 0, 0)),
    ],
)
def test_workers_share_the_cpus(
    settings: Callable[..., Any], workers: str, have: Resources, expected: Demand
) -> None:
    gpu = "auto" if have.gpus else "false"
    assert prepared(settings, f"loop.workers={workers}", f"device.gpu={gpu}").demand(have) == expected


def test_a_stream_leaves_a_cpu_for_ray_data(settings: Callable[..., Any]) -> None:
    demand = prepared(settings, "loop.workers=2", "data.loader=stream").demand(Resources(2, 0))
    assert demand == Demand((2, 2), 0.5, 0, 1)
    assert prepared(settings, "data.loader=stream").needs_ray(attached=False)


def test_one_worker_trains_in_this_process_unless_it_drives_a_cluster(settings: Callable[..., Any]) -> None:
    assert not prepared(settings).needs_ray(attached=False)
    assert prepared(settings).needs_ray(attached=True)
