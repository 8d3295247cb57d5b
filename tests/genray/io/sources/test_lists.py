"""Any list is an input: paths, URLs and keys in text, CSV and Parquet."""

import gzip
import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.errors import DataError
from genray.io.bad_input import BadImage, BadInput
from genray.io.sources import ContainerSettings, Item, ItemSource, open_source
from genray.io.sources.lists import ListFile
from genray.io.store import open_store
from tests.image_server import ImageServer, image_server
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]

FETCH = {"private_hosts": True, "retries": 0, "requests_per_second": 1000}


def opened(location: Path | str, **settings: Any) -> ItemSource:
    return open_source(str(location), ContainerSettings(**{"fetch": FETCH} | settings))


def listed(source: ItemSource) -> tuple[list[Item], list[BadInput]]:
    problems: list[BadInput] = []
    return list(source.items(problems.append)), problems


def contents(source: ItemSource) -> dict[str, bytes]:
    """What each listed input contains, read by another process as it were: a copy without the listing."""
    items, problems = listed(source)
    assert problems == []
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    return {item.path: copy.read(item, 10**6) for item in items}


@pytest.fixture
def site() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "x/b.jpg", "x/c d.png", "ü.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path / "photos"


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_table(path: Path, columns: dict[str, list[Any]], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "a.jpg\n\nx/c d.png\r\nü.png"),
        ("list.txt.gz", "a.jpg\nx/c d.png\nü.png\n"),
        ("list.csv", "id,path\n1,a.jpg\n2,x/c d.png\n3,ü.png\n"),
        ("list.csv", '\ufeffFile_Name,"a ""note"""\na.jpg,"x\ny"\n./x/c d.png,\nx/../ü.png,\n'),
        ("list.csv.gz", "path\na.jpg\nx/c d.png\nü.png\n"),
        ("list.csv", "a.jpg\nx/c d.png\nü.png\n"),
        ("list.tsv", "label\tpath\ncat\ta.jpg\ncat\tx/c d.png\n\tü.png\n"),
    ],
)
def test_a_list_of_paths_in_text_names_the_inputs(photos: Path, name: str, text: str) -> None:
    source = opened(write(photos / name, text))
    assert contents(source) == {path: path.encode() for path in ("a.jpg", "x/c d.png", "ü.png")}
    items, _ = listed(source)
    status = (photos / "a.jpg").stat()
    found = source.completed(items[0])
    assert (found.size, found.modified) == (status.st_size, status.st_mtime_ns)


def test_a_parquet_file_without_images_is_a_list(photos: Path) -> None:
    file = write_table(photos / "list.parquet", {"label": [1, 2], "file_path": ["a.jpg", "x/b.jpg"]})
    assert list(contents(opened(file))) == ["a.jpg", "x/b.jpg"]
    several = write_table(
        photos / "several.parquet", {"before": ["a.jpg"], "after": ["x/b.jpg"]}, row_group_size=1
    )
    assert list(contents(opened(several, path_column="after"))) == ["x/b.jpg"]
    items, problems = listed(opened(several))
    assert not items
    assert "before, after; set read.path_column" in problems[0].detail


def test_a_folder_of_lists_is_read_if_it_is_asked_for(photos: Path) -> None:
    write_table(photos / "1.parquet", {"path": ["a.jpg"]})
    write(photos / "2.txt", "x/b.jpg\na.jpg\n")
    source = opened(photos, container="list")
    assert list(contents(source)) == ["a.jpg", "x/b.jpg"]
    assert source.counts.unread_text == "1 is left out (listed twice)"


def test_files_lie_below_the_folder_of_the_list_or_a_root_that_is_given(photos: Path, tmp_path: Path) -> None:
    text = f"{photos}/a.jpg\nfile://{photos}/x/c%20d.png\n../{tmp_path.name}/photos/x/b.jpg\n"
    file = write(tmp_path / "elsewhere.txt", text)
    assert list(contents(opened(file))) == ["photos/a.jpg", "photos/x/c d.png", "photos/x/b.jpg"]
    inside = opened(write(photos / "list.txt", f"{photos}/a.jpg\n../elsewhere.txt\n/etc/passwd\n..\n"))
    items, problems = listed(inside)
    assert [item.path for item in items] == ["a.jpg"]
    assert [bad.path for bad in problems] == ["list.txt:2", "list.txt:3", "list.txt:4"]
    assert all(bad.reason == "bad-name" for bad in problems)
    assert "set read.root" in problems[1].detail
    rooted = opened(write(tmp_path / "rooted.txt", "b.jpg\n"), root=str(photos / "x"))
    assert contents(rooted) == {"b.jpg": b"x/b.jpg"}


def test_a_file_that_is_missing_is_named_when_it_is_read(photos: Path) -> None:
    source = opened(write(photos / "list.txt", "a.jpg\nnowhere.jpg\n"))
    items, problems = listed(source)
    assert not problems
    with pytest.raises(BadImage, match="No such file"):
        source.read(items[1], 100)


def test_urls_are_named_by_host_and_path_and_their_queries_stay_in_the_list(
    site: ImageServer, tmp_path: Path
) -> None:
    site.answers.update({"/a/1.jpg": b"one", "/get.php": b"got", "/b%20c.png": b"two"})
    host = site.url.removeprefix("http://").replace(":", "_")
    urls = [
        f"{site.url}/a/1.jpg?Signature=s3cret",
        f"{site.url}/get.php?id=1&token=s3cret",
        f"{site.url}/get.php?id=2&token=s3cret",
        f"{site.url}/b%20c.png#top",
        f"{site.url}/get.php?id=1&token=s3cret",
    ]
    file = write_table(tmp_path / "list.parquet", {"url": urls}, row_group_size=2)
    source = opened(file)
    names = [f"{host}/a/1.jpg", f"{host}/get.php", f"{host}/get-2.php", f"{host}/b c.png"]
    assert contents(source) == dict(zip(names, (b"one", b"got", b"got", b"two"), strict=True))
    assert [path for _, path in site.requests][1:3] == [url.removeprefix(site.url) for url in urls[1:3]]
    assert "s3cret" not in repr(listed(source))
    assert source.counts.left_out == {"listed twice": 1}


def test_an_unsafe_url_gets_a_safe_name(site: ImageServer, tmp_path: Path) -> None:
    site.answers.update({"/..%2F..%2Fetc/x.jpg": b"one", "/": b"two", "/" + "n" * 300 + ".jpg": b"three"})
    rows = "\n".join(f"{site.url}{path}" for path in site.answers)
    host = site.url.removeprefix("http://").replace(":", "_")
    assert contents(opened(write(tmp_path / "list.txt", rows))) == {
        f"{host}/00000000.jpg": b"one",
        f"{host}/00000001": b"two",
        f"{host}/00000002.jpg": b"three",
    }


@pytest.mark.parametrize(
    "row",
    [
        "ftp://host/a.jpg",
        "http://user:s3cret@host/a.jpg",
        "http://[s3cret/a.jpg",
        "github://o:r@/x.jpg?token=s3cret",
        "http:///s3cret.jpg",
    ],
)
def test_a_row_that_names_nothing_readable_is_set_aside_without_its_text(photos: Path, row: str) -> None:
    items, problems = listed(opened(write(photos / "list.txt", f"{row}\na.jpg\n")))
    assert [item.path for item in items] == ["a.jpg"]
    assert [(bad.path, bad.reason) for bad in problems] == [("list.txt:1", "bad-name")]
    assert "s3cret" not in repr(problems)


@pytest.mark.parametrize(
    ("name", "text", "detail"),
    [
        ("l.csv", "before,after\na.jpg,b.jpg\n", "before, after; set read.path_column"),
        ("l.csv", "url,path\na,b\n", "path, url could all be the paths: set read.path_column"),
        ("l.csv", "images\na.jpg\n", "set read.path_column"),
        ("l.txt", "a\0b\0", "NUL characters"),
        ("l.txt", "x" * 70_000, "more than 65536"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, detail: str) -> None:
    items, problems = listed(opened(write(tmp_path / name, text)))
    assert not items
    assert problems[0].path == name
    assert detail in problems[0].detail


def test_a_list_that_changed_since_is_not_mixed_up(site: ImageServer, tmp_path: Path) -> None:
    site.answers.update({"/a.jpg": b"one", "/b.jpg": b"two"})
    source = opened(write(tmp_path / "list.txt", f"{site.url}/a.jpg?s=1\n{site.url}/b.jpg?s=1\n"))
    items, _ = listed(source)
    write(tmp_path / "list.txt", f"{site.url}/a.jpg?s=2\n{site.url}/c.jpg?s=2\n")
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert copy.read(items[0], 100) == b"one", "another signature is the same input"
    with pytest.raises(BadImage, match=r"list\.txt has changed"):
        copy.read(items[1], 100)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".csv.gz", ".parquet"])
def test_any_row_of_a_long_list_can_be_read(tmp_path: Path, suffix: str) -> None:
    rows = [f"http://host/{row}.jpg?q={row}" for row in range(5000)]
    path = tmp_path / f"list{suffix}"
    if suffix == ".parquet":
        write_table(path, {"url": rows}, row_group_size=700)
    else:
        write(path, "url\n" * suffix.startswith(".csv") + "\n".join(rows))
    file = ListFile(open_store(tmp_path), path.name)
    assert [row.text for row in file.rows()] == rows
    for first in (4999, 0, 1, 1023, 1024, 1025, 699, 700, 4096, 5000):
        assert next((row.text for row in file.rows(first)), None) == (rows[first] if first < 5000 else None)


def test_an_inventory_of_s3_names_the_images_of_a_bucket(s3_root: str, tmp_path: Path) -> None:
    root, _, options = s3_root.partition("?")
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    store = open_store(s3_root)
    store.write("in/a b.jpg", b"one")
    store.write("in/ü.png", b"two")
    moment = datetime(2026, 11, 1, 2, 3, 4, tzinfo=UTC)
    keys = ["in/a b.jpg", "in/ü.png", "in/notes.json", "in/"]
    table = {
        "bucket": [bucket] * 5,
        "key": [prefix + key for key in [*keys, "in/ü.png"]],
        "size": [3, 3, 9, 0, 3],
        "last_modified_date": pa.array([moment] * 5, pa.timestamp("ms", "UTC")),
        "is_latest": [True, True, True, True, False],
    }
    pq.write_table(pa.table(table), tmp_path / "inventory.parquet")
    store.write("lists/inventory.parquet", (tmp_path / "inventory.parquet").read_bytes())
    encoded = "\n".join(
        f'"{bucket}","{prefix}{key}","3","2026-11-01T02:03:04.000Z"'
        for key in ("in/a+b.jpg", "in/%C3%BC.png")
    )
    store.write("lists/inventory.csv.gz", gzip.compress(encoded.encode()))
    for name in ("inventory.parquet", "inventory.csv.gz"):
        source = opened(f"{root}/lists/{name}?{options}")
        items, problems = listed(source)
        assert not problems
        assert [item.path for item in items] == [f"{bucket}/{prefix}{key}" for key in keys[:2]]
        assert {(item.size, item.modified // 10**9) for item in items} == {(3, int(moment.timestamp()))}
        assert [source.read(item, 100) for item in items] == [b"one", b"two"]
    listed(parquet := opened(f"{root}/lists/inventory.parquet?{options}"))
    assert parquet.counts.unread_text == (
        "1 .json is not read; 2 are left out (a folder, or a version that was replaced or deleted)"
    )


def write_inventory(folder: Path, schema: str, lists: dict[str, str], form: str = "CSV") -> Path:
    """An inventory as S3 writes it; returns the manifest's path. In `data` lies another day's list, too."""
    data = folder / "data"
    data.mkdir(parents=True)
    for name, text in {**lists, "of-yesterday.csv.gz": '"bucket","old.jpg"'}.items():
        (data / name).write_bytes(gzip.compress(text.encode()))
    files = [{"key": f"prefix/bucket/all/data/{name}", "size": 1, "MD5checksum": "0"} for name in lists]
    manifest = {"sourceBucket": "b", "fileFormat": form, "fileSchema": schema, "files": files}
    day = folder / "2026-11-01T01-00Z"
    day.mkdir()
    return write(day / "manifest.json", json.dumps(manifest))


def test_the_manifest_of_an_inventory_names_its_lists_and_their_columns(tmp_path: Path) -> None:
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker"
    lists = {
        "b.csv.gz": '"photos","2/b%20c.jpg","v1","true","false"\n"photos","2/x.jpg","v0","false","false"\n',
        "a.csv.gz": '"photos","1/a.jpg","","true","false"\n"photos","1/gone.jpg","","true","true"\n',
    }
    source = opened(write_inventory(tmp_path / "all", schema, lists))
    items, problems = listed(source)
    assert not problems
    assert [item.path for item in items] == ["photos/2/b c.jpg", "photos/1/a.jpg"]
    assert source.counts.left_out["a folder, or a version that was replaced or deleted"] == 2


def test_an_inventory_of_two_columns_and_one_on_s3_are_read(s3_root: str, tmp_path: Path) -> None:
    root, _, options = s3_root.partition("?")
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    key = f"{prefix}/in/a.jpg" if prefix else "in/a.jpg"
    manifest = write_inventory(tmp_path / "all", "Bucket, Key", {"x.csv.gz": f'"{bucket}","{key}"\n'})
    store = open_store(s3_root)
    store.write("in/a.jpg", b"one")
    for file in (tmp_path / "all").rglob("*.*"):
        store.write(f"lists/{file.relative_to(tmp_path)}", file.read_bytes())
    source = opened(f"{root}/lists/{manifest.relative_to(tmp_path)}?{options}")
    (item,), _ = listed(source)
    again: ItemSource = pickle.loads(pickle.dumps(source))  # noqa: S301 (as a worker gets it)
    assert (item.path, again.read(item, 100)) == (f"{bucket}/{key}", b"one")


def test_a_list_that_the_manifest_names_and_nobody_copied_is_told(tmp_path: Path) -> None:
    lists = {"a.csv.gz": '"photos","a.jpg"\n', "b.csv.gz": '"photos","b.jpg"\n'}
    manifest = write_inventory(tmp_path / "all", "Bucket, Key", lists)
    (tmp_path / "all" / "data" / "a.csv.gz").unlink()
    items, problems = listed(opened(manifest))
    assert [item.path for item in items] == ["photos/b.jpg"]
    assert [(bad.path, bad.reason) for bad in problems] == [("data/a.csv.gz", "unreadable")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not a manifest of S3 Inventory"),
        ("{", "is not a manifest of S3 Inventory"),
        ('{"files": [{"key": "data/x.orc"}], "fileFormat": "ORC"}', "in the format ORC, which is not read"),
        ('{"files": [{"key": "data/.."}], "fileFormat": "CSV"}', "a list without a usable name"),
        ('{"files": [{}], "fileFormat": "CSV"}', "a list without a usable name"),
    ],
)
def test_another_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(write(tmp_path / "manifest.json", text))


def test_patterns_choose_among_the_rows(photos: Path) -> None:
    source = opened(
        write(photos / "list.txt", "a.jpg\nx/b.jpg\nx/c d.png\n"), include=("*.jpg",), exclude=("x/*",)
    )
    assert list(contents(source)) == ["a.jpg"]
    assert source.counts.unread_text == "2 are left out (by read.include or read.exclude)"


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "list.txt", "\n\n"))
    assert listed(source) == ([], [])
    assert source.nothing_there().what == f"the list {tmp_path}/list.txt names no inputs"
