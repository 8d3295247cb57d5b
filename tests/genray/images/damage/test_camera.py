import pytest
import torch

from genray.datasets.drawn.scenes import draw_scene
from genray.images.damage.corruptions import NoiseSettings, corrupt


def scenes(count: int, size: int = 48) -> torch.Tensor:
    images = [torch.from_numpy(draw_scene(size, size, (3, key)).copy()) for key in range(count)]
    return torch.stack(images).permute(0, 3, 1, 2).float() / 255


def camera(images: torch.Tensor, low: float, high: float, seed: int = 0) -> torch.Tensor:
    noise = NoiseSettings(kind="camera", sigma=(low, high))
    return corrupt(images, noise, torch.Generator().manual_seed(seed))


def level(noise: torch.Tensor) -> torch.Tensor:
    return noise.square().mean(dim=(1, 2, 3)).sqrt() * 255


def is_gray(images: torch.Tensor) -> torch.Tensor:
    return (images == images[:, :1]).flatten(1).all(dim=1)


def test_some_images_stay_clean_and_the_others_have_noise_of_every_level() -> None:
    clean = scenes(150, 32)
    levels = level(camera(clean, 0, 40) - clean)
    assert 2 <= int((levels == 0).sum()) <= 25
    noisy = levels[levels > 0]
    assert noisy.max() < 50
    assert noisy.quantile(0.25) < 8
    assert noisy.quantile(0.9) > 20


def test_the_strength_is_that_of_the_settings_but_for_what_files_and_clipping_change() -> None:
    clean = scenes(40) * 0.5 + 0.25
    levels = level(camera(clean, 15, 15) - clean)
    noisy = levels[levels > 0]
    assert float(noisy.median()) == pytest.approx(15, rel=0.1)


def test_noise_is_of_many_spectra() -> None:
    """Neighbours are independent in some images and nearly equal in others."""
    clean = torch.full((120, 3, 48, 48), 0.5)
    noise = camera(clean, 20, 20) - clean
    noise = noise - noise.mean(dim=(2, 3), keepdim=True)
    power = noise.square().mean(dim=(1, 2, 3))
    along = (noise[..., 1:] * noise[..., :-1]).mean(dim=(1, 2, 3))[power > 0] / power[power > 0]
    assert along.min() < 0.05
    assert along.max() > 0.6


def test_coarse_noise_is_drawn_equal_in_all_colours_and_of_each_apart_at_its_full_strength() -> None:
    """Averaging 4x4 pixels leaves a quarter of white noise and half of noise blurred by 1.2 pixels."""
    clean = torch.full((200, 3, 48, 48), 0.5)
    clean[:, 0] = 0.4
    noise = camera(clean, 20, 20) - clean
    coarse = level(torch.nn.functional.avg_pool2d(noise, 4)) / level(noise) > 0.5
    equal = (noise - noise[:, :1]).abs().amax(dim=(1, 2, 3)) < 2.5 / 255
    assert int((coarse & equal).sum()) > 5
    assert int((coarse & ~equal).sum()) > 5
    assert float(level(noise[coarse & equal]).median()) == pytest.approx(20, rel=0.1)


def test_noise_of_gray_images_is_gray() -> None:
    gray = scenes(40)[:, :1].expand(-1, 3, -1, -1)
    assert is_gray(camera(gray, 10, 30)).all()
    colour = scenes(40)
    colour = colour[~is_gray(colour)]
    noisy = camera(colour, 10, 30)
    assert not is_gray(noisy).any()


def test_noise_has_hardly_any_mean() -> None:
    clean = torch.full((80, 3, 48, 48), 0.5)
    means = (camera(clean, 10, 10) - clean).mean(dim=(1, 2, 3)) * 255
    assert float(means.mean()) == pytest.approx(0, abs=0.3)


def test_a_sharp_image_is_not_blurred() -> None:
    """The edge between black and white stays where it is: the mean of many noisy images is the clean one."""
    clean = torch.full((200, 3, 24, 24), 0.3)
    clean[..., 12:] = 0.7
    mean = camera(clean, 5, 5).mean(dim=0)
    assert float((mean - clean[0]).abs().mean()) * 255 < 1.0


@pytest.mark.parametrize("shape", [(2, 1, 7, 5), (2, 3, 1, 1), (1, 3, 9, 64)])
def test_images_of_any_size_are_taken(shape: tuple[int, ...]) -> None:
    clean = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for seed in range(20):
        noisy = camera(clean, 0, 50, seed)
        assert noisy.shape == clean.shape
        assert torch.isfinite(noisy).all()
