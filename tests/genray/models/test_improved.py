from math import prod

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genray.models.improved import ImprovedAutoencoder, ImprovedSettings, ResidualBlock, cosine_basis
from genray.models.parts.layers import parameter_count


def test_the_default_has_the_parameters_that_its_docstring_counts() -> None:
    with torch.device("meta"):
        assert parameter_count(ImprovedAutoencoder((1, 28, 28), ImprovedSettings())) == 1_798_529


def test_the_default_costs_less_than_ten_million_multiplications() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = ImprovedAutoencoder((1, 28, 28), ImprovedSettings()).eval()
        image = torch.empty(1, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2 < 10e6


def test_a_new_block_passes_its_input_on_and_still_learns() -> None:
    block = ResidualBlock(6)
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    last = [m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    assert last.weight.grad is not None
    assert float(last.weight.grad.abs().min()) > 0.0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)])
def test_cosines_are_orthonormal_and_the_slow_ones_come_first(shape: tuple[int, int, int]) -> None:
    waves = cosine_basis(shape, 10_000)
    assert waves.shape == (prod(shape), prod(shape))
    # Each value is a product of three rounded factors, rounded: off by 4 * 2^-24 of itself at most, so that a
    # product of two waves, whose squares add up to 1, is off by twice that.
    wide = waves.astype(np.float64)
    np.testing.assert_allclose(wide @ wide.T, np.eye(len(waves)), atol=8.5 * 2.0**-24)
    assert np.ptp(waves[0]) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_array_equal(cosine_basis(shape, 5), waves[:5])


@pytest.mark.parametrize("latent", [40, 1000])
def test_a_new_network_already_gives_a_smooth_image_back(latent: int) -> None:
    torch.manual_seed(0)
    network = ImprovedAutoencoder((3, 13, 16), ImprovedSettings(filters=(4, 8), latent=latent)).eval()
    coarse = 0.3 + 0.4 * torch.rand(2, 1, 3, 3).expand(-1, 3, -1, -1)
    smooth = F.interpolate(coarse, (13, 16), mode="bilinear", align_corners=True)
    assert network(smooth).sub(smooth).square().mean() < 0.02 * smooth.var()


def test_the_linear_part_alone_is_a_linear_autoencoder() -> None:
    network = ImprovedAutoencoder((1, 8, 8), ImprovedSettings(filters=(4,), latent=6)).eval().double()
    for name, parameter in network.named_parameters():
        if ".linear." not in name:
            torch.nn.init.zeros_(parameter)
    batch = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    encode, decode = (p for n, p in network.named_parameters() if ".linear." in n)
    torch.testing.assert_close(network.encode(batch), batch.flatten(1) @ encode.T)
    expected = torch.sigmoid(batch.flatten(1) @ encode.T @ decode.T).reshape(batch.shape)
    torch.testing.assert_close(network(batch), expected)


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = ImprovedAutoencoder((1, 8, 8), ImprovedSettings(filters=(4, 8), latent=6, dropout=0.5))
    torch.nn.init.ones_(network.encoder.get_parameter("layers.10.weight"))  # zero hides what was dropped
    batch = torch.rand(4, 1, 8, 8)
    assert not torch.equal(network.encode(batch), network.encode(batch))
    network.eval()
    assert torch.equal(network.encode(batch), network.encode(batch))


@pytest.mark.parametrize("blocks", [0, 2])
def test_every_parameter_learns(blocks: int) -> None:
    torch.manual_seed(0)
    network = ImprovedAutoencoder((3, 9, 9), ImprovedSettings(filters=(4, 8), latent=6, blocks=blocks))
    batch = torch.rand(4, 3, 9, 9)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(3):  # what is behind a layer that begins at zero learns a step later
        optimizer.zero_grad()
        network(batch).sub(batch).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
