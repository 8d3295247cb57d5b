import pytest
import torch

from genray.models.layers import parameter_count
from genray.models.pix2pix import PatchGAN, PatchGANSettings, receptive_field


def test_the_papers_discriminator_has_2_768_705_parameters() -> None:
    with torch.device("meta"):
        assert parameter_count(PatchGAN(3, 3)) == 2_768_705


def test_scores_are_a_map_of_patches() -> None:
    network = PatchGAN(3, 1, settings=PatchGANSettings(filters=4))
    assert network(torch.zeros(2, 3, 256, 256), torch.zeros(2, 1, 256, 256)).shape == (2, 1, 30, 30)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (3, 70), (5, 286)])
def test_a_score_sees_exactly_its_receptive_field(layers: int, side: int) -> None:
    assert receptive_field(layers) == side
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
