import pytest
import torch
from torch import nn

from genray.models.registry import NetworkSpec
from genray.models.summary import NetworkSummary

NETWORKS = {
    "autoencoder-dense": ({"shape": [1, 28, 28]}, (1, 28, 28)),
    "autoencoder-conv": ({"shape": [3, 40, 64]}, (3, 40, 64)),
    "autoencoder-vae": ({"shape": [1, 28, 28]}, (1, 28, 28)),
    "autoencoder-improved": ({"shape": [1, 28, 28]}, (1, 28, 28)),
    "restorer-unet": ({"channels": 3}, (3, 32, 32)),
    "restorer-nafnet": ({"channels": 1}, (1, 32, 32)),
    "restorer-conv": ({"channels": 1}, (1, 32, 32)),
    "beats-conv": ({"samples": 140}, (1, 140)),
    "unet": ({"in_channels": 3, "out_channels": 3, "size": 64}, (3, 64, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_of_a_network_is_in_a_layer_with_a_shape(name: str) -> None:
    arguments, shape = NETWORKS[name]
    with torch.device("meta"):
        network = NetworkSpec(name, {**arguments, "settings": {}}).build().train()
        summary = NetworkSummary.of(network, [torch.empty(2, *shape)])
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    assert all(layer.output for layer in summary.layers)
    assert summary.saved_bytes > 0


def test_a_layer_is_described_by_what_sets_it_apart() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    summary = NetworkSummary.of(network, [torch.zeros(2, 3, 8, 8)])
    assert [(layer.kind, layer.output_text, layer.parameters) for layer in summary.layers] == [
        ("Conv2d 3 to 8, 3x3, stride 2", "4 x 4 x 8", 224),
        ("ReLU", "4 x 4 x 8", 0),
        ("Flatten", "128", 0),
        ("Linear 128 to 5", "5", 645),
    ]


def test_the_saved_bytes_are_those_of_the_features() -> None:
    # A linear layer keeps its input, a ReLU its output; the last layer's input is that output.
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 1))
    assert NetworkSummary.of(network, [torch.zeros(4, 10)]).saved_bytes == 4 * 4 * (10 + 20)


def test_without_inputs_only_the_layers_with_parameters_are_known() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    summary = NetworkSummary.of(network)
    assert [(layer.name, layer.output_text) for layer in summary.layers] == [("0", "-")]
    assert summary.parameters == 10
