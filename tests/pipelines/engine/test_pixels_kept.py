from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipelines.conftest import Bulk, photo, rows_of


def _picture(kind: str) -> Image.Image:
    colour = Image.fromarray(photo(np.random.default_rng(5), 60, 90))
    gray = colour.convert("L")
    if kind == "gray":
        return gray
    if kind == "deep":
        return Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    if kind == "alpha":
        colour.putalpha(gray)
        return colour
    return gray.convert("LA") if kind == "gray-alpha" else colour


@pytest.mark.parametrize("kind", ["gray", "deep", "alpha", "gray-alpha", "colour"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_image_keeps_its_channels_its_depth_and_its_transparency(
    bulk: Bulk, tmp_path: Path, kind: str, suffix: str
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    photos.mkdir()
    before = _picture(kind)
    if kind == "gray-alpha":
        before.putalpha(Image.fromarray(np.arange(60 * 90).astype(np.uint8).reshape(60, 90)))
    before.save(photos / f"a.{suffix}")
    outcome = bulk("corrupt", f"input={photos}", "write.format=same", "corrupt.noise.sigma=2")
    assert outcome["done"] == 1, outcome["reasons"]
    with Image.open(out / f"a.{suffix}") as made:
        assert made.mode == before.mode
        old, new = (np.asarray(image).astype(float).reshape(60, 90, -1) for image in (before, made))
    if kind in ("alpha", "gray-alpha"):
        assert (old[..., -1] == new[..., -1]).all()
        old, new = old[..., :-1], new[..., :-1]
    noise = (new - old).std() / (257 if kind == "deep" else 1)
    assert noise == pytest.approx(2, rel=0.15)
    (row,) = rows_of(out)
    assert (row["depth"], row["channels"]) == (
        16 if kind == "deep" else 8,
        3 if kind in ("alpha", "colour") else 1,
    )
    assert row["change"] == pytest.approx(2 * 0.8, rel=0.2)


def test_a_photo_that_its_camera_turned_comes_out_upright_with_its_exif_and_profile(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "A camera"
    from PIL import ImageCms, ImageOps

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _picture("colour").save(photos / "a.jpg", exif=exif, icc_profile=profile, quality=95)
    bulk("corrupt", f"input={photos}", "write.format=same", "corrupt.noise.sigma=1")
    with Image.open(photos / "a.jpg") as before, Image.open(out / "a.jpg") as made:
        assert made.size == (60, 90)
        assert made.getexif().get(0x0112, 1) == 1
        assert made.getexif()[0x0110] == "A camera"
        assert made.info["icc_profile"] == profile
        upright = np.asarray(ImageOps.exif_transpose(before)).astype(float)
        assert np.abs(upright - np.asarray(made)).mean() < 3
