from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from genray.progress import Display, LineDisplay
from genray.settings.load import load
from genray.targets import Resources, find_target
from jobs.runs.run import Run
from jobs.train_pix2pix import TARGET
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]


@pytest.fixture
def train(settings: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Train in this process, as `genray submit` would: `train("name", "loop.epochs=3", ...)`. A display
    sees every step."""

    def work(name: str, *more: str, display: Display | None = None) -> dict[str, Any]:
        prepared = TARGET.prepare(settings(*more), "train-pix2pix", name, lambda text: None)
        if display is not None:
            prepared = replace(prepared, tick_seconds=0.0)
        outcome = prepared.run(display or LineDisplay(), Resources(2, 0), attached=False)
        return outcome.as_json()

    return work


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    """All tensors of a run's last checkpoint."""
    return lambda name: load_file(tmp_path / "runs" / name / "checkpoints" / "last.safetensors")


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[[str], Run]:
    return lambda name: Run(tmp_path / "runs" / name)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether both hold the same tensors, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Train any target in this process: `submit("train-autoencoder", "name", "data.path=...", ...)`."""

    def work(target: str, name: str, *sets: str) -> dict[str, Any]:
        implementation = find_target(target).load()
        sure = (f"runs={tmp_path / 'runs'}", "device.gpu=false", "device.threads=1", "loop.samples=2")
        chosen = load(implementation.settings_class, target=target, sets=[*sure, *sets])
        prepared = implementation.prepare(chosen, target, name, lambda text: None)
        outcome: Any = prepared.run(LineDisplay(), Resources(2, 0), attached=False)
        return outcome.as_json()

    return work


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that this process computes with torch is float64, also what asks for float32 by `Tensor.float`.

    For comparisons of two computations that go on for several steps. Adam divides a gradient by its own size,
    so one that is zero but for rounding moves its weight by up to the whole learning rate: in float32 two
    right algorithms end apart, by how much depends on the CPU. In float64 rounding is far below Adam's eps.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
