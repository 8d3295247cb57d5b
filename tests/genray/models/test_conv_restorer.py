import pytest
import torch
from pydantic import ValidationError

from genray.models.layers import parameter_count
from genray.models.restorer import ConvRestorer, ConvRestorerSettings, macs_per_pixel


@pytest.mark.parametrize(("channels", "parameters", "macs"), [(1, 74_497, 8_424), (3, 75_651, 9_144)])
def test_the_default_costs_what_its_docstring_says(channels: int, parameters: int, macs: float) -> None:
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


def test_it_makes_an_image_whatever_it_is_given() -> None:
    torch.manual_seed(0)
    network = ConvRestorer(1, ConvRestorerSettings(filters=(4, 8)))
    with torch.inference_mode():
        result = network(100.0 * torch.randn(2, 1, 9, 9))
    assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0


@pytest.mark.parametrize("wrong", [{"filters": []}, {"filters": [8] * 7}, {"widths": [8]}, {"latent": 8}])
def test_what_it_does_not_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConvRestorerSettings.model_validate(wrong)
