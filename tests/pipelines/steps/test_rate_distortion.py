import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.steps.rate_distortion import (
    COLUMNS,
    LATENTS,
    CodedImage,
    describe,
    draw_rate_distortion,
    rate_distortion,
    table_rows,
)

Pixels = NDArray[np.uint8]


def pictures(channels: int = 3, size: tuple[int, int] = (48, 64)) -> list[Pixels]:
    """Ramps with some discs, each another."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    made = []
    for index in range(3):
        disc = np.hypot(rows - 12 - 6 * index, columns - 20 - 9 * index) < 9
        gray = np.where(disc, 220, 40 + columns + rows).astype(np.uint8)
        made.append(np.stack([gray, gray[::-1], 255 - gray], axis=-1)[..., :channels])
    return made


def worse(images: list[Pixels], by: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [np.clip(i + rng.integers(-by, by + 1, i.shape), 0, 255).astype(np.uint8) for i in images]


def coded(sizes: list[int], images: list[Pixels]) -> list[CodedImage]:
    return [CodedImage(size, image) for size, image in zip(sizes, images, strict=True)]


def webp(image: Pixels, quality: int) -> CodedImage:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=6)
    return CodedImage(len(buffer.getvalue()), np.asarray(Image.open(buffer).convert("RGB")))


def test_old_codecs_keep_to_the_bytes_of_each_image() -> None:
    images = pictures()
    rows = rate_distortion(images, {"a": coded([900, 1000, 1200], worse(images, 3))}, decoder=7)
    assert [row.codec for row in rows[:4]] == [LATENTS, "JPEG", "JPEG without headers", "WebP"]
    assert rows[0].size == pytest.approx(3100 / 3)
    assert rows[0].bits_per_pixel == pytest.approx(8 * 3100 / (3 * 48 * 64))
    assert (rows[0].decoder, rows[1].decoder) == (7, 0)
    assert all(row.size <= rows[0].size and row.larger == 0 for row in rows[1:])
    jpeg = rows[1]
    scan = rows[2]
    assert scan.psnr > jpeg.psnr > 25  # the same bytes go further without headers


def test_the_quality_that_made_a_size_is_found_again() -> None:
    images = pictures()
    encoded = [webp(image, 40) for image in images]
    rows = rate_distortion(images, {"webp": encoded}, decoder=0)
    (found,) = [row for row in rows if row.codec == "WebP"]
    assert found.psnr == pytest.approx(rows[0].psnr, abs=0.1)
    assert 0.98 * rows[0].size < found.size <= rows[0].size


def test_a_codec_that_cannot_be_as_small_says_so_with_its_size() -> None:
    images = pictures()
    rows = rate_distortion(images, {"tiny": coded([30, 30, 5000], worse(images, 30))}, decoder=10)
    jpeg = rows[1]
    assert jpeg.codec == "JPEG"
    assert jpeg.larger == 2
    assert jpeg.size > 100
    description = " ".join(describe(rows))
    assert f"JPEG cannot be as small for 2 of 3 images: {jpeg.size:.0f} bytes" in description


def test_shrinking_first_reaches_sizes_that_the_lowest_quality_does_not() -> None:
    images = pictures(size=(128, 128))
    rows = {r.codec: r for r in rate_distortion(images, {"a": coded([90] * 3, worse(images, 99))}, decoder=0)}
    assert rows["JPEG without headers"].larger == 3
    assert rows["JPEG without headers, shrunk"].larger == 0
    assert rows["JPEG without headers, shrunk"].psnr > rows[LATENTS].psnr


def test_the_verdict_names_the_winner() -> None:
    images = pictures()
    good = rate_distortion(images, {"a": coded([1000] * 3, images)}, decoder=5000)
    bad = rate_distortion(images, {"a": coded([1000] * 3, worse(images, 60))}, decoder=5000)
    assert "better than the codes at 0 of 1 sizes" in describe(good)[0]
    assert "the codes beat" in describe(good)[1]
    assert "better than the codes at 1 of 1 sizes" in describe(bad)[0]
    assert "beats the codes by" in describe(bad)[1]
    assert "5,000 bytes once, as many as the codes of 5 images" in describe(bad)[-1]
    level = [good[0], *(replace(row, psnr=good[0].psnr) for row in good[1:])]
    assert "is as good as the codes" in describe(level)[1]


def test_gray_images_of_several_sizes_and_points_are_compared() -> None:
    images = [*pictures(1), *pictures(1, (20, 36))]
    points = {"fine": coded([600] * 6, worse(images, 2)), "coarse": coded([200] * 6, worse(images, 20))}
    rows = rate_distortion(images, points, decoder=1)
    assert list(dict.fromkeys(row.point for row in rows)) == ["fine", "coarse"]
    fine, coarse = (row for row in rows if row.codec == LATENTS)
    assert fine.psnr > coarse.psnr
    assert fine.ssim > coarse.ssim
    table = table_rows(rows)
    assert len(table) == len(rows)
    assert {len(line) for line in table} == {len(COLUMNS)}
    drawn = draw_rate_distortion(rows)
    assert drawn.dtype == np.uint8
    assert drawn.std() > 5


def test_codes_that_do_not_go_with_the_originals_are_refused() -> None:
    images = pictures()
    with pytest.raises(ValueError, match="a: each original needs a size"):
        rate_distortion(images, {"a": coded([1], images[:1])}, decoder=0)
    with pytest.raises(ValueError, match="a: each original needs a size"):
        rate_distortion(images, {"a": coded([1] * 3, [image[:9] for image in images])}, decoder=0)
    with pytest.raises(ValueError, match="at least 8"):
        rate_distortion([image[:7] for image in images], {"a": coded([1] * 3, images)}, decoder=0)
    with pytest.raises(ValueError, match="needs images"):
        rate_distortion([], {}, decoder=0)
