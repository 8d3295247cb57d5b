import pytest
import torch

from genray.models.beats import ConvBeatAutoencoder, ConvBeatSettings
from genray.models.layers import parameter_count
from genray.models.registry import NetworkSpec


def test_the_default_has_the_parameters_that_its_docstring_counts() -> None:
    assert parameter_count(ConvBeatAutoencoder(140, ConvBeatSettings())) == 46_241


@pytest.mark.parametrize("samples", [16, 137, 140])
@pytest.mark.parametrize("filters", [(4,), (4, 6, 8)])
def test_any_length_comes_out_as_it_went_in(samples: int, filters: tuple[int, ...]) -> None:
    network = ConvBeatAutoencoder(samples, ConvBeatSettings(filters=filters, latent=5))
    beats = torch.randn(3, 1, samples)
    assert network.encode(beats).shape == (3, 5)
    assert network(beats).shape == beats.shape


def test_it_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    settings = {"kind": "conv", "latent": 4, "filters": [8]}
    network = NetworkSpec("beats-conv", {"samples": 32, "settings": settings}).build()
    phase = torch.rand(64, 1, 1) * 6.28
    beats = torch.sin(torch.linspace(0, 6.28, 32) + phase)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        loss = (network(beats) - beats).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
