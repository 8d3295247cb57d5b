"""Training targets: check everything first, then run the loop here or in a group of Ray workers."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from genray.errors import DataError, GenrayError, TrainingError
from genray.interrupts import stop_on_signals
from genray.progress import Display
from genray.settings.base import flatten
from genray.targets import Demand, Resources
from genray.text import counted
from genray.uris import below
from jobs.runs.outcome import FinalMetrics, TrainingOutcome
from jobs.runs.report import write_report
from jobs.runs.run import Run, SettingChange, SettingsRecord, is_listed
from jobs.runs.sharing import check_left, written_proof
from jobs.runs.trackers.opening import check_trackers
from jobs.training.checks.memory import TrainingMemory
from jobs.training.device import use_gpu
from jobs.training.launch import WorkerTask, fit_workers, train_here, train_in_worker
from jobs.training.recipe import DataSummary, Recipe
from jobs.training.settings import (
    CHANGEABLE_SETTINGS,
    EVALUATION_SETTINGS,
    TICK_SECONDS,
    LoopSettings,
    TrainSettings,
)
from jobs.training.start import StartingWeights

S = TypeVar("S", bound=TrainSettings)

_FEW_STEPS = 200  # optimizer steps below which a training is too short for a network to learn much


class Training(Generic[S]):
    """A training target, as the command uses it."""

    def __init__(self, recipe: type[Recipe[S]]) -> None:
        self._recipe = recipe
        self.settings_class = recipe.settings_class

    def recipe(self, settings: S) -> Recipe[S]:
        """Return the recipe of `settings`, which tells its metric and whether it can use a GPU. Opens
        nothing."""
        return self._recipe(settings)

    def prepare(
        self, settings: S, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedTraining:
        """Open the data, and check it and the settings.

        Raises:
            UsageError: data or settings cannot be used.
        """
        check_trackers(settings.track)
        recipe = self.recipe(settings)
        run = Run.named(settings.runs, name, target)
        run.refresh()
        run.changes(settings_record(settings))
        summary = recipe.open(note)
        if (batch := fitting_batch(settings.loop, summary.train)) < settings.loop.batch_size:
            note(
                f"loop.batch_size is {batch} instead of {settings.loop.batch_size}: the data has "
                f"{summary.train} training samples"
            )
            recipe = recipe.with_batch_size(batch)
        start = "" if run.has_checkpoint() else _check_start(recipe)
        memory = TrainingMemory.of(
            recipe.summaries(recipe.settings.loop.batch_size),
            recipe.averaged if settings.loop.ema else (),
            gpu=recipe.can_use_gpu and settings.device.gpu is not False,
        )
        return PreparedTraining(recipe, target, run, summary, settings_record(settings), memory, start)


def _check_start(recipe: Recipe[Any]) -> str:
    """Check `init.bundle`; returns a line that says what is taken from it, "" without one."""
    import torch

    with torch.device("meta"):  # shapes only
        start = StartingWeights.of(recipe, recipe.networks()) if recipe.settings.init.bundle else None
    return start.check() if start else ""


def fitting_batch(loop: LoopSettings, samples: int) -> int:
    """Return the batch size of the settings, or the largest that `samples` training samples fill.

    Raises:
        DataError: they do not even fill batches of one sample.
    """
    per_sample = loop.worker_range[1] * loop.accumulate
    if samples < per_sample:
        raise DataError(
            f"the data has {samples} training samples, but one step takes at least {per_sample}",
            where="loop",
            hint="lower loop.accumulate or loop.workers, or give more data",
        )
    return min(loop.batch_size, samples // per_sample)


def settings_record(settings: TrainSettings) -> SettingsRecord:
    """Return the settings of a training as its run stores them."""
    return SettingsRecord(flatten(settings), flatten(type(settings)()), CHANGEABLE_SETTINGS)


def change_judgement(changes: Sequence[SettingChange]) -> bool:
    """Return whether a finished run with these changes has to be judged again."""
    return any(is_listed(change.key, EVALUATION_SETTINGS) for change in changes)


@dataclass(frozen=True)
class PreparedTraining:
    """A training that was checked and can be run.

    Responsible for: the demand for resources, the start of the loop here or in workers, and the outcome. The
    steps are the loop's, the data and the networks the recipe's.

    Attributes:
        recipe: recipe to train, with its data open.
        target: name of the target.
        training_run: the run's folder.
        summary: summary of the data.
        record: settings as they were given, which the run stores.
        memory: memory that each worker needs.
        start: line on the weights that it starts from; "": random ones.
        tick_seconds: seconds between updates of the progress line.
    """

    recipe: Recipe[Any]
    target: str
    training_run: Run
    summary: DataSummary
    record: SettingsRecord
    memory: TrainingMemory
    start: str = ""
    tick_seconds: float = TICK_SECONDS

    @property
    def lines(self) -> Sequence[str]:
        """Lines that say what will be trained on which data."""
        loop = self._settings.loop
        fewest, most = loop.worker_range
        too_few = ", too few to learn much: raise loop.epochs" if self.steps < _FEW_STEPS else ""
        workers = counted(most, "worker") if fewest == most else f"{fewest} to {most} workers"
        batch = f"batch {loop.batch_size} x {workers} x {loop.accumulate} accumulated"
        return [
            *self.summary.lines,
            *([self.start] if self.start else []),
            self.memory.text,
            f"{counted(loop.epochs, 'epoch')}, {batch}: {self.steps:,} optimizer steps in all{too_few}",
        ]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        loop = self._settings.loop
        per_step = loop.batch_size * loop.worker_range[1] * loop.accumulate
        return loop.epochs * (self.summary.train // per_step)

    @property
    def folder(self) -> str:
        """The folder or URI of the run."""
        return self.training_run.location

    @property
    def _settings(self) -> TrainSettings:
        settings: TrainSettings = self.recipe.settings
        return settings

    def examine(self) -> Sequence[str]:
        """Check that the network fits into this machine, where the training would run."""
        self._check_memory()
        return ()

    def _check_memory(self) -> None:
        # Several workers may run on other nodes than this process.
        if self._settings.loop.worker_range == (1, 1):
            self.memory.check()

    def needs_ray(self, attached: bool) -> bool:
        """Return whether Ray has to run. One worker trains in this process, unless this process is the driver
        of a job on a cluster, where the worker belongs on a node with the right hardware."""
        return attached or self._settings.loop.worker_range != (1, 1) or self.summary.needs_ray

    def demand(self, have: Resources) -> Demand:
        """Return the resources that the training needs, of the available ones `have`."""
        loop = self._settings.loop
        data_cpus = 1.0 if self.summary.needs_ray else 0.0
        gpu = self.recipe.can_use_gpu and use_gpu(self._settings.device, have.gpus)
        cpus = loop.cpus_per_worker
        if cpus is None:
            # An equal share of a node's CPUs, rounded down to halves, so that the workers fit their nodes.
            workers_per_node = -(-loop.worker_range[1] // have.nodes)
            cpus = max(0.5, (have.cpus / have.nodes - data_cpus) / workers_per_node // 0.5 * 0.5)
            if data_cpus and gpu:
                cpus = min(cpus, 2.0)  # the worker of a GPU mostly waits; other CPUs decode for it
        return Demand(loop.worker_range, cpus, float(gpu), data_cpus, wait_minutes=loop.wait_minutes)

    def run(self, display: Display, have: Resources, attached: bool) -> TrainingOutcome:
        """Train to the end, or resume the run of that name.

        Raises:
            GenrayError: see `Loop.train`; RunError if the run cannot be used.
        """
        began = time.monotonic()
        run = self.training_run
        if not attached:
            self._check_memory()
        with run.locked(display.note):
            changes = run.adopt(self.record, {"target": self.target, **self.summary.record})
            for change in changes:
                display.note(f"setting changed: {change}")
            outcome = run.read_outcome()
            is_finished = outcome is not None and outcome.epochs >= self._settings.loop.epochs
            if outcome is not None and is_finished and not change_judgement(changes):
                display.note(f"the run {run.name} is finished already; give another --name for a new one")
                self._check_better(outcome)
                return outcome
            self._clear_leftovers()
            display.note(f"run: {run.location}")
            with stop_on_signals(run.stop_requested, partial(ask_to_stop, run, display)):
                metrics = self._fit(display, self.demand(have), attached=attached)
            check_left(run, metrics)
            outcome = TrainingOutcome(
                target=self.target,
                name=run.name,
                run=run.location,
                bundle=run.place(run.bundle),
                metrics=metrics,
                headline=self.recipe.headline,
                sample=self.recipe.sample,
                seconds=round(time.monotonic() - began, 2),
                set_aside=len(run.read_set_aside()),
                not_read=self.summary.counts.unread_text,
                epochs=self._settings.loop.epochs,
            )
            run.write_outcome(outcome)
            write_report(run)
            run.publish()
        self._check_better(outcome)
        return outcome

    def _check_better(self, outcome: TrainingOutcome) -> None:
        """Raise if a model is required that is better than doing nothing, and this one is not."""
        verdict = outcome.metrics.verdict
        if self._settings.eval.require_better and (verdict is None or verdict.is_worse):
            raise TrainingError(
                verdict.text if verdict else "the data has nothing to compare the model with",
                where=f"run {outcome.name}",
                hint=f"see {below(self.folder, 'report.html')}; the bundle was written all the same",
            )

    def _clear_leftovers(self) -> None:
        """Delete the previous end of the run, and list the inputs that are set aside."""
        run = self.training_run
        run.remove(run.outcome)
        run.clear_stop()
        run.clear_failure()
        for bad in self.summary.bad:
            run.add_set_aside(bad)
        run.publish()

    def _fit(self, display: Display, demand: Demand, *, attached: bool) -> FinalMetrics:
        """Run the loop through Ray Train: in this process, without starting Ray, or in a group of workers."""
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        if not attached:
            # A process that looks whether a cluster's nodes are about to be taken away.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        run = self.training_run
        with tempfile.TemporaryDirectory(prefix="genray-train-") as storage:
            if demand.workers == (1, 1) and not attached:
                gpu = demand.gpus_per_worker > 0
                work = partial(train_here, self.recipe, run, display, gpu=gpu, tick_seconds=self.tick_seconds)
                value = self._trainer(work, 0, demand, storage).fit().return_value
            else:
                fewest, most = demand.workers
                workers = most if fewest == most else (fewest, most)
                with written_proof(run) as token:
                    in_worker = partial(train_in_worker, self._worker_task(demand, token))
                    trainer = self._trainer(in_worker, workers, demand, storage)
                    value = fit_workers(trainer.fit, run, display).return_value
                run.refresh()
        if isinstance(value, GenrayError):
            raise value
        metrics: FinalMetrics = value
        return metrics

    def _trainer(
        self, work: Callable[[], Any], workers: int | tuple[int, int], demand: Demand, storage: str
    ) -> Any:
        """Return Ray's trainer of `work`; 0 workers: it runs in this process. `storage` is a folder that Ray
        asks for: checkpoints lie in the run."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from jobs.training.process_group import NodeTorchConfig

        # Ray's types lack returned values and elastic groups.
        make_trainer: Any = TorchTrainer
        make_scaling: Any = ScalingConfig
        gpu = demand.gpus_per_worker > 0
        return make_trainer(
            work,
            torch_config=NodeTorchConfig(),
            scaling_config=make_scaling(
                num_workers=workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": demand.cpus_per_worker, **({"GPU": 1} if gpu else {})},
            ),
            run_config=RunConfig(
                name=self.training_run.name,
                storage_path=storage,
                failure_config=FailureConfig(max_failures=self._settings.loop.max_restarts),
            ),
        )

    def _worker_task(self, demand: Demand, token: str) -> WorkerTask:
        recipe_class = type(self.recipe)
        return WorkerTask(
            recipe=f"{recipe_class.__module__}:{recipe_class.__qualname__}",
            settings=self._settings.model_dump(mode="json"),
            run=self.training_run.location,
            proof=token,
            gpu=demand.gpus_per_worker > 0,
            cpus=demand.cpus_per_worker,
            data=dict(self.summary.data),
            tick_seconds=self.tick_seconds,
        )


def ask_to_stop(run: Run, display: Display) -> None:
    """Ask `run` to stop, and show a note."""
    run.request_stop()
    display.note("stopping after this step, with a checkpoint (press Ctrl-C again to stop at once)")
