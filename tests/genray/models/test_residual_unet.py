import pytest
import torch
from pydantic import ValidationError
from torch import nn

from genray.models.parts.layers import parameter_count
from genray.models.residual_unet import ConvBlock, ResidualUNet, ResidualUNetSettings
from genray.models.restorer import macs_per_pixel


def drawn(channels: int, settings: ResidualUNetSettings) -> ResidualUNet:
    """A network that takes something away, which a new one does not."""
    torch.manual_seed(0)
    network = ResidualUNet(channels, settings)
    nn.init.normal_(network.tail.weight, 0.0, 0.1)
    return network


@pytest.mark.parametrize(("channels", "parameters", "macs"), [(1, 1_042_688, 48_704), (3, 1_047_296, 49_856)])
def test_the_default_costs_what_its_docstring_says(channels: int, parameters: int, macs: float) -> None:
    with torch.device("meta"):
        network = ResidualUNet(channels, ResidualUNetSettings())
    assert parameter_count(network) == parameters
    assert macs_per_pixel(network, channels) == macs


def test_full_resolution_costs_about_four_times_as_much() -> None:
    with torch.device("meta"):
        half, full = (ResidualUNet(1, ResidualUNetSettings(shuffle=shuffle)) for shuffle in (2, 1))
    assert macs_per_pixel(full, 1) == pytest.approx(4 * macs_per_pixel(half, 1), rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (32, 40)])
def test_a_new_network_gives_the_image_itself(size: tuple[int, int]) -> None:
    batch = torch.randn(2, 3, *size)
    assert torch.equal(ResidualUNet(3, ResidualUNetSettings(widths=(4, 6)))(batch), batch)


@pytest.mark.parametrize("shuffle", [1, 2, 3])
@pytest.mark.parametrize("widths", [(6,), (4, 6), (4, 6, 8, 10)])
def test_it_works_at_any_depth_and_resolution(widths: tuple[int, ...], shuffle: int) -> None:
    network = drawn(1, ResidualUNetSettings(widths=widths, blocks=1, shuffle=shuffle))
    assert network.multiple == shuffle * 2 ** (len(widths) - 1)
    batch = torch.rand(1, 1, 19, 26)
    result = network(batch)
    assert result.shape == batch.shape
    assert not torch.allclose(result, batch, atol=1e-3)


def test_twice_the_image_gives_twice_the_result() -> None:
    network, batch = drawn(1, ResidualUNetSettings(widths=(6, 8))), torch.rand(2, 1, 13, 16)
    with torch.inference_mode():
        torch.testing.assert_close(network(2.0 * batch), 2.0 * network(batch))


def test_padding_is_felt_near_the_edge_only() -> None:
    network = drawn(1, ResidualUNetSettings(widths=(6, 8), blocks=1, middle=1, shuffle=1))
    image = torch.rand(1, 1, 48, 64)
    network, image = network.double(), image.double()  # each size has its kernels
    with torch.inference_mode():
        whole, part = network(image), network(image[..., :37, :49])  # one row and one column are added
    torch.testing.assert_close(part[..., :20, :32], whole[..., :20, :32])
    assert not torch.allclose(part[..., -1, :], whole[..., 36, :49], atol=1e-3)


def test_a_block_adds_little_at_first() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 16, 16)
    with torch.inference_mode():
        added = ConvBlock(32)(x) - x
    assert 0.1 < float(added.std()) < 0.3


@pytest.mark.parametrize(
    "wrong",
    [{"widths": []}, {"blocks": 0}, {"middle": 0}, {"shuffle": 5}, {"attention": True}, {"filters": [8]}],
)
def test_what_it_does_not_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ResidualUNetSettings.model_validate(wrong)


def test_a_gate_says_where_and_leaves_the_rest_exactly_as_it_was() -> None:
    network = drawn(3, ResidualUNetSettings(widths=(6, 8), bias=True, gate=True)).eval()
    with torch.no_grad():
        network.tail.weight.mul_(50.0)  # sure of itself
    batch = torch.rand(2, 3, 19, 26)
    with torch.inference_mode():
        restored, logits = network(batch, parts=True)
        assert torch.equal(network(batch), restored)
    assert (restored.shape, logits.shape) == (batch.shape, (2, 1, 19, 26))
    left = (torch.sigmoid(logits) < 0.1).expand_as(batch)
    assert left.any()
    assert not left.all()
    assert torch.equal(restored[left], batch[left])
    assert not torch.isclose(restored[~left], batch[~left]).all()


def test_in_training_gradients_pass_the_gate_both_ways() -> None:
    network = drawn(1, ResidualUNetSettings(widths=(6,), gate=True)).train()
    network(torch.rand(1, 1, 8, 8)).square().mean().backward()
    assert network.tail.weight.grad is not None
    assert network.tail.weight.grad[-4:].abs().sum() > 0, "the last four channels are the mask's, shuffled"
