"""One trial of a sweep: a run like any other, trained in a process of Ray Tune, and what became of it.

How the CPUs and GPUs are shared out among the trials of a sweep.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from genray.errors import GenrayError, Interrupted, ResourceError, UsageError
from genray.io.files import write_json
from genray.progress import FileDisplay, Tick
from genray.settings.base import flatten
from genray.settings.shipped import shipped_targets
from genray.targets import Resources, find_target
from jobs.runs.report import finite
from jobs.runs.run import Run
from jobs.sweeping.space import Point
from jobs.training.settings import JUDGING, MAY_CHANGE, TrainSettings
from jobs.training.target import Training

Mode = Literal["min", "max"]
Status = Literal["finished", "stopped", "failed", "unfinished"]
_PREFIX = "train-"


def find_training(name: str) -> Training[Any]:
    """The training target of that name.

    Raises:
        UsageError: there is none; names the nearest, and all.
    """
    names = [target for target in shipped_targets() if target.startswith(_PREFIX)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise UsageError(
            f"no training target is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
            where="sweep.target",
            hint=f"there are: {', '.join(names)}",
        )
    training = find_target(name).load()
    assert isinstance(training, Training)
    return training


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial so far. `value` is the sweep's metric; None if it was not measured yet."""

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


@dataclass(frozen=True)
class Trial:
    """A point of the space, and the run that is made of it."""

    point: Point
    settings: TrainSettings
    run: Run

    def standing(self, metric: str, mode: Mode) -> TrialResult:
        """What became of it, by what its run holds.

        Of a trial that finished `value` is that of the weights in its bundle, of any other the best yet. One
        that was judged by other settings than these is unfinished.

        Raises:
            RunError: its weights were made with other settings.
        """
        rows = self.run.read_history()
        validated = [row for row in rows if finite(row.get(metric))]
        value = (min if mode == "min" else max)((row[metric] for row in validated), default=None)
        outcome, failure = self.run.read_outcome(), self.run.read_failure()
        status: Status = "unfinished"
        if outcome is not None and outcome["epochs"] >= self.settings.loop.epochs and self._is_judged():
            status, kept = "finished", outcome["metrics"].get("epoch")
            value = next((row[metric] for row in validated if row["epoch"] == kept), value)
        elif is_stopped(self.run):
            status = "stopped"
        elif failure is not None:
            status = "failed"
        metrics = dict(outcome["metrics"]) if outcome is not None and status == "finished" else {}
        baselines = metrics.pop("baselines", {})
        return TrialResult(
            name=self.run.name,
            settings=self.point,
            status=status,
            value=value,
            epochs=max((row["epoch"] for row in rows), default=0),
            # Of the epochs, or of all that a run did that was not interrupted.
            seconds=round(
                max(sum(row.get("seconds", 0.0) for row in rows), (outcome or {}).get("seconds", 0)), 2
            ),
            run=str(self.run.folder),
            bundle=str(self.run.bundle) if status == "finished" else None,
            metrics=metrics,
            baselines=baselines,
            reason=str(failure.what) if failure is not None and status == "failed" else None,
        )

    def _is_judged(self) -> bool:
        """Whether the run's outcome is what these settings would say of its weights."""
        settings = self.settings
        changes = self.run.changes(flatten(settings), flatten(type(settings)()), MAY_CHANGE)
        return not any(change.startswith(JUDGING) for change in changes)

    def reopen(self) -> None:
        """Forget that it failed or was stopped: it is to go on."""
        self.run.clear_failure()
        _stopped(self.run).unlink(missing_ok=True)

    def config(self, target: str, sweep: Run, metric: str, have: Resources) -> dict[str, Any]:
        """What `train_trial` is given: plain values, for they go to another process."""
        return {
            "target": target,
            "settings": self.settings.model_dump(mode="json"),
            "folder": str(self.run.folder),
            "sweep": str(sweep.folder),
            "metric": metric,
            "have": asdict(have),
        }


def mark_stopped(run: Run, row: Mapping[str, Any]) -> None:
    """Note that the scheduler stopped the trial after an epoch, for it to stay so when the sweep goes on."""
    write_json(_stopped(run), {"epoch": row["epoch"]})


def is_stopped(run: Run) -> bool:
    """Whether the scheduler stopped it."""
    return _stopped(run).exists()


def _stopped(run: Run) -> Path:
    return run.folder / "stopped.json"


class TrialDisplay(FileDisplay):
    """Shows a trial's progress to the sweep, and its epochs' metric to Ray Tune, which may end the process.

    Args:
        run: of the trial.
        sweep: the sweep's folder as a run: when that is asked to stop, so is the trial.
        metric: of the epochs' rows.
        epochs: how many there will be. The last is not reported: a trial that comes so far gets its bundle.
    """

    def __init__(self, run: Run, sweep: Run, metric: str, epochs: int) -> None:
        super().__init__(run.folder)
        self._run, self._sweep, self._metric, self._epochs = run, sweep, metric, epochs

    def tick(self, tick: Tick) -> None:
        super().tick(tick)
        if self._sweep.stop_requested():
            self._run.request_stop()

    def row(self, row: Mapping[str, Any], text: str) -> None:
        super().row(row, text)
        self.report(row)

    def report(self, row: Mapping[str, Any], *, replayed: bool = False) -> None:
        """Tell Ray Tune the metric of an epoch.

        Args:
            row: of the epoch.
            replayed: it was trained before the sweep was interrupted, and is no reason to stop now.

        Raises:
            UsageError: the epoch was validated, and has no such metric.
        """
        from ray import tune

        names = [name for name in row if name.startswith("val_")]
        if names and self._metric not in row:
            raise UsageError(
                f"there is no metric {self._metric}",
                where="sweep.metric",
                hint=f"there are: {', '.join(names)}",
            )
        if names and row["epoch"] < self._epochs:
            tune.report({"epoch": row["epoch"], self._metric: row[self._metric], "replayed": replayed})


def train_trial(config: Mapping[str, Any]) -> None:
    """The function of a Ray Tune trial: train its run, or go on with it. An error that genray raises on
    purpose is left in the run, as is the checkpoint of a trial that was asked to stop; Ray starts the
    process again after any other."""
    given = config["trial"]
    sweep, run, have = Run(Path(given["sweep"])), Run(Path(given["folder"])), Resources(**given["have"])
    if sweep.stop_requested():
        return
    torch.set_num_threads(max(1, int(have.cpus)))
    try:
        training = find_training(given["target"])
        settings = training.settings_class.model_validate(given["settings"])
        display = TrialDisplay(run, sweep, given["metric"], settings.loop.epochs)
        for row in run.read_history():  # of before the sweep was interrupted: Ray Tune does not know them
            display.report(row, replayed=True)
        prepared = training.prepare(settings, given["target"], run.name, lambda text: None)
        prepared.run(display, have, attached=False)
        display.note("finished")
    except Interrupted:
        return
    except GenrayError as error:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.write_failure(error)
        FileDisplay(run.folder).note(f"failed: {error.what}")


@dataclass(frozen=True)
class TrialResources:
    """How many trials run at a time, and what each of them has."""

    trials: int
    each: Resources


def share_out(have: Resources, most: int, cpus: float | None, gpus: float) -> TrialResources:
    """As many trials side by side as there is room for, and no more CPUs promised than there are.

    Args:
        have: what there is.
        most: no more trials than this.
        cpus: of each; None: an equal part of a node's, whole ones, at least one.
        gpus: of each; a part of one, or whole ones.

    Raises:
        ResourceError: not even one fits.
    """
    node_gpus = math.ceil(have.gpus / have.nodes)  # of a node that has any: not every one may
    if gpus > node_gpus:
        raise ResourceError(
            f"a trial with {gpus:g} GPUs: a machine has {node_gpus}",
            where="sweep.gpus_per_trial",
            hint="set sweep.gpus_per_trial=0 and sweep.settings.device.gpu=false to train on CPUs",
        )
    node = have.cpus / have.nodes
    if cpus is not None and cpus > node:
        raise ResourceError(
            f"a trial with {cpus:g} CPUs: a machine has {node:g}",
            where="sweep.cpus_per_trial",
            hint=f"set it to at most {node:g}, or leave it out",
        )
    if gpus:
        # A trial's GPUs are those of one node; a part is one of the same GPU.
        if gpus < 1:
            fitting = math.floor(1 / gpus + 1e-6) * have.gpus
        else:
            fitting = min(have.gpus // gpus, node_gpus // gpus * have.nodes)
        most = min(most, int(fitting))
    beside = max(1, -(-most // have.nodes))
    each = cpus or max(min(1.0, node), math.floor(node / beside))
    trials = min(most, math.floor(node / each + 1e-6) * have.nodes)
    return TrialResources(trials, Resources(cpus=each, gpus=gpus))
