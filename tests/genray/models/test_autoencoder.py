"""What holds for every kind of autoencoder, and the padding that lets them take any size."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from genray.models.autoencoder import (
    Autoencoder,
    ConvAutoencoder,
    ConvSettings,
    DenseAutoencoder,
    DenseSettings,
    Shape,
    crop,
    he,
    pad_to_multiple,
    xavier,
)
from genray.models.improved import ImprovedAutoencoder, ImprovedSettings
from genray.models.layers import parameter_count
from genray.models.numpy_dense import NumpyAutoencoder, NumpySettings
from genray.models.vae import VAESettings, VariationalAutoencoder

Build = Callable[[Shape], Autoencoder]
KINDS: dict[str, Build] = {
    "dense": lambda shape: DenseAutoencoder(shape, DenseSettings(hidden=(64,), latent=24)),
    "tutorial": lambda shape: DenseAutoencoder(shape, DenseSettings(hidden=(), latent=24)),
    "conv": lambda shape: ConvAutoencoder(shape, ConvSettings(filters=(8, 16), latent=24)),
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
    network = drawn(build, (3, 9, 14))
    batch = images(5, (3, 9, 14))
    network(batch)  # running averages that are not the first ones
    network.eval()
    with torch.inference_mode():
        together, alone = network(batch), network(batch[2:3])
        assert torch.equal(network(batch), together)
    torch.testing.assert_close(together[2:3], alone, atol=1e-6, rtol=1e-5)


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
        assert second_moment(xavier(layer)(x)) == pytest.approx(1.0, rel=0.05)
        assert second_moment(he(layer)(x).relu()) == pytest.approx(1.0, rel=0.05)
