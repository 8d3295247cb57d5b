from pathlib import Path

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
