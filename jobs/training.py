"""A training target: checks everything first, then runs the loop here or in a group of Ray workers."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Generic, TypeVar

from genray.errors import DataError, Diverged, GenrayError, Interrupted, TrainingError
from genray.progress import Display, FileDisplay, FileFollower
from genray.resources import Demand, Resources
from genray.settings import flatten
from jobs.device import open_device, use_gpu
from jobs.loop_settings import MAY_CHANGE, TrainSettings
from jobs.recipe import Recipe
from jobs.run import Run

S = TypeVar("S", bound=TrainSettings)


class Training(Generic[S]):
    """What the command needs of a training target."""

    def __init__(self, recipe: type[Recipe[S]]) -> None:
        self._recipe = recipe
        self.settings_class = recipe.settings_class

    def prepare(self, settings: S, target: str, note: Callable[[str], None]) -> PreparedTraining:
        """Open the data and find everything that is wrong with it and the settings.

        Raises:
            UsageError: the training cannot work.
        """
        return PreparedTraining(self._recipe(settings), target, note)


class PreparedTraining:
    """A training that has been checked and can be run."""

    def __init__(self, recipe: Recipe[Any], target: str, note: Callable[[str], None]) -> None:
        self._recipe = recipe
        self._target = target
        self._settings: TrainSettings = recipe.settings
        Run.named(self._settings.runs, None, target)  # is it a folder?
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
        cpus, gpu = self._settings.loop.cpus_per_worker, use_gpu(self._settings.device, have.gpus)
        if cpus is None:
            # An equal part of a node's CPUs, in halves, so that the workers fit their nodes.
            beside = -(-most // have.nodes)
            cpus = max(0.5, (have.cpus / have.nodes - data_cpus) / beside // 0.5 * 0.5)
            if data_cpus and gpu:
                cpus = min(cpus, 2.0)  # a GPU's worker mostly waits; the others decode for it
        return Demand((fewest, most), cpus, float(gpu), data_cpus)

    def run(self, name: str | None, display: Display, have: Resources, attached: bool) -> dict[str, Any]:
        """Train, or go on with the run of that name, to the end.

        Returns:
            The outcome: target, name, run (folder), bundle, metrics, seconds, set_aside, epochs.

        Raises:
            GenrayError: see `Loop.train`; RunError if the run cannot be used.
        """
        began = time.monotonic()
        run = Run.named(self._settings.runs, name, self._target)
        with run.locked():
            record = {**flatten(self._settings), "target": self._target, **self._summary.data}
            changes = run.adopt(record, flatten(type(self._settings)()), MAY_CHANGE)
            for change in changes:
                display.note(f"changed: {change}")
            outcome = run.read_outcome()
            same = not any(change.startswith(("loop.weights:", "loop.samples:")) for change in changes)
            if outcome is not None and outcome["epochs"] >= self._settings.loop.epochs and same:
                display.note(f"{run.name} is finished already")
                return outcome
            run.outcome.unlink(missing_ok=True)
            run.clear_stop()
            run.clear_failure()
            for bad in self._summary.bad:
                run.add_set_aside(bad)
            display.note(f"run: {run.folder}")
            with _stoppable(run, display):
                metrics = self._train(run, display, self.demand(have), attached)
            outcome = {
                "target": self._target,
                "name": run.name,
                "run": str(run.folder),
                "bundle": str(run.bundle),
                "metrics": metrics,
                "seconds": round(time.monotonic() - began, 2),
                "set_aside": len(run.read_set_aside()),
                "epochs": self._settings.loop.epochs,
            }
            run.write_outcome(outcome)
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
            partial(_train_here, self._recipe, run, display, gpu)
            if here
            else partial(_train_in_worker, config)
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
        result = trainer.fit() if here else _fit_beside(trainer.fit, run, display)
        value: Mapping[str, Any] = result.return_value
        if "error" in value:
            raise value["error"]
        return dict(value["metrics"])


def _train_here(recipe: Recipe[Any], run: Run, display: Display, gpu: bool) -> dict[str, Any]:
    from jobs.loop import Loop

    device = open_device(recipe.settings.device, gpu=gpu)
    with _memory_errors():
        return {"metrics": Loop(recipe, recipe.open(display.note), run, device, display).train()}


def _train_in_worker(config: Mapping[str, Any]) -> dict[str, Any]:
    """The function of a Ray Train worker.

    An error that all workers raise together is returned: after a raised one Ray would start them again,
    and it would come again. An error of one worker alone is left in the run's folder and raised, so that
    Ray stops the others, which wait for it; started again, they all find it and return it.
    """
    from pathlib import Path

    from ray.train.torch import get_device, prepare_model

    from jobs.loop import Loop

    module, name = config["recipe"].split(":")
    recipe_class: type[Recipe[Any]] = getattr(importlib.import_module(module), name)
    recipe = recipe_class(recipe_class.settings_class.model_validate(config["settings"]))
    run = Run(Path(config["folder"]))
    if failure := run.read_failure():
        return {"error": failure}
    display = FileDisplay(run.folder)
    index = get_device().index or 0 if config["gpu"] else 0
    device = open_device(recipe.settings.device, gpu=config["gpu"], index=index, cpus=config["cpus"])
    try:
        with _memory_errors():
            summary = recipe.open(lambda text: None)
            if dict(summary.data) != config["data"]:
                raise TrainingError(
                    f"a worker sees other data ({dict(summary.data)}) than where it was submitted "
                    f"({config['data']})",
                    hint="data.path must be the same, readable and unchanged on every node",
                )
            loop = Loop(
                recipe, summary, run, device, display, lambda net: prepare_model(net, move_to_device=False)
            )
            return {"metrics": loop.train()}
    except GenrayError as error:
        if error.agreed or isinstance(error, Diverged | Interrupted):
            return {"error": error}
        run.write_failure(error)
        raise


def _fit_beside(fit: Callable[[], Any], run: Run, display: Display) -> Any:
    """Run `fit` in a thread while this one shows progress and takes signals: Ray would take them."""
    from ray.train import TrainingFailedError

    results: list[Any] = []

    def work() -> None:
        try:
            results.append(fit())
        except BaseException as error:  # handed to the caller's thread
            results.append(error)

    (run.folder / "progress.json").unlink(missing_ok=True)
    follower = FileFollower(run.folder, display)
    thread = threading.Thread(target=work, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.3)
        follower.poll()
    follower.poll()
    if isinstance(results[0], TrainingFailedError):
        raise TrainingError(
            f"the workers failed {_root(results[0])}",
            where=str(run.folder),
            hint=f"the last checkpoint is whole; the same command with --name {run.name} goes on from it",
        ) from results[0]
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _root(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, first = next(iter(failures.items()))
        return f"(rank {rank}): {str(first).strip().splitlines()[-1]}"
    return f": {str(error).strip().splitlines()[-1]}"


@contextmanager
def _memory_errors() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is full: {str(error).splitlines()[0]}",
            hint="lower loop.batch_size (loop.accumulate keeps the step's size), or data.size",
        ) from error


@contextmanager
def _stoppable(run: Run, display: Display) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to stop; the second ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if run.stop_requested():
            raise KeyboardInterrupt
        run.request_stop()
        display.note("stopping after this step, with a checkpoint (once more: stop at once)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
