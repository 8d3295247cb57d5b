"""A training target: checks everything first, then runs the loop here or in a group of Ray workers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from genray.errors import DataError
from genray.interrupts import stop_on_signals
from genray.progress import Display
from genray.settings.base import flatten
from genray.targets import Demand, Resources
from jobs.runs.report import write_report
from jobs.runs.run import Run
from jobs.training.device import use_gpu
from jobs.training.launch import fit_beside, train_here, train_in_worker
from jobs.training.recipe import Recipe
from jobs.training.settings import JUDGING, MAY_CHANGE, TrainSettings

S = TypeVar("S", bound=TrainSettings)


class Training(Generic[S]):
    """What the command needs of a training target."""

    def __init__(self, recipe: type[Recipe[S]]) -> None:
        self._recipe = recipe
        self.settings_class = recipe.settings_class

    def recipe(self, settings: S) -> Recipe[S]:
        """What `settings` train: by which metric its weights are chosen, whether on a GPU. Opens nothing."""
        return self._recipe(settings)

    def prepare(
        self, settings: S, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedTraining:
        """Open the data and find everything that is wrong with it and the settings.

        Raises:
            UsageError: the training cannot work.
        """
        return PreparedTraining(self.recipe(settings), target, name, note)


class PreparedTraining:
    """A training that has been checked and can be run."""

    def __init__(
        self, recipe: Recipe[Any], target: str, name: str | None, note: Callable[[str], None]
    ) -> None:
        self._recipe = recipe
        self._target = target
        self._settings: TrainSettings = recipe.settings
        self._run = Run.named(self._settings.runs, name, target)
        self._record = flatten(self._settings)
        self._defaults = flatten(type(self._settings)())
        self._run.changes(self._record, self._defaults, MAY_CHANGE)
        self._summary = recipe.open(note)
        loop = self._settings.loop
        per_step = loop.batch_size * loop.worker_range[1] * loop.accumulate
        if self._summary.train < per_step:
            raise DataError(
                f"{self._summary.train} training samples do not fill one step of {per_step}",
                where="loop.batch_size",
                hint="lower loop.batch_size, loop.accumulate or loop.workers",
            )

    @property
    def lines(self) -> Sequence[str]:
        """What will be trained on what, for a person."""
        loop = self._settings.loop
        fewest, most = loop.worker_range
        workers = f"{most} workers" if fewest == most else f"{fewest} to {most} workers"
        return [
            *self._summary.lines,
            f"{loop.epochs} epochs, batch {loop.batch_size} x {workers} x {loop.accumulate} accumulated",
        ]

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run. One worker trains in this process, unless this process is only the
        driver of a cluster, where the worker belongs on a node with the right hardware."""
        return attached or self._settings.loop.worker_range != (1, 1) or self._summary.needs_ray

    def demand(self, have: Resources) -> Demand:
        """What the training asks for, where there is `have`."""
        fewest, most = self._settings.loop.worker_range
        data_cpus = 1.0 if self._summary.needs_ray else 0.0
        cpus, gpu = (
            self._settings.loop.cpus_per_worker,
            self._recipe.can_use_gpu and use_gpu(self._settings.device, have.gpus),
        )
        if cpus is None:
            # An equal part of a node's CPUs, in halves, so that the workers fit their nodes.
            beside = -(-most // have.nodes)
            cpus = max(0.5, (have.cpus / have.nodes - data_cpus) / beside // 0.5 * 0.5)
            if data_cpus and gpu:
                cpus = min(cpus, 2.0)  # a GPU's worker mostly waits; the others decode for it
        return Demand((fewest, most), cpus, float(gpu), data_cpus)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self._run.folder

    def run(self, display: Display, have: Resources, attached: bool) -> dict[str, Any]:
        """Train, or go on with the run of that name, to the end.

        Returns:
            The outcome: target, name, run (folder), bundle, metrics, seconds, set_aside, epochs.

        Raises:
            GenrayError: see `Loop.train`; RunError if the run cannot be used.
        """
        began = time.monotonic()
        run = self._run
        with run.locked():
            data = {"target": self._target, **self._summary.data}
            changes = run.adopt(self._record, data, self._defaults, MAY_CHANGE)
            for change in changes:
                display.note(f"changed: {change}")
            outcome = run.read_outcome()
            same = not any(change.startswith(JUDGING) for change in changes)
            if outcome is not None and outcome["epochs"] >= self._settings.loop.epochs and same:
                display.note(f"{run.name} is finished already")
                # The folder may have been moved since.
                return outcome | {"name": run.name, "run": str(run.folder), "bundle": str(run.bundle)}
            run.outcome.unlink(missing_ok=True)
            run.clear_stop()
            run.clear_failure()
            for bad in self._summary.bad:
                run.add_set_aside(bad)
            display.note(f"run: {run.folder}")
            with stop_on_signals(run.stop_requested, partial(ask_to_stop, run, display)):
                metrics = self._train(run, display, self.demand(have), attached)
            outcome = {
                "target": self._target,
                "name": run.name,
                "run": str(run.folder),
                "bundle": str(run.bundle),
                "metrics": metrics,
                "headline": list(self._recipe.headline),
                "sample": self._recipe.sample,
                "seconds": round(time.monotonic() - began, 2),
                "set_aside": len(run.read_set_aside()),
                "epochs": self._settings.loop.epochs,
            }
            run.write_outcome(outcome)
            write_report(run)
        return outcome

    def _train(self, run: Run, display: Display, demand: Demand, attached: bool) -> dict[str, Any]:
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        here = demand.workers == (1, 1) and not attached
        fewest, most = demand.workers
        gpu = demand.gpus_per_worker > 0
        config = {
            "recipe": f"{type(self._recipe).__module__}:{type(self._recipe).__qualname__}",
            "settings": self._settings.model_dump(mode="json"),
            "folder": str(run.folder),
            "gpu": gpu,
            "cpus": demand.cpus_per_worker,
            "data": dict(self._summary.data),
        }
        # Ray pickles this function: it must hold neither the display nor the data.
        work = (
            partial(train_here, self._recipe, run, display, gpu) if here else partial(train_in_worker, config)
        )
        make: Any = TorchTrainer  # its types know neither returned values nor elastic groups
        scaling: Any = ScalingConfig
        trainer = make(
            work,
            scaling_config=scaling(
                num_workers=0 if here else (most if fewest == most else (fewest, most)),
                use_gpu=gpu,
                resources_per_worker={"CPU": demand.cpus_per_worker, **({"GPU": 1} if gpu else {})},
            ),
            run_config=RunConfig(
                name=run.name,
                storage_path=str(run.folder / "ray"),
                failure_config=FailureConfig(max_failures=self._settings.loop.max_restarts),
            ),
        )
        result = trainer.fit() if here else fit_beside(trainer.fit, run, display)
        value: Mapping[str, Any] = result.return_value
        if "error" in value:
            raise value["error"]
        return dict(value["metrics"])


def ask_to_stop(run: Run, display: Display) -> None:
    """Ask `run` to stop, and say so."""
    run.request_stop()
    display.note("stopping after this step, with a checkpoint (once more: stop at once)")
