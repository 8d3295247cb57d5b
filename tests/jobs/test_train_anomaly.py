from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genray.bundle import load_bundle
from genray.errors import DataError
from tests.conftest import write_images

Submit = Callable[..., dict[str, Any]]
QUICK = ("loop.epochs=15", "loop.batch_size=8", "model.kind=dense", "model.hidden=[32]", "model.latent=4")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """As MVTec lays them out: train/good, test/good, test/scratched."""
    write_images(tmp_path / "parts" / "train" / "good", 40)
    write_images(tmp_path / "parts" / "test" / "good", 8)
    write_images(tmp_path / "parts" / "test" / "scratched", 8)
    for file in (tmp_path / "parts" / "test" / "scratched").iterdir():
        image = np.array(Image.open(file))
        image[::2, 6:18] = 255 - image[::2, 6:18]
        Image.fromarray(image).save(file)
    return tmp_path / "parts"


def test_anomalies_have_larger_errors_than_normal_images(submit: Submit, parts: Path) -> None:
    outcome = submit("train-anomaly", "a", f"data.path={parts}", *QUICK, "optimizer.learning_rate=0.01")
    metrics = outcome["metrics"]
    assert metrics["auroc"] > 0.95
    assert metrics["average_precision"] > 0.95
    assert metrics["sensitivity"] > 0.8
    assert set(metrics["baselines"]["pca"]) == {"mse", "auroc", "average_precision"}
    assert metrics["baselines"]["guessing"] == {"auroc": 0.5, "average_precision": 0.5}
    files = {file.name for file in (Path(outcome["run"]) / "samples").iterdir()}
    assert {"errors.png", "rates.png", "found.png"} <= files


def test_the_threshold_is_a_quantile_of_held_out_normal_errors(submit: Submit, parts: Path) -> None:
    outcome = submit(
        "train-anomaly", "a", f"data.path={parts}", *QUICK, "detector.quantile=0.5", "loop.epochs=1"
    )
    calibration = load_bundle(outcome["bundle"]).manifest.calibration
    assert calibration["method"] == "quantile"
    assert calibration["normal_images"] == 4
    assert calibration["quantiles"]["0.5"] <= calibration["threshold"] <= calibration["quantiles"]["0.9"]
    assert outcome["metrics"]["threshold"] == calibration["threshold"]
    assert any("from 4 normal images, too few to trust" in warning for warning in outcome["warnings"])


@pytest.mark.parametrize("error", ["mae", "ssim"])
def test_the_threshold_can_be_a_number_of_deviations_above_the_mean(
    submit: Submit, parts: Path, error: str
) -> None:
    more = (
        "detector.threshold=deviations",
        "detector.deviations=2",
        f"detector.error={error}",
        "loop.epochs=1",
    )
    outcome = submit("train-anomaly", "a", f"data.path={parts}", *QUICK, *more)
    calibration = load_bundle(outcome["bundle"]).manifest.calibration
    assert calibration["error"] == error
    assert calibration["threshold"] == pytest.approx(calibration["mean"] + 2 * calibration["std"])


def test_one_class_of_a_labelled_set_without_a_split_can_be_normal(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "one", 30)
    write_images(tmp_path / "set" / "two", 6, size=(24, 24))
    outcome = submit("train-anomaly", "a", f"data.path={tmp_path / 'set'}", "data.normal=[one]", *QUICK)
    data = load_bundle(outcome["bundle"]).manifest.data
    assert data["train"] + data["val"] < 31, "normal images alone are trained on"
    assert data["test"] > 6, "anomalies and normal images are judged"
    assert 0 <= outcome["metrics"]["auroc"] <= 1
    with pytest.raises(DataError, match="no class is called three; classes: one, two"):
        submit("train-anomaly", "b", f"data.path={tmp_path / 'set'}", "data.normal=[three]")


def test_without_labels_all_images_are_normal(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "flat", 20)
    outcome = submit("train-anomaly", "a", f"data.path={tmp_path / 'flat'}", *QUICK, "loop.epochs=1")
    assert "auroc" not in outcome["metrics"]
    assert load_bundle(outcome["bundle"]).manifest.calibration["threshold"] > 0


def test_a_flat_folder_of_normal_images_is_judged_by_labelled_ones(submit: Submit, parts: Path) -> None:
    for file in (parts / "train" / "good").iterdir():
        file.rename(parts / "train" / file.name)
    (parts / "train" / "good").rmdir()
    outcome = submit("train-anomaly", "a", f"data.path={parts}", *QUICK, "loop.epochs=1")
    assert 0 <= outcome["metrics"]["auroc"] <= 1
    assert load_bundle(outcome["bundle"]).manifest.data["train"] == 36


def test_the_anomalies_of_a_val_folder_are_judged_where_there_is_no_test(submit: Submit, parts: Path) -> None:
    (parts / "test").rename(parts / "val")
    outcome = submit("train-anomaly", "a", f"data.path={parts}", *QUICK, "loop.epochs=1")
    assert load_bundle(outcome["bundle"]).manifest.data["test"] == 4 + 8
    assert 0 <= outcome["metrics"]["auroc"] <= 1


def test_unlabelled_images_to_judge_on_are_not_called_normal(
    submit: Submit, parts: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "unknown", 5)
    more = (f"data.path={parts}", f"data.test={tmp_path / 'unknown'}", "loop.epochs=1")
    metrics = submit("train-anomaly", "a", *more, *QUICK[1:])["metrics"]
    assert 0 <= metrics["above_threshold"] <= 1
    assert not {"auroc", "specificity", "sensitivity"} & set(metrics)


def test_a_class_can_be_named_by_a_number() -> None:
    from genray.settings.load import load
    from jobs.train_anomaly import TrainAnomalySettings

    chosen = load(TrainAnomalySettings, target="train-anomaly", sets=["data.normal=[0, 7]"])
    assert chosen.data.normal == ("0", "7")
    assert chosen.model.latent == 16, "short codes, whatever the architecture"


def test_too_few_normal_images_are_refused_before_training(submit: Submit, tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "one", 2)
    write_images(tmp_path / "set" / "two", 9)
    with pytest.raises(DataError, match="no images of the class one to"):
        submit("train-anomaly", "a", f"data.path={tmp_path / 'set'}", "data.normal=[one]", *QUICK)


def test_masks_rate_where_the_defects_are(
    submit: Submit, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((24, 24), np.uint8)
    mask[::2, 6:18] = 255
    (parts / "ground_truth" / "scratched").mkdir(parents=True)
    for file in (parts / "test" / "scratched").iterdir():
        Image.fromarray(mask).save(parts / "ground_truth" / "scratched" / f"{file.stem}_mask.png")
    outcome = submit("train-anomaly", "a", f"data.path={parts}", *QUICK, "optimizer.learning_rate=0.01")
    metrics = outcome["metrics"]
    assert metrics["pixel_auroc"] > 0.8
    assert metrics["aupro"] > 0.5
    assert load_bundle(outcome["bundle"]).manifest.metrics["aupro"] == metrics["aupro"]
    assert "pixel_auroc" in (Path(outcome["run"]) / "report.html").read_text()
    assert not any("pixels" in warning for warning in outcome["warnings"])
    monkeypatch.setattr("jobs.train_anomaly._MOST_PIXELS", 6 * 24 * 24)
    some = submit("train-anomaly", "b", f"data.path={parts}", *QUICK, "optimizer.learning_rate=0.01")
    assert some["metrics"]["pixel_auroc"] > 0.5
    assert any("of 6 of " in warning for warning in some["warnings"]), some["warnings"]
