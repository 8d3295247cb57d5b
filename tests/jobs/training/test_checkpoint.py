from pathlib import Path

import pytest
import torch
from torch import nn

from genray.errors import TrainingError
from jobs.training import checkpoint
from jobs.training.optimisation.optimizer import OptimizerSettings


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = OptimizerSettings().make(network, fused=True)
    step(network, optimizer)
    return network, optimizer


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(9)
    optimizer.zero_grad()
    network(torch.randn(2, 1, 8, 8)).square().mean().backward()
    optimizer.step()


def test_network_and_optimizer_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    network, optimizer = trained(seed=0)
    file = tmp_path / "last.safetensors"
    checkpoint.write(file, checkpoint.collect({"g": network}, {}, {"g": optimizer}, {"epoch": 3}))
    other, other_optimizer = trained(seed=1)
    saved = checkpoint.read(file)
    assert saved is not None
    assert saved.state == {"epoch": 3}
    other.load_state_dict(saved.part("net", "g"))
    checkpoint.restore_optimizer(other_optimizer, saved.part("opt", "g"))
    step(network, optimizer)
    step(other, other_optimizer)
    pairs = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_no_checkpoint_is_none_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    file = tmp_path / "last.safetensors"
    assert checkpoint.read(file) is None
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="the checkpoint is damaged") as caught:
        checkpoint.read(file)
    assert str(file) in str(caught.value)
