import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from genray.bundle import load_bundle
from genray.images.pixels import fit_square
from genray.images.tensors import to_network
from tests.pipelines.conftest import Bulk, rows_of, write_photos


def vectors(output: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(output / "embeddings")
    assert len(table) == len(set(table["path"].to_pylist()))
    return dict(zip(table["path"].to_pylist(), map(np.asarray, table["vector"].to_pylist()), strict=True))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("autoencoder", "float32"), ("autoencoder", "float16"), ("gan", "float32")]
)
def test_every_image_has_its_code_as_a_list_of_fixed_size(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path, kind: str, dtype: str
) -> None:
    write_photos(tmp_path / "in", 5, size=(40, 52), noise=0)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG")
    outcome = bulk("embed", f"input={tmp_path / 'in'}", f"bundle={bundle_of(kind)}", f"embed.dtype={dtype}")
    assert (outcome["done"], outcome["failed"]) == (5, 1)
    field = pq.read_table(tmp_path / "out" / "embeddings").schema.field("vector").type
    assert field == pa.list_(pa.float16() if dtype == "float16" else pa.float32(), 8)
    network: Any = load_bundle(bundle_of(kind)).network
    encode, span = (network.features, (-1, 1)) if kind == "gan" else (network.encode, (0, 1))
    for path, vector in vectors(tmp_path / "out").items():
        seen = fit_square(np.asarray(Image.open(tmp_path / "in" / path)), 32, "crop")
        with torch.inference_mode():
            want = encode(to_network(seen[None], span=span))[0].numpy()
        assert vector == pytest.approx(want, abs=2e-3 * max(1, np.abs(want).max()))


def test_normalised_vectors_have_length_one(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 3)
    bulk("embed", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}", "embed.normalize=true")
    assert [np.linalg.norm(v) for v in vectors(tmp_path / "out").values()] == pytest.approx(
        [1, 1, 1], abs=1e-5
    )


def test_rows_of_images_that_changed_are_replaced(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 6)
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")
    bulk("embed", *sets)
    before = vectors(tmp_path / "out")
    Image.new("RGB", (64, 48), "white").save(tmp_path / "in" / "1" / "0001.png")
    bulk("embed", *sets)
    after = vectors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert {path for path in before if (before[path] != after[path]).any()} == {"1/0001.png"}
    assert len(rows_of(tmp_path / "out")) == 6


def test_a_file_of_several_pages_has_no_vector_and_says_how_to_take_the_first(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 2)
    page = Image.new("RGB", (40, 40), "teal")
    page.save(tmp_path / "in" / "scan.tif", save_all=True, append_images=[page])
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")
    assert bulk("embed", *sets)["reasons"] == {"unsupported": 1}
    details = {row["path"]: row["detail"] for row in rows_of(tmp_path / "out")}
    assert "read.pages=first" in details["scan.tif"]
    assert bulk("embed", *sets, "read.pages=first", "retry=all")["done"] == 3


def test_the_window_of_the_training_is_applied(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    windowed = shutil.copytree(bundle_of("autoencoder"), tmp_path / "bundle")
    manifest = json.loads((windowed / "bundle.json").read_text())
    manifest["preprocessing"]["input"]["window"] = [100, 1100]
    (windowed / "bundle.json").write_text(json.dumps(manifest))
    levels = np.random.default_rng(0).integers(100, 1100, (32, 32)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    Image.fromarray(levels).save(tmp_path / "in" / "0.png")
    bulk("embed", f"input={tmp_path / 'in'}", f"bundle={windowed}", "inference.backend=torch")
    seen = np.rint((levels - 100.0) * 0.255).astype(np.uint8)[..., None].repeat(3, axis=2)
    with torch.inference_mode():
        network: Any = load_bundle(windowed).network
        want = network.encode(to_network(seen[None], span=(0, 1)))[0].numpy()
    assert vectors(tmp_path / "out")["0.png"] == pytest.approx(want, abs=2e-3 * max(1, np.abs(want).max()))
