"""The two places where a loop runs: in this process, and in each worker of a Ray Train group."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from genray.errors import Diverged, GenrayError, Interrupted, TrainingError
from genray.progress import Display
from jobs.runs.outcome import FinalMetrics
from jobs.runs.progress import RunDisplay, RunFollower
from jobs.runs.run import Run
from jobs.runs.sharing import unseen_error, unseen_here
from jobs.training.device import open_device
from jobs.training.recipe import Recipe
from jobs.training.workers import TrainingWorker

T = TypeVar("T")

_POLL_SECONDS = 0.3  # seconds between reads of the progress that other processes write


@dataclass(frozen=True)
class WorkerTask:
    """The task of a worker: plain values that Ray can pickle.

    Attributes:
        recipe: class of the recipe, as "module:name".
        settings: settings of the recipe, as JSON.
        run: folder or URI of the run.
        proof: text that the driver wrote to the run, see `jobs.runs.sharing`.
        gpu: whether to train on a GPU.
        cpus: CPUs that the worker may use.
        data: facts of the data, found where the training was submitted.
        tick_seconds: seconds between updates of the progress.
    """

    recipe: str
    settings: Mapping[str, Any]
    run: str
    proof: str
    gpu: bool
    cpus: float
    data: Mapping[str, Any]
    tick_seconds: float

    def make_recipe(self) -> Recipe[Any]:
        """Return the recipe, whose data is not open yet."""
        module, name = self.recipe.split(":")
        recipe_class: type[Recipe[Any]] = getattr(importlib.import_module(module), name)
        return recipe_class(recipe_class.settings_class.model_validate(self.settings))


def train_here(
    recipe: Recipe[Any], run: Run, display: Display, *, gpu: bool, tick_seconds: float
) -> FinalMetrics:
    """Train in this process; returns the metrics of the bundle's weights."""
    from jobs.training.loop import Loop

    device = open_device(
        recipe.settings.device,
        gpu=gpu,
        last_on_cpu=recipe.channels_last_on_cpu,
        bf16_on_cpu=recipe.bf16_on_cpu,
    )
    with _memory_errors():
        recipe.open(display.note)
        return Loop.begin(recipe, run, device, display, tick_seconds=tick_seconds).train()


def train_in_worker(task: WorkerTask) -> FinalMetrics | GenrayError:
    """Train as a Ray Train worker; returns the metrics of the bundle's weights, or an error.

    First each worker proves that it sees the run that the driver writes: otherwise nothing would be left of
    the training. An error that all workers raise together is returned: if it were raised, Ray would restart
    the workers, and it would occur again. An error of one worker is written to the run's folder and raised,
    so that Ray stops the others, which wait for it; after the restart all workers find it and return it.
    """
    from ray.train.torch import get_device, prepare_model

    from jobs.training.loop import Loop

    recipe = task.make_recipe()
    run = Run.at(task.run)
    device = open_device(
        recipe.settings.device,
        gpu=task.gpu,
        index=get_device().index or 0 if task.gpu else 0,
        cpus=task.cpus,
        last_on_cpu=recipe.channels_last_on_cpu,
        bf16_on_cpu=recipe.bf16_on_cpu,
    )
    worker = TrainingWorker(device.where)
    unseen = unseen_here(run, task.proof)
    if problems := worker.gather([unseen] if unseen else []):
        return unseen_error(run, problems)
    try:
        run.refresh()
        if failure := run.read_failure():
            return failure
        with _memory_errors():
            data = dict(recipe.open(lambda text: None).data)
            if data != task.data:
                raise TrainingError(
                    f"the data of a worker ({data}) differs from the data where the training was "
                    f"submitted ({task.data})",
                    hint="data.path must be the same, readable and unchanged on every node",
                )
            loop = Loop.begin(
                recipe,
                run,
                device,
                RunDisplay(run),
                wrap=lambda network: prepare_model(network, move_to_device=False),
                tick_seconds=task.tick_seconds,
            )
            return loop.train()
    except GenrayError as error:
        if error.agreed or isinstance(error, Diverged | Interrupted):
            return error
        run.write_failure(error)
        raise
    finally:
        run.discard_copy()


def fit_workers(fit: Callable[[], T], run: Run, display: Display) -> T:
    """Run Ray Train's `fit` while this thread shows the progress that the workers write to the run's folder.

    Raises:
        TrainingError: the workers failed after every restart.
    """
    from ray.train import TrainingFailedError

    follower = RunFollower.begin(run, display)
    try:
        result = run_beside(fit, follower.poll, thread_name="ray-train")
        follower.poll(at_once=True)
        return result
    except TrainingFailedError as error:
        again = f"the same command with --name {run.name}"
        raise TrainingError(
            f"the workers failed {_root_cause(error)}",
            where=run.location,
            hint=f"the last checkpoint is intact; {again} resumes from it"
            if run.has_checkpoint()
            else f"there is no checkpoint yet; {again} begins again",
        ) from error


def run_beside(work: Callable[[], T], poll: Callable[[], None], *, thread_name: str) -> T:
    """Run `work` in a thread, and `poll` in this one, so that signals reach us and not Ray."""
    results: list[T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=attempt, name=thread_name, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        poll()
    poll()
    if errors:
        raise errors[0]
    return results[0]


def _root_cause(error: BaseException) -> str:
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
            f"the GPU's memory is full ({str(error).splitlines()[0]})",
            hint=("lower loop.batch_size (raise loop.accumulate to keep the size of a step), or data.size"),
        ) from error
