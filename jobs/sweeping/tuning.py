"""The trials of a sweep in Ray Tune: so many at a time, watched from here, and ended early by a scheduler."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler

from genray.errors import TrainingError
from genray.progress import Display, FileDisplay, FileFollower, LineDisplay, Tick
from genray.targets import Resources
from jobs.runs.run import Run
from jobs.sweeping.trials import Mode, Trial, mark_stopped, train_trial

_LOOK_SECONDS = 0.3  # between looks at what the trials wrote


class _Silent(TrialProgressCallback):
    """Keeps Ray Tune's own lines from standard output, which is for results."""

    def on_trial_complete(self, *about: Any, **more: Any) -> None:
        pass  # the display says that a trial ended

    def log_result(self, *about: Any, **more: Any) -> None:
        pass  # and what each epoch gave


class Halving(ASHAScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) that remembers in the trials' runs
    whom it stopped, and is told of trials of before.

    Args:
        metric: that trials are compared by.
        mode: whether less or more of it is better.
        grace: epochs before a trial may be stopped.
        reduction: one of so many trials is kept at each of the epochs grace, grace * reduction, ...
        epochs: the most of any trial.
    """

    def __init__(self, metric: str, mode: Mode, *, grace: int, reduction: int, epochs: int) -> None:
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode=mode,
            grace_period=grace,
            reduction_factor=reduction,
            max_t=max(epochs, grace),
            stop_last_trials=False,  # at the last epoch a trial writes its bundle
        )

    def tell(self, run: Run) -> None:
        """Let later trials be compared with this one, which is not trained any more."""
        past: Any = SimpleNamespace(trial_id=run.name)  # all that halving asks of a trial
        nobody: Any = None
        super().on_trial_add(nobody, past)
        for row in run.read_history():
            super().on_trial_result(nobody, past, row)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See Ray. Called in the process of the sweep, for each epoch of a trial."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if result.get("replayed"):
            return self.CONTINUE  # it was decided before the sweep was interrupted
        if decision == self.STOP:
            run = Run(Path(trial.config["trial"]["folder"]))
            mark_stopped(run, result)
            FileDisplay(run.folder).note(f"stopped after epoch {result['epoch']}: others are better")
        return decision


def tune_trials(
    trials: Sequence[Trial],
    target: str,
    sweep: Run,
    metric: str,
    haves: Sequence[Resources],
    beside: int,
    scheduler: Halving | None,
    display: Display,
) -> None:
    """Train all `trials` as far as they come; what became of them is in their runs.

    Args:
        trials: those to train or to go on with.
        target: the training target.
        sweep: its folder; a request to stop there reaches every trial.
        metric: that trials report after each epoch.
        haves: what each of them has.
        beside: how many run at a time, at most.
        scheduler: which trials to end early; None: none.
        display: where progress is shown.
    """
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # what fails is said by the sweep
    configs = [trial.config(target, sweep, metric, have) for trial, have in zip(trials, haves, strict=True)]
    with tempfile.TemporaryDirectory(prefix="genray-sweep-") as storage:
        tuner = tune.Tuner(
            tune.with_resources(train_trial, _needs),
            param_space={"trial": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=beside),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=storage,
                verbose=0,
                callbacks=[_Silent()],
                failure_config=tune.FailureConfig(max_failures=trials[0].settings.loop.max_restarts),
            ),
        )
        results = _fit_beside(tuner, trials, display)
    runs = {str(trial.run.folder): trial.run for trial in trials}
    for result in results:
        if result.error is not None:
            run = runs[result.config["trial"]["folder"]]
            run.folder.mkdir(parents=True, exist_ok=True)
            last = str(result.error).strip().splitlines()[-1]
            run.write_failure(TrainingError(f"the process of the trial failed: {last}"))


def _needs(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray Tune sets aside for a trial."""
    have = config["trial"]["have"]
    return tune.PlacementGroupFactory([{"CPU": have["cpus"], "GPU": have["gpus"]}])


def _fit_beside(tuner: tune.Tuner, trials: Sequence[Trial], display: Display) -> Any:
    """Run Ray Tune in a thread while this one shows progress and takes signals: Ray would take them."""
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(tuner.fit())
        except BaseException as error:  # handed to the caller's thread
            results.append(error)

    watch = _TrialWatch(trials, display)
    thread = threading.Thread(target=work, name="ray-tune", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        watch.poll()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


class _TrialWatch:
    """Shows what the trials write: their notes under their names, their ticks together as one."""

    def __init__(self, trials: Sequence[Trial], display: Display) -> None:
        for trial in trials:
            (trial.run.folder / "progress.json").unlink(missing_ok=True)
        self._display = display
        self._voices = [_Voice(trial.run.name, display) for trial in trials]
        self._followers = [
            FileFollower.from_now(trial.run.folder, voice)
            for trial, voice in zip(trials, self._voices, strict=True)
        ]
        self._shown: list[Tick] = []
        self._began = 0.0

    def poll(self) -> None:
        for follower in self._followers:
            follower.poll()
        begun = [voice.newest for voice in self._voices if voice.newest is not None]
        if begun == self._shown:
            return
        self._began = self._began if self._shown else time.monotonic()
        self._shown = begun
        # Those that are still to come are taken to be like those that have begun.
        factor = len(self._voices) / len(begun)
        done = sum(tick.step for tick in begun)
        steps = max(done, round(sum(tick.steps for tick in begun) * factor))
        self._display.tick(
            Tick(
                epoch=sum(tick.epoch for tick in begun),
                epochs=round(sum(tick.epochs for tick in begun) * factor),
                step=done,
                steps=steps,
                images_per_second=sum(t.images_per_second for t in begun if t.step < t.steps),
                seconds_left=(time.monotonic() - self._began) * (steps - done) / max(1, done),
                samples=begun[0].samples,
            )
        )


class _Voice(LineDisplay):
    """A trial's progress as the sweep shows it."""

    def __init__(self, name: str, display: Display) -> None:
        super().__init__()
        self._name, self._display = name, display
        self.newest: Tick | None = None

    def tick(self, tick: Tick) -> None:
        self.newest = tick

    def note(self, text: str) -> None:
        self._display.note(f"{self._name}: {text}")


_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # every run has a history of its own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may end before its first report
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints to standard output, whatever is asked for
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
