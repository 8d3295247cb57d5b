import pytest
import torch

from genray.models.beats import ConvBeatAutoencoder, ConvBeatSettings, DenseBeatAutoencoder, DenseBeatSettings
from genray.models.parts.layers import parameter_count
from genray.models.registry import NetworkSpec


def test_the_default_dense_one_has_the_parameters_that_its_docstring_counts() -> None:
    assert parameter_count(DenseBeatAutoencoder(140, DenseBeatSettings())) == 16 * 10_484


def test_the_layers_of_the_dense_one_are_those_of_the_tutorial() -> None:
    network = DenseBeatAutoencoder(140, DenseBeatSettings(members=1))
    shapes = [tuple(p.shape) for name, p in network.named_parameters() if "weight" in name]
    assert shapes == [(1, 140, 32), (1, 32, 16), (1, 16, 8), (1, 8, 16), (1, 16, 32), (1, 32, 140)]


def test_a_bundles_arguments_build_it() -> None:
    settings = {"kind": "dense", "latent": 3, "members": 2}
    network = NetworkSpec("beats-dense", {"samples": 100, "settings": settings}).build()
    beats = torch.randn(5, 1, 100)
    assert network(beats).shape == beats.shape
    assert network.encode(beats).shape == (5, 6)  # type: ignore[operator]


def test_members_know_nothing_of_each_other_and_their_mean_is_the_reconstruction() -> None:
    torch.manual_seed(0)
    network = DenseBeatAutoencoder(20, DenseBeatSettings(hidden=(8,), latent=2, members=3))
    beats = torch.randn(4, 1, 20)
    members = network(beats, by_member=True)
    torch.testing.assert_close(network(beats), members.mean(dim=0))
    members[1].square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad[1].any()
        assert not parameter.grad[[0, 2]].any()


def test_a_member_is_the_plain_network_of_its_weights() -> None:
    torch.manual_seed(0)
    network = DenseBeatAutoencoder(20, DenseBeatSettings(hidden=(8,), latent=2, members=2)).double()
    values = beats = torch.randn(4, 20, dtype=torch.float64)
    for half in (network.encoder, network.decoder):
        first, last = (half.get_submodule(name) for name in ("0", "2"))
        values = torch.relu(values @ first.weight[1] + first.bias[1]) @ last.weight[1] + last.bias[1]
    torch.testing.assert_close(network(beats[:, None], by_member=True)[1, :, 0], values)


@pytest.mark.parametrize("shape", [(5, 140), (5, 2, 140), (5, 1, 139)])
def test_beats_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"beats must be \(N, 1, 140\)"):
        DenseBeatAutoencoder(140, DenseBeatSettings())(torch.zeros(shape))


def test_codes_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes must be \(N, 128\)"):
        DenseBeatAutoencoder(140, DenseBeatSettings()).decode(torch.zeros(2, 7))


def test_the_default_convolutional_one_has_the_parameters_that_its_docstring_counts() -> None:
    assert parameter_count(ConvBeatAutoencoder(140, ConvBeatSettings())) == 46_241


@pytest.mark.parametrize("samples", [16, 137, 140])
@pytest.mark.parametrize("filters", [(4,), (4, 6, 8)])
def test_any_length_comes_out_as_it_went_in(samples: int, filters: tuple[int, ...]) -> None:
    network = ConvBeatAutoencoder(samples, ConvBeatSettings(filters=filters, latent=5))
    beats = torch.randn(3, 1, samples)
    assert network.encode(beats).shape == (3, 5)
    assert network(beats).shape == beats.shape


def test_the_convolutional_one_learns_to_reconstruct() -> None:
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
