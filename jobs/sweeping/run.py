"""Run of a sweep: its trials in parallel in Ray Tune, each a run inside it, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pydantic import Field, field_validator

from genray.errors import Interrupted, SettingsError, TrainingError
from genray.interrupts import stop_on_signals
from genray.progress import Display
from genray.settings.base import Location, Settings, flatten, nested
from genray.targets import WAIT_MINUTES, Demand, Resources
from genray.text import aligned
from jobs.runs.formatting import metric_direction
from jobs.runs.run import Run, SettingsRecord
from jobs.runs.sharing import written_proof
from jobs.sweeping.resources import TrialResources, share_out
from jobs.sweeping.results import SweepOutcome, SweepResults
from jobs.sweeping.trials import Mode, Trial, TrialResult, TrialTask
from jobs.training.device import use_gpu
from jobs.training.settings import CHANGEABLE_SETTINGS
from jobs.training.target import Training, ask_to_stop


class TrialsSettings(Settings):
    """Settings of a sweep's trials."""

    target: str = Field("train-autoencoder", description="training target of every trial")
    settings: dict[str, Any] = Field({}, description="settings that all trials share")
    space: dict[str, Any] = Field(
        {},
        description=("settings that differ between trials: lists, or ranges {min: ..., max: ..., log: true}"),
    )
    samples: int = Field(10, ge=1, description="number of draws from the ranges, if there are any")
    metric: str | None = Field(
        None,
        description=(
            "metric that compares the trials, a column of history.jsonl such as val_mse (null: "
            "the one that the target is judged by)"
        ),
    )
    mode: Mode | None = Field(
        None, description="direction of the metric: min if less is better (null: decided by its name)"
    )
    scheduler: Literal["asha", "none"] = Field(
        "none", description="scheduler of the trials (asha stops the worse ones early)"
    )
    grace: int = Field(1, ge=1, description="epochs that asha leaves every trial before it may stop it")
    reduction: int = Field(
        3, ge=2, description="reduction factor of asha: it continues one in this many trials at each decision"
    )
    concurrent: int | None = Field(
        None, ge=1, description="trials that run at the same time (null: as many as fit)"
    )
    cpus_per_trial: float | None = Field(None, gt=0, description="CPUs of each trial (null: an equal share)")
    gpus_per_trial: float | None = Field(
        None,
        ge=0,
        description=("GPUs of each trial, also a fraction of one (null: 1 where the target trains on a GPU)"),
    )

    wait_minutes: float | None = Field(
        WAIT_MINUTES,
        ge=0,
        description="minutes to wait for room on a cluster, then the run ends with an error (null: no limit)",
    )

    @field_validator("settings", "space")
    @classmethod
    def _nest_dotted_keys(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`loop.ema: ...` is the setting ema of the group loop, here as on the command line."""
        try:
            return nested(flatten(values))
        except (AttributeError, TypeError):
            raise ValueError("a key is given both as a group and as a value") from None

    @field_validator("gpus_per_trial")
    @classmethod
    def _part_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus % 1:
            raise ValueError(f"{gpus:g} is not possible: a trial gets a fraction of one GPU, or whole GPUs")
        return gpus


class SweepSettings(Settings):
    """Settings of sweep."""

    runs: Location = Field(
        "runs",
        description="folder of the runs, or a store (s3://BUCKET/runs, gs://...) that all workers reach",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="seed of the draws, and of every trial without a seed of its own"
    )
    sweep: TrialsSettings = Field(TrialsSettings(), description="the trials and how they are compared")


def prepare_sweep(
    settings: SweepSettings, training: Training[Any], run: Run, trials: Sequence[Trial], lines: Sequence[str]
) -> PreparedSweep:
    """Choose the metric that compares the trials, and check that the run may resume with these settings.

    Args:
        settings: settings of the sweep.
        training: the training target.
        run: the sweep's folder.
        trials: trials, with their folders inside it.
        lines: lines that say what the first trial trains on.

    Raises:
        SettingsError: the trials cannot be compared.
        RunError: the run was made with other settings.
    """
    own_metrics = sorted({f"val_{training.recipe(trial.settings).metric}" for trial in trials})
    metric = settings.sweep.metric or _single_metric(own_metrics)
    mode = settings.sweep.mode or _usual_mode(metric, own_metrics)
    prepared = PreparedSweep(settings, training, run, trials, metric, mode, lines)
    run.refresh()
    run.changes(prepared.settings_record)
    return prepared


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that was checked and can be run.

    Attributes:
        settings: settings of the sweep.
        training: the training target.
        sweep_run: the sweep's folder.
        trials: trials, with their folders inside it.
        metric: metric that compares the trials, a column of history.jsonl.
        mode: whether a smaller or a larger value is better.
        data_lines: lines that say what the first trial trains on.
    """

    settings: SweepSettings
    training: Training[Any]
    sweep_run: Run
    trials: Sequence[Trial]
    metric: str
    mode: Mode
    data_lines: Sequence[str]

    @property
    def settings_record(self) -> SettingsRecord:
        """The settings as the run stores them."""
        values = {k: v for k, v in flatten(self.settings).items() if not k.startswith("sweep.space")}
        values["sweep.space"] = self.settings.sweep.space  # as one value, which may change: a sweep may grow
        changeable = {
            *(key for key in values if not key.startswith(("sweep.settings", "sweep.target", "seed"))),
            *(f"sweep.settings.{key}" for key in CHANGEABLE_SETTINGS),
            "sweep.settings",  # trials may get values for settings that they did not have
        }
        # The defaults of the trials' settings are unknown here: each trial's own run compares them.
        defaults = {k: v for k, v in flatten(SweepSettings()).items() if k != "sweep.settings"}
        return SettingsRecord(values, defaults, changeable)

    @property
    def lines(self) -> Sequence[str]:
        """Lines that say what will be trained on which data."""
        keys = ", ".join(self.trials[0].point)
        done = sum(self._is_done(result) for result in self._read_results())
        line = f"{len(self.trials)} trials of {self._sweep.target} over {keys}"
        if done:
            line += f", {done} of them done already"
        return [*self.data_lines, line]

    @property
    def folder(self) -> str:
        """The folder or URI of the sweep."""
        return self.sweep_run.location

    @property
    def _sweep(self) -> TrialsSettings:
        return self.settings.sweep

    def examine(self) -> Sequence[str]:
        """Nothing more: all was looked at before."""
        return ()

    def needs_ray(self, attached: bool) -> bool:
        """Return True: the trials are processes of Ray Tune."""
        return True

    def demand(self, have: Resources) -> Demand:
        """Return the resources that the trials need, of the available ones `have`.

        Raises:
            ResourceError: not even one trial fits.
        """
        share = self._share(have)
        wait = self._sweep.wait_minutes
        return Demand((1, share.trials), share.each.cpus, share.each.gpus, 0.0, "sweep", wait_minutes=wait)

    def _share(self, have: Resources) -> TrialResources:
        most = min(len(self.trials), self._sweep.concurrent or len(self.trials))
        gpus = max(self.gpus_of(trial, have) for trial in self.trials)
        return share_out(have, most, self._sweep.cpus_per_trial, gpus)

    def gpus_of(self, trial: Trial, have: Resources) -> float:
        """Return the GPUs of a trial, of the available resources `have`."""
        if not self.training.recipe(trial.settings).can_use_gpu:
            return 0.0
        if self._sweep.gpus_per_trial is not None:
            return self._sweep.gpus_per_trial
        return float(use_gpu(trial.settings.device, have.gpus))

    def run(self, display: Display, have: Resources, attached: bool) -> SweepOutcome:
        """Train every unfinished trial, and compare all.

        Raises:
            Interrupted: a stop was requested; the trials wrote checkpoints.
            TrainingError: no trial finished.
            RunError: the run cannot be used.
        """
        run = self.sweep_run
        record = self.settings_record
        with run.locked(display.note):
            for change in run.adopt(record, {"target": "sweep", "trials": self._sweep.target}):
                display.note(f"setting changed: {change}")
            run.clear_stop()
            display.note(f"run: {run.location}")
            results = zip(self.trials, self._read_results(), strict=True)
            missing = [trial for trial, result in results if not self._is_done(result)]
            for trial in missing:
                trial.reopen()
            if missing:
                with stop_on_signals(run.stop_requested, partial(ask_to_stop, run, display)):
                    self._tune(missing, display, have)
            sweep_results = SweepResults(self._read_results(), self.metric, self.mode)
            sweep_results.write(run, record.values)
            run.publish()
        columns, rows = sweep_results.table()
        for line in aligned([columns, *rows]).splitlines():
            display.note(line)
        self._check_end(sweep_results)
        return sweep_results.outcome(run)

    def _tune(self, trials: Sequence[Trial], display: Display, have: Resources) -> None:
        """Train `trials`; the others are finished."""
        from jobs.sweeping.tuning import Halving, tune_trials  # a slow import

        scheduler = None
        if self._sweep.scheduler == "asha":
            scheduler = Halving(
                self.metric,
                self.mode,
                grace=self._sweep.grace,
                reduction=self._sweep.reduction,
                epochs=max(trial.settings.loop.epochs for trial in self.trials),
            )
            for trial in self.trials:
                if trial not in trials:
                    scheduler.add_past_trial(trial.run)
        share = self._share(have)
        display.note(f"trials at a time: {share.trials}, CPUs of each: {share.each.cpus:g}")
        with written_proof(self.sweep_run) as token:
            tasks = [
                TrialTask.of(
                    trial,
                    target=self._sweep.target,
                    sweep=self.sweep_run,
                    proof=token,
                    metric=self.metric,
                    have=replace(share.each, gpus=self.gpus_of(trial, have)),
                )
                for trial in trials
            ]
            tune_trials(
                tasks,
                self.sweep_run,
                at_a_time=share.trials,
                max_restarts=trials[0].settings.loop.max_restarts,
                scheduler=scheduler,
                display=display,
            )

    def _is_done(self, result: TrialResult) -> bool:
        """Return whether the trial is finished; without asha, the trials that it stopped are not."""
        stopped = result.status == "stopped" and self._sweep.scheduler == "asha"
        return stopped or result.status == "finished"

    def _read_results(self) -> list[TrialResult]:
        return [trial.read_result(self.metric, self.mode) for trial in self.trials]

    def _check_end(self, results: SweepResults) -> None:
        """Raise if trials are unfinished, or if none finished."""
        unfinished = [trial for trial in results.trials if trial.status == "unfinished"]
        if unfinished:
            raise Interrupted(
                f"stopped with {len(unfinished)} of {len(results.trials)} trials unfinished, "
                "their checkpoints written",
                where=self.folder,
                hint=f"the same command with --name {self.sweep_run.name} resumes from there",
            )
        if results.best is None:
            reasons = (trial.reason for trial in results.trials if trial.reason)
            raise TrainingError(
                f"no trial finished; the first failure: {next(reasons, 'none')}",
                where=self.folder,
                hint=f"repair the cause; the same command with --name {self.sweep_run.name} tries the "
                "failed trials again",
            )


def _single_metric(metrics: Sequence[str]) -> str:
    """Return the metric that judges all trials.

    Raises:
        SettingsError: the trials have different metrics.
    """
    if len(metrics) > 1:
        raise SettingsError(
            f"the trials cannot be compared: some are judged by {', others by '.join(metrics)}",
            where="sweep.metric",
            hint="set sweep.metric to a metric that all trials have, such as val_mse",
        )
    return metrics[0]


def _usual_mode(metric: str, own_metrics: Sequence[str]) -> Mode:
    """Return the direction of the metric by its name; the targets' own metrics are better when smaller.

    Raises:
        SettingsError: the name does not tell the direction.
    """
    direction = -1 if metric in own_metrics else metric_direction(metric)
    if not direction:
        raise SettingsError(
            f"it is unknown whether a smaller or a larger {metric} is better",
            where="sweep.mode",
            hint="set sweep.mode to min or max",
        )
    return "min" if direction < 0 else "max"
