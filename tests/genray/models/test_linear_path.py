"""The linear path is the best linear autoencoder of the images that it is given."""

import numpy as np
import pytest
import torch

from genray.models.autoencoder import ConvAutoencoder, ConvSettings, Shape
from genray.models.linear_path import LinearDecoder, LinearEncoder, fit_components, shrink_factor

SHAPE = (1, 8, 6)


def waves(count: int, seed: int, shape: Shape = SHAPE) -> torch.Tensor:
    """Draw smooth images in [0, 1]: waves of any phase along the rows, the same for each seed."""
    rng = np.random.default_rng(seed)
    phases, lengths = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.5, 2, count)
    places = np.arange(shape[2]) / shape[2]
    rows = 0.5 + 0.4 * np.sin(2 * np.pi * lengths[:, None] * places + phases[:, None])
    images = np.broadcast_to(rows[:, None, None], (count, *shape))
    return torch.from_numpy(images.astype(np.float32))


def fitted(images: torch.Tensor, latent: int, factor: int = 1) -> tuple[LinearEncoder, LinearDecoder]:
    torch.manual_seed(0)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    encoder, decoder = LinearEncoder(shape, latent, factor), LinearDecoder(shape, latent, factor)
    fit_components(encoder, decoder, [images[:7], images[7:]] if len(images) > 7 else [images])
    return encoder, decoder


def error(network: torch.nn.Module, images: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((network(images) - images).square().mean())


def test_of_many_images_it_projects_on_the_eigenvectors_of_their_covariance() -> None:
    # Each pixel varies less than the one before: random projections find directions that stand out.
    scales = 0.8 ** torch.arange(48).reshape(SHAPE)
    images = scales * torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(3))
    encoder, decoder = fitted(images, 5)
    flat = images.flatten(1).double()
    centred = flat - flat.mean(dim=0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -5:]
    expected = centred @ vectors @ vectors.T + flat.mean(dim=0)
    with torch.inference_mode():
        result = decoder(encoder(images)).flatten(1)
    torch.testing.assert_close(result.double(), expected, atol=2e-3, rtol=0)


def test_the_mean_square_of_a_number_of_a_code_is_one_and_distances_are_those_of_images() -> None:
    images = waves(300, 0)
    encoder, decoder = fitted(images, 6)
    with torch.inference_mode():
        codes = encoder(images)
        decoded = decoder(codes)
    assert codes.square().mean().item() == pytest.approx(1.0, rel=0.01)
    between_codes, between_images = torch.pdist(codes[:20]), torch.pdist(decoded[:20].flatten(1))
    ratio = between_images / between_codes
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


def test_a_few_images_shifted_reconstruct_others_better_than_their_own_components_do() -> None:
    few, others = waves(6, 0, (1, 8, 24)), waves(100, 1, (1, 8, 24))
    own = few.flatten(1) - few.flatten(1).mean(dim=0)
    components = torch.linalg.svd(own, full_matrices=False).Vh[:5]
    centred = others.flatten(1) - few.flatten(1).mean(dim=0)
    plain = float((centred - centred @ components.T @ components).square().mean())
    encoder, decoder = fitted(few, 8)
    assert error(torch.nn.Sequential(encoder, decoder), others) < 0.8 * plain


@pytest.mark.parametrize("count", [1, 3])
def test_alike_or_fewer_images_than_numbers_of_a_code_are_reconstructed(count: int) -> None:
    images = torch.full((count, *SHAPE), 0.25)
    encoder, decoder = fitted(images, 100)
    assert error(torch.nn.Sequential(encoder, decoder), images) < 1e-6


def test_images_are_shrunk_before_and_enlarged_after() -> None:
    images = waves(200, 0, (3, 32, 16))
    encoder, decoder = fitted(images, 8, factor=4)
    assert (encoder.project.in_features, decoder.add.out_features) == (3 * 8 * 4,) * 2
    without_code = torch.nn.Sequential(encoder.shrink, decoder.enlarge)
    assert error(torch.nn.Sequential(encoder, decoder), images) < error(without_code, images) + 0.002


@pytest.mark.parametrize(
    ("shape", "side", "factor"),
    [((1, 28, 28), 64, 1), ((3, 128, 128), 64, 2), ((3, 1024, 320), 64, 16), ((3, 1024, 1024), 64, 4)],
)
def test_the_longer_side_is_shrunk_to_the_limit_by_a_power_of_two(
    shape: Shape, side: int, factor: int
) -> None:
    most = 4 if shape[1:] == (1024, 1024) else 16
    assert shrink_factor(shape, side, most) == factor


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 47), (1, 1, 5)])
def test_an_autoencoder_over_components_starts_as_good_as_they_are(shape: Shape) -> None:
    torch.manual_seed(0)
    network = ConvAutoencoder(shape, ConvSettings(latent=12, filters=(4, 4), linear_side=64)).eval()
    images = waves(200, 0, shape)
    assert network.starts_from_images
    network.start_from([images])
    encoder, decoder = fitted(images, 12)
    linear = error(torch.nn.Sequential(encoder, decoder), images)
    assert error(network, images) <= linear + 1e-4


def test_the_components_stay_as_they_are_while_the_convolutions_learn() -> None:
    torch.manual_seed(0)
    shape = (1, 16, 16)
    images = torch.rand(32, *shape, generator=torch.Generator().manual_seed(0))
    network = ConvAutoencoder(shape, ConvSettings(latent=4, filters=(8, 8), linear_side=16))
    network.start_from([images])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = error(network, images)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        (network(images) - images).square().mean().backward()
        optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert before.keys() - changed == {
        f"{part}.linear.{layer}.{kind}"
        for part, layer in (("encoder", "project"), ("decoder", "add"))
        for kind in ("weight", "bias")
    }
    assert error(network, images) < 0.9 * first


def test_networks_of_earlier_bundles_have_no_components() -> None:
    network = ConvAutoencoder((1, 28, 28), ConvSettings())
    assert not network.starts_from_images
    assert not [name for name in network.state_dict() if "linear" in name]
