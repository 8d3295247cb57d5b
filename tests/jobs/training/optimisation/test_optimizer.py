import pytest
import torch
from torch import nn

from jobs.training.checkpoint import collect, restore_optimizer
from jobs.training.optimisation.optimizer import AdamSettings, WidthScaledAdamSettings


def change_by_one_step(inputs: int, settings: AdamSettings) -> float:
    """Mean change of the outputs of a layer of that many inputs, by one step."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, 4)
    batch = torch.rand(8, inputs)
    optimizer = settings.make(layer, fused=True)
    before = layer(batch)
    before.square().mean().backward()
    optimizer.param_groups[0]["lr"] *= optimizer.param_groups[0]["scale"]  # as the loop does
    optimizer.step()
    return float((layer(batch) - before).detach().abs().mean())


def test_a_step_changes_the_outputs_of_layers_of_every_width_alike() -> None:
    settings = WidthScaledAdamSettings(full_rate_inputs=256)
    changes = [change_by_one_step(inputs, settings) for inputs in (256, 2048, 32768)]
    assert changes == pytest.approx([changes[0]] * 3, rel=0.3)


def test_without_scaling_wider_layers_change_more() -> None:
    narrow, wide = (
        change_by_one_step(inputs, WidthScaledAdamSettings(full_rate_inputs=None)) for inputs in (256, 32768)
    )
    assert wide > 50 * narrow


def test_layers_up_to_the_limit_get_the_whole_rate() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 2))
    (group,) = WidthScaledAdamSettings().groups(network)
    assert group["scale"] == 1.0


def test_a_checkpoint_of_the_whole_rate_fits_scaled_groups() -> None:
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 4))
    before = AdamSettings().make(network, fused=False)
    network(torch.rand(8, 4)).sum().backward()
    before.step()
    saved = collect({}, {}, {"net": before}, {}).part("opt", "net")

    after = WidthScaledAdamSettings(full_rate_inputs=16).make(network, fused=False)
    assert len(after.param_groups) > 1
    restore_optimizer(after, saved)
    assert [tuple(after.state[p]["exp_avg"].shape) for p in network.parameters()] == [
        tuple(p.shape) for p in network.parameters()
    ]
