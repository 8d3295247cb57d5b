import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray.datasets.layouts import (
    Content,
    FolderImages,
    Layout,
    ParquetReading,
    StoredImages,
    classes_of,
    read_parquet,
    read_place,
)
from genray.errors import DataError
from genray.images.decode import ImageHeader
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage
from genray.io.file_types import FileCounts
from genray.io.listing import find_place
from genray.io.store import open_store
from genray.io.tar import write_member
from tests.broken_files import encode
from tests.conftest import write_images

IMAGES = b"\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02" + bytes(8)
SMALL = ReadLimits(max_pixels=10_000)
LAYOUTS: set[Layout] = {"idx", "parquet", "folder", "webdataset"}


def write_idx(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train-images-idx3-ubyte").write_bytes(IMAGES)


def write_parquet(folder: Path, *names: str, rows: int = 2) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": pa.array([png(1)] * rows, pa.binary())}), file)


def sizes(content: Content) -> dict[str, int]:
    return {name: len(part.images) for name, part in content.parts.items()}


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (write_idx, "idx"),
        (lambda folder: write_parquet(folder, "0.parquet"), "parquet"),
        (lambda folder: write_images(folder, 2), "folder"),
    ],
)
def test_the_layout_follows_from_the_files(
    tmp_path: Path, write: Callable[[Path], None], layout: Any
) -> None:
    write(tmp_path)
    content = read_place(find_place(tmp_path))
    assert content.layout == layout
    assert sum(sizes(content).values()) == 2
    assert read_place(find_place(tmp_path), layout).listed == content.listed
    for other in LAYOUTS - {layout}:
        with pytest.raises(DataError, match="there are no ") as caught:
            read_place(find_place(tmp_path), other)
        assert caught.value.where == "data.path"


def test_of_several_layouts_none_is_taken_silently_and_each_can_be_asked_for(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_parquet(tmp_path, "0.parquet", "1.parquet")
    write_images(tmp_path, 3)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        write_member(tar, "1.png", png(1))
    with pytest.raises(DataError) as caught:
        read_place(find_place(tmp_path))
    assert caught.value.where == "data.layout"
    for text in ("1 idx file of images", "3 image files", "2 Parquet files (0.parquet, ...)", "1 tar shard"):
        assert text in caught.value.what
    for layout, count in (("idx", 2), ("folder", 3), ("parquet", 4), ("webdataset", 1)):
        assert f"data.layout={layout}" in caught.value.hint
        content = read_place(find_place(tmp_path), layout)
        assert sizes(content) == {"train" if layout == "idx" else "": count}
        assert sum(content.counts.unread.values()) == 7 - sum(content.counts.read.values())


def test_idx_files_of_other_names_are_none_of_a_set(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "odd-ubyte")
    write_parquet(tmp_path, "0.parquet")
    content = read_place(find_place(tmp_path))
    assert content.layout == "parquet"
    assert content.counts.unread_text == "1 idx is not read"


def test_an_empty_folder_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "a.psd").touch()
    with pytest.raises(DataError) as caught:
        read_place(find_place(tmp_path))
    assert caught.value.what == (
        "there are no idx files of images or image files or Parquet files or tar shards at "
        f"{tmp_path}; 1 .psd is not read (Photoshop), nor 1 .txt"
    )
    assert ".png" in caught.value.hint


def test_tar_shards_are_split_by_their_name_and_have_no_classes(tmp_path: Path) -> None:
    for name, count in (("train-000", 3), ("train-001", 2), ("val", 1), ("more", 4)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for index in range(count):
                write_member(tar, f"{index}.png", png(index))
                write_member(tar, f"{index}.json", b"{}")
    content = read_place(find_place(tmp_path))
    assert (content.layout, sizes(content), content.unused) == ("webdataset", {"train": 5, "val": 1}, 4)
    train = content.parts["train"]
    assert train.classes is None
    assert [train.images.name(i) for i in (0, 4)] == ["train-000/0.png", "train-001/1.png"]
    assert values(train.images) == [0, 1, 2, 0, 1]
    assert train.images.header(0) == ImageHeader(5, 6, channels=1)
    assert content.counts.unread_text == "10 .json are not read"


def test_parquet_files_are_split_by_folder_or_name(tmp_path: Path) -> None:
    names = (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/validation.parquet",
    )
    write_parquet(tmp_path, *names, "test/0.parquet", "readme.parquet")
    content = read_place(find_place(tmp_path))
    assert sizes(content) == {"train": 4, "val": 2, "test": 2}
    assert content.unused == 1
    assert len(content.listed) == 4


def test_parquet_files_without_rows_are_no_images(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train.parquet", "test.parquet", rows=0)
    with pytest.raises(DataError, match=r"the Parquet files under .* have no rows"):
        read_place(find_place(tmp_path))
    write_parquet(tmp_path, "train.parquet")
    assert sizes(read_place(find_place(tmp_path))) == {"train": 2}


def test_images_without_a_split_beside_train_are_left_out_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "cat", 2)
    write_images(tmp_path / "valid" / "dog", 1)
    write_images(tmp_path / "more", 4)
    content = read_place(find_place(tmp_path))
    assert sizes(content) == {"train": 2, "val": 1}
    assert content.unused == 4
    classes = {n: part.classes.tolist() for n, part in content.parts.items() if part.classes is not None}
    assert classes == {"train": ["cat", "cat"], "val": ["dog"]}


def test_a_folder_that_is_kept_apart_is_passed_over(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 3), ("bb", 4)):
        write_images(tmp_path / name, count)
    assert sizes(read_place(find_place(tmp_path, "b"))) == {"": 6}


def test_a_store_behind_a_uri_is_read_alike(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "cat", 2)
    write_idx(tmp_path / "idx" / "raw")
    write_parquet(tmp_path / "parquet", "train.parquet")
    remote = fsspec.filesystem("memory")
    remote.put(f"{tmp_path}/", "/layouts/", recursive=True)
    for under in ("train", "idx", "parquet"):
        there, here = (read_place(find_place(f"{root}/{under}")) for root in ("memory://layouts", tmp_path))
        assert (there.layout, there.listed, sizes(there)) == (here.layout, here.listed, sizes(here))
        name = next(iter(here.parts))
        assert there.parts[name].images.name(1) == here.parts[name].images.name(1)


def test_a_file_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    (tmp_path / "000.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"a file's name is not UTF-8: \.\.\.caf\\udce9"):
        read_place(find_place(tmp_path))


def listed(**parts: list[str]) -> dict[str, list[str] | None]:
    """The classes of `parts`; the part that is none of train, val and test is called whole."""
    found = classes_of({part.replace("whole", ""): paths for part, paths in parts.items()})
    return {part or "whole": None if known is None else known.tolist() for part, known in found.items()}


def test_a_folder_for_each_class_says_it() -> None:
    assert listed(whole=["cat/1.png", "dog/1.png", "dog/young/2.png"]) == {"whole": ["cat", "dog", "dog"]}


def test_folders_that_all_images_share_say_nothing() -> None:
    paths = ["lfw/lfw_funneled/Ada/1.jpg", "lfw/lfw_funneled/Bo/1.jpg", "lfw/lfw_funneled/Bo/2.jpg"]
    assert listed(whole=paths) == {"whole": ["Ada", "Bo", "Bo"]}


def test_the_order_of_the_files_does_not_matter() -> None:
    paths = ["all/1.png", "all/cat/1.png"]
    assert listed(whole=paths) == {"whole": ["all", "all"]}
    assert listed(whole=paths[::-1]) == {"whole": ["all", "all"]}


def test_classes_lie_below_train_val_and_test_and_may_differ() -> None:
    found = listed(train=["train/good/1.png"], test=["test/good/2.png", "test/scratch/1.png"])
    assert found == {"train": ["good"], "test": ["good", "scratch"]}


def test_one_class_with_folders_of_its_own_is_recognised_by_the_other_parts() -> None:
    found = listed(
        train=["train/good/camera/1.png"], test=["test/good/camera/2.png", "test/bad/camera/1.png"]
    )
    assert found == {"train": ["good"], "test": ["good", "bad"]}


def test_a_part_with_an_image_in_no_folder_has_no_classes() -> None:
    found = listed(train=["train/1.png", "train/cat/1.png"], test=["test/cat/1.png", "test/dog/1.png"])
    assert found == {"train": None, "test": ["cat", "dog"]}
    assert listed(whole=["1.png", "2.png"]) == {"whole": None}


def test_a_single_class_is_one() -> None:
    assert listed(whole=["good/1.png", "good/2.png"]) == {"whole": ["good", "good"]}


def test_images_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2, size=(9, 12), gray=False)
    images = FolderImages.of_paths(open_store(tmp_path), ["a/000.png", "a/001.png"])
    assert len(images) == 2
    assert images.name(1) == "a/001.png"
    assert images.header(1) == ImageHeader(12, 9, channels=3)
    assert images.pixels(1, 3, SMALL).shape == (9, 12, 3)
    assert images.pixels(1, 1, SMALL).shape == (9, 12, 1)
    with pytest.raises(BadImage, match="the limit is 100"):
        images.pixels(1, 3, ReadLimits(max_pixels=100))


def test_sixteen_bits_are_gray_and_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 80).astype(np.uint16).reshape(8, 10)
    Image.fromarray(values).save(tmp_path / "1.png")
    images = FolderImages.of_paths(open_store(tmp_path), ["1.png"])
    assert images.header(0) == ImageHeader(10, 8, channels=1)
    assert np.array_equal(images.pixels(0, 1, SMALL)[..., 0], values >> 8)


def test_links_are_followed_and_what_they_miss_is_unreadable(tmp_path: Path) -> None:
    write_images(tmp_path / "there", 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.png").symlink_to(tmp_path / "there" / "000.png")
    (tmp_path / "set" / "2.png").symlink_to("gone.png")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "there")
    store = open_store(tmp_path / "set")
    images = FolderImages.of_paths(store, [entry.path for entry in store.list((".png",))])
    assert [images.name(i) for i in range(3)] == ["1.png", "2.png", "more/000.png"]
    assert np.array_equal(images.pixels(0, 1, SMALL), images.pixels(2, 1, SMALL))
    with pytest.raises(BadImage) as caught:
        images.pixels(1, 1, SMALL)
    assert caught.value.reason == "unreadable"
    with pytest.raises(BadImage, match="No such file"):
        images.header(1)


def png(value: int) -> bytes:
    return encode(Image.fromarray(np.full((6, 5), value, np.uint8)))


def write(file: Path, columns: dict[str, Any], rows_per_group: int = 2) -> None:
    pq.write_table(pa.table(columns), file, row_group_size=rows_per_group)


def read(folder: Path) -> tuple[StoredImages, list[Any] | None]:
    store = open_store(folder)
    part = read_parquet(store, store.list((".parquet",)), ParquetReading(), FileCounts())
    return part.images, None if part.classes is None else part.classes.tolist()


def values(images: StoredImages) -> list[int]:
    return [int(images.pixels(i, 1, SMALL)[0, 0, 0]) for i in range(len(images))]


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    for name, start, count in (("a", 0, 5), ("b", 0, 0), ("c", 5, 3)):
        rows = range(start, start + count)
        label = pa.array(list(rows), pa.int32())
        write(
            tmp_path / f"{name}.parquet",
            {"image": pa.array([png(i) for i in rows], pa.binary()), "label": label},
        )
    images, classes = read(tmp_path)
    assert values(images) == list(range(8))
    assert classes == list(range(8))
    assert [images.name(i) for i in (0, 4, 5)] == ["a.parquet#0", "a.parquet#4", "c.parquet#0"]
    assert images.header(7) == ImageHeader(5, 6, channels=1)


def test_the_struct_of_hugging_face_is_understood(tmp_path: Path) -> None:
    cells = [{"bytes": png(7), "path": "7.png"}, None, {"bytes": None, "path": "8.png"}]
    write(tmp_path / "0.parquet", {"id": [1, 2, 3], "image": cells})
    images, classes = read(tmp_path)
    assert classes is None
    assert images.pixels(0, 1, SMALL)[0, 0, 0] == 7
    for index in (1, 2):
        with pytest.raises(BadImage, match="null"):
            images.pixels(index, 1, SMALL)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [(None, "empty"), (b"", "empty"), (b"text", "unknown-format"), (png(1)[:50], "truncated")],
)
def test_a_cell_without_an_image_is_a_bad_image(tmp_path: Path, cell: bytes | None, reason: str) -> None:
    write(tmp_path / "0.parquet", {"image": pa.array([png(1), cell], pa.binary())})
    images, _ = read(tmp_path)
    with pytest.raises(BadImage) as caught:
        images.pixels(1, 1, SMALL)
    assert caught.value.reason == reason


def test_the_column_of_images_is_the_one_whose_values_are_images(tmp_path: Path) -> None:
    columns = {
        "data": [b"mask"],
        "image": [b"x"],
        "photo": pa.array([png(9)], pa.large_binary()),
        "label": [1],
    }
    write(tmp_path / "0.parquet", columns)
    assert values(read(tmp_path)[0]) == [9]
    counts = read_place(find_place(tmp_path)).counts
    assert counts.unread_text == "the Parquet columns data, image are not read"


def test_several_columns_of_images_are_refused_and_one_can_be_given(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"mask": [png(1)], "jpeg": [png(2)]})
    with pytest.raises(
        DataError, match=r"0\.parquet: the columns mask, jpeg all hold images: set data\.column"
    ):
        read_place(find_place(tmp_path))
    for column, value in (("mask", 1), ("jpeg", 2)):
        content = read_place(find_place(tmp_path), parquet=ParquetReading(column))
        assert values(content.parts[""].images) == [value]


def test_a_dictionary_that_would_fill_the_memory_is_refused_before_it_is_unfolded(tmp_path: Path) -> None:
    cells = pa.DictionaryArray.from_arrays(
        pa.array([0] * 1000, pa.int32()), pa.array([png(1) + bytes(100_000)])
    )
    options = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30}
    pq.write_table(pa.table({"image": cells}), tmp_path / "0.parquet", row_group_size=250, **options)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"0\.parquet: .* become more than"):
        read_place(find_place(tmp_path), parquet=ParquetReading(max_unfolded_gb=0.03))
    assert pa.total_allocated_bytes() - before < 100 * 2**20
    content = read_place(find_place(tmp_path), parquet=ParquetReading(max_unfolded_gb=2))
    assert sizes(content) == {"": 1000}


def test_a_class_of_absurd_length_is_none(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"image": [png(1), png(2)], "label": ["x" * 5000] * 2})
    assert read(tmp_path)[1] is None


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        (["dog", "cat"], ["dog", "cat"]),
        (pa.array(["dog", "cat"]).dictionary_encode(), ["dog", "cat"]),
        (pa.array([3, 250], pa.uint8()), [3, 250]),
        ([3, None], None),
        ([-1, -1], None),  # as Hugging Face has it where labels are secret
        ([0.5, 1.0], None),
    ],
)
def test_classes_are_numbers_or_text_and_known_for_all_or_none(
    tmp_path: Path, labels: Any, known: Any
) -> None:
    write(tmp_path / "0.parquet", {"image": [png(1), png(2)], "label": labels})
    assert read(tmp_path)[1] == known


def test_classes_are_unknown_if_a_file_has_none_or_others(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [png(1)], "label": [1]})
    write(tmp_path / "b.parquet", {"image": [png(1)]})
    assert read(tmp_path)[1] is None
    write(tmp_path / "b.parquet", {"image": [png(1)], "label": ["one"]})
    assert read(tmp_path)[1] is None


def test_a_file_without_images_says_what_it_has(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"text": ["a"], "label": [1]})
    with pytest.raises(DataError, match=r"0\.parquet: no column of encoded images .* among: text, label"):
        read(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "0.parquet"
    write(file, {"image": [png(i) for i in range(20)], "label": list(range(20))})
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for data in (b"", b"PAR1", whole[:-30], whole[100:]):
        file.write_bytes(data)
        with pytest.raises(DataError, match=r"0\.parquet is no Parquet file that can be read"):
            read(tmp_path)
    for _ in range(60):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        try:
            images, _ = read(tmp_path)
            values(images)
        except (DataError, BadImage):
            pass


def test_a_compressed_tar_is_not_trained_on(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        write_member(tar, "1.png", b"\x89PNG\r\n\x1a\n and more")
    with pytest.raises(DataError, match=r"a\.tar\.gz is a compressed tar"):
        read_place(find_place(tmp_path))
