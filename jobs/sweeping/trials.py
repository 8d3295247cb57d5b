"""One trial of a sweep: a run like any other, trained in a process of Ray Tune, and its result."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from genray.errors import GenrayError, Interrupted, UsageError
from genray.io.files import write_json
from genray.progress import Tick
from genray.settings.shipped import shipped_targets
from genray.targets import Resources, find_target
from jobs.runs.formatting import is_finite_number
from jobs.runs.outcome import FinalMetrics, TrainingOutcome
from jobs.runs.progress import RunDisplay
from jobs.runs.run import Run
from jobs.runs.sharing import unseen_here
from jobs.sweeping.space import Point
from jobs.training.settings import TrainSettings
from jobs.training.target import Training, change_judgement, settings_record

Mode = Literal["min", "max"]
"""Whether a smaller or a larger value of a metric is better."""

Status = Literal["finished", "stopped", "failed", "unfinished"]

UNSEEN = "unseen"
"""Result of a trial that does not see the sweep's run: the reason."""

_TRAINING_PREFIX = "train-"


def find_training(name: str) -> Training[Any]:
    """Return the training target `name`.

    Raises:
        UsageError: there is none; the message names the nearest, the hint all.
    """
    names = [target for target in shipped_targets() if target.startswith(_TRAINING_PREFIX)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise UsageError(
            f"no training target is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
            where="sweep.target",
            hint=f"known: {', '.join(names)}",
        )
    training = find_target(name).load()
    assert isinstance(training, Training)
    return training


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial so far; `value` is the sweep's metric, None if it was not measured yet."""

    name: str
    settings: Point
    status: Status
    value: float | None
    epochs: int
    seconds: float
    run: str
    bundle: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A point of the space, and the run that is trained at it."""

    point: Point
    settings: TrainSettings
    run: Run

    def read_result(self, metric: str, mode: Mode) -> TrialResult:
        """Read the result of the trial from its run.

        `value` of a finished trial is that of the weights in its bundle, of any other the best so far. A
        trial that was judged with other settings is unfinished.

        Raises:
            RunError: its weights were trained with other settings.
            TrainingError: the store of the run does not answer.
        """
        self.run.refresh()
        rows = self.run.read_history()
        outcome = self.run.read_outcome()
        failure = self.run.read_failure()
        status = self._status(outcome, failure)
        metrics = FinalMetrics({})
        if outcome is not None and status == "finished":
            metrics = outcome.metrics
        return TrialResult(
            name=self.run.name,
            settings=self.point,
            status=status,
            value=_metric_of_rows(rows, metric, mode, kept_epoch=metrics.values.get("epoch")),
            epochs=max((row["epoch"] for row in rows), default=0),
            # The sum of the epochs, or the time of a run that was never interrupted.
            seconds=round(
                max(
                    sum(row.get("seconds", 0.0) for row in rows),
                    outcome.seconds if outcome is not None else 0,
                ),
                2,
            ),
            run=self.run.location,
            bundle=self.run.place(self.run.bundle) if status == "finished" else None,
            metrics=dict(metrics.values),
            baselines=metrics.baselines,
            reason=failure.what if failure is not None and status == "failed" else None,
        )

    def _status(self, outcome: TrainingOutcome | None, failure: GenrayError | None) -> Status:
        is_trained = outcome is not None and outcome.epochs >= self.settings.loop.epochs
        if is_trained and not change_judgement(self.run.changes(settings_record(self.settings))):
            return "finished"
        if is_stopped(self.run):
            return "stopped"
        return "failed" if failure is not None else "unfinished"

    def reopen(self) -> None:
        """Delete the marks of a failure or a stop, so that the trial resumes."""
        self.run.clear_failure()
        self.run.remove(_stop_mark(self.run))


def _metric_of_rows(
    rows: Sequence[Mapping[str, Any]], metric: str, mode: Mode, kept_epoch: float | None
) -> float | None:
    """Return the metric of the epoch whose weights were kept; the best value if that epoch is unknown."""
    validated = [row for row in rows if is_finite_number(row.get(metric))]
    for row in validated:
        if kept_epoch is not None and row["epoch"] == kept_epoch:
            return row[metric]  # type: ignore[no-any-return]
    better = min if mode == "min" else max
    return better((row[metric] for row in validated), default=None)


def mark_stopped(run: Run, row: Mapping[str, Any]) -> None:
    """Record that the scheduler stopped the trial after an epoch, so that it stays stopped when the sweep
    resumes."""
    write_json(_stop_mark(run), {"epoch": row["epoch"]})
    run.send(_stop_mark(run))


def is_stopped(run: Run) -> bool:
    """Return whether the scheduler stopped the trial."""
    return _stop_mark(run).exists()


def _stop_mark(run: Run) -> Path:
    return run.folder / "stopped.json"


@dataclass(frozen=True)
class TrialTask:
    """Task of a process of Ray Tune: plain values, as Ray Tune's configuration of a trial.

    Attributes:
        target: the training target.
        settings: settings of the trial, as JSON.
        folder: folder or URI of the trial's run.
        sweep: those of the sweep; a request to stop the sweep stops the trial.
        proof: text that the driver wrote to the sweep, see `jobs.runs.sharing`.
        metric: metric that compares the trials, a column of history.jsonl.
        have: resources of the trial.
    """

    target: str
    settings: Mapping[str, Any]
    folder: str
    sweep: str
    proof: str
    metric: str
    have: Resources

    @classmethod
    def of(
        cls, trial: Trial, *, target: str, sweep: Run, proof: str, metric: str, have: Resources
    ) -> TrialTask:
        """Return the task of `trial` in the sweep whose run is `sweep`."""
        settings = trial.settings.model_dump(mode="json")
        return cls(target, settings, trial.run.location, sweep.location, proof, metric, have)

    def as_config(self) -> dict[str, Any]:
        """Return the configuration for Ray Tune."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrialTask:
        """Return the task that `as_config` wrote."""
        return cls(**{**config, "have": Resources(**config["have"])})

    @property
    def run(self) -> Run:
        """Run of the trial."""
        return Run.at(self.folder)


class TrialDisplay(RunDisplay):
    """Passes a trial's progress to the sweep, and its epochs' metric to Ray Tune, which may stop the process.

    Args:
        run: run of the trial.
        sweep: the sweep's run; a request to stop the sweep stops the trial.
        metric: name of the metric, a column of history.jsonl.
        epochs: number of epochs. The last is not reported: a trial that reaches it writes its bundle.
    """

    def __init__(self, run: Run, sweep: Run, metric: str, epochs: int) -> None:
        super().__init__(run)
        self._run = run
        self._sweep = sweep
        self._metric = metric
        self._epochs = epochs

    def tick(self, tick: Tick) -> None:
        super().tick(tick)
        if self._sweep.stop_requested():
            self._run.request_stop()

    def row(self, row: Mapping[str, Any], text: str) -> None:
        super().row(row, text)
        self.report(row)

    def report(self, row: Mapping[str, Any], *, replayed: bool = False) -> None:
        """Report the metric of an epoch to Ray Tune.

        Args:
            row: row of the epoch.
            replayed: whether the epoch was trained before the sweep was interrupted; then it cannot stop the
                trial.

        Raises:
            UsageError: the epoch was validated, but has no such metric.
        """
        from ray import tune

        names = [name for name in row if name.startswith("val_")]
        if names and self._metric not in row:
            raise UsageError(
                f"the epochs have no metric {self._metric}",
                where="sweep.metric",
                hint=f"known: {', '.join(names)}",
            )
        if names and row["epoch"] < self._epochs:
            tune.report({"epoch": row["epoch"], self._metric: row[self._metric], "replayed": replayed})


def train_trial(config: Mapping[str, Any]) -> dict[str, Any]:
    """Train or resume the run of a Ray Tune trial. An error that genray raises on purpose is written to the
    run, like the checkpoint of a trial that was asked to stop; after any other error Ray restarts the
    process.

    Returns:
        Why the trial does not see the sweep's run, as `UNSEEN`; nothing if it does.
    """
    task = TrialTask.from_config(config["trial"])
    sweep = Run.at(task.sweep)
    if problem := unseen_here(sweep, task.proof):
        return {UNSEEN: problem}
    try:
        _train(task, sweep)
    finally:
        task.run.discard_copy()
    return {}


def _train(task: TrialTask, sweep: Run) -> None:
    run = task.run
    if sweep.stop_requested():
        return
    run.refresh()
    torch.set_num_threads(max(1, int(task.have.cpus)))
    try:
        training = find_training(task.target)
        settings = training.settings_class.model_validate(task.settings)
        display = TrialDisplay(run, sweep, task.metric, settings.loop.epochs)
        for row in run.read_history():  # epochs from before an interruption are unknown to Ray Tune
            display.report(row, replayed=True)
        prepared = training.prepare(settings, task.target, run.name, lambda text: None)
        prepared.run(display, task.have, attached=False)
        display.note("finished")
    except Interrupted:
        return
    except GenrayError as error:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.write_failure(error)
        RunDisplay(run).note(f"failed: {error.what}")
