import pytest
import torch
from torch import nn

from jobs.training.checks.health import DeadUnits, Health


def test_units_that_no_sample_activates_are_dead() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        for layer, biases in ((network[0], [-9.0, 9.0, 9.0, -9.0]), (network[2], [9.0, 9.0, 9.0])):
            nn.init.zeros_(layer.weight)
            layer.bias.copy_(torch.tensor(biases))
    with DeadUnits.watching({"net": network}) as units:
        network(torch.rand(5, 2))
    assert units.shares == {"1": 0.5, "3": 0.0}


def test_a_channel_lives_if_any_pixel_of_any_sample_does() -> None:
    network = nn.Sequential(nn.ReLU())
    features = torch.zeros(2, 4, 3, 3)
    features[1, 2, 0, 1] = 1.0
    with DeadUnits.watching({"net": network}) as units:
        network(features)
        network(torch.zeros(1, 4, 3, 3))
    assert units.shares == {"0": 0.75}


def test_nothing_is_counted_afterwards() -> None:
    network = nn.Sequential(nn.ReLU())
    with DeadUnits.watching({"net": network}) as units:
        network(torch.ones(1, 2))
    network(torch.zeros(1, 3))
    assert units.shares == {"0": 0.0}


@pytest.mark.parametrize("span", [(0.0, 1.0), (-1.0, 1.0)])
def test_outputs_at_an_end_are_stuck_only_where_they_are_wrong(span: tuple[float, float]) -> None:
    low, high = span
    outputs = torch.tensor([[low, high, (low + high) / 2, low]])
    targets = torch.tensor([[low, low, high, high]])
    health = Health.of(outputs, targets, span, {})
    assert health.stuck == 0.5
    (problem,) = health.problems(0.002).values()
    assert "50% of the output values" in problem
    assert "optimizer.learning_rate (now 0.002)" in problem


def test_a_healthy_network_has_no_problems() -> None:
    assert not Health(0.1, {"encoder.1": 0.2}).problems(0.001)
    assert "60% of the units of encoder.1" in Health(0.1, {"encoder.1": 0.6}).problems(0.001)["dead"]
