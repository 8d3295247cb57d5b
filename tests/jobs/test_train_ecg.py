import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from genray.bundle import load_bundle
from genray.cli.main import main
from genray.ecg.beats import BeatPreprocessing
from genray.errors import BundleMismatch, DataError, Interrupted
from genray.progress import LineDisplay, Tick
from genray.settings.load import load
from genray.targets import Resources
from jobs.runs.run import Run
from jobs.train_ecg import TARGET, TrainEcg, TrainEcgSettings
from jobs.training.device import open_device
from jobs.training.evaluation import Evaluator
from jobs.training.recipe import Part
from jobs.training.workers import TrainingWorker
from tests.beat_files import drawn_beats, write_record, write_table, write_ucr
from tests.jobs.conftest import same

Submit = Callable[..., dict[str, Any]]
QUICK = (
    "data.epoch_beats=256",
    "loop.batch_size=32",
    "loop.epochs=4",
    "loop.validate_every=4",
    "loop.samples=2",
    "optimizer.learning_rate=0.01",
    "loss.noise=0.05",
    "threshold.folds=2",
    "model.latent=4",
    "model.members=1",
    "device.gpu=false",
    "device.threads=1",
)


class Watching(LineDisplay):
    """Keeps the units of all steps, and asks for a stop at the given tick of a kind."""

    def __init__(self, run: Run | None = None, unit: str = "", step: int = 0) -> None:
        super().__init__()
        self._run = run
        self._unit = unit
        self._step = step
        self.ticks: list[Tick] = []

    def tick(self, tick: Tick) -> None:
        self.ticks.append(tick)
        if self._run is not None and tick.unit == self._unit and tick.step >= self._step:
            self._run.request_stop()


def train(name: str, display: LineDisplay, *sets: str) -> dict[str, Any]:
    """As `submit`, with a display that sees every step."""
    chosen = load(TrainEcgSettings, target="train-ecg", sets=[*QUICK, *sets])
    prepared = TARGET.prepare(chosen, "train-ecg", name, lambda text: None)
    prepared = replace(prepared, tick_seconds=0.0)
    return prepared.run(display, Resources(2, 0), attached=False).as_json()


@pytest.fixture(scope="module")
def beats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 rows to train on, of which 8 are abnormal, and 40 to test; two more are broken."""
    folder = write_ucr(tmp_path_factory.mktemp("tiny"))
    with (folder / "TINY_TRAIN.txt").open("a") as file:
        file.write("1  nan " + "0.5 " * 139 + "\n1 2 3\n")
    return folder


@pytest.fixture(scope="module")
def done(beats: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a training on `beats`."""
    return train("a", LineDisplay(), f"data.path={beats}", f"runs={tmp_path_factory.mktemp('runs')}")


def conclude_untrained(path: Path, *sets: str) -> dict[str, Any]:
    """What is said of an untrained network."""
    recipe = TrainEcg(load(TrainEcgSettings, target="train-ecg", sets=[f"data.path={path}", *QUICK, *sets]))
    part: Part = "test" if recipe.open(lambda text: None).test else "val"
    device = open_device(recipe.settings.device, gpu=False)
    evaluator = Evaluator(recipe, device, TrainingWorker(device.where))
    networks = recipe.networks()
    scores = evaluator.score(networks, part)
    conclusion = evaluator.conclude(networks, part, scores.samples, most=1)
    metrics = {**conclusion.metrics, "baselines": recipe.baselines()}
    json.dumps(metrics, allow_nan=False)
    return metrics


def test_abnormal_beats_are_found_beside_what_plain_detectors_find(done: dict[str, Any]) -> None:
    metrics = done["metrics"]
    folder = Path(done["run"])
    assert metrics["auc"] == metrics["average_precision"] == 1
    assert metrics["sensitivity"] == 1
    assert metrics["specificity"] >= 0.6
    assert set(metrics["baselines"]) == {"mean-beat", "guessing", "pca-4", "pca-8", "1-nn"}
    assert metrics["baselines"]["1-nn"]["auc"] == 1
    files = {file.name for file in (folder / "samples").iterdir()}
    assert {"validation.png", "errors.png", "rates.png", "beats.png", "tables.json"} <= files
    (table,) = json.loads((folder / "samples" / "tables.json").read_text())
    assert [row[:3] for row in table["rows"]] == [["1", "normal", 20], ["2", "abnormal", 20]]
    report = (folder / "report.html").read_text()
    assert "Recall of each class" in report
    assert "the 40 test beats" in report


def test_broken_rows_are_listed_in_the_run(done: dict[str, Any]) -> None:
    assert {(row["path"], row["reason"]) for row in Run(Path(done["run"])).read_set_aside()} == {
        ("TINY_TRAIN.txt:49", "truncated"),
        ("TINY_TRAIN.txt:50", "odd-shape"),
    }


def test_the_bundle_scores_beats_by_itself(done: dict[str, Any]) -> None:
    bundle = load_bundle(done["bundle"])
    assert bundle.manifest.kind == "ecg-beats"
    preprocessing = bundle.manifest.beats
    calibration = bundle.manifest.calibration
    assert isinstance(preprocessing, BeatPreprocessing)
    assert preprocessing.window is None, "rows do not say where the R peak is"
    raw = np.concatenate([drawn_beats(9, seed=3), drawn_beats(9, abnormal=True, seed=3)])[:, None]
    values = torch.from_numpy(preprocessing.normalise(3 * raw))
    with torch.inference_mode():
        errors = (bundle.network(values) - values).square().mean(dim=(1, 2)).numpy()
    assert (errors[9:] > calibration["threshold"]).all()
    assert np.median(errors[:9]) < calibration["threshold"]
    assert (calibration["error"], calibration["folds"], calibration["beats"]) == ("mse", 2, 40)
    with pytest.raises(BundleMismatch, match="takes beats of an ECG, not images"):
        _ = bundle.manifest.preprocessing
    printed = CliRunner().invoke(main, ["bundle", "show", str(bundle.path)])
    assert "preprocessing.normalisation" in printed.output


def test_a_finished_run_is_judged_again_by_another_threshold(
    done: dict[str, Any], beats: Path, tmp_path: Path
) -> None:
    shutil.copytree(done["run"], tmp_path / "a")
    more = ("threshold.kind=deviations", "threshold.deviations=1")
    display = Watching()
    after = train("a", display, f"data.path={beats}", f"runs={tmp_path}", *more)
    first, second = (load_bundle(outcome["bundle"]).manifest for outcome in (done, after))
    assert second.calibration["errors"] == first.calibration["errors"]
    assert second.calibration["threshold"] == pytest.approx(
        first.calibration["mean"] + first.calibration["std"]
    )
    assert second.weights_sha256 == first.weights_sha256
    assert not [tick for tick in display.ticks if tick.unit == "calibration step"], "the folds were kept"


def test_the_threshold_can_be_of_the_beats_that_were_held_out(beats: Path) -> None:
    folds, held_out = (
        TrainEcg(load(TrainEcgSettings, target="train-ecg", sets=[f"data.path={beats}", *QUICK, more])).open(
            lambda text: None
        )
        for more in ("threshold.cross_fit_most=40", "threshold.cross_fit_most=39")
    )
    assert "threshold from 40 normal beats, scored by 2 networks" in folds.lines[-1]
    assert held_out.lines[-1] == "threshold from 2 held-out beats"
    assert "left out of the training beats: 8 abnormal" in folds.lines


def test_stopped_anywhere_it_goes_on_and_ends_the_same(
    done: dict[str, Any], beats: Path, tmp_path: Path
) -> None:
    sets = (f"data.path={beats}", f"runs={tmp_path}")
    run = Run(tmp_path / "a")
    fold = 4 * 4  # steps
    for stop in (Watching(run, "step", 1), Watching(run, "calibration step", fold + 1)):
        with pytest.raises(Interrupted):
            train("a", stop, *sets)
    display = Watching()
    resumed = train("a", display, *sets)
    left = {tick.steps for tick in display.ticks if tick.unit == "calibration step"}
    assert left == {fold}, "one of two folds was left"
    before, after = (load_file(Path(o["run"]) / "checkpoints" / "last.safetensors") for o in (done, resumed))
    assert same(before, after)
    assert resumed["metrics"] == done["metrics"]


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
    assert bundle.manifest.calibration["error"] == "mae"
    assert outcome["metrics"]["normal_precision"] > 0.9


def test_recordings_are_split_by_record(submit: Submit, tmp_path: Path) -> None:
    for number in range(5):
        write_record(tmp_path / "records", f"r{number}", "NNNNNNNNVS", seed=20 * number)
    (tmp_path / "records" / "r4.dat").unlink()
    quick = [each for each in QUICK if "members" not in each]
    more = ("model.kind=conv", "model.filters=[8,8]", "loop.epochs=2", "loop.validate_every=2")
    outcome = submit("train-ecg", "a", f"data.path={tmp_path / 'records'}", *quick, *more)
    manifest = load_bundle(outcome["bundle"]).manifest
    assert manifest.beats.leads == ("MLII",)
    assert manifest.beats.window == (0.25, 0.45)
    assert (manifest.data["records"], manifest.data["set_aside"], manifest.data["test"]) == (4, 1, 10)
    assert outcome["metrics"]["auc"] > 0.8
    assert outcome["set_aside"] == 1


def test_without_classes_there_is_a_threshold_and_no_rates(tmp_path: Path) -> None:
    for name in "abc":
        write_record(tmp_path, name, "N" * 20)
        (tmp_path / f"{name}.atr").unlink()
    metrics = conclude_untrained(tmp_path)
    assert metrics["threshold"] > 0
    assert "auc" not in metrics


def test_where_abnormal_beats_alone_judge_there_are_no_rates_and_all_is_a_number(tmp_path: Path) -> None:
    write_table(tmp_path / "A_TRAIN.txt", 30, 0)
    write_table(tmp_path / "A_TEST.txt", 0, 10)
    metrics = conclude_untrained(tmp_path)
    assert metrics["mse"] > 0, "of the normal beats that were held out"
    assert "auc" not in metrics


def test_normal_beats_alone_are_judged_on_those_that_nothing_learned(tmp_path: Path) -> None:
    write_table(tmp_path / "A_TRAIN.txt", 30, 0)
    metrics = conclude_untrained(tmp_path, "data.val_share=0.3")
    assert 0 <= metrics["above_threshold"] <= 1
    metrics = conclude_untrained(tmp_path, "data.val_share=0.3", "threshold.quantile=0.001")
    above = metrics["baselines"]["1-nn"]["above_threshold"]
    assert above > 0.5, "the nearest beat that was learned would else be the beat itself"


def test_data_that_is_not_there_is_said_before_training(submit: Submit, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read beats from"):
        submit("train-ecg", "a", f"data.path={tmp_path / 'none'}")
