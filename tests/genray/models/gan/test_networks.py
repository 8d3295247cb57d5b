import pytest
import torch
from pydantic import TypeAdapter

from genray.models.autoencoder import Shape
from genray.models.gan.base import halvings
from genray.models.gan.pair import Gan, GanModel
from genray.models.parts.layers import parameter_count

SMALL = {
    "mlp": {"hidden": [8], "judging": [8]},
    "dcgan": {"filters": 4, "hidden": 8},
    "residual": {"filters": 16, "widest": 16},
}


def network(kind: str, shape: Shape, classes: int = 0, **more: object) -> Gan:
    adapter: TypeAdapter[GanModel] = TypeAdapter(GanModel)
    settings = adapter.validate_python({"kind": kind, **SMALL[kind], **more})
    return Gan.build(shape, classes, settings=settings)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 33, 50), (3, 128, 128)])
def test_every_kind_draws_and_judges_images_of_any_size(kind: str, shape: Shape) -> None:
    gan = network(kind, shape).eval()
    drawn = gan.draw(torch.randn(2, gan.latent)).detach()
    assert drawn.shape == (2, *shape)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    scores = gan.discriminator(drawn * 2 - 1)
    assert scores.shape == (2,)
    assert gan.features(drawn * 2 - 1).shape == (2, gan.discriminator.width)


@pytest.mark.parametrize("kind", SMALL)
def test_a_class_changes_the_image_and_its_score(kind: str) -> None:
    gan = network(kind, (1, 28, 28), classes=3).eval()
    codes = torch.randn(1, gan.latent).expand(3, -1)
    classes = torch.arange(3)
    drawn = gan.draw(codes, classes)
    assert not torch.equal(drawn[0], drawn[1])
    scores = gan.discriminator(drawn[:1].expand(3, -1, -1, -1), classes)
    assert len(set(scores.tolist())) == 3
    with pytest.raises(ValueError, match="one of 3 classes"):
        gan.draw(codes)


@pytest.mark.parametrize("kind", SMALL)
def test_a_score_does_not_depend_on_the_batch(kind: str) -> None:
    judge = network(kind, (1, 28, 28), dropout=0.0).discriminator if kind != "residual" else None
    judge = judge or network(kind, (1, 28, 28)).discriminator
    images = torch.rand(4, 1, 28, 28)
    together = judge.train()(images)
    assert torch.allclose(together, torch.cat([judge(image[None]) for image in images]), atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_spectral_normalisation_limits_every_layer_of_the_discriminator(kind: str) -> None:
    gan = network(kind, (1, 28, 28), classes=2, spectral_norm=True)
    for _ in range(30):  # the largest singular value is found step by step
        gan.discriminator.train()(torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))
    for name, module in gan.discriminator.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            largest = float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2))
            assert largest < 1.05, name
    assert not any("parametrizations" in name for name in gan.generator.state_dict())


def test_the_default_networks_have_the_parameters_that_they_say() -> None:
    shape = (1, 28, 28)
    mlp, dcgan = (
        Gan.build(shape, 0, settings=TypeAdapter(GanModel).validate_python({"kind": kind}))  # type: ignore[arg-type]
        for kind in ("mlp", "dcgan")
    )
    assert [parameter_count(part) for part in (mlp.generator, mlp.discriminator)] == [1_489_936, 533_505]
    assert [parameter_count(part) for part in (dcgan.generator, dcgan.discriminator)] == [833_665, 873_633]


def test_sides_are_halved_down_to_seven_pixels() -> None:
    assert halvings((1, 28, 28)) == [(28, 28), (14, 14), (7, 7)]
    assert halvings((3, 100, 20)) == [(100, 20), (50, 10), (25, 5), (13, 3), (7, 2)]
