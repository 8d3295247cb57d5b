from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from genray.errors import DataError, RunError
from genray.io.bad_input import BadInput
from jobs.runs.outcome import FinalMetrics, TrainingOutcome
from jobs.runs.run import Run, SettingChange, SettingsRecord


def record(
    values: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None, changeable: Collection[str] = ()
) -> SettingsRecord:
    return SettingsRecord(values, defaults or {}, changeable)


def test_a_run_without_a_name_is_named_by_target_and_time(tmp_path: Path) -> None:
    assert Run.named(str(tmp_path), None, "train-pix2pix").name.startswith("train-pix2pix-20")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "x" * 101, "a b"])
def test_a_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(RunError, match="cannot be the name of a run"):
            Run.named(str(tmp_path), name, "t")
    else:
        assert Run.named(str(tmp_path), name, "t").name.startswith("t-")


def test_two_processes_cannot_hold_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with (
        run.locked(),
        pytest.raises(RunError, match="in use by another process"),
        Run(tmp_path / "a").locked(),
    ):
        pass
    with run.locked():
        assert True, "it is free again"


def test_a_run_belongs_to_its_settings(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with run.locked():
        changeable = {"loop.epochs"}
        assert run.adopt(record({"seed": 1, "loop.epochs": 5}, changeable=changeable), {}) == []
        (change,) = run.adopt(record({"seed": 1, "loop.epochs": 9}, changeable=changeable), {})
        assert change == SettingChange("loop.epochs", 5, 9)
        assert str(change) == "loop.epochs: 5 -> 9"
        with pytest.raises(RunError, match="seed: 1 -> 2") as caught:
            run.adopt(record({"seed": 2, "loop.epochs": 9}, changeable=changeable), {})
    assert "another --name" in str(caught.value)


def test_an_input_is_set_aside_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(2):
        run.add_set_aside(BadInput("a\nb.png", "empty", "0 bytes"))
    assert run.read_set_aside() == [{"path": "a\nb.png", "reason": "empty", "detail": "0 bytes"}]


def test_a_group_of_settings_may_change_at_any_depth(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    changeable = {"eval.", "sweep.settings.eval."}
    before = {"eval.k": 1, "sweep.settings.eval.deep.k": 1, "sweep.settings.evaluation": 1}
    with run.locked():
        run.adopt(record(before, changeable=changeable), {})
        after = {**before, "eval.k": 2, "sweep.settings.eval.deep.k": 2}
        assert len(run.adopt(record(after, changeable=changeable), {})) == 2
        with pytest.raises(RunError, match="evaluation: 1 -> 2"):
            run.adopt(record({**after, "sweep.settings.evaluation": 2}, changeable=changeable), {})


def test_a_history_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_history() == []
    run.history.write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "lo')
    assert run.read_history() == [{"epoch": 1, "loss": 0.5}]


def test_a_setting_that_is_newer_than_the_run_counts_as_its_default(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with run.locked():
        defaults = {"seed": 0, "loss.new": 0}
        run.adopt(record({"seed": 1}), {})
        assert run.adopt(record({"seed": 1, "loss.new": 0}, defaults=defaults), {}) == []
        with pytest.raises(RunError, match=r"loss\.new: 0 -> 1"):
            run.adopt(record({"seed": 1, "loss.new": 1}, defaults=defaults), {})


def test_a_list_that_a_kill_cut_short_can_be_read_and_prolonged(tmp_path: Path) -> None:
    Run(tmp_path).add_set_aside(BadInput("a.png", "empty", ""))
    with Run(tmp_path).set_aside.open("a") as file:
        file.write('{"path": "b.p')
    assert [row["path"] for row in Run(tmp_path).read_set_aside()] == ["a.png"]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    run.checkpoints.mkdir(parents=True)
    leftover = run.checkpoints / ".last.safetensors.123.tmp"
    leftover.write_bytes(b"half")
    with run.locked():
        assert not leftover.exists()


@pytest.mark.parametrize(
    ("runs", "location"),
    [
        ("s3://bucket/runs", "s3://bucket/runs/first"),
        ("gs://bucket/", "gs://bucket/first"),
        ("s3://bucket/runs?region=eu-west-1", "s3://bucket/runs/first?region=eu-west-1"),
        ("file:///data/runs", "/data/runs/first"),
        ("/data/runs/", "/data/runs/first"),
    ],
)
def test_a_run_lies_in_a_folder_or_a_store(runs: str, location: str) -> None:
    run = Run.named(runs, "first", "train-pix2pix")
    assert (run.name, run.location) == ("first", location)
    assert run.is_remote == ("://" in location)
    assert run.place(run.samples / "a.png") == location.replace("first", "first/samples/a.png")


def test_a_run_in_the_memory_of_one_process_is_refused() -> None:
    with pytest.raises(RunError, match="memory of one process"):
        Run.named("memory://runs", "a", "train-pix2pix")


def test_the_error_of_one_worker_reaches_the_group_after_its_restart(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_failure() is None
    run.write_failure(DataError("gone", where="here", hint="look"))
    failure = run.read_failure()
    assert type(failure) is DataError
    assert str(failure) == str(DataError("gone", where="here", hint="look"))
    run.clear_failure()
    assert run.read_failure() is None


def test_a_run_belongs_to_its_data(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with run.locked():
        run.adopt(record({}), {"train": 5})
        with pytest.raises(RunError, match="made with other data:\n    train: 5 -> 6"):
            run.adopt(record({}), {"train": 6})


@pytest.mark.parametrize("text", ["", "a: [", "- 1"])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    run = Run(tmp_path)
    run.settings.write_text(text)
    with pytest.raises(RunError, match=r"settings\.yaml of the run .* is damaged"):
        run.changes(record({"seed": 1}))


@pytest.mark.parametrize("text", ["{bad", "{}", '{"epochs": 3}'])
def test_a_damaged_outcome_or_a_missing_bundle_is_not_finished(tmp_path: Path, text: str) -> None:
    Run(tmp_path).outcome.write_text(text)
    assert Run(tmp_path).read_outcome() is None


def test_a_finished_run_has_its_outcome_wherever_it_lies_now(tmp_path: Path) -> None:
    run = Run(tmp_path / "first")
    metrics = FinalMetrics({"l1": 0.5, "epoch": 3}, {"pca": {"l1": 0.75}})
    outcome = TrainingOutcome(
        target="train-x",
        name="first",
        run=str(run.folder),
        bundle=str(run.bundle),
        metrics=metrics,
        headline=["l1"],
        sample="beat",
        seconds=1.5,
        set_aside=2,
        epochs=3,
    )
    run.write_outcome(outcome)
    assert run.read_outcome() is None, "it has no bundle"
    run.bundle.mkdir()
    (run.bundle / "bundle.json").touch()
    assert run.read_outcome() == outcome
    moved = Run(run.folder.rename(tmp_path / "second")).read_outcome()
    assert moved is not None
    assert (moved.name, moved.bundle) == ("second", str(tmp_path / "second" / "bundle"))
