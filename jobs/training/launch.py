"""The two places where a loop runs: in this process, and in each worker of a Ray Train group."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genray.errors import Diverged, GenrayError, Interrupted, TrainingError
from genray.progress import Display, FileDisplay, FileFollower
from jobs.runs.run import Run
from jobs.training.device import open_device
from jobs.training.recipe import Recipe


def train_here(recipe: Recipe[Any], run: Run, display: Display, gpu: bool) -> dict[str, Any]:
    """Train in this process; returns the metrics as {"metrics": ...}."""
    from jobs.training.loop import Loop

    device = open_device(recipe.settings.device, gpu=gpu, last_on_cpu=recipe.channels_last_on_cpu)
    with _memory_errors():
        return {"metrics": Loop(recipe, recipe.open(display.note), run, device, display).train()}


def train_in_worker(config: Mapping[str, Any]) -> dict[str, Any]:
    """The function of a Ray Train worker.

    An error that all workers raise together is returned: after a raised one Ray would start them again,
    and it would come again. An error of one worker alone is left in the run's folder and raised, so that
    Ray stops the others, which wait for it; started again, they all find it and return it.
    """
    from ray.train.torch import get_device, prepare_model

    from jobs.training.loop import Loop

    module, name = config["recipe"].split(":")
    recipe_class: type[Recipe[Any]] = getattr(importlib.import_module(module), name)
    recipe = recipe_class(recipe_class.settings_class.model_validate(config["settings"]))
    run = Run(Path(config["folder"]))
    if failure := run.read_failure():
        return {"error": failure}
    display = FileDisplay(run.folder)
    index = get_device().index or 0 if config["gpu"] else 0
    device = open_device(
        recipe.settings.device,
        gpu=config["gpu"],
        index=index,
        cpus=config["cpus"],
        last_on_cpu=recipe.channels_last_on_cpu,
    )
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


def fit_beside(fit: Callable[[], Any], run: Run, display: Display) -> Any:
    """Run `fit` in a thread while this one shows progress and takes signals: Ray would take them."""
    from ray.train import TrainingFailedError

    results: list[Any] = []

    def work() -> None:
        try:
            results.append(fit())
        except BaseException as error:  # handed to the caller's thread
            results.append(error)

    (run.folder / "progress.json").unlink(missing_ok=True)
    follower = FileFollower.from_now(run.folder, display)
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
