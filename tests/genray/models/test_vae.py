import pytest
import torch
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as reference

from genray.models.vae import VAESettings, VariationalAutoencoder, kl_divergence, kl_weight


@pytest.fixture
def network() -> VariationalAutoencoder:
    torch.manual_seed(0)
    return VariationalAutoencoder((1, 10, 10), VAESettings(filters=(8, 8), latent=6))


def test_the_divergence_is_that_of_torchs_distributions() -> None:
    mu, logvar = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    ours = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    torch.testing.assert_close(kl_divergence(mu, logvar), reference(ours, prior))
    assert torch.equal(kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4)), torch.zeros(3))
    assert kl_divergence(mu.bfloat16(), logvar.bfloat16()).dtype == torch.float32


def test_in_training_codes_are_drawn_and_in_use_they_are_the_mean(network: VariationalAutoencoder) -> None:
    batch = torch.rand(4, 1, 10, 10)
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    assert torch.equal(network(batch), network.decode(network.distribution(batch)[0]))
    assert torch.equal(network.encode(batch), network.distribution(batch)[0])


def test_drawn_codes_have_the_distribution_that_the_image_was_given(network: VariationalAutoencoder) -> None:
    image = torch.rand(1, 1, 10, 10)
    drawn: list[torch.Tensor] = []
    network.decoder.register_forward_pre_hook(lambda _module, inputs: drawn.append(inputs[0]))
    with torch.inference_mode():
        network.train()(image.expand(20_000, -1, -1, -1))
        mu, logvar = network.distribution(image)
    std, codes = (0.5 * logvar[0]).exp(), drawn[0]
    assert float(((codes.mean(dim=0) - mu[0]) / std).abs().max()) < 0.04
    assert float((codes.std(dim=0) / std - 1).abs().max()) < 0.04


def test_one_call_gives_all_that_the_loss_needs(network: VariationalAutoencoder) -> None:
    batch = torch.rand(4, 1, 10, 10)
    images, mu, logvar = network(batch, parts=True)
    assert images.shape == batch.shape
    assert mu.shape == logvar.shape == (4, 6)
    (images.sum() + kl_divergence(mu, logvar).sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_wild_variance_stays_finite(network: VariationalAutoencoder) -> None:
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.fill_(100.0)
        images, mu, logvar = network(torch.ones(1, 1, 10, 10), parts=True)
    assert torch.isfinite(kl_divergence(mu, logvar)).all()
    assert torch.isfinite(images).all()


def test_samples_come_from_the_prior_and_the_generator(network: VariationalAutoencoder) -> None:
    network.eval()
    first, again, other = (network.sample(5, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert first.shape == (5, 1, 10, 10)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert network.sample(2).shape == (2, 1, 10, 10)


def test_an_interpolation_begins_and_ends_with_its_images(network: VariationalAutoencoder) -> None:
    network.double().eval()  # float64: the images of a path are decoded in one batch, its ends in another
    first, second = torch.rand(2, 3, 1, 10, 10, dtype=torch.float64)
    path = network.interpolate(first, second, 5)
    assert path.shape == (3, 5, 1, 10, 10)
    torch.testing.assert_close(path[:, 0], network(first))
    torch.testing.assert_close(path[:, -1], network(second))
    middle = network.decode((network.encode(first) + network.encode(second)) / 2)
    torch.testing.assert_close(path[:, 2], middle)


def test_the_weight_of_the_divergence_rises_to_beta() -> None:
    settings = VAESettings(beta=2.0, kl_warmup=0.5)
    assert [kl_weight(done, settings) for done in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    assert kl_weight(0.0, VAESettings(beta=3.0, kl_warmup=0.0)) == 3.0
