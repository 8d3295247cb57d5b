"""What halving decides; the sweeps of `test_run.py` are trained in a real Ray Tune."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from genray.progress import FileDisplay, LineDisplay, Tick
from genray.targets import Resources
from jobs.runs.run import Run
from jobs.sweeping.trials import TrialTask, is_stopped
from jobs.sweeping.tuning import Halving, _TrialWatch
from tests.jobs.sweeping.sweeps import METRIC, write_rows


def ray_trial(folder: Path) -> Any:
    """As much of Ray's trial as a scheduler looks at."""
    folder.mkdir()
    task = TrialTask("train-pix2pix", {}, str(folder), str(folder.parent), "", METRIC, Resources(1, 0))
    return SimpleNamespace(trial_id=folder.name, config={"trial": task.as_config()})


def decide(halving: Halving, trial: Any, epoch: int, value: float) -> str:
    return halving.on_trial_result(None, trial, {"epoch": epoch, METRIC: value})


def test_a_trial_that_is_worse_than_those_of_before_is_stopped_and_marked(tmp_path: Path) -> None:
    halving = Halving(METRIC, "min", grace=2, reduction=2, epochs=8)
    for name in ("a", "b"):
        write_rows(Run(tmp_path / name), 0.5, 0.3, 0.2)
        halving.add_past_trial(Run(tmp_path / name))
    good, bad = ray_trial(tmp_path / "good"), ray_trial(tmp_path / "bad")
    for each in (good, bad):
        halving.on_trial_add(None, each)  # type: ignore[arg-type]
    assert decide(halving, bad, 1, 9.0) == Halving.CONTINUE, "grace"
    assert decide(halving, good, 2, 0.1) == Halving.CONTINUE
    assert decide(halving, bad, 2, 0.9) == Halving.STOP
    assert (is_stopped(Run(tmp_path / "bad")), is_stopped(Run(tmp_path / "good"))) == (True, False)
    assert "stopped after epoch 2" in (tmp_path / "bad" / "notes.log").read_text()
    assert not is_stopped(Run(tmp_path / "a")), "what was trained before is not stopped"


def test_what_was_trained_before_an_interruption_counts_but_stops_nobody(tmp_path: Path) -> None:
    halving = Halving(METRIC, "min", grace=1, reduction=2, epochs=8)
    write_rows(Run(tmp_path / "a"), 0.5, 0.3)
    halving.add_past_trial(Run(tmp_path / "a"))
    back, new = ray_trial(tmp_path / "back"), ray_trial(tmp_path / "new")
    for each in (back, new):
        halving.on_trial_add(None, each)  # type: ignore[arg-type]
    replayed = {"epoch": 1, METRIC: 0.1, "replayed": True}
    assert halving.on_trial_result(None, back, replayed) == Halving.CONTINUE
    assert decide(halving, new, 1, 0.4) == Halving.STOP, "0.4 is better than 0.5, but not than 0.1"
    assert halving.on_trial_result(None, back, {**replayed, "epoch": 2, METRIC: 0.9}) == Halving.CONTINUE
    assert not is_stopped(Run(tmp_path / "back"))
    assert decide(halving, back, 4, 0.9) == Halving.CONTINUE, "nobody else came so far"


def test_more_may_be_better(tmp_path: Path) -> None:
    halving = Halving(METRIC, "max", grace=1, reduction=2, epochs=4)
    write_rows(Run(tmp_path / "a"), 20.0)
    halving.add_past_trial(Run(tmp_path / "a"))
    low = ray_trial(tmp_path / "low")
    halving.on_trial_add(None, low)  # type: ignore[arg-type]
    assert decide(halving, low, 1, 10.0) == Halving.STOP


class Ticks(LineDisplay):
    def __init__(self) -> None:
        super().__init__()
        self.newest: Tick | None = None

    def tick(self, tick: Tick) -> None:
        self.newest = tick


def test_the_trials_together_count_what_each_counts(tmp_path: Path) -> None:
    runs = [Run(tmp_path / name) for name in "ab"]
    display = Ticks()
    for run in runs:
        run.folder.mkdir()
    watch = _TrialWatch.begin(runs, display)
    FileDisplay(runs[0].folder).tick(Tick(1, 3, 1, 18, 10.0, 1.0, samples="beats"))
    watch.poll()
    assert display.newest is not None
    assert (display.newest.steps, display.newest.samples) == (36, "beats")
