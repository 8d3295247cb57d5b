import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from genray.errors import RunError, UsageError
from genray.images.pixels import save_png
from jobs.runs.comparison import compare
from tests.page_reader import PageReader, is_drawn

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a finished run: `make("runs/a", mse=0.1, settings={...})`."""

    def work(name: str, mse: float, settings: dict[str, Any], data: str = "sha256:1") -> Path:
        folder = tmp_path / name
        (folder / "samples").mkdir(parents=True)
        (folder / "settings.yaml").write_text(yaml.safe_dump({"loop.epochs": 2, **settings}))
        metrics = {"mse": mse, "psnr": -10 * np.log10(mse), "epoch": 2, "baselines": {"pca": {"mse": 0.02}}}
        (folder / "outcome.json").write_text(json.dumps({"metrics": metrics, "epochs": 2, "target": "t"}))
        (folder / "data.json").write_text(json.dumps({"fingerprint": data}))
        rows = [{"epoch": e, "val_mse": mse / e, "seconds": 1.5} for e in (1, 2)]
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        save_png(folder / "samples" / "latent.png", NOISE)
        listed = [{"file": "latent.png", "title": "Latent space"}]
        (folder / "samples" / "pictures.json").write_text(json.dumps(listed))
        return folder

    return work


def read(path: Path) -> PageReader:
    return PageReader(path.read_text(encoding="utf-8"))


def test_runs_stand_side_by_side(make: Callable[..., Path], tmp_path: Path) -> None:
    first = make("runs/a", 0.01, {"model.latent": 64, "seed": 0, "loss.ema": 0.99991})
    second = make("runs/b", 0.004, {"model.latent": 128, "seed": 0, "loss.ema": 0.99992, "model.beta": 1.0})
    output = tmp_path / "out" / "comparison.html"
    assert compare([first, second], output) == output
    page = read(output)
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows[""] == ["a", "b"]
    assert rows["model.latent"] == ["64", "128"]
    assert rows["loss.ema"] == ["0.99991", "0.99992"], "settings differ by all their digits"
    assert rows["model.beta"] == ["-", "1"]
    assert "seed" not in rows, "the same in both"
    assert rows["training time"] == ["3 s", "3 s"]
    assert page.marked == ["0.004", "23.98"], "the best of each row, and no mark where all are equal"
    assert ["mse", "0.02", "0.02"] in page.rows, "the baseline"
    curves, *pictures = page.pictures
    assert is_drawn(curves)
    assert [picture.shape for picture in pictures] == [NOISE.shape] * 2
    assert "Latent space" in page.text
    assert "different data" not in page.text


def test_runs_of_one_name_are_told_apart(make: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make(f"{place}/first", 0.01, {}, data=place) for place in ("old", "new")]
    page = read(compare(folders, tmp_path / "c.html"))
    assert ["", "old/first", "new/first"] in page.rows
    assert "different data" in page.text


def test_an_unfinished_run_is_compared_as_far_as_it_is(make: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make("a", 0.01, {}), make("b", 0.02, {}), make("c", 0.03, {})]
    (folders[1] / "outcome.json").unlink()
    for file in ("history.jsonl", "data.json", "outcome.json", "samples/pictures.json"):
        (folders[2] / file).unlink()
    page = read(compare(folders, tmp_path / "c.html"))
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["epochs"] == ["2 epochs", "not finished: 2 of 2 epochs", "not finished: 0 of 2 epochs"]
    assert len(page.pictures) == 3


def test_it_says_on_what_each_run_was_judged(make: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make("a", 0.01, {}), make("b", 0.02, {})]
    for folder in folders:
        (folder / "data.json").write_text(json.dumps({"val": 4, "test": 10}))
    assert ["metrics on the 10 test images"] in read(compare(folders, tmp_path / "c.html")).rows
    (folders[1] / "data.json").write_text(json.dumps({"val": 4}))
    rows = read(compare(folders, tmp_path / "c.html")).rows
    assert ["judged on", "the 10 test images", "the 4 held-out samples"] in rows
    assert ["metrics"] in rows


def test_what_the_recipes_name_comes_first(make: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make("a", 0.01, {}), make("b", 0.02, {})]
    for folder in folders:
        outcome = json.loads((folder / "outcome.json").read_text())
        (folder / "outcome.json").write_text(json.dumps({**outcome, "headline": ["psnr"]}))
    names = [row[0] for row in read(compare(folders, tmp_path / "c.html")).rows]
    assert names.index("psnr") < names.index("mse")


def test_one_run_is_no_comparison(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make("a", 0.01, {})
    with pytest.raises(UsageError, match="1 runs cannot be compared"):
        compare([folder, folder / ".." / "a"], tmp_path / "c.html")
    with pytest.raises(RunError, match="is not a run"):
        compare([folder, tmp_path / "none"], tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()
