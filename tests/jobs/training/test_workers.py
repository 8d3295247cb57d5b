"""What the workers of a group agree on, in a real group of two."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle

from genray.errors import GenrayError, StorageFull
from jobs.training.workers import TrainingWorker


def in_group(config: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch of one step, then compare everything that the two workers hold."""
    from ray.train.torch import prepare_model

    from genray.progress import FileDisplay
    from jobs.runs.run import Run
    from jobs.train_pix2pix import Pix2Pix, TrainPix2PixSettings
    from jobs.training.device import open_device
    from jobs.training.loop import Loop

    recipe = Pix2Pix(TrainPix2PixSettings.model_validate(config["settings"]))
    recipe.open(lambda text: None)
    run = Run(Path(config["folder"]))
    device = open_device(recipe.settings.device, gpu=False)
    loop = Loop.begin(
        recipe,
        run,
        device,
        FileDisplay(run.folder),
        wrap=lambda network: prepare_model(network, move_to_device=False),
    )
    before = [p.detach().clone() for net in loop.state.networks.values() for p in net.parameters()]
    loop.train()
    after = [p.detach() for net in loop.state.networks.values() for p in net.parameters()]
    worker = TrainingWorker(torch.device("cpu"))
    both = worker.gather([after])

    def fails(check: Callable[[], Any]) -> str:
        try:
            check()
        except GenrayError as error:
            return f"{type(error).__name__} {error.agreed}"
        return "no error"

    def full_disk() -> None:
        raise StorageFull("no room")

    return {
        "steps": loop.state.position.step,
        "moved": any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)),
        "equal": all(torch.equal(a, b) for a, b in zip(*both, strict=True)),
        "max": worker.max(worker.rank, 5 - worker.rank),
        "sum": worker.sum(torch.tensor([1.0 + worker.rank])).tolist(),
        "gathered": worker.gather([worker.rank]),
        "same": fails(lambda: worker.check_same("one data set")),
        "different": worker.gather([fails(lambda: worker.check_same(worker.rank))]),
        "leader": worker.gather([fails(lambda: worker.on_leader(full_disk))]),
    }


@pytest.mark.usefixtures("embedded_ray")
def test_two_workers_hold_equal_weights_after_a_step_and_fail_together(
    settings: Callable[..., Any], tmp_path: Path
) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "a").mkdir()
    chosen = settings("loop.epochs=1", "loop.batch_size=6")
    trainer: Any = TorchTrainer(
        in_group,  # type: ignore[arg-type]
        train_loop_config={"settings": chosen.model_dump(mode="json"), "folder": str(tmp_path / "a")},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="a", storage_path=str(tmp_path / "ray")),
    )
    assert trainer.fit().return_value == {
        "steps": 1,
        "moved": True,
        "equal": True,
        "max": [1, 5],
        "sum": [3.0],
        "gathered": [0, 1],
        "same": "no error",
        "different": ["TrainingError True", "TrainingError True"],
        "leader": ["StorageFull True", "StorageFull True"],
    }


def test_alone_there_is_nothing_to_agree_on() -> None:
    worker = TrainingWorker(torch.device("cpu"))
    assert worker.is_leader
    assert worker.max(3, 4) == [3, 4]
    assert worker.gather(["a"]) == ["a"]
    worker.check_same("anything")
