import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.datasets.layouts import Content, Layout, read_store
from genray.errors import DataError
from genray.io.store import open_store
from tests.conftest import write_images

IMAGES = b"\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02" + bytes(8)


LAYOUTS: set[Layout] = {"idx", "parquet", "folder"}


def write_idx(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train-images-idx3-ubyte").write_bytes(IMAGES)


def write_parquet(folder: Path, *names: str, rows: int = 2) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": pa.array([b"x"] * rows, pa.binary())}), file)


def sizes(content: Content) -> dict[str, int]:
    return {part: len(origin) for part, (origin, _) in content.parts.items()}


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (write_idx, "idx"),
        (lambda folder: write_parquet(folder, "0.parquet"), "parquet"),
        (lambda folder: write_images(folder, 2), "folder"),
    ],
)
def test_the_layout_is_told_from_the_files(
    tmp_path: Path, write: Callable[[Path], None], layout: Any
) -> None:
    write(tmp_path)
    content = read_store(open_store(tmp_path), "auto")
    assert content.layout == layout
    assert sum(sizes(content).values()) == 2
    assert read_store(open_store(tmp_path), layout).listed == content.listed
    for other in LAYOUTS - {layout}:
        with pytest.raises(DataError, match=r"no images under .*: looked for") as caught:
            read_store(open_store(tmp_path), other)
        assert caught.value.where == "data.path"


def test_a_layout_can_be_asked_for_where_there_are_several(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_parquet(tmp_path, "0.parquet")
    write_images(tmp_path, 3)
    assert read_store(open_store(tmp_path), "auto").layout == "idx"
    assert sizes(read_store(open_store(tmp_path), "folder")) == {"": 3}
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "odd-ubyte")
    assert read_store(open_store(tmp_path), "auto").layout == "parquet", (
        "files of other names are none of a set"
    )


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        read_store(open_store(tmp_path), "auto")
    wanted = "train-images-idx3-ubyte(.gz), *.parquet, *.png *.jpg *.jpeg *.webp"
    assert caught.value.what == f"no images under {tmp_path}: looked for {wanted}"


def test_parquet_files_are_split_by_folder_or_name(tmp_path: Path) -> None:
    names = (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/validation.parquet",
    )
    write_parquet(tmp_path, *names, "test/0.parquet", "readme.parquet")
    content = read_store(open_store(tmp_path), "auto")
    assert sizes(content) == {"train": 4, "val": 2, "test": 2}
    assert content.unused == 1
    assert len(content.listed) == 4


def test_parquet_files_without_rows_are_no_images(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train.parquet", "test.parquet", rows=0)
    with pytest.raises(DataError, match=r"the Parquet files under .* have no rows"):
        read_store(open_store(tmp_path), "auto")
    write_parquet(tmp_path, "train.parquet")
    assert sizes(read_store(open_store(tmp_path), "auto")) == {"train": 2}


def test_images_without_a_split_beside_train_are_left_out_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "cat", 2)
    write_images(tmp_path / "valid" / "dog", 1)
    write_images(tmp_path / "more", 4)
    content = read_store(open_store(tmp_path), "auto")
    assert sizes(content) == {"train": 2, "val": 1}
    assert content.unused == 4
    classes = {part: known.tolist() for part, (_, known) in content.parts.items() if known is not None}
    assert classes == {"train": ["cat", "cat"], "val": ["dog"]}


def test_a_folder_that_is_kept_apart_is_passed_over(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 3), ("bb", 4)):
        write_images(tmp_path / name, count)
    assert sizes(read_store(open_store(tmp_path), "auto", apart="b")) == {"": 6}


def test_a_store_behind_a_uri_is_read_alike(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "cat", 2)
    write_idx(tmp_path / "idx" / "raw")
    write_parquet(tmp_path / "parquet", "train.parquet")
    remote = fsspec.filesystem("memory")
    remote.put(f"{tmp_path}/", "/layouts/", recursive=True)
    for under in ("train", "idx", "parquet"):
        there, here = (
            read_store(open_store(f"{root}/{under}"), "auto") for root in ("memory://layouts", tmp_path)
        )
        assert (there.layout, there.listed, sizes(there)) == (here.layout, here.listed, sizes(here))
        assert there.parts[next(iter(there.parts))][0].name(1) == here.parts[next(iter(here.parts))][0].name(
            1
        )


def test_a_file_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    (tmp_path / "000.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"a file's name is not UTF-8: \.\.\.caf\\udce9"):
        read_store(open_store(tmp_path), "auto")
