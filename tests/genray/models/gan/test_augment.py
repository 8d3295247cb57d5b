import torch

from genray.models.gan.augment import AugmentSettings, vary

IMAGES = torch.rand(64, 3, 16, 24)


def test_nothing_is_varied_by_default() -> None:
    assert vary(IMAGES, AugmentSettings(), 0.0) is IMAGES


def test_translation_moves_an_image_by_up_to_an_eighth_and_fills_with_zero() -> None:
    dot = torch.zeros(200, 1, 16, 24)
    dot[:, :, 8, 12] = 1
    moved = vary(dot, AugmentSettings(policy=("translation",)), 0.0)
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(200)), "the dot stays inside"
    places = moved[:, 0].flatten(1).argmax(dim=1)
    assert set((places // 24).tolist()) == set(range(6, 11))
    assert set((places % 24).tolist()) == set(range(9, 16))


def test_cutout_clears_a_quarter_at_most_and_colour_keeps_the_order_of_levels() -> None:
    cut = vary(torch.ones(200, 1, 16, 16), AugmentSettings(policy=("cutout",)), 0.0)
    shares = 1 - cut.mean(dim=(1, 2, 3))
    assert 0 < float(shares.min()) <= float(shares.max()) <= 0.27
    gray = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
    changed = vary(gray, AugmentSettings(policy=("colour",)), 0.0)
    assert (changed.flatten().diff() > 0).all()
    assert not torch.equal(changed, gray)


def test_gradients_pass_every_variation_twice() -> None:
    settings = AugmentSettings(policy=("colour", "translation", "cutout"), noise=0.1)
    images = IMAGES.clone().requires_grad_()
    (first,) = torch.autograd.grad(vary(images, settings, 0.0).square().sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert float(second.abs().sum()) > 0


def test_the_noise_decays_to_nothing() -> None:
    settings = AugmentSettings(noise=0.4, noise_until=0.5)
    assert [settings.noise_at(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.4, 0.2, 0.0, 0.0]
    assert vary(IMAGES, settings, 0.7) is IMAGES
    assert abs(float((vary(IMAGES, settings, 0.25) - IMAGES).std()) - 0.2) < 0.01
