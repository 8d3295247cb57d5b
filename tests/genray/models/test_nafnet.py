import pytest
import torch
from pydantic import ValidationError
from torch import nn

from genray.models.nafnet import ChannelAttention, ChannelNorm, NAFBlock, NAFNet, NAFNetSettings, SimpleGate
from genray.models.parts.layers import parameter_count
from genray.models.restorer import macs_per_pixel


def drawn(attention: bool) -> NAFNet:
    """A network that takes something away, which a new one does not."""
    torch.manual_seed(0)
    settings = NAFNetSettings(widths=(6, 8), blocks=1, middle=1, shuffle=1, attention=attention)
    network = NAFNet(1, settings)
    nn.init.normal_(network.tail.weight, 0.0, 0.3)
    return network


@pytest.mark.parametrize(("channels", "parameters", "macs"), [(1, 708_736, 22_064), (3, 713_344, 23_216)])
def test_the_default_costs_what_its_docstring_says(channels: int, parameters: int, macs: float) -> None:
    with torch.device("meta"):
        network = NAFNet(channels, NAFNetSettings())
    assert parameter_count(network) == parameters
    assert macs_per_pixel(network, channels) == pytest.approx(macs, abs=1)  # attention: once an image


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (32, 40)])
def test_a_new_network_gives_the_image_itself(size: tuple[int, int]) -> None:
    batch = torch.randn(2, 3, *size)
    assert torch.equal(NAFNet(3, NAFNetSettings(widths=(4, 6)))(batch), batch)


def far_apart(network: NAFNet) -> float:
    """How much a corner of the result changes when the opposite corner of the image does."""
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    changed = image.clone()
    changed[..., 40:, 40:] = 0.0
    with torch.inference_mode():
        return float((network(image) - network(changed))[..., :16, :16].abs().max())


def test_only_attention_looks_at_the_whole_image() -> None:
    assert far_apart(drawn(attention=True)) > 1e-4
    assert far_apart(drawn(attention=False)) < 1e-6


def test_without_attention_padding_is_felt_near_the_edge_only() -> None:
    network, image = drawn(attention=False), torch.rand(1, 1, 48, 64)
    network, image = network.double(), image.double()  # each size has its kernels
    with torch.inference_mode():
        whole, part = network(image), network(image[..., :37, :49])  # one row and one column are added
    torch.testing.assert_close(part[..., :20, :32], whole[..., :20, :32])


def test_a_norm_gives_every_pixel_the_same_power() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 7) * torch.logspace(-1, 2, 7)
    power = ChannelNorm(8)(x).square().mean(dim=1)
    torch.testing.assert_close(power, torch.ones_like(power), atol=1e-3, rtol=1e-3)


def test_a_gate_multiplies_one_half_of_the_channels_by_the_other() -> None:
    x = torch.tensor([2.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1)
    assert SimpleGate()(x).flatten().tolist() == [10.0, 21.0]


def test_attention_weighs_channels_by_what_they_are_on_average() -> None:
    attention = ChannelAttention(2)
    with torch.no_grad():
        attention.weigh.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]])[..., None, None])
        attention.weigh.bias = None
    x = torch.stack([torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 7.0]])])[None]
    assert attention(x).tolist() == [[[[6.0, 18.0]], [[20.0, 28.0]]]]


def test_a_block_adds_little_at_first_and_all_of_it_learns() -> None:
    torch.manual_seed(0)
    block, x = NAFBlock(16), torch.randn(2, 16, 8, 8)
    added = block(x) - x
    assert 0.0 < float(added.detach().abs().max()) < 0.5
    added.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize(
    "wrong",
    [{"widths": []}, {"blocks": 0}, {"middle": 0}, {"shuffle": 5}, {"dropout": 0.1}, {"filters": [8]}],
)
def test_what_it_does_not_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NAFNetSettings.model_validate(wrong)
