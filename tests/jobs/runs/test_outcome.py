from dataclasses import replace
from pathlib import Path

from jobs.runs.outcome import FinalMetrics, TrainingOutcome
from jobs.runs.verdict import Verdict


def outcome_in(folder: Path) -> TrainingOutcome:
    return TrainingOutcome(
        target="train-x",
        name=folder.name,
        run=str(folder),
        bundle=str(folder / "bundle"),
        metrics=FinalMetrics(
            {"l1": 0.123456, "epoch": 3},
            {"mean": {"l1": 0.5}},
            Verdict("better-than-trivial", "better than the mean: l1 0.1235 against 0.5", ("pca",)),
            ("the threshold is from 2 images",),
        ),
        headline=["l1"],
        sample="image",
        seconds=62.0,
        set_aside=2,
        epochs=3,
    )


def test_the_terminal_shows_metrics_baselines_and_the_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    assert list(outcome_in(tmp_path).rows()) == [
        ("metrics", "l1 0.1235  epoch 3"),
        ("  mean", "l1 0.5"),
        ("verdict", "better than the mean: l1 0.1235 against 0.5"),
        ("warning", "the threshold is from 2 images"),
        ("set aside", f"2 inputs, listed in {tmp_path / 'set_aside.jsonl'}"),
        ("bundle", str(tmp_path / "bundle")),
        ("report", str(tmp_path / "report.html")),
        ("time", "1 min 2 s"),
    ]


def test_without_broken_inputs_there_is_no_list_of_them(tmp_path: Path) -> None:
    outcome = replace(outcome_in(tmp_path), set_aside=0)
    assert "set aside" not in dict(outcome.rows())


def test_json_has_the_baselines_among_the_metrics_and_can_be_read_again(tmp_path: Path) -> None:
    outcome = outcome_in(tmp_path)
    values = outcome.as_json()
    assert list(values) == [
        "target",
        "name",
        "run",
        "bundle",
        "metrics",
        "quality",
        "verdict",
        "behind",
        "warnings",
        "headline",
        "sample",
        "seconds",
        "set_aside",
        "not_read",
        "epochs",
    ]
    assert values["metrics"] == {"l1": 0.123456, "epoch": 3, "baselines": {"mean": {"l1": 0.5}}}
    assert TrainingOutcome.from_json(values, str(tmp_path)) == outcome
