from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from genray.report.charts import draw_tradeoff
from jobs.runs.run import Run
from jobs.sweeping.results import SweepResults
from jobs.sweeping.trials import TrialResult
from tests.page_reader import PageReader, is_drawn

SETTINGS = {"sweep.target": "train-autoencoder", "sweep.space": {"model": {"latent": [4, 8]}}}


def result(latent: Any, value: float | None, status: Any = "finished", **more: Any) -> TrialResult:
    finished = status == "finished"
    return TrialResult(
        name=f"latent-{latent}",
        settings={"model.latent": latent, **more},
        status=status,
        value=value,
        epochs=3,
        seconds=62.0,
        run=f"/runs/a/trials/latent-{latent}",
        bundle=f"/runs/a/trials/latent-{latent}/bundle" if finished else None,
        metrics={"mse": (value or 0.0) + 0.01} if finished else {},
        baselines={"pca": {"mse": 0.05}} if finished else {},
        reason="<it> exploded" if status == "failed" else None,
    )


TRIALS = [
    result(4, 0.4),
    result(8, None, "failed"),
    result(16, 0.1),
    result(64, 0.05, "stopped"),
]


def test_the_best_comes_first_and_what_has_no_value_last() -> None:
    table = SweepResults(TRIALS, "val_mse", "min")
    assert [trial.settings["model.latent"] for trial in table.trials] == [64, 16, 4, 8]
    assert table.best == TRIALS[2], "the best that has a bundle"
    assert SweepResults(TRIALS, "val_mse", "max").best == TRIALS[0]
    assert SweepResults(TRIALS[1:2], "val_mse", "min").best is None


def test_the_table_has_settings_metric_baselines_and_cost() -> None:
    columns, rows = SweepResults(TRIALS, "val_mse", "min").table()
    assert columns == ["latent", "val_mse", "mse", "pca mse", "epochs", "time", "status"]
    assert rows[1] == ["16", "0.1", "0.11", "0.05", "3", "1 min 2 s", "finished"]
    assert rows[3] == ["8", "-", "-", "-", "3", "1 min 2 s", "failed"]


def test_the_page_shows_the_table_the_curve_and_the_reasons(tmp_path: Path) -> None:
    SweepResults(TRIALS, "val_mse", "min").write(Run(tmp_path), SETTINGS)
    page = PageReader((tmp_path / "report.html").read_text())
    assert "best val_mse" in page.text
    assert ["latent-8", "<it> exploded"] in page.rows
    assert is_drawn(page.pictures[0])
    with Image.open(tmp_path / "quality.png") as picture:
        assert (picture.height, picture.width) == page.pictures[0].shape[:2]


def test_without_a_finished_trial_there_is_no_curve(tmp_path: Path) -> None:
    SweepResults(TRIALS[1:2], "val_mse", "min").write(Run(tmp_path), SETTINGS)
    assert not (tmp_path / "quality.png").exists()
    assert (tmp_path / "sweep.json").exists()


def test_the_terminal_shows_the_best_trial_and_the_files_that_are_there(tmp_path: Path) -> None:
    results = SweepResults(TRIALS, "val_mse", "min")
    results.write(Run(tmp_path), SETTINGS)
    assert list(results.outcome(Run(tmp_path)).rows()) == [
        ("best", "model.latent 16"),
        ("  val_mse", "0.1"),
        ("bundle", "/runs/a/trials/latent-16/bundle"),
        ("report", str(tmp_path / "report.html")),
        ("quality", str(tmp_path / "quality.png")),
    ]


@pytest.mark.parametrize(
    "trials",
    [
        [result("conv", 0.1), result("dense", 0.2)],
        [result([16, 8], 0.1), result([32], 0.2)],
        [result(4, 0.1, seed=1), result(4, 0.2, seed=2), result(8, 0.1, seed=1)],
        [result(i, 0.1 * i + 0.1, rate=i / 7) for i in range(30)],
    ],
)
def test_whatever_was_swept_is_drawn(tmp_path: Path, trials: list[TrialResult]) -> None:
    SweepResults(trials, "val_mse", "min").write(Run(tmp_path), SETTINGS)
    assert is_drawn(PageReader((tmp_path / "report.html").read_text()).pictures[0])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was drawn: curves, x, y."""
    calls: list[Any] = []

    def draw(curves: Any, xlabel: str, ylabel: str, *, joined: bool) -> Any:
        calls.append((curves, xlabel, ylabel))
        return draw_tradeoff(curves, xlabel, ylabel, joined=joined)

    monkeypatch.setattr("jobs.sweeping.results.draw_tradeoff", draw)
    return calls


def test_quality_is_drawn_against_the_size_of_the_code_if_that_was_swept(
    tmp_path: Path, drawn: list[Any]
) -> None:
    trials = [replace(result(n, 0.1), settings={"loop.epochs": n, "model.latent": n}) for n in (4, 8)]
    SweepResults(trials, "val_mse", "min").write(Run(tmp_path), SETTINGS)
    assert drawn[0][1:] == ("model.latent", "mse")


def test_a_baseline_has_a_curve_for_whatever_it_depends_on(tmp_path: Path, drawn: list[Any]) -> None:
    trials = [
        replace(result(n, 0.1, size=size), baselines={"pca": {"mse": size / n}, "mean": {"mse": 1 / n}})
        for n in (4, 8)
        for size in (28, 56)
    ]
    SweepResults(trials, "val_mse", "min").write(Run(tmp_path), SETTINGS)
    curves = drawn[0][0]
    assert list(curves) == ["size 28", "size 56", "pca, size 28", "pca, size 56", "mean"]
    assert curves["pca, size 56"] == [(4, 14.0), (8, 7.0)]
    assert curves["mean"] == [(4, 0.25), (8, 0.125)]


def test_a_metric_of_the_epochs_only_is_drawn_too(tmp_path: Path, drawn: list[Any]) -> None:
    SweepResults(TRIALS, "val_beauty", "min").write(Run(tmp_path), SETTINGS)
    curves, _, ylabel = drawn[0]
    assert curves == {"trials": [(16, 0.1), (4, 0.4)]}, "those that finished"
    assert ylabel == "val_beauty"
