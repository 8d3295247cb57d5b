from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.io.tar import write_member
from tests.pipelines.bulk_runs import Bundles, outputs_of, png
from tests.pipelines.conftest import Bulk, rows_of


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            write_member(tar, name, data)


def write_parquet(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"path": list(members), "image": list(members.values())})
    pq.write_table(table, path, row_group_size=3)


_PACK = {"tar": write_tar, "parquet": write_parquet}


@pytest.mark.parametrize(
    ("kind", "container"), [("parquet", "webdataset"), ("tar", "parquet"), ("tar", "files")]
)
def test_shards_in_and_out_stay_without_doubles_when_inputs_come_and_change(
    bulk: Bulk, tmp_path: Path, kind: str, container: str
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write = _PACK[kind]
    sets = (f"input={photos}", f"write.container={container}")
    first = {f"s/{i}.png": png(i) for i in range(8)}
    write(photos / f"a.{kind}", first | {"broken.png": b"\x89PNG"})
    outcome = bulk("corrupt", *sets)
    assert (outcome["done"], outcome["reasons"]) == (8, {"truncated": 1})
    write(photos / f"b.{kind}", {f"s/{i}.png": png(i) for i in range(20, 25)})
    assert bulk("corrupt", *sets)["this_pass"]["images"] == 5
    assert bulk("corrupt", *sets)["this_pass"]["images"] == 0
    before = outputs_of(out, container)
    assert before.keys() == {f"a/s/{i}.png" for i in range(8)} | {f"b/s/{i}.png" for i in range(20, 25)}
    write(photos / f"a.{kind}", first | {"s/3.png": png(99, 30, 30), "broken.png": png(7), "new.png": png(8)})
    outcome = bulk("corrupt", *sets)
    assert (outcome["this_pass"]["images"], outcome["total"], outcome["done"]) == (10, 15, 15)
    after = outputs_of(out, container)
    assert after.keys() == before.keys() | {"a/broken.png", "a/new.png"}
    assert {name for name in before if before[name] != after[name]} == {"a/s/3.png"}
    assert {row["path"]: row["sha256"] for row in rows_of(out)} == {
        name: hashlib.sha256(data).hexdigest() for name, data in after.items()
    }


def test_images_in_a_tar_are_embedded_and_those_of_a_new_tar_are_added(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")
    write_tar(tmp_path / "in" / "a.tar", {f"{i}.png": png(i) for i in range(5)} | {"x.json": b"{}"})
    assert bulk("embed", *sets)["done"] == 5
    write_tar(tmp_path / "in" / "b.tar", {f"{i}.png": png(i) for i in range(3)})
    assert bulk("embed", *sets)["this_pass"]["images"] == 3
    rows = pq.read_table(tmp_path / "out" / "embeddings").to_pylist()
    vectors = {row["path"]: row["vector"] for row in rows}
    assert len(rows) == len(vectors) == 8
    assert vectors["a/2.png"] == pytest.approx(vectors["b/2.png"], abs=1e-4)
    assert vectors["a/2.png"] != vectors["a/1.png"]
