from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from genray.datasets.demo_fronts import building_front
from genray.images.damage.corruptions import NoiseSettings, corrupt, corrupt_held_out
from genray.images.damage.jpeg_losses import jpeg

KINDS = ["gaussian", "poisson-gaussian", "salt-and-pepper", "jpeg", "noise-factor", "mixed", "camera"]


def noise(kind: str, **more: object) -> NoiseSettings:
    return NoiseSettings.model_validate({"kind": kind, **more})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gray(level: float, count: int = 4, size: int = 128, channels: int = 1) -> torch.Tensor:
    return torch.full((count, channels, size, size), level)


def smooth(count: int = 6, channels: int = 3, size: int = 32) -> torch.Tensor:
    """Images that differ, from 0 to 1."""
    ramp = torch.linspace(0, 1, size)
    phase = torch.arange(count * channels).reshape(count, channels, 1, 1) / (count * channels)
    return ((ramp[:, None] + ramp) / 2 + phase) % 1


def neighbours(values: torch.Tensor) -> float:
    """Correlation between pixels side by side."""
    return float((values[..., 1:] * values[..., :-1]).mean() / values.square().mean())


@pytest.mark.parametrize("sigma", [5.0, 25.0, 50.0])
def test_gaussian_noise_has_its_sigma_and_no_mean(sigma: float) -> None:
    added = corrupt(gray(0.5), noise("gaussian", sigma=sigma), seeded()) - 0.5
    assert float(added.std() * 255) == pytest.approx(sigma, rel=0.02)
    assert float(added.mean() * 255) == pytest.approx(0, abs=0.02 * sigma)
    kurtosis = float((added / added.std()).pow(4).mean())
    assert kurtosis == pytest.approx(3, abs=0.15)


def test_gaussian_noise_is_its_own_in_every_pixel_channel_and_image() -> None:
    added = corrupt(gray(0.5, channels=3), noise("gaussian"), seeded()) - 0.5
    assert neighbours(added) == pytest.approx(0, abs=0.02)
    assert neighbours(added.transpose(2, 3)) == pytest.approx(0, abs=0.02)
    across = torch.corrcoef(added.flatten(2).flatten(0, 1))
    assert (across - torch.eye(12)).abs().max() < 0.05


def test_a_range_gives_each_image_its_own_strength_within_it() -> None:
    added = corrupt(gray(0.5, count=200, size=32), noise("gaussian", sigma=[10, 50]), seeded()) - 0.5
    sigmas = added.flatten(1).std(dim=1) * 255
    assert 9 < sigmas.min() < 13
    assert 47 < sigmas.max() < 54
    assert float(sigmas.mean()) == pytest.approx(30, abs=2.5)


def test_gaussian_noise_leaves_the_range_of_images_unless_clipped() -> None:
    white = gray(1.0)
    assert corrupt(white, noise("gaussian"), seeded()).max() > 1.2
    clipped = corrupt(white, noise("gaussian", clip=True), seeded())
    assert clipped.max() == 1
    assert (clipped < 1).float().mean() == pytest.approx(0.5, abs=0.02)


def test_correlated_noise_is_blurred_as_strong_and_alike_at_the_borders() -> None:
    added = corrupt(gray(0.5, count=16, size=64), noise("gaussian", correlation=1.0), seeded()) - 0.5
    assert float(added.std() * 255) == pytest.approx(25, rel=0.03)
    assert float(added[..., 0, :].std() * 255) == pytest.approx(25, rel=0.1)
    # White noise under a Gaussian blur of width s: correlation exp(-d² / 4 s²) at distance d.
    assert neighbours(added) == pytest.approx(0.78, abs=0.03)
    assert neighbours(added.transpose(2, 3)) == pytest.approx(0.78, abs=0.03)


def test_a_range_of_correlations_begins_at_white_noise() -> None:
    chosen = noise("gaussian", correlation=[0, 2])
    added = corrupt(gray(0.5, count=60, size=64), chosen, seeded()) - 0.5
    correlations = [neighbours(one) for one in added]
    assert min(correlations) < 0.1
    assert max(correlations) > 0.9
    assert float(added.std() * 255) == pytest.approx(25, rel=0.03)


def test_poisson_gaussian_variance_grows_with_brightness_from_that_of_the_read_noise() -> None:
    chosen = noise("poisson-gaussian", photons=50, sigma=10)
    levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    noisy = corrupt(levels.reshape(-1, 1, 1, 1).expand(-1, 1, 200, 200), chosen, seeded()).flatten(1)
    torch.testing.assert_close(noisy.mean(dim=1), levels, atol=0.004, rtol=0)
    torch.testing.assert_close(noisy.var(dim=1), levels / 50 + (10 / 255) ** 2, rtol=0.05, atol=0)


def test_salt_and_pepper_turn_their_share_of_whole_pixels_half_to_each() -> None:
    noisy = corrupt(gray(0.5, channels=3), noise("salt-and-pepper", amount=0.2), seeded())
    assert set(noisy.flatten().tolist()) == {0.0, 0.5, 1.0}
    assert float((noisy == 0).float().mean()) == pytest.approx(0.1, rel=0.05)
    assert float((noisy == 1).float().mean()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(noisy[:, :1].expand(-1, 3, -1, -1), noisy)


@pytest.mark.parametrize(("amount", "left"), [(0.0, 1.0), (1.0, 0.0)])
def test_salt_and_pepper_may_spare_all_or_nothing(amount: float, left: float) -> None:
    noisy = corrupt(gray(0.5), noise("salt-and-pepper", amount=amount), seeded())
    assert (noisy == 0.5).float().mean() == left


def test_the_noise_factor_is_added_and_clipped() -> None:
    noisy = corrupt(gray(0.5), noise("noise-factor", noise_factor=0.1), seeded())
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.02)
    strong = corrupt(gray(0.5), noise("noise-factor", noise_factor=0.5), seeded())
    assert float((strong == 0).float().mean()) == pytest.approx(0.159, abs=0.01)  # beyond one deviation
    assert float((strong == 1).float().mean()) == pytest.approx(0.159, abs=0.01)


def test_jpeg_has_its_quality_and_a_range_has_several() -> None:
    images = smooth()
    expected = jpeg(images, torch.full((6,), 12))
    assert torch.equal(corrupt(images, noise("jpeg", quality=12), seeded()), expected)
    ranged = corrupt(images, noise("jpeg", quality=[5, 95]), seeded())
    same = [one for one in range(1, 96) if torch.equal(jpeg(images, torch.full((6,), one)), ranged)]
    assert same == []


def test_mixed_noise_gives_every_kind_to_some_images() -> None:
    chosen = noise("mixed", sigma=20, photons=20, amount=0.1, quality=10)
    flat = gray(128 / 255, count=200, size=32)  # which JPEG alone leaves as it is
    noisy = corrupt(flat, chosen, seeded())
    untouched = torch.isclose(noisy, flat, atol=1e-5).flatten(1)
    jpeg_alone = untouched.all(dim=1)
    dotted = untouched.float().mean(dim=1).sub(0.9).abs().lt(0.05)
    whole = torch.isclose(noisy * 255, (noisy * 255).round(), atol=1e-3).flatten(1).all(dim=1)
    after_jpeg = whole & ~jpeg_alone & ~dotted
    deviation = noisy.flatten(1).std(dim=1) * 255
    white = ~whole
    gaussian, poisson = white & (deviation < 25), white & (deviation > 30)
    counts = [int(kind.sum()) for kind in (jpeg_alone, dotted, after_jpeg, gaussian, poisson)]
    assert sum(counts) == 200
    assert min(counts) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_noise_and_leaves_the_images(kind: str) -> None:
    images, chosen = smooth(), noise(kind, correlation=1.0)
    before = images.clone()
    first, again, other = (corrupt(images, chosen, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(images, before)
    assert torch.equal(first, again)
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert not torch.equal(first, images)
    assert kind == "jpeg" or not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_in_memory_is_kept_and_does_not_change_the_noise(kind: str) -> None:
    images, chosen = smooth(), noise(kind, correlation=1.0)
    last = images.to(memory_format=torch.channels_last)
    plain, other = (corrupt(layout, chosen, seeded()) for layout in (images, last))
    assert plain.is_contiguous()
    assert other.is_contiguous(memory_format=torch.channels_last)
    if kind in ("jpeg", "mixed"):
        # Coefficients half-way between two steps fall to either, as each layout is added up in its own order.
        assert -10 * float((plain - other).square().mean().log10()) > 42  # dB; see test_jpeg.py
    else:
        assert torch.equal(plain, other), "each value for itself"


def test_without_a_generator_torch_is_drawn_from() -> None:
    images = gray(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = (corrupt(images, NoiseSettings()) for _ in range(2))
        torch.manual_seed(3)
        assert torch.equal(corrupt(images, NoiseSettings()), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_noise_depends_on_the_seed_and_the_index_alone(kind: str) -> None:
    images, chosen = smooth(), noise(kind, sigma=[5, 50], quality=[5, 95], correlation=[0, 1])
    together = corrupt_held_out(images, chosen, 7, range(6))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of which nothing must be seen
        apart = [corrupt_held_out(images[i : i + 1], chosen, 7, [i]) for i in (5, 2)]
    torch.testing.assert_close(together[[5, 2]], torch.cat(apart))
    assert not torch.equal(corrupt_held_out(images, chosen, 8, range(6)), together)


def test_another_seed_is_not_the_same_noise_at_another_index() -> None:
    images = gray(0.5, count=1, size=16).expand(20, -1, -1, -1)
    noisy = [corrupt_held_out(images, NoiseSettings(), seed, range(20)) for seed in range(3)]
    assert len({image.numpy().tobytes() for image in torch.cat(noisy)}) == 60


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_held_out_noise_is_the_same_on_every_device(kind: str) -> None:
    images, chosen = smooth(), noise(kind, correlation=1.0)
    there = corrupt_held_out(images.to("cuda"), chosen, 7, range(6))
    assert there.device.type == "cuda"
    assert (there.cpu() - corrupt_held_out(images, chosen, 7, range(6))).abs().mean() < 1e-3


def test_noise_is_no_part_of_the_gradient_and_mixed_precision_does_not_change_it() -> None:
    images, chosen = smooth().requires_grad_(), noise("gaussian", correlation=1.0)
    noisy = corrupt(images, chosen, seeded())
    assert not noisy.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(corrupt(images, chosen, seeded()), noisy)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"sigma": [50, 10]}, "lowest, highest"),
        ({"sigma": -1}, "greater than or equal to 0"),
        ({"sigma": [5, 300]}, "less than or equal to 255"),
        ({"photons": 0}, "greater than 0"),
        ({"amount": 1.5}, "less than or equal to 1"),
        ({"quality": 96}, "less than or equal to 95"),
        ({"level": 25}, "Extra inputs"),
        ({"kind": "snow"}, "salt-and-pepper"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        NoiseSettings.model_validate(wrong)


def photo(height: int, width: int, channels: int) -> torch.Tensor:
    """(1, C, H, W): a building front, which has edges, texture and colours."""
    pixels = torch.from_numpy(building_front(0, 3, 128)[0][:height, :width]).permute(2, 0, 1)
    return (pixels if channels == 3 else pixels[:1]).float().div(255.0)[None]


def by_pillow(image: torch.Tensor, quality: int) -> torch.Tensor:
    pixels = image[0].mul(255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
        file, format="JPEG", quality=quality, subsampling="4:2:0"
    )
    decoded = np.array(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(decoded).permute(2, 0, 1).float().div(255.0)[None]


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * (first - second).square().mean().log10())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 95])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (67, 93)])
def test_the_losses_are_those_of_pillows_jpeg(channels: int, quality: int, height: int, width: int) -> None:
    image = photo(height, width, channels)
    ours, theirs = jpeg(image, torch.tensor([quality])), by_pillow(image, quality)
    assert psnr(ours, theirs) > 42  # coefficients half-way between two steps fall to either
    assert psnr(ours, image) == pytest.approx(psnr(theirs, image), abs=0.1)


def test_each_image_has_its_own_quality() -> None:
    image = photo(64, 64, 3)
    qualities = torch.tensor([5, 40, 90])
    together = jpeg(image.expand(3, -1, -1, -1), qualities)
    for one, quality in zip(together, qualities, strict=True):
        # Not equal: coefficients half-way between two steps fall to either, as batches are added up in some
        # order. libjpeg's integers are further off, and come within 42 dB.
        assert psnr(one[None], jpeg(image, quality[None])) > 42
    losses = [psnr(one, image[0]) for one in together]
    assert losses[0] + 3 < losses[1]
    assert losses[1] + 3 < losses[2]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (1, 3, 9, 16), (1, 4, 8, 17)])
def test_any_size_comes_back_as_whole_levels_from_0_to_1(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    levels = jpeg(images, torch.full(shape[:1], 50.0)) * 255
    assert levels.shape == shape
    torch.testing.assert_close(levels, levels.round())
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_one_colour_stays_and_the_images_are_left_as_they_were() -> None:
    images = torch.full((2, 1, 20, 20), 128 / 255)
    torch.testing.assert_close(jpeg(images, torch.tensor([1, 95])), images)
    rough = photo(32, 32, 3)
    before = rough.clone()
    jpeg(rough, torch.tensor([10]))
    assert torch.equal(rough, before)


def test_mixed_precision_around_it_changes_nothing() -> None:
    image, quality = photo(64, 64, 3), torch.tensor([40])
    plain = jpeg(image, quality)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(jpeg(image, quality), plain)
