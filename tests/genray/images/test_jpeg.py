from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from genray.datasets.demo_fronts import building_front
from genray.images.corruptions import jpeg


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
