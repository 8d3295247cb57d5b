"""What holds for every kind of restoration network, and the padding that lets them take any size."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from genray.models.autoencoder import crop
from genray.models.nafnet import NAFNet, NAFNetSettings
from genray.models.parts.layers import parameter_count
from genray.models.residual_unet import ResidualUNet, ResidualUNetSettings
from genray.models.restorer import (
    ConvRestorer,
    ConvRestorerSettings,
    Restorer,
    macs_per_pixel,
    mirror_to_multiple,
)

Build = Callable[[int], Restorer]
SMALL = {"widths": (6, 8, 10), "blocks": 1, "middle": 1}
KINDS: dict[str, Build] = {
    "conv": lambda channels: ConvRestorer(channels, ConvRestorerSettings(filters=(12, 24))),
    "unet": lambda channels: ResidualUNet(channels, ResidualUNetSettings.model_validate(SMALL)),
    "nafnet": lambda channels: NAFNet(channels, NAFNetSettings.model_validate(SMALL)),
}
every_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())


def drawn(build: Build, channels: int) -> Restorer:
    """A network that does something, which a new residual one does not."""
    torch.manual_seed(0)
    network = build(channels)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, 0.0, 0.1)
    return network


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@every_kind
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (2, 40), (33, 47), (64, 64)])
def test_a_result_has_the_images_shape_at_any_size(
    build: Build, channels: int, size: tuple[int, int]
) -> None:
    with torch.inference_mode():
        result = drawn(build, channels)(images(2, channels, *size))
    assert result.shape == (2, channels, *size)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


@every_kind
def test_noise_on_four_images_is_learned_by_heart(build: Build) -> None:
    torch.manual_seed(0)
    network = build(1)
    clean = F.interpolate(images(4, 1, 4, 4), (15, 18), mode="bilinear")
    noisy = clean + 0.2 * torch.randn(clean.shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        loss = network(noisy).sub(clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.04 / 10  # of what the noise is
    assert losses[-1] < losses[0] / 8


@every_kind
def test_every_parameter_learns(build: Build) -> None:
    network = drawn(build, 3)
    network(images(2, 3, 11, 14)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@every_kind
def test_an_image_has_one_result_whatever_shares_its_batch(build: Build) -> None:
    # In float64: batches of other sizes may be added up in another order, by kernels of this CPU's choice.
    network, batch = drawn(build, 3).double(), images(4, 3, 9, 14).double()
    with torch.inference_mode():
        together, alone = network(batch), network(batch[2:3])
        assert torch.equal(network(batch), together)
    torch.testing.assert_close(together[2:3], alone, atol=1e-10, rtol=1e-10)


@every_kind
def test_the_layout_in_memory_does_not_matter(build: Build) -> None:
    network, batch = drawn(build, 3).double(), images(2, 3, 21, 18).double()  # each layout has its kernels
    with torch.inference_mode():
        expected = network(batch)
        network.to(memory_format=torch.channels_last)
        result = network(batch.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, atol=1e-10, rtol=1e-10)


@every_kind
def test_weights_go_into_a_network_that_was_built_without_any(build: Build) -> None:
    network, batch = drawn(build, 1), images(2, 1, 9, 14)
    with torch.device("meta"):
        empty = build(1)
    assert parameter_count(empty) == parameter_count(network)
    empty.load_state_dict(network.state_dict(), assign=True)
    with torch.inference_mode():
        assert torch.equal(empty(batch), network(batch))


@every_kind
def test_images_of_other_channels_are_refused(build: Build) -> None:
    network = build(3)
    with pytest.raises(ValueError, match=r"images must be \(N, 3, height, width\), not \(2, 1, 8, 8\)"):
        network(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"not \(3, 8, 8\)"):
        network(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"not \(1, 3, 0, 8\)"):
        network(torch.zeros(1, 3, 0, 8))
    with pytest.raises(ValueError, match="channels must be at least 1"):
        build(0)


def test_values_beyond_white_and_black_are_not_cut_off() -> None:
    batch = torch.tensor([-0.5, 1.5]).reshape(2, 1, 1, 1).expand(2, 1, 5, 5)
    assert torch.equal(KINDS["unet"](1)(batch), batch)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (5, 16), (33, 47)])
def test_cropping_undoes_what_mirroring_adds(size: tuple[int, int]) -> None:
    batch = images(2, 3, *size)
    padded = mirror_to_multiple(batch, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert padded.shape[-2] - size[0] < 8
    assert torch.equal(crop(padded, *size), batch)


def test_what_is_added_mirrors_the_image_as_far_as_it_reaches() -> None:
    row = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 8, 6)
    assert mirror_to_multiple(row, 8)[0, 0, 0].tolist() == [1, 0, 1, 2, 3, 4, 5, 4]
    assert mirror_to_multiple(row[..., :2], 8)[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    fitting = images(1, 1, 8, 16)
    assert mirror_to_multiple(fitting, 8) is fitting


def test_macs_are_those_of_the_convolutions_and_the_network_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 2, stride=2))
    assert macs_per_pixel(network, 3) == 9 * 3 * 8 + 4 * 8 * 5 / 4
    with torch.inference_mode():
        assert macs_per_pixel(network, 3) == 9 * 3 * 8 + 4 * 8 * 5 / 4
    assert all(p.device.type == "cpu" and p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("channels", "parameters", "macs"), [(1, 74_497, 8_424), (3, 75_651, 9_144)])
def test_the_default_convolutional_one_costs_what_its_docstring_says(
    channels: int, parameters: int, macs: float
) -> None:
    with torch.device("meta"):
        network = ConvRestorer(channels, ConvRestorerSettings())
    assert parameter_count(network) == parameters
    assert macs_per_pixel(network, channels) == macs


def test_each_layer_halves_the_image_and_its_mirror_doubles_it() -> None:
    network = ConvRestorer(1, ConvRestorerSettings(filters=(4, 6, 8)))
    seen: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda _module, _input, output: seen.append(tuple(output.shape[1:])))
    network(torch.rand(1, 1, 14, 30))
    down = [(4, 8, 16), (6, 4, 8), (8, 2, 4)]
    up = [(8, 4, 8), (6, 8, 16), (4, 16, 32)]
    assert seen == [*down, *up, (1, 16, 32)]


def test_the_convolutional_one_makes_an_image_whatever_it_is_given() -> None:
    torch.manual_seed(0)
    network = ConvRestorer(1, ConvRestorerSettings(filters=(4, 8)))
    with torch.inference_mode():
        result = network(100.0 * torch.randn(2, 1, 9, 9))
    assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0


@pytest.mark.parametrize("wrong", [{"filters": []}, {"filters": [8] * 7}, {"widths": [8]}, {"latent": 8}])
def test_settings_that_the_convolutional_one_does_not_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConvRestorerSettings.model_validate(wrong)
