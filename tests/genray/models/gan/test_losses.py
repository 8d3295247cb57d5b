import math

import pytest
import torch
from pydantic import TypeAdapter

from genray.models.gan.losses import GanLoss, discriminator_loss, generator_loss, squared_gradients

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def chosen(kind: str, **values: float) -> GanLoss:
    adapter: TypeAdapter[GanLoss] = TypeAdapter(GanLoss)
    return adapter.validate_python({"kind": kind, **values})


@pytest.mark.parametrize(
    ("kind", "values", "judging", "drawing"),
    [
        (
            "bce",
            {},
            (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
            (softplus(-0.5) + softplus(3)) / 2,
        ),
        (
            "bce",
            {"smoothing": 0.1},  # the label of real images is 0.9, that of generated ones stays 0
            (0.9 * softplus(-2) + 0.1 * softplus(2) + 0.9 * softplus(1) + 0.1 * softplus(-1)) / 2
            + (softplus(0.5) + softplus(-3)) / 2,
            (softplus(-0.5) + softplus(3)) / 2,
        ),
        ("least-squares", {}, ((1 + 4) / 2 + (0.25 + 9) / 2) / 2, (0.25 + 16) / 4),
        ("hinge", {}, (0 + 2) / 2 + (1.5 + 0) / 2, (-0.5 + 3) / 2),
        ("wgan-gp", {}, -1.25 - 0.5, 1.25),
        ("relativistic", {}, (softplus(-1.5) + softplus(-2)) / 2, (softplus(1.5) + softplus(2)) / 2),
    ],
)
def test_losses_are_those_of_their_papers(
    kind: str, values: dict[str, float], judging: float, drawing: float
) -> None:
    settings = chosen(kind, **values)
    assert float(discriminator_loss(REAL, FAKE, settings)) == pytest.approx(judging, rel=1e-5)
    assert float(generator_loss(FAKE, REAL, settings)) == pytest.approx(drawing, rel=1e-5)


@pytest.mark.parametrize("kind", ["bce", "least-squares", "hinge", "wgan-gp", "relativistic"])
def test_a_generator_gains_by_higher_scores_and_a_discriminator_by_telling_apart(kind: str) -> None:
    settings = chosen(kind)
    assert generator_loss(FAKE + 0.1, REAL, settings) < generator_loss(FAKE, REAL, settings)
    apart, alike = discriminator_loss(REAL, FAKE, settings), discriminator_loss(FAKE, FAKE, settings)
    assert apart < alike


def test_the_squared_gradient_of_each_image_is_exact_and_differentiable() -> None:
    images = torch.rand(3, 1, 4, 4, requires_grad=True)
    weight = torch.tensor(2.0, requires_grad=True)
    squared = squared_gradients(weight * images.square().sum(dim=(1, 2, 3)), images)
    assert torch.allclose(squared, (4 * images).square().sum(dim=(1, 2, 3)))
    (slope,) = torch.autograd.grad(squared.sum(), weight)
    assert float(slope) == pytest.approx(float((16 * images.detach().square()).sum()), rel=1e-5)
