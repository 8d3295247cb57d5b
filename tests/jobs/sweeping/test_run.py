import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from genray.bundle import load_bundle
from genray.errors import Diverged, Interrupted, TrainingError
from genray.progress import LineDisplay
from genray.targets import Resources
from jobs.runs.run import Run
from jobs.sweeping.trials import TrialTask
from tests.jobs.sweeping.sweeps import prepare_sweep
from tests.page_reader import PageReader, is_drawn

Tiny = Callable[..., list[str]]
HAVE = Resources(4, 0)
pytestmark = pytest.mark.usefixtures("embedded_ray")


def run_sweep(folder: Path, shared: list[str], *sets: str) -> dict[str, Any]:
    return prepare_sweep(folder, shared, *sets).run(LineDisplay(), HAVE, attached=False).as_json()


def trained_at(outcome: dict[str, Any]) -> dict[str, int]:
    """When each trial wrote its last checkpoint."""
    runs = [Path(trial["run"]) for trial in outcome["trials"]]
    files = [run / "checkpoints" / "last.safetensors" for run in runs]
    return {file.parts[-3]: file.stat().st_mtime_ns for file in files if file.exists()}


def test_trials_are_runs_that_are_compared_and_one_may_fail(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(Path(tempfile.gettempdir()).glob("genray-sweep-*"))
    space = "sweep.space.loop.loss_limit="  # a trial that fails at its first step, beside one that does not
    outcome = run_sweep(tmp_path, tiny("loop.samples=1"), f"{space}[0.01, 1000]")
    assert capfd.readouterr().out == "", "standard output is for the outcome"
    good, bad = outcome["trials"]
    assert (good["status"], bad["status"]) == ("finished", "failed")
    assert "too large at step 1" in bad["reason"]
    assert outcome["best"] == {
        "settings": {"loop.loss_limit": 1000.0},
        "run": good["run"],
        "bundle": good["bundle"],
        "metric": good["value"],
    }
    assert good["value"] == pytest.approx(Run(Path(good["run"])).read_history()[-1]["val_l1"])
    load_bundle(good["bundle"])
    folder = Path(outcome["run"])
    assert json.loads((folder / "sweep.json").read_text()) == outcome
    page = PageReader((folder / "report.html").read_text())
    assert any(row[0] == "1000" and "finished" in row for row in page.rows)
    assert is_drawn(page.pictures[0])
    assert not list(folder.rglob("*.pkl")), "Ray's own storage is not kept"
    assert set(Path(tempfile.gettempdir()).glob("genray-sweep-*")) == before
    again = run_sweep(tmp_path, tiny("loop.samples=2"), f"{space}[1000]")
    assert again["best"]["metric"] == good["value"]
    assert trained_at(again).items() <= trained_at(outcome).items(), "its weights are those that it had"
    notes = Run(Path(good["run"])).folder / "notes.log"
    assert "setting changed: loop.samples: 1 -> 2" in notes.read_text(), "it was judged again"


def test_a_sweep_that_was_stopped_goes_on_from_its_trials_checkpoints(tiny: Tiny, tmp_path: Path) -> None:
    space = "sweep.space.seed="
    first, second = (Run(tmp_path / "runs" / "a" / "trials" / f"seed-{n}") for n in (1, 2))

    def stop() -> None:
        end = time.monotonic() + 200
        while not first.history.exists() and time.monotonic() < end:
            time.sleep(0.02)
        Run(tmp_path / "runs" / "a").request_stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Interrupted, match="2 of 2 trials unfinished"):
        run_sweep(tmp_path, tiny("loop.epochs=2000"), f"{space}[1, 2]", "sweep.concurrent=1")
    stopper.join()
    done = len(first.read_history())
    assert 0 < done < 2000
    assert not second.folder.exists(), "the other did not begin"
    grown = run_sweep(tmp_path, tiny(f"loop.epochs={done + 1}"), f"{space}[1, 3]")
    assert [trial["status"] for trial in grown["trials"]] == ["finished"] * 2
    assert [row["epoch"] for row in first.read_history()] == list(range(1, done + 2))
    assert "resuming at epoch" in (first.folder / "notes.log").read_text()


def test_asha_ends_the_worse_trial_and_it_stays_ended_with_asha(tiny: Tiny, tmp_path: Path) -> None:
    sets = (
        "sweep.space.optimizer.learning_rate=[0.0005, 0.0000001]",
        "sweep.scheduler=asha",
        "sweep.concurrent=1",
    )
    outcome = run_sweep(tmp_path, tiny("loop.epochs=3"), *sets)
    good, bad = outcome["trials"]
    assert (good["status"], good["epochs"]) == ("finished", 3)
    assert (bad["status"], bad["bundle"]) == ("stopped", None)
    assert bad["epochs"] < 3
    again = run_sweep(tmp_path, tiny("loop.epochs=3"), *sets)
    assert again == outcome
    assert trained_at(again) == trained_at(outcome)
    without = run_sweep(tmp_path, tiny("loop.epochs=3"), *sets, "sweep.scheduler=none")
    assert [(trial["status"], trial["epochs"]) for trial in without["trials"]] == [("finished", 3)] * 2
    name = Path(good["run"]).name
    assert trained_at(without)[name] == trained_at(outcome)[name], "that one was finished"


def test_a_sweep_of_which_every_trial_fails_is_an_error(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tasks: Sequence[TrialTask], *_: Any, **__: Any) -> None:
        for task in tasks:
            task.run.folder.mkdir(parents=True)
            task.run.write_failure(Diverged("it exploded"))

    monkeypatch.setattr("jobs.sweeping.tuning.tune_trials", fail)
    with pytest.raises(TrainingError, match="no trial finished; the first failure: it exploded"):
        run_sweep(tmp_path, tiny(), "sweep.space.seed=[1, 2]")
    written = json.loads((tmp_path / "runs" / "a" / "sweep.json").read_text())
    assert [trial["reason"] for trial in written["trials"]] == ["it exploded"] * 2
    assert written["best"] is None
    # Stopped before they are tried again, they have not failed again.
    monkeypatch.setattr("jobs.sweeping.tuning.tune_trials", lambda *_, **__: None)
    with pytest.raises(Interrupted, match="2 of 2 trials unfinished"):
        run_sweep(tmp_path, tiny(), "sweep.space.seed=[1, 2]")
