import bz2
import gzip
import lzma
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.sources import ContainerSettings, Item, ItemPaths, ItemSource, open_source
from genray.io.store import open_store
from genray.io.tar import write_member
from tests.conftest import write_images
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]

LIMIT = 10**6
PNG = b"\x89PNG\r\n\x1a\n and more "


def opened(location: Path | str, **settings: Any) -> ItemSource:
    return open_source(str(location), ContainerSettings(**settings))


def listed(source: ItemSource) -> tuple[list[Item], list[BadInput]]:
    problems: list[BadInput] = []
    return list(source.items(problems.append)), problems


def contents(source: ItemSource) -> dict[str, bytes]:
    items, problems = listed(source)
    assert problems == []
    assert len({item.path for item in items}) == len(items)
    return {item.path: source.read(item, LIMIT) for item in items}


def reason(source: ItemSource, item: Item, limit: int = LIMIT) -> str:
    with pytest.raises(BadImage) as bad:
        source.read(item, limit)
    return bad.value.reason


def write_rows(path: Path, columns: dict[str, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


def write_shard(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            write_member(tar, name, data)


def test_files_are_listed_with_what_tells_that_they_changed(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 3)
    (tmp_path / "b.TIFF").write_bytes(b"II*\0")
    (tmp_path / "notes.txt").write_text("no image")
    source = opened(tmp_path)
    items, problems = listed(source)
    assert [item.path for item in items] == ["b.TIFF", "a/000.png", "a/001.png", "a/002.png"]
    assert problems == []
    for item in map(source.completed, items):
        status = (tmp_path / item.path).stat()
        assert (item.size, item.modified, item.container) == (status.st_size, status.st_mtime_ns, "")
    assert contents(opened(tmp_path))["b.TIFF"] == b"II*\0"


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    source = opened_with(tmp_path, {"a.png": b"", "b.png": b"12345"})
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    items, _ = listed(source)
    said = {item.path: reason(source, item, 4) for item in items}
    assert said == {
        "a.png": "empty",
        "b.png": "too-large",
        "gone.png": "unreadable",
        "loop.png": "unreadable",
    }
    assert source.read(Item("b.png", 5, 0), 5) == b"12345"


def opened_with(folder: Path, files: dict[str, bytes]) -> ItemSource:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return opened(folder)


def test_what_is_there_decides(tmp_path: Path) -> None:
    write_rows(tmp_path / "p/a.parquet", {"image": [PNG]})
    write_shard(tmp_path / "t/b.tar", {"1.png": PNG})
    (tmp_path / "f").mkdir()
    (tmp_path / "f/c.jpg").write_bytes(PNG)
    assert list(contents(opened(tmp_path / "p"))) == ["a/00000000.png"]
    assert list(contents(opened(tmp_path / "t"))) == ["b/1.png"]
    assert list(contents(opened(tmp_path / "f"))) == ["c.jpg"]


def test_of_files_and_shards_in_one_folder_none_is_taken_silently(tmp_path: Path) -> None:
    write_rows(tmp_path / "p/a.parquet", {"image": [PNG]})
    write_shard(tmp_path / "t/b.tar", {"1.png": PNG})
    write_shard(tmp_path / "t/c.tar", {"1.png": PNG})
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert caught.value.what == (
        f"{tmp_path} holds 1 Parquet file (p/a.parquet) and 2 tar shards (t/b.tar, ...): which of them "
        "are the inputs?"
    )
    assert caught.value.where == "read.container"
    assert caught.value.hint == (
        "set read.container=parquet for the Parquet files, or read.container=webdataset for the tar shards; "
        "the others are counted as not read"
    )
    (tmp_path / "c.jpg").write_bytes(PNG)
    with pytest.raises(DataError, match=r"1 image file \(c\.jpg\) and 1 Parquet file"):
        opened(tmp_path)
    for container, paths in (
        ("files", ["c.jpg"]),
        ("parquet", ["p/a/00000000.png"]),
        ("webdataset", ["t/b/1.png", "t/c/1.png"]),
    ):
        source = opened(tmp_path, container=container)
        assert list(contents(source)) == paths
        assert sum(source.counts.unread.values()) == (2 if container == "webdataset" else 3)


def test_a_tar_that_cannot_be_read_anyway_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    with tarfile.open(tmp_path / "backup.tar.gz", "w:gz") as tar:
        write_member(tar, "1.png", PNG)
    source = opened(tmp_path)
    assert list(contents(source)) == ["1.png"]
    assert source.counts.unread_text == "1 .tar.gz is not read"


def test_every_file_that_is_not_read_is_counted_by_its_type(tmp_path: Path) -> None:
    names = ["a.psd", "b/c.PSD", "b/d.txt", ".DS_Store", "b/README", "e.tar.gz", "f.exr"]
    for name in (*names, "1.png", "b/2.jfif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"some text that is longer than the head of a file")
    source = opened(tmp_path)
    assert [item.path for item in listed(source)[0]] == ["1.png", "b/2.jfif"]
    counts = {".psd": 2, ".exr": 1, ".txt": 1, ".tar.gz": 1, "hidden": 1, "without a suffix": 1}
    assert source.counts.as_json() == counts
    assert source.counts.unread_text == (
        "2 .psd are not read (Photoshop), nor 1 .exr (OpenEXR), 1 without a suffix, 1 .tar.gz, 1 .txt, "
        "1 hidden"
    )
    assert source.counts.read == {".png": 1, ".jfif": 1}


def test_names_without_a_suffix_are_read_by_their_first_bytes(tmp_path: Path) -> None:
    psd = b"8BPS\0\1"
    files = {
        "IMG_0001": PNG,
        "d41d8cd98f00b204e9800998ecf8427e": b"\xff\xd8\xff\xe0",
        "1.2.840.10008": b"II*\0 and more",
        "photo.jpg?w=200": PNG,
        "x.8f00b204": PNG,
        "photo": psd,
        "LICENSE": b"text",
        "empty": b"",
        "a.json": PNG,
        "b.png": b"text",
    }
    source = opened_with(tmp_path, files)
    paths = ["1.2.840.10008", "IMG_0001", "b.png", "d41d8cd98f00b204e9800998ecf8427e", "photo.jpg?w=200"]
    assert [item.path for item in listed(source)[0]] == [*paths, "x.8f00b204"]
    assert source.counts.as_json() == {"without a suffix": 2, ".psd": 1, ".json": 1}
    write_shard(tmp_path / "tars/a.tar", files)
    shard = opened(tmp_path / "tars")
    assert sorted(item.path for item in listed(shard)[0]) == sorted(
        f"a/{path}" for path in [*paths, "x.8f00b204"]
    )
    assert shard.counts.as_json() == source.counts.as_json()


def test_suffixes_that_are_given_are_all_that_is_read(tmp_path: Path) -> None:
    opened_with(tmp_path, {"a.png": PNG, "b.jpg": PNG, "c": PNG, "d.dat": PNG})
    source = opened(tmp_path, suffixes=(".dat", ".jpg"))
    assert list(contents(source)) == ["b.jpg", "d.dat"]
    assert source.counts.as_json() == {".png": 1, "without a suffix": 1}


def test_a_pattern_names_the_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "x/a.png", "x/y/a.png", "x/y/b.jpg", "z/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    for pattern, paths in (
        ("**/*.png", ["a.png", "x/a.png", "x/y/a.png", "z/a.png"]),
        ("*.png", ["a.png"]),
        ("x/**", ["x/a.png", "x/y/a.png", "x/y/b.jpg"]),
        ("?/a.*", ["x/a.png", "z/a.png"]),
        ("[xz]/a.png", ["x/a.png", "z/a.png"]),
    ):
        assert sorted(contents(opened(tmp_path / pattern))) == sorted(
            path.removeprefix("x/") if pattern == "x/**" else path for path in paths
        )
    with pytest.raises(DataError, match="there are no image files"):
        opened(tmp_path / "*.tif")
    (tmp_path / "[1]").mkdir()
    (tmp_path / "[1]/odd.png").write_bytes(PNG)
    assert list(contents(opened(tmp_path / "[1]"))) == ["odd.png"], "a folder of that name is no pattern"


def test_one_file_is_read_alone_whatever_it_is_called(tmp_path: Path) -> None:
    opened_with(tmp_path, {"a.png": PNG, "b.png": PNG, "c.dat": PNG})
    write_rows(tmp_path / "d.parquet", {"image": [PNG]})
    write_shard(tmp_path / "e.tar", {"1.png": PNG})
    paths = {"a.png": "a.png", "c.dat": "c.dat", "d.parquet": "d/00000000.png", "e.tar": "e/1.png"}
    for name, path in paths.items():
        assert list(contents(opened(tmp_path / name))) == [path]
    item = listed(opened(tmp_path / "a.png"))[0][0]
    assert item.modified == (tmp_path / "a.png").stat().st_mtime_ns


@pytest.mark.parametrize("name", ["jpeg", "mask", "zzz", "data"])
def test_the_column_of_images_is_the_one_whose_values_are_images(tmp_path: Path, name: str) -> None:
    rows = 40
    columns = {
        "data": [b"{}"] * rows,
        "image": [b"text of an image"] * rows,
        "jpg": pa.array([None] * rows, pa.binary()),
        "caption": ["x"] * rows,
    }
    columns[name] = [None] * 5 + [PNG] * (rows - 5)
    write_rows(tmp_path / "a.parquet", columns, row_group_size=15)
    source = opened(tmp_path)
    items, problems = listed(source)
    assert problems == []
    assert source.read(items[20], LIMIT) == PNG
    assert source.counts.columns == columns.keys() - {name}
    assert "the Parquet columns" in source.counts.unread_text


def test_a_column_of_mostly_broken_images_is_still_the_one(tmp_path: Path) -> None:
    words = [b"BMW", b"Audi", b"Opel", b"Seat"] * 5
    write_rows(tmp_path / "a.parquet", {"car": words, "photo": [b"?", PNG] * 10})
    assert list(contents(opened(tmp_path)).values()) == [b"?", PNG] * 10
    write_rows(tmp_path / "a.parquet", {"photo": [b"?"] * 5 + [PNG], "text": [b"x"] * 6})
    assert len(contents(opened(tmp_path))) == 6


def test_several_columns_of_images_are_an_error_that_names_the_setting(tmp_path: Path) -> None:
    columns = {"mask": [PNG], "jpeg": [{"bytes": PNG, "path": "1.png"}], "text": [b"text"]}
    write_rows(tmp_path / "a.parquet", columns)
    items, problems = listed(opened(tmp_path))
    assert (items, [bad.reason for bad in problems]) == ([], ["ambiguous"])
    assert problems[0].detail == (
        "the columns mask, jpeg all hold images: set read.column to one of them, such as read.column=mask"
    )
    assert list(contents(opened(tmp_path, column="jpeg"))) == ["a/1.png"]


def test_no_column_of_images_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", {"image": [b"text"], "json": [b"{}"], "label": [1]})
    items, problems = listed(opened(tmp_path))
    assert items == []
    assert problems[0].detail == (
        "no column holds images: image begins with b'text', json begins with b'{}'; the columns are image, "
        "json, label (see read.column)"
    )


def write_repeated(path: Path, value: bytes, rows: int, *, nested: bool = False, **options: Any) -> None:
    """A file of a few kB, in which all rows are one value of a dictionary."""
    cells: Any = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    if nested:
        cells = pa.StructArray.from_arrays([cells], names=["bytes"])
    options = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30} | options
    pq.write_table(pa.table({"image": cells}), path, **options)
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_dictionary_that_would_fill_the_memory_is_refused_before_it_is_unfolded(
    tmp_path: Path, version: str, nested: bool
) -> None:
    write_repeated(
        tmp_path / "a.parquet", PNG + bytes(300_000), 1000, nested=nested, data_page_version=version
    )
    before = pa.total_allocated_bytes()
    items, problems = listed(opened(tmp_path, max_unfolded_gb=0.05))
    assert (items, [bad.reason for bad in problems]) == ([], ["too-large"])
    assert "become more than 50 MB" in problems[0].detail
    assert "1000 rows, dictionary of 300 kB" in problems[0].detail
    source = opened(tmp_path)
    items, problems = listed(source)
    assert (len(items), problems) == (1000, [])
    assert len(source.read(items[300], 10**9)) == 300_000 + len(PNG)
    assert pa.total_allocated_bytes() - before < 300 * 2**20
    with pytest.raises(BadImage, match="max_unfolded_gb") as caught:
        opened(tmp_path, max_unfolded_gb=0.05).read(items[800], 10**9)
    assert caught.value.reason == "too-large"


def test_pages_that_unpack_to_absurd_sizes_are_refused(tmp_path: Path) -> None:
    images = [PNG + bytes(5 * 10**6 + i) for i in range(10)]
    write_rows(tmp_path / "a.parquet", {"image": images}, compression="zstd", use_dictionary=False)
    assert listed(opened(tmp_path))[1] == []
    items, problems = listed(opened(tmp_path, max_unfolded_gb=0.04))
    assert (items, [bad.reason for bad in problems]) == ([], ["too-large"])


def test_images_that_repeat_now_and_then_are_all_read(tmp_path: Path) -> None:
    images = [PNG + bytes([i % 7]) * 10_000 for i in range(500)]
    write_rows(tmp_path / "a.parquet", {"image": images}, row_group_size=200)
    assert list(contents(opened(tmp_path, max_unfolded_gb=0.02)).values()) == images


def test_a_place_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        opened(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"no image files or Parquet files or tar shards at .*; 1 .txt is not read"
    ):
        opened(tmp_path)
    (tmp_path / "x.png").write_bytes(PNG)
    source = opened(tmp_path, container="webdataset")
    assert listed(source) == ([], [])
    assert "no tar shards at" in source.nothing_there().what
    assert "1 .png is not read (PNG), nor 1 .txt" in source.nothing_there().what


def test_members_are_called_by_their_shard(tmp_path: Path) -> None:
    files = {"a/1.jpg": b"one", "1.json": b"{}", "2.webp": b"two", "._2.webp": b"no image"}
    write_shard(tmp_path / "s/00.tar", files)
    write_shard(tmp_path / "s/01.tar", {"2.webp": b"three", "2.webp ": b"other"})
    source = opened(tmp_path)
    assert contents(source) == {"s/00/a/1.jpg": b"one", "s/00/2.webp": b"two", "s/01/2.webp": b"three"}
    item = listed(source)[0][0]
    assert (item.size, item.container) == (3, "s/00.tar")
    assert item.modified == (tmp_path / "s/00.tar").stat().st_mtime_ns
    assert reason(source, item, 2) == "too-large"


def test_hostile_names_stay_below_the_shard(tmp_path: Path) -> None:
    names = ["/etc/a.png", "../../b.png", "x/../../c.png", "d.png", "d.png", "./e.png", "_genray/f.png"]
    with tarfile.open(tmp_path / "_genray.tar", "w") as tar:
        for name in names:
            write_member(tar, name, name.encode())
    found = contents(opened(tmp_path))
    assert sorted(found.values()) == sorted(name.encode() for name in names)
    assert all(path.startswith("_genray.tar/") and ".." not in path for path in found)
    assert found["_genray.tar/d.png"] == found["_genray.tar/000000004608.png"] == b"d.png"


def test_shards_of_one_name_stay_apart(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"b/1.png": b"1"})
    write_shard(tmp_path / "a/b.tar", {"1.png": b"2"})
    assert contents(opened(tmp_path)) == {"a.tar/b/1.png": b"1", "a/b/1.png": b"2"}


def test_a_damaged_shard_costs_what_lies_behind_the_damage(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {f"{i}.png": b"1" * 1000 for i in range(4)})
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:4000])
    write_shard(tmp_path / "b.tar", {"1.png": b"1"})
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        write_member(tar, "1.png", b"1")
    items, problems = listed(opened(tmp_path))
    assert [item.path for item in items] == ["a/0.png", "a/1.png", "b/1.png", "c/1.png"]
    assert [(bad.path, bad.reason) for bad in problems] == [("a.tar", "truncated")]


def pack_shard(path: Path, files: dict[str, bytes]) -> None:
    """A compressed tar, by the suffix of its name."""
    plain = path.with_name("plain.tar")
    write_shard(plain, files)
    data = plain.read_bytes()
    plain.unlink()
    pack: Any = {".gz": gzip.compress, ".tgz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes(pack[path.suffix](data))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_compressed_shards_are_read_like_others(tmp_path: Path, suffix: str) -> None:
    images = {f"{index}.png": PNG + bytes([index]) * 5000 for index in range(20)}
    for name in "abc":
        pack_shard(tmp_path / f"{name}{suffix}", {**images, "notes.txt": b"text", "no-suffix": PNG})
    source = opened(tmp_path)
    expected = {
        f"{name}/{path}": data for name in "abc" for path, data in (images | {"no-suffix": PNG}).items()
    }
    assert contents(source) == expected
    assert source.counts.unread_text == "3 .txt are not read"
    items, _ = listed(source)
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda item: copy.read(item, LIMIT), reversed(items)))
    assert read == list(reversed(expected.values()))


def test_a_compressed_shard_that_is_damaged_or_a_bomb_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pack_shard(tmp_path / "cut.tar.gz", {f"{index}.png": rng.bytes(50_000) for index in range(4)})
    data = (tmp_path / "cut.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(data[: len(data) // 2])
    pack_shard(tmp_path / "zeros.tar.gz", {"1.png": bytes(10**7)})
    items, problems = listed(opened(tmp_path, max_unfolded_gb=0.001))
    assert [item.path for item in items] == ["cut/0.png"]
    assert [(bad.path, bad.reason) for bad in problems] == [
        ("cut.tar.gz", "truncated"),
        ("zeros.tar.gz", "too-large"),
    ]
    assert "max_unfolded_gb" in problems[1].detail


def test_compressed_shards_in_a_remote_store_are_read(s3_root: str, tmp_path: Path) -> None:
    pack_shard(tmp_path / "a.tar.gz", {"1.png": PNG, "2.png": PNG + b"2"})
    open_store(s3_root).write("a.tar.gz", (tmp_path / "a.tar.gz").read_bytes())
    assert contents(opened(s3_root)) == {"a/1.png": PNG, "a/2.png": PNG + b"2"}


IMAGES = [PNG + bytes([i]) * 100 for i in range(50)]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"n": range(50), "bytes": IMAGES}, [f"{i:08}.png" for i in range(50)]),
        ({"image": IMAGES, "path": [f"x/{i}.PNG" for i in range(50)]}, [f"x/{i}.PNG" for i in range(50)]),
        ({"webp": IMAGES, "__key__": [f"k{i}" for i in range(50)]}, [f"k{i}.png" for i in range(50)]),
        (
            {"img": [{"bytes": b, "path": f"{i}.jpg"} for i, b in enumerate(IMAGES)]},
            [f"{i}.jpg" for i in range(50)],
        ),
        ({"img": [{"bytes": b, "path": None} for b in IMAGES]}, [f"{i:08}.png" for i in range(50)]),
        ({"image": IMAGES, "path": ["../x.png"] * 25 + ["/y.png"] * 25}, [f"{i:08}.png" for i in range(50)]),
    ],
)
def test_rows_are_called_by_their_path_or_number(
    tmp_path: Path, columns: dict[str, Any], names: list[str]
) -> None:
    write_rows(tmp_path / "a/p.parquet", columns, row_group_size=20)
    assert contents(opened(tmp_path)) == {f"a/p/{n}": data for n, data in zip(names, IMAGES, strict=True)}


def test_rows_come_in_any_order_to_any_thread(tmp_path: Path) -> None:
    images = [PNG + bytes([i % 256]) * (1 + i * 7 % 5000) for i in range(900)]
    write_rows(tmp_path / "a.parquet", {"image": images}, row_group_size=250)
    source: ItemSource = pickle.loads(pickle.dumps(opened(tmp_path)))  # noqa: S301
    items = listed(source)[0]
    for order in (items, items[::-1], items[::7] + items[3::11]):
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda item: source.read(item, LIMIT), order))
        assert read == [images[item.position] for item in order]


def test_a_row_group_of_any_size_is_read_in_little_memory(tmp_path: Path) -> None:
    data = [PNG + i.to_bytes(2, "big") * 2500 for i in range(20_000)]  # 100 MB
    write_rows(tmp_path / "a.parquet", {"image": data}, compression="none", use_dictionary=False)
    source = opened(tmp_path)
    items, before, most = listed(source)[0], pa.total_allocated_bytes(), 0
    for item in items[::50]:
        assert source.read(item, LIMIT) == data[item.position]
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 60 * 2**20


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", {"image": [None, b"", PNG]})
    source = opened(tmp_path)
    items, _ = listed(source)
    assert [reason(source, item, 3) for item in items] == ["empty", "empty", "too-large"]
    assert reason(source, Item("a/9.png", 0, 0, "a.parquet", 9)) == "truncated"
    assert reason(source, Item("b/9.png", 0, 0, "b.parquet", 9)) == "unreadable"


def test_a_damaged_parquet_file_is_reported(tmp_path: Path) -> None:
    write_rows(tmp_path / "ok.parquet", {"image": IMAGES}, compression="none")
    whole = (tmp_path / "ok.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-50])
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "zero.parquet").write_bytes(b"")
    write_rows(tmp_path / "other.parquet", {"label": [1, 2]})
    middle = bytearray(whole)
    middle[4:2000] = b"\xff" * 1996
    (tmp_path / "middle.parquet").write_bytes(middle)
    source = opened(tmp_path)
    items, problems = listed(source)
    assert {bad.path for bad in problems} == {f"{name}.parquet" for name in ("cut", "text", "zero", "other")}
    assert len(items) == 100
    assert {reason(source, item) for item in items if item.container == "middle.parquet"} == {"truncated"}
    assert source.read(items[-1], LIMIT) == IMAGES[-1]


def test_the_column_can_be_given(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", {"image": [b"wrong"], "other": [PNG]})
    assert list(contents(opened(tmp_path, column="other")).values()) == [PNG]
    items, problems = listed(opened(tmp_path, column="nothing"))
    assert (items, problems[0].path) == ([], "a.parquet")
    assert "no column 'nothing' of bytes among: image, other" in problems[0].detail


def test_an_object_store_is_read_alike(tmp_path: Path, s3_root: str) -> None:
    write_images(tmp_path / "files", 3)
    write_shard(tmp_path / "tars/a.tar", {f"{i}.png": data for i, data in enumerate(IMAGES)})
    write_rows(tmp_path / "rows/a.parquet", {"image": IMAGES}, row_group_size=20)
    store = open_store(s3_root)
    for file in tmp_path.rglob("*.*"):
        store.write(str(file.relative_to(tmp_path)), file.read_bytes())
    for container in ("files", "webdataset", "parquet"):
        remote: ItemSource = pickle.loads(pickle.dumps(opened(s3_root, container=container)))  # noqa: S301
        assert contents(remote) == contents(opened(tmp_path, container=container))
        assert all(item.modified > 0 for item in listed(remote)[0])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b.png", "s/a/b.png"),
        ("./a//b.png", "s/a/b.png"),
        *(
            (bad, "s/7")
            for bad in ("/etc/x.png", "../x.png", "a/../../x", "", ".", ".x.png", "a\0b", "\udcff")
        ),
        ("a/" + "n" * 256, "s/7"),
        ("/".join(["n" * 200] * 4), "s/7"),
    ],
)
def test_names_in_a_shard_are_safe_below_a_root(name: str, path: str) -> None:
    assert ItemPaths("s").assign(name, "7") == path


def test_no_two_names_in_a_shard_are_one() -> None:
    paths = ItemPaths("s")
    names = [("a", "1"), ("a", "2"), ("3", "9"), ("", "3")]
    assert [paths.assign(name, fallback) for name, fallback in names] == ["s/a", "s/2", "s/3", "s/_3"]
