import pytest
import torch
from pydantic import ValidationError

from genray.models.autoencoder import DenseAutoencoder, DenseSettings
from genray.models.layers import parameter_count


def test_the_default_has_the_parameters_that_its_docstring_counts() -> None:
    with torch.device("meta"):
        assert parameter_count(DenseAutoencoder((1, 28, 28), DenseSettings())) == 2_723_664


def test_without_hidden_layers_it_is_the_tutorials() -> None:
    network = DenseAutoencoder((1, 28, 28), DenseSettings(hidden=(), latent=32))
    assert parameter_count(network) == 784 * 32 + 32 + 32 * 784 + 784
    batch = torch.rand(8, 1, 28, 28)
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
def test_what_it_does_not_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DenseSettings.model_validate(wrong)
