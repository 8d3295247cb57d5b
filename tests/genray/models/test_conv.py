import pytest
import torch
from pydantic import ValidationError

from genray.models.autoencoder import ConvAutoencoder, ConvSettings
from genray.models.layers import parameter_count


def test_the_default_has_the_parameters_that_its_docstring_counts() -> None:
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


@pytest.mark.parametrize("wrong", [{"filters": []}, {"filters": [8] * 7}, {"hidden": [8]}, {"dropout": 0.1}])
def test_what_it_does_not_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConvSettings.model_validate(wrong)
