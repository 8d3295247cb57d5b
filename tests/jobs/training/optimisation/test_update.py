import pytest
import torch
from torch import nn

from jobs.training.optimisation.update import (
    GradientUpdater,
    is_averaging_step,
    moving_average,
)


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 1, dtype=torch.float64)


def updater_of(accumulate: int = 1, clip: float | None = None, **networks: nn.Module) -> GradientUpdater:
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in networks.items()}
    return GradientUpdater(networks, optimizers, accumulate=accumulate, clip=clip)


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    inputs = torch.randn(4, 3, dtype=torch.float64)
    whole, parts = linear(), linear()
    updater = updater_of(net=whole)
    with updater.batch(0):
        updater.update("net", whole(inputs).square().mean())
    updater = updater_of(accumulate=2, net=parts)
    for index in range(2):
        before = parts.weight.detach().clone()
        with updater.batch(index) as applies:
            updater.update("net", parts(inputs[2 * index : 2 * index + 2]).square().mean())
        assert applies == (index == 1)
        assert torch.equal(parts.weight, before) != applies
    # Each is a sum of a dozen products of numbers below 10, in float64.
    assert torch.allclose(whole.weight, parts.weight, rtol=0, atol=1e-12)


def test_a_frozen_network_passes_gradients_and_keeps_none() -> None:
    first, judge = linear(), nn.Linear(1, 1, dtype=torch.float64)
    updater = updater_of(first=first, judge=judge)
    before = first.weight.detach().clone()
    with updater.batch(0):
        output = first(torch.ones(1, 3, dtype=torch.float64))
        with updater.frozen("judge") as frozen:
            loss = frozen(output).sum()
        updater.update("first", loss)
    assert not torch.equal(first.weight, before)
    assert judge.weight.grad is None
    assert all(p.requires_grad for p in judge.parameters())


def test_clipping_bounds_the_gradient_of_a_step() -> None:
    network = linear()
    before = network.weight.detach().clone()
    updater = updater_of(clip=0.5, net=network)
    with updater.batch(0):
        updater.update("net", 1000 * network(torch.ones(1, 3, dtype=torch.float64)).sum())
    assert float((network.weight.detach() - before).norm()) <= 0.1 * 0.5 + 1e-12


def test_a_moving_average_follows_at_once_and_slowly_later() -> None:
    average = [torch.zeros(1, dtype=torch.float64)]
    value = [torch.ones(1, dtype=torch.float64)]
    moving_average(0.99)(average, value, 1)
    assert float(average[0]) == pytest.approx(1 - 2 / 11)
    average = [torch.zeros(1, dtype=torch.float64)]
    moving_average(0.99)(average, value, 10_000)
    assert float(average[0]) == pytest.approx(1 - 0.99**8), "eight steps at once"
    assert [step for step in range(30, 60) if is_averaging_step(step)] == [30, 31, 32, 40, 48, 56]
