import numpy as np
import pytest
import torch

from genray.images.metrics import image_metrics, structural_similarity


def test_half_precision_around_it_changes_nothing() -> None:
    torch.manual_seed(0)
    output, target = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = image_metrics(output, target)
    assert torch.equal(inside["ssim"], image_metrics(output, target)["ssim"])


def test_equal_images_are_perfect() -> None:
    image = torch.rand(2, 3, 16, 16)
    metrics = image_metrics(image, image)
    assert metrics["l1"].tolist() == [0, 0]
    assert metrics["psnr"].tolist() == [100, 100]
    # The moments in it are sums of 121 values up to 1 in float32, off by 121 * 2^-24 at most, of about 0.08.
    assert metrics["ssim"].tolist() == pytest.approx([1, 1], abs=1e-4)


def test_metrics_follow_their_definitions_for_each_image_alone() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((2, 3, 16, 16))
    output = np.stack([target[0] + 0.1, target[1] - 0.2])
    metrics = image_metrics(torch.tensor(output), torch.tensor(target))
    assert metrics["l1"].tolist() == pytest.approx([0.1, 0.2], rel=1e-4)
    assert metrics["psnr"].tolist() == pytest.approx([20.0, -10 * np.log10(0.04)], rel=1e-3)
    assert 0 < metrics["ssim"][1] < metrics["ssim"][0] < 1


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (1, 3, 33, 47), (2, 4, 64, 20)])
def test_similarity_is_that_of_torchmetrics_and_so_is_its_gradient(shape: tuple[int, ...]) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    torch.manual_seed(shape[-1])
    target = torch.rand(shape)
    output = (target + 0.2 * torch.randn(shape)).clamp(0, 1).requires_grad_()
    mine = structural_similarity(output, target)
    (slope,) = torch.autograd.grad(mine.sum(), output)
    theirs = structural_similarity_index_measure(output, target, data_range=1.0, reduction="none")
    assert isinstance(theirs, torch.Tensor)
    (expected,) = torch.autograd.grad(theirs.sum(), output)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-3)
