"""Measures of generated images: what they say of good samples, and of each way in which samples are bad."""

import math
from pathlib import Path

import pytest
import torch

from genray.errors import DataError
from genray.measures.images import ImageMeasures
from genray.measures.quality import quality_from_json

CLASSES = 4


def bars(count: int, seed: int, *, channels: int = 1, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one bar each, at a place that is its class, of random brightness, with noise; and classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = 0.1 * torch.rand(count, channels, side, side, generator=generator)
    width = side // CLASSES
    for image, label in zip(images, labels, strict=True):
        left = int(label) * width
        image[:, :, left : left + width] += 0.3 + 0.6 * torch.rand((), generator=generator)
    return (images * 255).round().to(torch.uint8), labels


def unit(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


IMAGES, LABELS = bars(800, seed=0)
FRESH, FRESH_LABELS = bars(300, seed=1)


@pytest.fixture(scope="module")
def measures() -> ImageMeasures:
    return ImageMeasures.fit(IMAGES, LABELS, 0, None)


def test_real_images_have_all_classes_full_coverage_and_the_distance_of_the_floor(
    measures: ImageMeasures,
) -> None:
    quality = measures.measure(unit(FRESH))
    assert measures.reference.accuracy > 0.98
    assert (quality.modes, quality.modes_total) == (4, 4)
    assert quality.shares == pytest.approx([0.25] * 4, abs=0.08)
    assert quality.kl < 0.03
    assert quality.coverage > 0.9
    assert quality.density == pytest.approx(1, abs=0.2)
    assert quality.duplicates < 0.1
    assert quality.frechet < 3 * quality.frechet_floor


def test_measures_do_not_depend_on_the_precision_of_a_training(measures: ImageMeasures) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        within = measures.measure(unit(FRESH))
    assert within == measures.measure(unit(FRESH))


def test_a_class_that_is_missing_is_seen(measures: ImageMeasures) -> None:
    quality = measures.measure(unit(FRESH[FRESH_LABELS < 3]))
    assert quality.modes == 3
    assert quality.shares[3] < 0.02
    assert quality.kl > 0.2
    assert quality.coverage < 0.85
    assert quality.frechet > 5 * quality.frechet_floor


def test_a_few_misread_samples_are_no_class(measures: ImageMeasures) -> None:
    some = torch.cat([FRESH[FRESH_LABELS < 3], FRESH[FRESH_LABELS == 3][:1]])
    assert measures.measure(unit(some)).modes == 3


def test_noise_covers_nothing(measures: ImageMeasures) -> None:
    quality = measures.measure(torch.rand(300, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert quality.coverage < 0.1
    assert quality.density < 0.1
    assert quality.frechet > 10 * quality.frechet_floor


def test_samples_that_repeat_few_images_are_duplicates(measures: ImageMeasures) -> None:
    generator = torch.Generator().manual_seed(0)
    repeated = unit(FRESH[:10]).repeat(30, 1, 1, 1)
    quality = measures.measure(repeated + 0.01 * torch.randn(repeated.shape, generator=generator))
    assert quality.duplicates > 0.95
    assert quality.coverage < 0.5


def test_constant_samples_are_all_duplicates_of_one_class(measures: ImageMeasures) -> None:
    quality = measures.measure(torch.zeros(50, 1, 16, 16))
    assert (quality.modes, quality.duplicates) == (1, 1)
    assert math.isfinite(quality.frechet)
    assert quality.coverage < 0.2


def test_fewer_samples_are_compared_with_as_many_real_images(measures: ImageMeasures) -> None:
    quality = measures.measure(unit(FRESH[:40]))
    assert quality.coverage > 0.85
    assert quality.frechet < 3 * quality.frechet_floor


def test_broken_samples_are_counted_and_left_out(measures: ImageMeasures) -> None:
    broken = unit(FRESH).clone()
    broken[::3, 0, 2, 2] = math.nan
    broken[1, 0, 0, 0] = math.inf
    quality = measures.measure(broken)
    assert quality.broken == pytest.approx(101 / 300)
    assert quality.samples == 300
    assert quality.coverage > 0.9


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_samples_give_no_misleading_values(measures: ImageMeasures, count: int) -> None:
    quality = measures.measure(unit(FRESH[:count]))
    assert quality.modes <= count
    assert ("frechet" in quality.numbers()) == (count == 2)
    restored = quality_from_json(quality.as_json())
    assert restored.numbers() == quality.numbers()
    assert restored.shares == quality.shares


def test_only_broken_samples_cover_nothing(measures: ImageMeasures) -> None:
    quality = measures.measure(torch.full((20, 1, 16, 16), math.nan))
    assert (quality.broken, quality.modes, quality.coverage) == (1, 0, 0)
    assert "kl" not in quality.numbers()


def test_samples_of_another_shape_are_refused(measures: ImageMeasures) -> None:
    with pytest.raises(ValueError, match=r"\(5, 3, 16, 16\)"):
        measures.measure(torch.zeros(5, 3, 16, 16))


def test_each_channel_is_read_by_itself_where_each_has_a_label() -> None:
    places = torch.randint(0, 800, (400, 3), generator=torch.Generator().manual_seed(2))
    measures = ImageMeasures.fit(IMAGES[places, 0], LABELS[places], 0, None)
    fresh = torch.randint(0, 300, (900, 3), generator=torch.Generator().manual_seed(3))
    classes = FRESH_LABELS[fresh]
    read = measures.classes_of(unit(FRESH[fresh, 0]))
    asked = classes @ torch.tensor([16, 4, 1])
    assert (read == asked).float().mean() > 0.98
    quality = measures.measure(unit(FRESH[fresh, 0]))
    assert (quality.modes, quality.modes_total) == (64, 64)
    same = measures.measure(unit(FRESH[fresh[:, :1].expand(-1, 3), 0]))
    assert same.modes == 4


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 80)])
def test_clusters_stand_for_classes_of_data_without_labels(channels: int, side: int) -> None:
    images, _ = bars(160, seed=4, channels=channels, side=side)
    measures = ImageMeasures.fit(images, None, 0, None)
    fresh, fresh_labels = bars(80, seed=5, channels=channels, side=side)
    assert measures.measure(unit(fresh)).modes >= 0.8 * measures.measure(unit(images)).modes_total
    one = measures.measure(unit(fresh[fresh_labels == 0]))
    assert one.modes <= 0.5 * one.modes_total


def test_data_of_one_image_is_one_class_and_the_random_state_stays() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with torch.inference_mode():
        quality = ImageMeasures.fit(IMAGES[:1].repeat(40, 1, 1, 1), None, 0, None).measure(unit(FRESH))
    assert (quality.modes, quality.modes_total) == (1, 1)
    assert torch.rand(1) == expected


def test_the_test_images_of_the_data_give_the_floor() -> None:
    other = ImageMeasures.fit(IMAGES[:200], LABELS[:200], 0, None, held_out=IMAGES[LABELS == 0])
    assert other.measure(unit(IMAGES[LABELS == 0])).frechet_floor > 10


def test_a_fit_is_kept_and_found_by_its_data(tmp_path: Path) -> None:
    images, labels = IMAGES[:80], LABELS[:80]
    first = ImageMeasures.fit(images, labels, 0, tmp_path / "measures")
    (file,) = (tmp_path / "measures").iterdir()
    written = file.stat().st_mtime_ns
    again = ImageMeasures.fit(images, labels, 0, tmp_path / "measures")
    assert file.stat().st_mtime_ns == written
    assert again.measure(unit(FRESH)) == first.measure(unit(FRESH))
    changed = images.clone()
    changed[0, 0, 0, 0] += 1
    ImageMeasures.fit(changed, labels, 0, tmp_path / "measures")
    assert len(list((tmp_path / "measures").iterdir())) == 2
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert ImageMeasures.fit(images, labels, 0, tmp_path / "measures").measure(unit(FRESH)) == first.measure(
        unit(FRESH)
    )
    assert len(file.read_bytes()) == len(whole)


def test_data_that_cannot_be_measured_against_is_refused() -> None:
    with pytest.raises(DataError, match="15 images are too few"):
        ImageMeasures.fit(IMAGES[:15], None, 0, None)
    with pytest.raises(DataError, match="64000000 classes are too many"):
        ImageMeasures.fit(IMAGES[:16].expand(-1, 3, -1, -1), torch.full((16, 3), 399), 0, None)
    with pytest.raises(ValueError, match="uint8"):
        ImageMeasures.fit(unit(IMAGES), LABELS, 0, None)
    with pytest.raises(ValueError, match="labels are"):
        ImageMeasures.fit(IMAGES, LABELS[:7], 0, None)
