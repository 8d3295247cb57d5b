import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cluster.targets import find_target
from configs.loading import load
from genray.bundle import load_bundle
from genray.cli import main
from genray.ecg.preprocessing import BeatPreprocessing
from genray.errors import BundleMismatch, DataError, Interrupted
from genray.progress import LineDisplay, Tick
from genray.resources import Resources
from jobs.run import Run
from jobs.train_ecg import TrainEcg, TrainEcgSettings
from tests.beat_files import drawn_beats, write_record, write_table, write_ucr
from tests.jobs.conftest import same

Submit = Callable[..., dict[str, Any]]
QUICK = (
    "data.epoch_beats=512",
    "loop.batch_size=32",
    "loop.epochs=4",
    "loop.validate_every=4",
    "optimizer.learning_rate=0.01",
    "threshold.folds=2",
    "model.latent=4",
    "model.members=2",
)


@pytest.fixture
def beats(tmp_path: Path) -> Path:
    return write_ucr(tmp_path / "tiny")


def test_abnormal_beats_are_found_beside_what_plain_detectors_find(submit: Submit, beats: Path) -> None:
    outcome = submit("train-ecg", "a", f"data.path={beats}", *QUICK)
    metrics = outcome["metrics"]
    assert metrics["auc"] == metrics["average_precision"] == 1
    assert metrics["sensitivity"] == 1
    assert metrics["specificity"] >= 0.6
    assert set(metrics["baselines"]) == {"pca-4", "pca-8", "1-nn"}
    assert metrics["baselines"]["1-nn"]["auc"] == 1
    folder = Path(outcome["run"])
    shown = {file.name for file in (folder / "samples").iterdir()}
    assert {"validation.png", "errors.png", "rates.png", "beats.png", "tables.json"} <= shown
    (table,) = json.loads((folder / "samples" / "tables.json").read_text())
    assert [row[:3] for row in table["rows"]] == [["1", "normal", 20], ["2", "abnormal", 20]]
    assert "Recall of each class" in (folder / "report.html").read_text()


def test_the_bundle_scores_beats_by_itself(submit: Submit, beats: Path) -> None:
    bundle = load_bundle(submit("train-ecg", "a", f"data.path={beats}", *QUICK)["bundle"])
    assert bundle.manifest.kind == "ecg-beats"
    takes, calibration = bundle.manifest.beats, bundle.manifest.calibration
    assert isinstance(takes, BeatPreprocessing)
    raw = np.concatenate([drawn_beats(9, seed=3), drawn_beats(9, abnormal=True, seed=3)])[:, None]
    values = torch.from_numpy(takes.normalised(3 * raw))
    with torch.inference_mode():
        errors = (bundle.network(values) - values).square().mean(dim=(1, 2)).numpy()
    assert (errors[9:] > calibration["threshold"]).all()
    assert np.median(errors[:9]) < calibration["threshold"]
    assert (calibration["error"], calibration["folds"], calibration["beats"]) == ("mse", 2, 40)
    with pytest.raises(BundleMismatch, match="takes beats of an ECG, not images"):
        _ = bundle.manifest.preprocessing
    printed = CliRunner().invoke(main, ["bundle", "show", str(bundle.path)])
    assert "preprocessing.normalisation" in printed.output


def test_the_threshold_is_of_errors_by_networks_that_did_not_learn_the_beats(
    submit: Submit, beats: Path
) -> None:
    crossed = submit("train-ecg", "a", f"data.path={beats}", *QUICK)
    held_out = submit("train-ecg", "b", f"data.path={beats}", *QUICK, "threshold.folds=0")
    first, second = (load_bundle(o["bundle"]).manifest.calibration for o in (crossed, held_out))
    assert (first["folds"], first["beats"]) == (2, 40)
    assert (second["folds"], second["beats"]) == (0, 2)
    assert first["threshold"] != second["threshold"]


def test_a_finished_run_is_judged_again_by_another_threshold(submit: Submit, beats: Path) -> None:
    before = submit("train-ecg", "a", f"data.path={beats}", *QUICK)
    more = ("threshold.kind=deviations", "threshold.deviations=1")
    after = submit("train-ecg", "a", f"data.path={beats}", *QUICK, *more)
    assert after["metrics"]["threshold"] != before["metrics"]["threshold"]
    calibration = load_bundle(after["bundle"]).manifest.calibration
    assert calibration["threshold"] == pytest.approx(calibration["mean"] + calibration["std"])
    first = load_bundle(before["bundle"]).manifest.weights_sha256
    assert load_bundle(after["bundle"]).manifest.weights_sha256 == first


class Stopping(LineDisplay):
    """Asks for a stop at the first step of a kind."""

    def __init__(self, run: Run, unit: str) -> None:
        super().__init__()
        self._run, self._unit = run, unit

    def tick(self, tick: Tick) -> None:
        if tick.unit == self._unit:
            self._run.request_stop()


@pytest.mark.parametrize("unit", ["step", "calibration step"])
def test_stopped_anywhere_it_goes_on_and_ends_the_same(
    submit: Submit, beats: Path, tmp_path: Path, weights: Callable[[str], Any], unit: str
) -> None:
    sets = (f"data.path={beats}", *QUICK, "loss.noise=0.1")
    whole = submit("train-ecg", "whole", *sets)
    sure = (f"runs={tmp_path / 'runs'}", "device.gpu=false", "device.threads=1", "loop.samples=2")
    chosen = load(TrainEcgSettings, target="train-ecg", sets=[*sure, *sets])
    prepared = find_target("train-ecg").load().prepare(chosen, "train-ecg", "parts", lambda text: None)
    with pytest.raises(Interrupted):
        prepared.run(Stopping(Run(tmp_path / "runs" / "parts"), unit), Resources(2, 0), attached=False)
    resumed = submit("train-ecg", "parts", *sets)
    assert same(weights("whole"), weights("parts"))
    assert resumed["metrics"] == whole["metrics"]


@pytest.mark.parametrize("more", [("model.kind=conv",), ("model.kind=dense", "loss.kind=mae")])
def test_other_networks_and_losses_find_them_too(submit: Submit, beats: Path, more: tuple[str, ...]) -> None:
    quick = [each for each in QUICK if "members" not in each]
    outcome = submit("train-ecg", "a", f"data.path={beats}", *quick, *more)
    assert outcome["metrics"]["auc"] > 0.95
    kind = "mae" if "loss.kind=mae" in more else "mse"
    assert load_bundle(outcome["bundle"]).manifest.calibration["error"] == kind


def test_the_protocol_of_the_tutorial_is_a_matter_of_settings(submit: Submit, tmp_path: Path) -> None:
    write_table(tmp_path / "ecg.csv", 80, 40, classes=("1", "0"))
    more = (
        "data.normalisation=minmax",
        "loss.kind=mae",
        "threshold.kind=deviations",
        "threshold.deviations=1",
    )
    outcome = submit("train-ecg", "a", f"data.path={tmp_path / 'ecg.csv'}", *QUICK, *more)
    bundle = load_bundle(outcome["bundle"])
    assert bundle.manifest.beats.span is not None
    assert bundle.manifest.data["test"] == 24
    assert outcome["metrics"]["normal_precision"] > 0.9


def test_recordings_are_split_by_record(submit: Submit, tmp_path: Path) -> None:
    for number in range(5):
        write_record(tmp_path / "records", f"r{number}", "NNNNNNNNVS", seed=20 * number)
    (tmp_path / "records" / "r4.dat").unlink()
    outcome = submit("train-ecg", "a", f"data.path={tmp_path / 'records'}", *QUICK)
    manifest = load_bundle(outcome["bundle"]).manifest
    assert manifest.beats.leads == ("MLII",)
    assert (manifest.data["records"], manifest.data["set_aside"], manifest.data["test"]) == (4, 1, 10)
    assert outcome["metrics"]["auc"] > 0.8
    assert outcome["set_aside"] == 1


def test_without_classes_there_is_a_threshold_and_no_rates(submit: Submit, tmp_path: Path) -> None:
    for name in "abc":
        write_record(tmp_path / "records", name, "N" * 20)
        (tmp_path / "records" / f"{name}.atr").unlink()
    metrics = submit("train-ecg", "a", f"data.path={tmp_path / 'records'}", *QUICK)["metrics"]
    assert metrics["threshold"] > 0
    assert "auc" not in metrics


def test_normal_beats_alone_are_judged_on_those_that_were_held_out(submit: Submit, tmp_path: Path) -> None:
    write_table(tmp_path / "normal.txt", 30, 0)
    outcome = submit("train-ecg", "a", f"data.path={tmp_path}", "data.test_share=0", *QUICK)
    assert load_bundle(outcome["bundle"]).manifest.data["test"] == 0
    assert 0 <= outcome["metrics"]["above_threshold"] <= 1


def test_broken_rows_are_listed_in_the_run(submit: Submit, beats: Path) -> None:
    with (beats / "TINY_TRAIN.txt").open("a") as file:
        file.write("1  nan " + "0.5 " * 139 + "\n1 2 3\n")
    outcome = submit("train-ecg", "a", f"data.path={beats}", *QUICK)
    listed = Run(Path(outcome["run"])).read_set_aside()
    assert {(row["path"], row["reason"]) for row in listed} == {
        ("TINY_TRAIN.txt:49", "truncated"),
        ("TINY_TRAIN.txt:50", "odd-shape"),
    }


def test_many_beats_need_no_cross_fitting(beats: Path) -> None:
    settings = load(
        TrainEcgSettings, target="train-ecg", sets=[f"data.path={beats}", "threshold.cross_fit_most=39"]
    )
    summary = TrainEcg(settings).open(lambda text: None)
    assert summary.lines[-1] == "threshold from 2 held-out beats"


def test_data_that_is_not_there_is_said_before_training(submit: Submit, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read beats from"):
        submit("train-ecg", "a", f"data.path={tmp_path / 'none'}")
