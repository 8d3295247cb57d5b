import pytest
import torch

from genray.models.parts.layers import ImageBatchNorm, parameter_count
from genray.models.pix2pix import PatchGAN, PatchGANSettings, UNet, UNetSettings, unet_depth

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
    # In float64: batches of other sizes may be added up in another order, by kernels of this CPU's choice.
    network = UNet(3, 3, size=64, settings=SMALL).eval().double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-10, rtol=1e-10)


def test_image_batch_norm_in_use_is_what_training_on_single_images_was() -> None:
    norm = ImageBatchNorm(3).double()
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    trained = norm.train()(image)
    torch.testing.assert_close(norm.eval()(image), trained, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("norm", ["batch", "image-batch", "instance"])
def test_every_norm_learns(norm: str) -> None:
    network = UNet(1, 1, size=64, settings=UNetSettings.model_validate({"filters": 4, "norm": norm}))
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_papers_discriminator_has_2_768_705_parameters() -> None:
    with torch.device("meta"):
        assert parameter_count(PatchGAN(3, 3)) == 2_768_705


def test_scores_are_a_map_of_patches() -> None:
    network = PatchGAN(3, 1, settings=PatchGANSettings(filters=4))
    assert network(torch.zeros(2, 3, 256, 256), torch.zeros(2, 1, 256, 256)).shape == (2, 1, 30, 30)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (3, 70), (5, 286)])
def test_a_score_sees_exactly_its_receptive_field(layers: int, side: int) -> None:
    network = PatchGAN(1, 1, settings=PatchGANSettings(filters=1, layers=layers, norm="batch")).eval()
    # With positive weights no influence cancels out; evaluation keeps norms from mixing pixels.
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    size = 2 * side // 2**layers * 2**layers + 2 ** (layers + 2)
    images = torch.zeros(1, 1, size, size, requires_grad=True)
    scores = network(images, torch.zeros(1, 1, size, size))
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert images.grad is not None
    rows = images.grad[0, 0].abs().sum(dim=1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == side
