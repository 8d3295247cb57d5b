from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray.errors import SettingsError
from pipelines.detect import image_error
from tests.pipelines.conftest import Bulk, rows_of, write_photos


def found(output: Path) -> dict[str, dict[str, float]]:
    return {row["path"]: row for row in pq.read_table(output / "detections").to_pylist()}


def test_scores_are_errors_over_the_bundles_threshold_and_anomalies_have_heat_maps(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 4)
    Image.new("RGB", (48, 48), (128, 128, 128)).save(tmp_path / "in" / "flat.png")
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('anomaly')}", "detect.threshold=0.02")
    outcome = bulk("detect", *sets)
    rows = found(tmp_path / "out")
    assert len(rows) == 5
    assert outcome["anomalies"] == sum(row["anomaly"] for row in rows.values())
    ledger = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert {row["anomaly"] for row in rows.values()} == {True, False}
    for path, row in rows.items():
        assert row["score"] == pytest.approx(row["error"] / 0.02, rel=1e-5)
        assert row["anomaly"] == (row["score"] > 1) == (tmp_path / "out" / "heat" / path).exists()
        assert ledger[path]["score"] == pytest.approx(row["score"], rel=1e-5)


def test_heat_maps_can_be_left_out(bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 3)
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('anomaly')}", "detect.heat_maps=none")
    bulk("detect", *sets)
    assert not list((tmp_path / "out").rglob("*.png"))
    assert len(found(tmp_path / "out")) == 3


def test_a_bundle_without_a_threshold_is_refused(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="which is for reconstruct, embed, compress"):
        bulk("detect", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")


def test_errors_are_those_of_the_training() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    difference = (first.astype(float) - second) / 255
    assert image_error(first, second, "mse") == pytest.approx((difference**2).mean(), rel=1e-5)
    assert image_error(first, second, "mae") == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert image_error(first, first, "ssim") == pytest.approx(0, abs=1e-6)
    assert image_error(first, second, "ssim") > 0.5
