import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from genray.errors import RunError
from genray.images.pixels import save_png
from jobs.runs.report import write_report
from jobs.runs.run import Run
from tests.page_reader import PageReader, is_drawn

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
EVIL = '<img src=x onerror="alert(1)">'


def read(path: Path) -> PageReader:
    return PageReader(path.read_text(encoding="utf-8"))


def test_a_training_can_be_reported(train: Callable[..., Any], run_of: Callable[[str], Run]) -> None:
    train("first", "loop.epochs=1", "loop.accumulate=2")
    path = write_report(run_of("first"))
    assert path == run_of("first").folder / "report.html"
    page = read(path)
    assert "train-pix2pix, 1 epoch," in page.text
    assert len(page.pictures) == 2, "the curves and the samples"
    assert all(is_drawn(picture) for picture in page.pictures)
    assert len(page.drawings) == 2, "the two networks"
    assert ["Conv2d 3 to 4, 4x4, stride 2", "32 x 32 x 4", "192"] in [row[1:] for row in page.rows]
    assert ["metric", "this run", "constant", "mean_image", "input"] in page.rows
    assert "Verdict: worse than one constant colour: l1 " in page.text
    assert ["loop.accumulate", "2", "1"] in page.rows, "a setting beside its default"
    assert ["loss.l1", "100"] in page.rows, "all settings"
    assert any(row[:1] == ["torch"] for row in page.rows)


def test_a_run_that_has_just_begun_can_be_reported(tmp_path: Path) -> None:
    run = Run(tmp_path / "first")
    run.folder.mkdir()
    run.settings.write_text("loop.epochs: 20\n")
    page = read(write_report(run))
    assert "not finished: 0 of 20 epochs" in page.text
    assert page.pictures == []


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        write_report(Run(tmp_path))
    assert list(tmp_path.iterdir()) == []


def finished(folder: Path, headline: Any, **data: Any) -> Run:
    """A run that is over, with five metrics."""
    run = Run(folder)
    run.folder.mkdir(parents=True)
    run.settings.write_text("loop.epochs: 1\n")
    metrics = {"l1": 0.1, "mse": 0.02, "psnr": 20.5, "ssim": 0.75, "auroc": 0.9375}
    outcome = {"target": "t", "metrics": metrics, "epochs": 1, "headline": headline}
    run.outcome.write_text(json.dumps(outcome))
    (run.folder / "data.json").write_text(json.dumps(data))
    return run


def test_what_the_recipe_names_is_seen_first(tmp_path: Path) -> None:
    run = finished(tmp_path / "first", ["auroc", "none", "psnr", "auroc", ["l1"], 3])
    html = write_report(run).read_text(encoding="utf-8")
    assert re.findall(r"<dt>(\w+)</dt><dd>([\d.]+)</dd>", html) == [("auroc", "0.9375"), ("psnr", "20.5")]
    rows = [row[0] for row in PageReader(html).rows]
    assert rows[:6] == ["metric", "auroc", "psnr", "l1", "mse", "ssim"]


@pytest.mark.parametrize("headline", [None, [], ["none"], "l1", {"l1": 1}])
def test_without_such_names_the_first_metrics_are(tmp_path: Path, headline: Any) -> None:
    html = write_report(finished(tmp_path / "first", headline)).read_text(encoding="utf-8")
    assert re.findall(r"<dt>(\w+)</dt>", html) == ["l1", "mse", "psnr", "ssim"]


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        ({"train": 9, "val": 3, "test": 1200}, "On the 1,200 test images"),
        ({"train": 9, "val": 3, "test": 1}, "On the 1 test image"),
        ({"train": 9, "val": 3, "test": 0}, "On the 3 held-out samples"),
        ({"train": 9, "val": 1}, "On the 1 held-out sample"),
        ({"val": "many", "test": None}, "On the held-out samples"),
    ],
)
def test_it_says_on_what_the_metrics_were_taken(tmp_path: Path, data: Any, caption: str) -> None:
    run = finished(tmp_path / "first", [], **data)
    assert f'<p class="caption">{caption}</p>' in write_report(run).read_text(encoding="utf-8")


def test_before_the_end_nothing_was_taken_on_the_test_images(tmp_path: Path) -> None:
    run = finished(tmp_path / "first", [], val=3, test=5)
    run.outcome.unlink()
    run.history.write_text('{"epoch": 1, "val_l1": 0.5}\n')
    assert "On the 3 held-out samples, with the weights of epoch 1" in read(write_report(run)).text


def test_nothing_that_a_run_says_is_markup(tmp_path: Path) -> None:
    run = Run(tmp_path / "first")
    run.samples.mkdir(parents=True)
    run.settings.write_text(yaml.safe_dump({EVIL: EVIL, "loop.epochs": EVIL}))
    metrics = {EVIL: 0.5, "l1": 0.2, "baselines": {EVIL: {"l1": 0.1, EVIL: 1.0}}}
    run.outcome.write_text(json.dumps({"target": EVIL, "metrics": metrics, "epochs": 1}))
    (run.folder / "data.json").write_text(json.dumps({EVIL: {EVIL: [EVIL]}}))
    run.set_aside.write_text(json.dumps({"path": EVIL, "reason": EVIL, "detail": EVIL}))
    save_png(run.samples / "a.png", NOISE)
    (run.samples / "pictures.json").write_text(
        json.dumps([{"file": "a.png", "title": EVIL, "caption": EVIL}])
    )
    (run.samples / "tables.json").write_text(
        json.dumps([{"title": EVIL, "columns": [EVIL], "rows": [[EVIL]]}])
    )
    run.bundle.mkdir()
    (run.bundle / "bundle.json").write_text(
        json.dumps({"versions": {EVIL: EVIL}, "created": EVIL, "network": EVIL})
    )
    page = read(write_report(run))
    assert page.tags.count("img") == 1
    assert page.text.count(EVIL) > 15
    assert [EVIL, EVIL, EVIL] in page.rows, "the input that was set aside"


def test_a_long_list_of_broken_inputs_is_cut(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.settings.write_text("{}")
    run.set_aside.write_text("".join(json.dumps({"path": f"{i}.png"}) + "\n" for i in range(500)))
    page = read(write_report(run, tmp_path / "elsewhere.html"))
    assert "500 inputs set aside" in page.text
    assert "300 more are listed in set_aside.jsonl" in page.text
