import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray.errors import DataError
from tests.pipelines.conftest import Bulk, rows_of, write_photos


@pytest.fixture
def compressed(bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path) -> Path:
    write_photos(tmp_path / "in", 6, size=(40, 52), noise=0)
    bulk("compress", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")
    return (tmp_path / "out").rename(tmp_path / "codes")


def test_codes_are_a_few_bytes_and_come_with_a_table_of_what_jpeg_and_webp_do(compressed: Path) -> None:
    table = pq.read_table(compressed / "codes")
    assert sorted(table["path"].to_pylist()) == [row["path"] for row in rows_of(compressed)]
    assert all(0 < len(code) < 40 for code in table["code"].to_pylist())
    assert set(table["width"].to_pylist()) == {52}
    prepared = json.loads((compressed / "_genray" / "run.json").read_text())["prepared"]
    tables = json.dumps(prepared["tables"]).lower()
    assert "jpeg" in tables
    assert "webp" in tables
    assert "genray" not in prepared["codec"]


def test_decompressed_images_are_those_whose_error_compress_recorded(
    compressed: Path, bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    from genray.images.pixels import fit_square

    bulk("decompress", f"input={compressed}", f"bundle={bundle_of('autoencoder')}")
    assert len(rows_of(tmp_path / "out")) == 6
    for row in rows_of(compressed):
        made = np.asarray(Image.open(tmp_path / "out" / (row["path"].removesuffix(".png") + ".png")))
        seen = fit_square(np.asarray(Image.open(tmp_path / "in" / row["path"])), 32, "crop")
        assert np.mean((made.astype(float) - seen) ** 2) / 255**2 == pytest.approx(row["error"], rel=1e-3)


def test_codes_of_another_bundle_are_refused(
    compressed: Path, bulk: Bulk, bundle_of: Callable[[str], Path]
) -> None:
    with pytest.raises(DataError, match="made by another bundle"):
        bulk("decompress", f"input={compressed}", f"bundle={_other(bundle_of('autoencoder'))}")


def _other(bundle: Path) -> Path:
    import shutil

    other = bundle.with_name("other")
    if not other.exists():
        shutil.copytree(bundle, other)
        manifest = json.loads((other / "bundle.json").read_text())
        (other / "bundle.json").write_text(json.dumps(manifest | {"weights_sha256": "0" * 64}))
    return other
