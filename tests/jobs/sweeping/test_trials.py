from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genray.errors import Diverged, UsageError
from genray.io.files import write_json
from genray.progress import Tick
from jobs.runs.run import Run
from jobs.sweeping.trials import Trial, TrialDisplay, find_training, mark_stopped
from jobs.train_pix2pix import TrainPix2PixSettings
from jobs.training.target import settings_record
from tests.jobs.sweeping.sweeps import METRIC, write_rows


def with_loop(settings: Any, **changes: Any) -> Any:
    return settings.model_copy(update={"loop": settings.loop.model_copy(update=changes)})


@pytest.fixture
def trial(settings: Callable[..., Any], tmp_path: Path) -> Trial:
    """One of three epochs, of which nothing is written yet."""
    return Trial({"seed": 1}, settings("loop.epochs=3"), Run(tmp_path / "seed-1"))


def test_a_trial_that_has_not_begun_is_unfinished(trial: Trial) -> None:
    result = trial.read_result(METRIC, "min")
    assert (result.status, result.value, result.epochs) == ("unfinished", None, 0)


def test_a_finished_trial_is_judged_by_the_epoch_whose_weights_it_kept(trial: Trial) -> None:
    write_rows(trial.run, 0.5, 0.2, 0.3)
    outcome = {
        "epochs": 3,
        "seconds": 9.0,
        "metrics": {"l1": 0.31, "epoch": 3, "baselines": {"pca": {"l1": 1.0}}},
    }
    write_json(trial.run.outcome, outcome)
    assert trial.read_result(METRIC, "min").status == "unfinished", "its bundle is gone"
    write_json(trial.run.bundle / "bundle.json", {})
    result = trial.read_result(METRIC, "min")
    assert (result.status, result.value, result.seconds) == ("finished", 0.3, 9.0)
    assert result.baselines == {"pca": {"l1": 1.0}}
    assert result.bundle == str(trial.run.bundle)


def test_a_trial_that_was_judged_by_other_settings_is_unfinished(trial: Trial) -> None:
    write_json(trial.run.bundle / "bundle.json", {})
    write_json(trial.run.outcome, {"epochs": 3, "metrics": {"l1": 0.3}})
    settings = trial.settings
    trial.run.adopt(settings_record(settings), {})
    assert trial.read_result(METRIC, "min").status == "finished"
    other = replace(trial, settings=with_loop(settings, log_every=7))
    assert other.read_result(METRIC, "min").status == "finished", "that judges nothing"
    other = replace(trial, settings=with_loop(settings, weights="best"))
    assert other.read_result(METRIC, "min").status == "unfinished"


def test_a_trial_that_is_reopened_neither_failed_nor_was_stopped(trial: Trial) -> None:
    trial.reopen()
    trial.run.folder.mkdir()
    trial.run.write_failure(Diverged("it exploded"))
    mark_stopped(trial.run, {"epoch": 2})
    assert trial.read_result(METRIC, "min").status == "stopped"
    trial.reopen()
    assert trial.read_result(METRIC, "min").status == "unfinished"


@pytest.mark.parametrize(("mode", "best"), [("min", 0.2), ("max", 0.5)])
def test_a_stopped_trial_is_judged_by_its_best_epoch(trial: Trial, mode: Any, best: float) -> None:
    write_rows(trial.run, 0.5, 0.2)
    mark_stopped(trial.run, {"epoch": 2})
    result = trial.read_result(METRIC, mode)
    assert (result.status, result.value, result.epochs, result.bundle) == ("stopped", best, 2, None)


def test_a_failed_trial_has_its_reason(trial: Trial) -> None:
    trial.run.folder.mkdir()
    trial.run.write_failure(Diverged("it exploded"))
    result = trial.read_result(METRIC, "min")
    assert (result.status, result.reason) == ("failed", "it exploded")


def test_the_display_reports_all_epochs_but_the_last(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", reports.append)
    trial.run.folder.mkdir()
    display = TrialDisplay(trial.run, Run(tmp_path), METRIC, epochs=3)
    for epoch in (1, 2, 3):
        display.row({"epoch": epoch, METRIC: 0.5, "loss": 1.0}, f"epoch {epoch}")
    display.row({"epoch": 1, "loss": 1.0}, "an epoch without validation")
    display.report({"epoch": 1, METRIC: 0.5}, replayed=True)
    first = {"epoch": 1, METRIC: 0.5, "replayed": False}
    assert reports == [first, {**first, "epoch": 2}, {**first, "replayed": True}]
    assert (trial.run.folder / "notes.log").read_text().startswith("epoch 1\nepoch 2\n")
    with pytest.raises(UsageError, match=r"the epochs have no metric val_l1(.|\n)*val_psnr"):
        display.report({"epoch": 1, "val_psnr": 20.0})


def test_a_request_to_stop_the_sweep_stops_the_trial(trial: Trial, tmp_path: Path) -> None:
    trial.run.folder.mkdir()
    sweep = Run(tmp_path)
    display = TrialDisplay(trial.run, sweep, METRIC, epochs=3)
    tick = Tick(1, 3, 1, 18, 10.0, 1.0)
    display.tick(tick)
    assert not trial.run.stop_requested()
    sweep.request_stop()
    display.tick(tick)
    assert trial.run.stop_requested()


def test_a_training_is_found_by_its_name() -> None:
    assert find_training("train-pix2pix").settings_class is TrainPix2PixSettings
    with pytest.raises(UsageError, match="did you mean train-autoencoder"):
        find_training("train-autoencoders")
