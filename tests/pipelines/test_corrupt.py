from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.pipelines.conftest import Bulk, photo, rows_of, write_photos


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_noise_has_the_strength_that_was_asked_for(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        Image.new("RGB", (120, 100), (120, 130, 140)).save(tmp_path / "in" / f"{index}.png")
    bulk("corrupt", f"input={tmp_path / 'in'}", "corrupt.noise.sigma=15")
    made = [read(tmp_path / "out" / f"{i}.png") - (120, 130, 140) for i in range(3)]
    assert [noise.std() for noise in made] == pytest.approx([15] * 3, rel=0.03)
    assert abs(np.corrcoef(made[0].ravel(), made[1].ravel())[0, 1]) < 0.03, "each image draws its own"


def test_the_same_seed_makes_the_same_damage_however_the_work_is_spread(
    embedded_ray: None, bulk: Bulk, tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 9)
    sets = (f"input={tmp_path / 'in'}", "corrupt.kind=both")
    bulk("corrupt", *sets)
    first = {row["path"]: row["sha256"] for row in rows_of(tmp_path / "out")}
    bulk("corrupt", *sets, "retry=all", workers=2)
    assert {row["path"]: row["sha256"] for row in rows_of(tmp_path / "out")} == first
    bulk("corrupt", *sets, "retry=all", "corrupt.seed=1")
    assert not {row["sha256"] for row in rows_of(tmp_path / "out")} & set(first.values())


def test_stamps_change_a_part_of_the_image(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = photo(np.random.default_rng(0), 100, 140)
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "in" / "small.png")
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", "corrupt.kind=stamps")
    assert (outcome["done"], outcome["reasons"]) == (1, {"odd-shape": 1})
    moved = (read(tmp_path / "out" / "a.png") != image).any(axis=-1).mean()
    assert 0.001 < moved < 0.5


MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpeg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
    "bmp": ("1", "L", "P", "RGB"),
}


def test_no_noise_changes_no_byte_of_any_format(bulk: Bulk, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(photo(rng, 24, 32))
    alphas = {"opaque": Image.new("L", (32, 24), 255), "clear": picture.convert("L")}
    inputs = tmp_path / "in"
    inputs.mkdir()
    block = Image.Exif()
    block[0x0112], block[0x010F] = 6, "a maker"
    options: dict[str, dict[str, Any]] = {
        "jpeg": {"quality": 60, "comment": b"words", "exif": block, "dpi": (300, 300)},
        "png": {"exif": block, "dpi": (300, 300)},
        "webp": {"lossless": True, "exif": block},
        "tiff": {"dpi": (300, 300), "tiffinfo": {270: "words", 274: 6}},
        "bmp": {"dpi": (300, 300)},
    }
    for form, modes in MODES.items():
        for mode in modes:
            image = Image.fromarray(rng.integers(0, 2**16, (24, 32)).astype(np.uint16))
            image = image if mode == "I;16" else picture.convert(mode)
            for name, alpha in alphas.items() if mode in ("LA", "RGBA") else [("", None)]:
                if alpha is not None:
                    image.putalpha(alpha)
                image.save(inputs / f"{mode.replace(';', '')}{name}.{form}", form.upper(), **options[form])
    deep = rng.integers(0, 2**16, (24, 32, 4)).astype(np.uint16)
    for samples in (2, 3, 4):
        (inputs / f"deep{samples}.png").write_bytes(imagecodecs.png_encode(deep[..., :samples].copy()))
    clear = picture.quantize(12)
    clear.save(inputs / "clear-palette.png", transparency=bytes(range(12)))
    outcome = bulk("corrupt", f"input={inputs}", "corrupt.noise.sigma=0", "write.format=same")
    names = sorted(path.name for path in inputs.iterdir())
    assert (outcome["done"], outcome["not_kept"]) == (len(names), {})
    assert len(names) > 25
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (inputs / name).read_bytes(), name


def test_noise_leaves_what_the_image_carries_and_the_row_names_the_rest(bulk: Bulk, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    picture = Image.fromarray(photo(np.random.default_rng(0), 24, 32))
    picture.quantize(8).save(inputs / "palette.png", dpi=(300, 300))
    picture.save(inputs / "named.jpg", "PNG", dpi=(300, 300))
    picture.save(inputs / "photo.jpg", dpi=(300, 300), comment=b"words")
    outcome = bulk("corrupt", f"input={inputs}", "corrupt.noise.sigma=20", "write.format=same")
    rows = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert rows["palette.png"]["not_kept"] == ["palette"]
    assert rows["photo.jpg"]["not_kept"] == []
    assert rows["named.jpg"]["detail"] == "the content is PNG, the ending that of JPEG"
    assert outcome["not_kept"] == {"palette": 1}
    for name in rows:
        with Image.open(tmp_path / "out" / name) as made:
            assert np.allclose(made.info["dpi"], 300, atol=0.01)
            assert name != "photo.jpg" or made.info["comment"] == b"words"


def test_an_unchanged_image_is_written_again_where_words_are_to_be_left_out(
    bulk: Bulk, tmp_path: Path
) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    picture = Image.fromarray(photo(np.random.default_rng(0), 24, 32))
    picture.save(inputs / "a.jpg", comment=b"secret")
    bulk("corrupt", f"input={inputs}", "corrupt.noise.sigma=0", "write.format=same", "write.keep_exif=false")
    assert b"secret" not in (tmp_path / "out" / "a.jpg").read_bytes()
