"""Data sets stay data sets: shards keep names, order, other members or columns of samples, and metadata."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray.io.tar import write_member
from tests.pipelines.bulk_runs import png, submit
from tests.pipelines.conftest import Bulk, rows_of

ROOT = Path(__file__).parents[3]
TARS = "write.container=webdataset"
ROWS = "write.container=parquet"
SAME = "write.format=same"


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            write_member(tar, name, data)


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def samples(first: int, count: int) -> dict[str, bytes]:
    """A shard of samples: image, caption, label and mask, as captioned data sets have them."""
    found = {}
    for number in range(first, first + count):
        key = f"train/{number:06}"
        found[f"{key}.txt"] = f"caption {number}".encode()
        found[f"{key}.png"] = png(number)
        found[f"{key}.json"] = json.dumps({"id": number}).encode()
        found[f"{key}.seg.bin"] = bytes([number])
    return found


def images_in(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in members.items() if name.endswith(".png")}


def others_in(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in members.items() if not name.endswith(".png")}


def test_shards_of_tar_keep_their_samples(bulk: Bulk, tmp_path: Path) -> None:
    shards = {"00000.tar": samples(0, 5), "deep/00001.tar": samples(5, 3)}
    for name, members in shards.items():
        write_tar(tmp_path / "in" / name, members)
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", TARS, SAME)
    assert (outcome["done"], outcome["failed"]) == (8, 0)
    assert outcome["this_pass"]["not_read"] == {}
    out = tmp_path / "out"
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*.tar")) == sorted(shards)
    for name, members in shards.items():
        found = members_of(out / name)
        assert list(found) == list(members)
        assert others_in(found) == others_in(members)
        for image in images_in(members):
            assert found[image] != members[image]
            assert Image.open(io.BytesIO(found[image])).size == Image.open(io.BytesIO(members[image])).size


def test_what_is_carried_along_is_said(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(0, 2) | {".hidden": b"x"})
    (tmp_path / "in/README.md").write_text("what this is")
    for container, text in (
        ("webdataset", "1 .md is not read; 2 .txt, 2 .json, 2 .bin, 1 hidden are carried along"),
        ("files", "2 .bin are not read, nor 2 .json, 2 .txt, 1 .md, 1 hidden"),
    ):
        sets = (f"input={tmp_path / 'in'}", f"output={tmp_path / container}", f"write.container={container}")
        assert text in submit("corrupt", *sets, more=("--dry-run",)).stderr


def test_compressed_shards_become_plain_ones_with_all_their_samples(bulk: Bulk, tmp_path: Path) -> None:
    members = samples(0, 3)
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tar.gz", "w:gz") as tar:
        for name, data in members.items():
            write_member(tar, name, data)
    assert bulk("corrupt", f"input={tmp_path / 'in'}", TARS, SAME)["done"] == 3
    found = members_of(tmp_path / "out/a.tar")
    assert list(found) == list(members)
    assert others_in(found) == others_in(members)


def test_another_format_gives_the_member_its_suffix(bulk: Bulk, tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", {"1.rgb.png": png(1), "1.cls": b"3", "2.png": png(2), "2.webp": b"RIFF"})
    bulk("corrupt", f"input={tmp_path / 'in'}", TARS, "write.format=webp", 'read.exclude=["*.webp"]')
    assert list(members_of(tmp_path / "out/a.tar")) == ["1.rgb.webp", "1.cls", "2.png.webp", "2.webp"]


def test_a_sample_whose_image_failed_is_left_out_until_it_is_processed(bulk: Bulk, tmp_path: Path) -> None:
    members = samples(0, 4)
    broken = {**members, "train/000001.png": b"\x89PNG broken"}
    write_tar(tmp_path / "in/a.tar", broken)
    sets = (f"input={tmp_path / 'in'}", TARS, SAME)
    outcome = bulk("corrupt", *sets)
    assert (outcome["done"], outcome["failed"]) == (3, 1)
    first = members_of(tmp_path / "out/a.tar")
    assert list(first) == [name for name in members if "000001" not in name]
    again = bulk("corrupt", *sets, "retry=failed")
    assert (again["this_pass"]["retried"], members_of(tmp_path / "out/a.tar")) == (1, first)
    write_tar(tmp_path / "in/a.tar", members)
    bulk("corrupt", *sets)
    whole = members_of(tmp_path / "out/a.tar")
    assert list(whole) == list(members)
    assert {name: whole[name] for name in first} == first


def test_masks_that_are_excluded_are_carried_along(bulk: Bulk, tmp_path: Path) -> None:
    members = {"1.png": png(1), "1.mask.png": png(2), "2.png": png(3), "2.mask.png": png(4)}
    write_tar(tmp_path / "in/a.tar", members)
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", TARS, SAME, 'read.exclude=["*.mask.png"]')
    assert outcome["done"] == 2
    found = members_of(tmp_path / "out/a.tar")
    assert list(found) == list(members)
    assert (found["1.mask.png"], found["2.mask.png"]) == (members["1.mask.png"], members["2.mask.png"])


def test_a_part_of_the_inputs_makes_a_smaller_data_set_that_grows(bulk: Bulk, tmp_path: Path) -> None:
    members = samples(0, 6)
    write_tar(tmp_path / "in/a.tar", members)
    sets = (f"input={tmp_path / 'in'}", TARS, SAME)
    bulk("corrupt", *sets, "read.limit=2")
    few = members_of(tmp_path / "out/a.tar")
    assert list(few) == list(members)[:8]
    bulk("corrupt", *sets)
    assert list(members_of(tmp_path / "out/a.tar")) == list(members)


def image_rows(count: int, kind: str) -> list[Any]:
    if kind == "struct":
        return [{"bytes": png(number), "path": f"{number}.png"} for number in range(count)]
    return [png(number) for number in range(count)]


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_parquet_keeps_columns_rows_groups_and_metadata(bulk: Bulk, tmp_path: Path, kind: str) -> None:
    types = {
        "binary": pa.binary(),
        "large_binary": pa.large_binary(),
        "struct": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    schema = pa.schema(
        [
            ("caption", pa.string()),
            ("image", types[kind]),
            ("boxes", pa.list_(pa.float32())),
            pa.field("label", pa.int8(), nullable=False),
        ],
        metadata={"huggingface": features},
    )
    before = pa.Table.from_arrays(
        [
            pa.array([f"caption {number}" for number in range(7)]),
            pa.array(image_rows(7, kind), types[kind]),
            pa.array([[number, 1.5] for number in range(7)], pa.list_(pa.float32())),
            pa.array(range(7), pa.int8()),
        ],
        schema=schema,
    )
    file = tmp_path / "in/data/train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(before, file, row_group_size=3, compression="zstd")
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", ROWS, SAME)
    assert outcome["done"] == 7
    made = tmp_path / "out/data/train-00000-of-00001.parquet"
    opened = pq.ParquetFile(made)
    assert opened.schema_arrow.equals(pq.read_schema(file), check_metadata=True)
    groups = [opened.metadata.row_group(group) for group in range(opened.num_row_groups)]
    assert [group.num_rows for group in groups] == [3, 3, 1]
    assert groups[0].column(0).compression == "ZSTD"
    after = opened.read()
    for name in ("caption", "boxes", "label"):
        assert after[name].equals(before[name])
    for new, old in zip(after["image"].to_pylist(), before["image"].to_pylist(), strict=True):
        if kind == "struct":
            assert new["path"] == old["path"]
            new, old = new["bytes"], old["bytes"]
        assert new != old
        assert np.asarray(Image.open(io.BytesIO(new))).shape == np.asarray(Image.open(io.BytesIO(old))).shape


def test_rows_of_parquet_that_failed_are_left_out_until_they_are_processed(
    bulk: Bulk, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    images = image_rows(6, "binary")

    def write(values: list[Any]) -> None:
        table = pa.table({"image": values, "label": list(range(6))})
        pq.write_table(table, tmp_path / "in/a.parquet", row_group_size=2)

    write([*images[:2], None, b"\x89PNG", *images[4:]])
    sets = (f"input={tmp_path / 'in'}", ROWS, SAME)
    outcome = bulk("corrupt", *sets)
    assert outcome["reasons"] == {"empty": 1, "truncated": 1}
    made = tmp_path / "out/a.parquet"
    first = pq.read_table(made)
    assert first["label"].to_pylist() == [0, 1, 4, 5]
    bulk("corrupt", *sets, "retry=failed")
    assert pq.read_table(made).equals(first), "the images that it had were taken from the shard itself"
    write(images)
    bulk("corrupt", *sets)
    whole = pq.read_table(made)
    assert whole["label"].to_pylist() == list(range(6))
    assert whole.take([0, 1, 4, 5])["image"].to_pylist() == first["image"].to_pylist()


def test_copied_inputs_are_samples_too(bulk: Bulk, tmp_path: Path, bundle_of: Any) -> None:
    members = samples(0, 3)
    write_tar(tmp_path / "in/a.tar", members)
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('denoiser')}", "denoise.clean_below=100", TARS)
    outcome = bulk("denoise", *sets)
    assert outcome["skipped"] == 3
    assert members_of(tmp_path / "out/a.tar") == members


_KILLED = """
import os, sys
from pipelines.storage.shards import ShardJoiner
from pipelines.storage.ledger.ledger import Ledger

left = int(sys.argv[2])

def dying(cls, name):
    method = getattr(cls, name)
    def call(*args):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return method(*args)
    setattr(cls, name, call)

dying(*{"join": (ShardJoiner, "_write"), "ledger": (Ledger, "add")}[sys.argv[1]])
from genray.cli.main import main
main(sys.argv[3:])
"""


@pytest.mark.parametrize(("place", "calls"), [("join", 0), ("join", 1), ("join", 2), ("ledger", 0)])
def test_a_kill_at_any_moment_changes_nothing(tmp_path: Path, place: str, calls: int) -> None:
    for number in range(3):
        write_tar(tmp_path / f"in/{number}.tar", samples(10 * number, 4))
    sets = (f"input={tmp_path / 'in'}", TARS, SAME)
    words = ["submit", "corrupt"]
    for text in (
        *(*sets, f"output={tmp_path / 'killed'}", "work.workers=0", "work.gpu=false"),
        *("work.cpus_per_worker=1", "report.samples=0", "work.commit_seconds=0.01"),
    ):
        words += ["--set", text]
    ran = subprocess.run([sys.executable, "-c", _KILLED, place, str(calls), *words], cwd=ROOT, timeout=120)
    assert ran.returncode == -9
    resumed = submit("corrupt", *sets, f"output={tmp_path / 'killed'}")
    assert resumed.exit_code == 0, resumed.output
    submit("corrupt", *sets, f"output={tmp_path / 'whole'}")
    for number in range(3):
        name = f"{number}.tar"
        assert members_of(tmp_path / "killed" / name) == members_of(tmp_path / "whole" / name)
    assert not list((tmp_path / "killed/_genray/pieces").glob("*"))
    assert len(rows_of(tmp_path / "killed")) == 12
