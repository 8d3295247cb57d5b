"""The run of a sweep: its trials side by side in Ray Tune, each a run inside it, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from genray.errors import Interrupted, SettingsError, TrainingError
from genray.interrupts import stop_on_signals
from genray.progress import Display
from genray.settings.base import Location, Settings, flatten
from genray.targets import Demand, Resources
from genray.text import aligned
from jobs.runs.report import better
from jobs.runs.run import Run
from jobs.sweeping.results import SweepResults
from jobs.sweeping.trials import Mode, Trial, TrialResources, TrialResult, share_out
from jobs.training.device import use_gpu
from jobs.training.settings import MAY_CHANGE
from jobs.training.target import Training, ask_to_stop


class TrialsSettings(Settings):
    """Settings of a sweep's trials."""

    target: str = Field("train-autoencoder", description="the training target of every trial")
    settings: dict[str, Any] = Field({}, description="its settings that all trials share")
    space: dict[str, Any] = Field(
        {}, description="its settings that differ: lists, or ranges {min: ..., max: ..., log: true}"
    )
    samples: int = Field(10, ge=1, description="how often values are drawn from the ranges, if there are any")
    metric: str | None = Field(
        None, description="of the epochs' rows, such as val_mse; null: what the target is judged by"
    )
    mode: Mode | None = Field(None, description="whether less or more of it is better; null: by its name")
    scheduler: Literal["asha", "none"] = Field("none", description="asha ends the worse trials early")
    grace: int = Field(1, ge=1, description="epochs that asha leaves to every trial")
    reduction: int = Field(3, ge=2, description="asha keeps one of so many, each time")
    concurrent: int | None = Field(None, ge=1, description="trials at a time; null: as many as fit")
    cpus_per_trial: float | None = Field(None, gt=0, description="null: an equal part")
    gpus_per_trial: float | None = Field(
        None, ge=0, description="may be a part of one; null: 1 where the target trains on a GPU"
    )

    @field_validator("gpus_per_trial")
    @classmethod
    def _part_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus % 1:
            raise ValueError(f"{gpus:g} cannot be had: a trial has a part of one GPU, or whole ones")
        return gpus


class SweepSettings(Settings):
    """Settings of sweep."""

    runs: Location = Field("runs", description="folder of the runs; shared by all nodes of a cluster")
    seed: int = Field(0, ge=0, lt=2**31, description="of the draws, and of every trial that has no other")
    sweep: TrialsSettings = Field(TrialsSettings(), description="what is trained")


class PreparedSweep:
    """A sweep that has been checked and can be run.

    Args:
        settings: of the sweep.
        training: the target.
        run: the sweep's folder.
        trials: with their folders inside it.
        lines: what the first trial trains on, for a person.
    """

    def __init__(
        self,
        settings: SweepSettings,
        training: Training[Any],
        run: Run,
        trials: Sequence[Trial],
        lines: Sequence[str],
    ) -> None:
        self._settings, self._sweep, self._run, self._trials = settings, settings.sweep, run, trials
        self._lines, self._training = lines, training
        own = sorted({f"val_{training.recipe(trial.settings).metric}" for trial in trials})
        self._metric = self._sweep.metric or _only(own)
        self._mode = self._sweep.mode or self._usual_mode(own)
        whole = flatten(settings)
        self._record = {k: v for k, v in whole.items() if not k.startswith("sweep.space")}
        self._record["sweep.space"] = settings.sweep.space  # as one: a sweep may grow
        self._may_change = frozenset(
            {k for k in self._record if not k.startswith(("sweep.settings", "sweep.target", "seed"))}
            | {f"sweep.settings.{key}" for key in MAY_CHANGE}
            | {"sweep.settings"}  # trials that had none may be given some
        )
        # Of the trials' settings there are no defaults here: each trial's own run compares them.
        self._defaults = {k: v for k, v in flatten(SweepSettings()).items() if k != "sweep.settings"}
        run.changes(self._record, self._defaults, self._may_change)

    def _usual_mode(self, own: Sequence[str]) -> Mode:
        sign = -1 if self._metric in own else better(self._metric)
        if not sign:
            raise SettingsError(
                f"whether less or more {self._metric} is better is not known",
                where="sweep.mode",
                hint="set sweep.mode to min or max",
            )
        return "min" if sign < 0 else "max"

    @property
    def lines(self) -> Sequence[str]:
        """What will be trained on what, for a person."""
        keys = ", ".join(self._trials[0].point)
        done = sum(self._is_done(standing) for standing in self._standings())
        return [
            *self._lines,
            f"{len(self._trials)} trials of {self._sweep.target} over {keys}"
            + (f", {done} of them done already" if done else ""),
        ]

    def needs_ray(self, attached: bool) -> bool:
        """Always: the trials are processes of Ray Tune."""
        return True

    def demand(self, have: Resources) -> Demand:
        """What the trials ask for, where there is `have`.

        Raises:
            ResourceError: not even one trial fits.
        """
        share = self._share(have)
        return Demand((1, share.trials), share.each.cpus, share.each.gpus, 0.0)

    def _share(self, have: Resources) -> TrialResources:
        most = min(len(self._trials), self._sweep.concurrent or len(self._trials))
        gpus = max(self._gpus(trial, have) for trial in self._trials)
        return share_out(have, most, self._sweep.cpus_per_trial, gpus)

    def _gpus(self, trial: Trial, have: Resources) -> float:
        """What a trial takes of the GPUs."""
        if not self._training.recipe(trial.settings).can_use_gpu:
            return 0.0
        asked = self._sweep.gpus_per_trial
        return float(use_gpu(trial.settings.device, have.gpus)) if asked is None else asked

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return self._run.folder

    def run(self, display: Display, have: Resources, attached: bool) -> Mapping[str, Any]:
        """Train every trial that is not done, and compare them all.

        Returns:
            The outcome: target, name, run (folder), metric, mode, best (settings, run, bundle, metric) and
            trials, the best first.

        Raises:
            Interrupted: a stop was requested; the trials wrote checkpoints.
            TrainingError: no trial finished.
            RunError: the run cannot be used.
        """
        run = self._run
        with run.locked():
            data = {"target": "sweep", "trials": self._sweep.target}
            for change in run.adopt(self._record, data, self._defaults, self._may_change):
                display.note(f"changed: {change}")
            run.clear_stop()
            display.note(f"run: {run.folder}")
            todo = [
                trial
                for trial, standing in zip(self._trials, self._standings(), strict=True)
                if not self._is_done(standing)
            ]
            for trial in todo:
                trial.reopen()
            if todo:
                with stop_on_signals(run.stop_requested, partial(ask_to_stop, run, display)):
                    self._tune(todo, display, have)
            standings = SweepResults(self._standings(), self._metric, self._mode)
            standings.write(run, self._record)
        columns, rows = standings.table()
        for line in aligned([columns, *rows]).splitlines():
            display.note(line)
        self._check_end(standings)
        return standings.outcome(run)

    def _tune(self, todo: Sequence[Trial], display: Display, have: Resources) -> None:
        from jobs.sweeping.tuning import Halving, tune_trials  # Ray Tune imports slowly

        scheduler = None
        if self._sweep.scheduler == "asha":
            epochs = max(trial.settings.loop.epochs for trial in self._trials)
            scheduler = Halving(
                self._metric,
                self._mode,
                grace=self._sweep.grace,
                reduction=self._sweep.reduction,
                epochs=epochs,
            )
            for trial in self._trials:
                if trial not in todo:
                    scheduler.tell(trial.run)
        share = self._share(have)
        haves = [replace(share.each, gpus=self._gpus(trial, have)) for trial in todo]
        display.note(f"trials at a time: {share.trials}, CPUs of each: {share.each.cpus:g}")
        target, metric = self._sweep.target, self._metric
        tune_trials(todo, target, self._run, metric, haves, share.trials, scheduler, display)

    def _is_done(self, standing: TrialResult) -> bool:
        """Whether nothing is to be trained: without asha also those go on that it stopped."""
        stopped = standing.status == "stopped" and self._sweep.scheduler == "asha"
        return stopped or standing.status == "finished"

    def _standings(self) -> list[TrialResult]:
        return [trial.standing(self._metric, self._mode) for trial in self._trials]

    def _check_end(self, standings: SweepResults) -> None:
        unfinished = [trial for trial in standings.trials if trial.status == "unfinished"]
        if unfinished:
            raise Interrupted(
                f"stopped with {len(unfinished)} of {len(standings.trials)} trials unfinished, "
                "their checkpoints written",
                where=str(self._run.folder),
                hint=f"the same command with --name {self._run.name} goes on from there",
            )
        if standings.best is None:
            reasons = (trial.reason for trial in standings.trials if trial.reason)
            raise TrainingError(
                f"no trial finished; the first that failed: {next(reasons, 'none')}",
                where=str(self._run.folder),
                hint=f"mend the cause; the same command with --name {self._run.name} tries them again",
            )


def _only(metrics: Sequence[str]) -> str:
    """What all trials are judged by.

    Raises:
        SettingsError: there are several.
    """
    if len(metrics) > 1:
        raise SettingsError(
            f"the trials cannot be compared: some are judged by {', others by '.join(metrics)}",
            where="sweep.metric",
            hint="set sweep.metric to one that all of them have, such as val_mse",
        )
    return metrics[0]
