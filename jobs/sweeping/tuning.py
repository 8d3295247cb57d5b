"""Trials of a sweep in Ray Tune: several at a time, watched from this process, stopped early by a
scheduler."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler

from genray.errors import TrainingError
from genray.progress import Display, LineDisplay, Tick
from jobs.runs.progress import RunDisplay, RunFollower
from jobs.runs.run import Run
from jobs.runs.sharing import unseen_error
from jobs.sweeping.trials import UNSEEN, Mode, TrialTask, mark_stopped, train_trial
from jobs.training.launch import run_beside

_LOOK_S = 2.0  # least seconds between looks at the stores of the runs
_LOOK_EACH_S = 0.2  # seconds for each run
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # every run has its own history
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may finish before its first report
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one always prints to standard output
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class Halving(ASHAScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), which records in the trials' runs
    which of them it stopped, and includes the trials that were trained before.

    Args:
        metric: metric that compares the trials.
        mode: whether a smaller or a larger value is better.
        grace: epochs before a trial may be stopped.
        reduction: one in this many trials continues at each of the epochs grace, grace * reduction, ...
        epochs: largest number of epochs of a trial.
    """

    def __init__(self, metric: str, mode: Mode, *, grace: int, reduction: int, epochs: int) -> None:
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode=mode,
            grace_period=grace,
            reduction_factor=reduction,
            max_t=max(epochs, grace),
            stop_last_trials=False,  # a trial at the last epoch writes its bundle
        )

    def add_past_trial(self, run: Run) -> None:
        """Add a trial that is not trained any more, for later trials to be compared with."""
        trial: Any = SimpleNamespace(trial_id=run.name)  # the attributes of a trial that halving uses
        controller: Any = None
        super().on_trial_add(controller, trial)
        for row in run.read_history():
            super().on_trial_result(controller, trial, row)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial continues; Ray calls this in the sweep's process, for each epoch of a
        trial."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if result.get("replayed"):
            return self.CONTINUE  # the decision is from before the sweep was interrupted
        if decision == self.STOP:
            run = _run_of(trial.config)
            mark_stopped(run, result)
            run.fetch(run.notes)
            RunDisplay(run).note(f"stopped after epoch {result['epoch']}: other trials are better")
        return decision


def tune_trials(
    tasks: Sequence[TrialTask],
    sweep: Run,
    *,
    at_a_time: int,
    max_restarts: int,
    scheduler: Halving | None,
    display: Display,
) -> None:
    """Train all trials; their results and failures are in their runs.

    Args:
        tasks: tasks to train or to resume.
        sweep: the sweep's run.
        at_a_time: largest number of parallel trials.
        max_restarts: times that a trial is restarted after a crash.
        scheduler: stops trials early; None: no trial.
        display: shows the progress.

    Raises:
        RunError: trials do not see the sweep's run.
    """
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the sweep reports failures
    with tempfile.TemporaryDirectory(prefix="genray-sweep-") as storage:
        tuner = tune.Tuner(
            tune.with_resources(train_trial, _needs),
            param_space={"trial": tune.grid_search([task.as_config() for task in tasks])},
            tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=at_a_time),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=storage,
                verbose=0,
                callbacks=[_TrialCallback(display)],
                failure_config=tune.FailureConfig(max_failures=max_restarts),
            ),
        )
        watch = _TrialWatch.begin([task.run for task in tasks], display)
        results: Any = run_beside(tuner.fit, watch.poll, thread_name="ray-tune")
    unseen = [result.metrics[UNSEEN] for result in results if UNSEEN in (result.metrics or {})]
    if unseen:
        raise unseen_error(sweep, unseen)
    for result in results:
        if result.error is not None and result.config is not None:
            run = _run_of(result.config)
            run.folder.mkdir(parents=True, exist_ok=True)
            last = str(result.error).strip().splitlines()[-1]
            run.write_failure(TrainingError(f"the process of the trial failed: {last}"))


class _TrialCallback(TrialProgressCallback):
    """Says which trials start again after a crash, and suppresses Ray Tune's own lines on standard output,
    which is for results.

    Args:
        display: shows the lines.
    """

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = _run_of(trial.config).name
        self._display.note(f"{name}: its process or node was lost; it starts again from its last checkpoint")

    def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
        pass  # the display reports the end of a trial

    def log_result(self, *args: Any, **kwargs: Any) -> None:
        pass  # and the metrics of each epoch


def _run_of(config: dict[str, Any]) -> Run:
    """Return the run of a trial of Ray Tune."""
    return TrialTask.from_config(config["trial"]).run


def _needs(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return the resources that Ray Tune reserves for a trial."""
    have = TrialTask.from_config(config["trial"]).have
    return tune.PlacementGroupFactory([{"CPU": have.cpus, "GPU": have.gpus}])


class _TrialWatch:
    """Shows the progress of the trials: their notes with their names, their ticks combined into one.

    Args:
        relays: a relay for each trial.
        followers: followers of the trials' folders, which show on the relays.
        display: shows the combined progress.
    """

    def __init__(
        self, relays: Sequence[_TrialRelay], followers: Sequence[RunFollower], display: Display
    ) -> None:
        self._relays = relays
        self._followers = followers
        self._display = display
        self._shown: list[Tick] = []
        self._began = 0.0

    @classmethod
    def begin(cls, runs: Sequence[Run], display: Display) -> _TrialWatch:
        """Follow the folders of `runs`, from now on."""
        relays = [_TrialRelay(run.name, display) for run in runs]
        period = max(_LOOK_S, _LOOK_EACH_S * len(runs))
        followers = [
            RunFollower.begin(run, relay, period_s=period) for run, relay in zip(runs, relays, strict=True)
        ]
        return cls(relays, followers, display)

    def poll(self) -> None:
        """Show what is new since the last call."""
        for follower in self._followers:
            follower.poll()
        ticks = [relay.newest for relay in self._relays if relay.newest is not None]
        if ticks == self._shown:
            return
        if not self._shown:
            self._began = time.monotonic()
        self._shown = ticks
        self._display.tick(self._together(ticks))

    def _together(self, ticks: Sequence[Tick]) -> Tick:
        """Return the progress of all trials; trials that have not begun are assumed to be like the others."""
        factor = len(self._relays) / len(ticks)
        done = sum(tick.step for tick in ticks)
        steps = max(done, round(sum(tick.steps for tick in ticks) * factor))
        return Tick(
            epoch=sum(tick.epoch for tick in ticks),
            epochs=round(sum(tick.epochs for tick in ticks) * factor),
            step=done,
            steps=steps,
            images_per_second=sum(tick.images_per_second for tick in ticks if tick.step < tick.steps),
            seconds_left=(time.monotonic() - self._began) * (steps - done) / max(1, done),
            samples=ticks[0].samples,
        )


class _TrialRelay(LineDisplay):
    """Stores a trial's newest tick, and passes its notes on with its name."""

    def __init__(self, name: str, display: Display) -> None:
        super().__init__()
        self._name = name
        self._display = display
        self.newest: Tick | None = None

    def tick(self, tick: Tick) -> None:
        self.newest = tick

    def note(self, text: str) -> None:
        self._display.note(f"{self._name}: {text}")
