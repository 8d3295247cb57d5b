from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from genray.cli.main import main
from tests.pipelines.conftest import photo, write_photos


def plan(target: str, photos: Path, *more: str, sets: tuple[str, ...] = ()) -> Result:
    given = (f"input={photos}", f"output={photos.parent / 'out'}", "work.gpu=false", *sets)
    words = [word for text in given for word in ("--set", text)]
    return CliRunner().invoke(main, ["plan", target, *words, *more], catch_exceptions=False)


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    return dict(json.loads(line))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 names of one image of 0.2 megapixels."""
    folder = tmp_path_factory.mktemp("many") / "in"
    folder.mkdir()
    Image.fromarray(photo(np.random.default_rng(0), 400, 500, 10)).save(folder / "00000.png")
    for index in range(1, 20_000):
        os.link(folder / "00000.png", folder / f"{index:05}.png")
    return folder


def test_figures_agree_with_one_another(many: Path) -> None:
    found = figures(plan("corrupt", many, "--json", "--sample", "8", sets=("work.workers=3",)))
    size = (many / "00000.png").stat().st_size
    assert (found["target"], found["images"], found["workers"]) == ("corrupt", 20_000, 3)
    assert found["gigabytes"] == pytest.approx(20_000 * size / 1e9, abs=0.001)
    assert found["sample"] == {"images": 8, "failed": 0, "megapixels": 0.2}
    seconds = found["images"] / found["images_per_second"]
    assert found["hours"] == pytest.approx(seconds / 3600 / 3, rel=0.01, abs=0.0005)
    assert found["workers_needed"] == 1
    assert found["hours_with_them"] == pytest.approx(seconds / 3600, rel=0.01, abs=0.0005)
    stages = found["stage_seconds"]
    assert set(stages) == {"read", "decode", "model", "encode", "write"}
    assert stages["decode"] > 0
    assert stages["model"] > 0
    # Stages overlap in part, and between them lies little else.
    assert 0.5 < sum(stages.values()) * found["images_per_second"] < 3


def test_the_workers_that_a_deadline_needs_are_as_few_as_do(many: Path) -> None:
    found = figures(plan("corrupt", many, "--json", "--sample", "8", "--hours", "0.01"))
    hours = found["images"] / found["images_per_second"] / 3600
    assert found["workers_needed"] == pytest.approx(math.ceil(hours / 0.01), abs=1)
    assert found["workers_needed"] > 1
    assert found["hours_with_them"] <= 0.0105


def test_without_ray_one_worker_is_reckoned_with(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 4)
    assert figures(plan("corrupt", tmp_path / "in", "--json", sets=("work.workers=0",)))["workers"] == 1


def test_nothing_is_written_to_the_output_nor_to_the_input(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 6)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert figures(plan("corrupt", tmp_path / "in", "--json"))["images"] == 6
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_person_is_told_the_same(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 6)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG")
    result = plan("corrupt", tmp_path / "in", "--hours", "2", sets=("work.workers=2",))
    assert result.exit_code == 0
    printed = {line[:12].strip(): line[12:].strip() for line in result.stdout.splitlines()}
    assert printed["images"].startswith("7, ")
    assert printed["sample"] == "7 of 0.0031 megapixels, 1 failed"
    assert "decode" in printed["ms per image"]
    assert printed["one worker"].endswith("images/s")
    assert printed["in 2 h"].startswith("1 worker (")
    assert "2 here" in printed
    assert "7 images listed; measuring 7" in result.stderr


def test_the_sample_is_as_large_as_asked_for_and_comes_from_everywhere(many: Path) -> None:
    result = plan("corrupt", many, "--json", "--sample", "5")
    assert figures(result)["sample"]["images"] == 5


def test_images_that_are_all_broken_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(5):
        (tmp_path / "in" / f"{index}.png").write_bytes(b"\x89PNG and no more")
    result = plan("corrupt", tmp_path / "in")
    assert result.exit_code == 2
    assert "none of 5 images could be processed; the first failed with truncated" in result.stderr
    assert str(tmp_path / "in") in result.stderr
    assert not (tmp_path / "out").exists()
    assert json.loads(plan("corrupt", tmp_path / "in", "--json").stdout)["exit_code"] == 2


def test_an_input_that_is_missing_or_empty_is_said(tmp_path: Path) -> None:
    result = plan("corrupt", tmp_path / "in")
    assert result.exit_code == 2
    assert "missing" in result.stderr
    (tmp_path / "in").mkdir()
    result = plan("corrupt", tmp_path / "in")
    assert result.exit_code == 2
    assert "there are no image files" in result.stderr


def test_a_training_cannot_be_planned(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["plan", "train-pix2pix"])
    assert result.exit_code == 2
    assert "train-pix2pix is not a bulk target" in result.stderr


@pytest.mark.parametrize("option", [("--sample", "0"), ("--sample", "65"), ("--hours", "0")])
def test_options_that_make_no_sense_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    write_photos(tmp_path / "in", 2)
    assert plan("corrupt", tmp_path / "in", *option).exit_code == 2
