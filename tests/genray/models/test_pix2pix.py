import pytest
import torch

from genray.models.layers import ImageBatchNorm, parameter_count
from genray.models.pix2pix import UNet, UNetSettings, unet_depth

SMALL = UNetSettings(filters=4)


def test_the_papers_generator_has_54_413_955_parameters() -> None:
    with torch.device("meta"):
        assert parameter_count(UNet(3, 3, size=256)) == 54_413_955


@pytest.mark.parametrize(("size", "depth"), [(64, 6), (96, 5), (128, 7), (256, 8), (320, 6), (512, 9)])
def test_any_size_that_32_divides_keeps_its_shape(size: int, depth: int) -> None:
    assert unet_depth(size) == depth
    network = UNet(2, 5, size=size, settings=SMALL).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, size, size)).shape == (1, 5, size, size)


def test_a_trained_size_is_not_the_only_one() -> None:
    network = UNet(3, 1, size=64, settings=SMALL).eval()
    assert network(torch.zeros(2, 3, 64, 128)).shape == (2, 1, 64, 128)
    with pytest.raises(ValueError, match="multiples of 64"):
        network(torch.zeros(1, 3, 64, 100))


def test_a_size_it_cannot_be_built_for_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        UNet(3, 3, size=100)


def test_weights_are_drawn_from_the_papers_normal() -> None:
    torch.manual_seed(0)
    network = UNet(3, 3, size=64, settings=UNetSettings(filters=32))
    weights = torch.cat([p.detach().flatten() for n, p in network.named_parameters() if p.ndim == 4])
    assert abs(float(weights.mean())) < 1e-4
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    scales = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, ImageBatchNorm)])
    assert float(scales.mean()) == pytest.approx(1.0, abs=0.01)


def test_an_image_does_not_depend_on_what_shares_its_batch() -> None:
    network = UNet(3, 3, size=64, settings=SMALL).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-5)


def test_image_batch_norm_in_use_is_what_training_on_single_images_was() -> None:
    norm = ImageBatchNorm(3)
    image = torch.randn(1, 3, 8, 8)
    trained = norm.train()(image)
    assert torch.allclose(norm.eval()(image), trained, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "image-batch", "instance"])
def test_every_norm_learns(norm: str) -> None:
    network = UNet(1, 1, size=64, settings=UNetSettings.model_validate({"filters": 4, "norm": norm}))
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
