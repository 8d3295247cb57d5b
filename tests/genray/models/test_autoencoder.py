"""What holds for every kind of autoencoder, and the padding that lets them take any size."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from genray.models.autoencoder import (
    Autoencoder,
    ConvAutoencoder,
    ConvSettings,
    DenseAutoencoder,
    DenseSettings,
    Shape,
    crop,
    filters_for,
    init_he,
    init_xavier,
    pad_to_multiple,
)
from genray.models.improved import ImprovedAutoencoder, ImprovedSettings
from genray.models.numpy_dense import NumpyAutoencoder, NumpySettings
from genray.models.parts.layers import parameter_count
from genray.models.vae import VAESettings, VariationalAutoencoder

Build = Callable[[Shape], Autoencoder]
KINDS: dict[str, Build] = {
    "dense": lambda shape: DenseAutoencoder(shape, DenseSettings(hidden=(64,), latent=24)),
    "tutorial": lambda shape: DenseAutoencoder(shape, DenseSettings(hidden=(), latent=24)),
    "conv": lambda shape: ConvAutoencoder(shape, ConvSettings(filters=(8, 16), latent=24)),
    "conv over components": lambda shape: ConvAutoencoder(
        shape, ConvSettings(filters=(8, 16), latent=24, linear_side=16)
    ),
    "improved": lambda shape: ImprovedAutoencoder(shape, ImprovedSettings(filters=(8, 16, 16), latent=24)),
    "vae": lambda shape: VariationalAutoencoder(shape, VAESettings(filters=(8, 16), latent=24)),
    "numpy": lambda shape: NumpyAutoencoder(shape, NumpySettings(hidden=(64,), latent=24)),
}
every_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())


def drawn(build: Build, shape: Shape) -> Autoencoder:
    torch.manual_seed(0)
    return build(shape)


def images(count: int, shape: Shape) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@every_kind
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 47), (1, 1, 5)])
def test_a_reconstruction_has_the_images_shape_and_range(build: Build, shape: Shape) -> None:
    network = drawn(build, shape).eval()
    with torch.inference_mode():
        codes = network.encode(images(3, shape))
        result = network(images(3, shape))
        decoded = network.decode(codes)
    assert codes.shape == (3, network.latent) == (3, 24)
    assert result.shape == (3, *shape)
    assert result.dtype == torch.float32
    assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0
    assert torch.equal(decoded, result)


@every_kind
def test_four_images_are_learned_by_heart(build: Build) -> None:
    network = drawn(build, (1, 12, 10))
    network.start_from([images(8, (1, 12, 10))])  # others than those to learn
    four = F.interpolate(images(4, (1, 4, 4)), (12, 10), mode="bilinear")
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        loss = network(four).sub(four).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


@every_kind
def test_in_evaluation_an_image_has_one_result_whatever_shares_its_batch(build: Build) -> None:
    # In float64: batches of other sizes may be added up in another order, by kernels of this CPU's choice.
    network = drawn(build, (3, 9, 14)).double()
    batch = images(5, (3, 9, 14)).double()
    network(batch)  # running averages that are not the first ones
    network.eval()
    with torch.inference_mode():
        together, alone = network(batch), network(batch[2:3])
        assert torch.equal(network(batch), together)
    torch.testing.assert_close(together[2:3], alone, atol=1e-10, rtol=1e-10)


@every_kind
def test_weights_go_into_a_network_that_was_built_without_any(build: Build) -> None:
    network = drawn(build, (1, 9, 14)).eval()
    with torch.device("meta"):
        empty = build((1, 9, 14))
    assert parameter_count(empty) == parameter_count(network)
    empty.load_state_dict(network.state_dict(), assign=True)
    batch = images(2, (1, 9, 14))
    with torch.inference_mode():
        assert torch.equal(empty.eval()(batch), network(batch))


@every_kind
def test_the_seed_decides_the_weights(build: Build) -> None:
    first, second = drawn(build, (1, 8, 8)).state_dict(), drawn(build, (1, 8, 8)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_kind
def test_images_and_codes_of_another_shape_are_refused(build: Build) -> None:
    network = drawn(build, (1, 28, 28)).eval()
    with pytest.raises(ValueError, match=r"images must be \(N, 1, 28, 28\), not \(2, 3, 28, 28\)"):
        network(torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match=r"not \(1, 28, 28\)"):
        network.encode(torch.zeros(1, 28, 28))
    with pytest.raises(ValueError, match=r"codes must be \(N, 24\), not \(2, 25\)"):
        network.decode(torch.zeros(2, 25))
    with pytest.raises(ValueError, match="each at least 1"):
        build((1, 0, 28))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 16), (33, 47)])
def test_padding_repeats_the_edge_and_cropping_undoes_it(size: tuple[int, int]) -> None:
    batch = images(2, (3, *size))
    padded = pad_to_multiple(batch, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert padded.shape[-2] - size[0] < 8
    assert torch.equal(crop(padded, *size), batch)
    assert torch.equal(padded[..., 0, 0], batch[..., 0, 0])
    assert torch.equal(padded[..., -1, -1], batch[..., -1, -1])


def test_a_size_that_fits_is_not_copied() -> None:
    batch = images(1, (1, 8, 16))
    assert pad_to_multiple(batch, 8) is batch


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Linear(256, 300),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ConvTranspose2d(64, 48, 4, stride=2, padding=1),
    ],
    ids=["linear", "conv", "transposed"],
)
def test_first_weights_keep_the_size_of_what_passes(
    layer: torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d,
) -> None:
    torch.manual_seed(0)
    shape = (64, 256) if isinstance(layer, torch.nn.Linear) else (4, layer.in_channels, 24, 24)
    x = torch.randn(shape)

    def second_moment(y: torch.Tensor) -> float:
        return float((y if y.ndim == 2 else y[..., 2:-2, 2:-2]).square().mean())

    with torch.inference_mode():
        assert second_moment(init_xavier(layer)(x)) == pytest.approx(1.0, rel=0.05)
        assert second_moment(init_he(layer)(x).relu()) == pytest.approx(1.0, rel=0.05)


def test_the_default_dense_one_has_the_parameters_that_its_docstring_counts() -> None:
    with torch.device("meta"):
        assert parameter_count(DenseAutoencoder((1, 28, 28), DenseSettings())) == 2_723_664


def test_without_hidden_layers_it_is_the_tutorials() -> None:
    network = DenseAutoencoder((1, 28, 28), DenseSettings(hidden=(), latent=32)).double()
    assert parameter_count(network) == 784 * 32 + 32 + 32 * 784 + 784
    batch = torch.rand(8, 1, 28, 28, dtype=torch.float64)
    codes = network.encode(batch)
    assert codes.min().item() == 0.0 < codes.max().item()  # rectified
    weight, bias = network.decoder.get_parameter("0.weight"), network.decoder.get_parameter("0.bias")
    expected = torch.sigmoid(codes @ weight.T + bias).reshape(batch.shape)
    torch.testing.assert_close(network(batch), expected)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_with_hidden_layers_the_code_takes_either_sign(activation: str) -> None:
    settings = DenseSettings.model_validate({"hidden": [32, 16], "latent": 8, "activation": activation})
    codes = DenseAutoencoder((1, 6, 6), settings).encode(torch.rand(64, 1, 6, 6))
    assert codes.min().item() < 0.0 < codes.max().item()


def test_the_decoder_mirrors_the_encoder() -> None:
    network = DenseAutoencoder((3, 4, 5), DenseSettings(hidden=(32, 16), latent=8))
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert shapes == [(32, 60), (16, 32), (8, 16), (16, 8), (32, 16), (60, 32)]


@pytest.mark.parametrize("wrong", [{"hidden": [0]}, {"latent": 0}, {"kind": "conv"}, {"filters": [8]}])
def test_settings_that_the_dense_one_does_not_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DenseSettings.model_validate(wrong)


def test_the_default_convolutional_one_has_the_parameters_that_its_docstring_counts() -> None:
    with torch.device("meta"):
        assert parameter_count(ConvAutoencoder((1, 28, 28), ConvSettings())) == 451_425


@pytest.mark.parametrize("filters", [(4,), (4, 6), (4, 6, 8)])
def test_each_layer_halves_the_image_and_its_mirror_doubles_it(filters: tuple[int, ...]) -> None:
    network = ConvAutoencoder((1, 30, 30), ConvSettings(filters=filters, latent=5))
    seen: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda _module, _input, output: seen.append(tuple(output.shape[1:])))
    assert network(torch.rand(1, 1, 30, 30)).shape == (1, 1, 30, 30)
    side = 30 + -30 % 2 ** len(filters)
    down = [(width, side // 2**level, side // 2**level) for level, width in enumerate(filters, 1)]
    up = [*down[-2::-1], (filters[0], side, side)]
    assert seen == [*down, *up, (1, side, side)]


@pytest.mark.parametrize("wrong", [{"filters": []}, {"filters": [8] * 13}, {"hidden": [8]}, {"dropout": 0.1}])
def test_settings_that_the_convolutional_one_does_not_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConvSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        ((1, 28, 28), (32, 64)),
        ((1, 64, 64), (32, 64, 128)),
        ((3, 128, 128), (16, 32, 64, 128)),
        ((3, 1024, 300), (16, 32, 64, 128, 256, 256, 256)),
        ((1, 1, 5), (32,)),
    ],
)
def test_images_are_halved_until_the_dense_layer_is_small(shape: Shape, filters: tuple[int, ...]) -> None:
    assert filters_for(shape) == filters
    with torch.device("meta"):
        network = ConvAutoencoder(shape, ConvSettings(latent=256))
    assert parameter_count(network) < 11_000_000
