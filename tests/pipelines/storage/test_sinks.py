import subprocess
import sys
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.errors import BulkError
from genray.io.bad_input import BadImage
from genray.io.sources import ContainerSettings, open_source
from genray.io.store import Store, create_store, open_store
from pipelines.settings import SinkSettings
from pipelines.storage.sinks import Sink, TableSink, open_sink

PACKED = ("parquet", "webdataset")
ALL = ("files", *PACKED)
Container = Literal["files", "parquet", "webdataset"]
SCHEMA = pa.schema(
    [("vector", pa.list_(pa.float32(), 3)), ("half", pa.list_(pa.float16(), 2)), ("n", pa.int32())]
)


def opened(store: Store, container: Container) -> Sink:
    return open_sink(store, SinkSettings(container=container))


def contents(store: Store, container: Container) -> dict[str, bytes]:
    """What the output has, by name within its part, read as an input."""
    source = open_source(store.root, ContainerSettings(container=container, column="image"))
    problems: list[Any] = []
    found = {item.path: source.read(item, 10**9) for item in source.items(problems.append)}
    assert problems == []
    skip = {"files": 0, "parquet": 2, "webdataset": 2}[container]
    return {path.split("/", skip)[-1]: data for path, data in found.items()}


def parts(store: Store) -> list[str]:
    return [entry.path for entry in store.list([".parquet", ".tar"])]


@pytest.mark.parametrize("container", ALL)
def test_what_is_put_is_there_after_the_commit(tmp_path: Path, container: Container) -> None:
    store = open_store(tmp_path)
    sink = opened(store, container)
    images = {f"sub/ü {i}.png": bytes([i]) * 1000 for i in range(200)}
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(sink.put, images, images.values())) == list(images)
    if container != "files":
        assert list(tmp_path.rglob("*")) == []
    sink.commit("00001-000012-0-0")
    assert contents(store, container) == images


@pytest.mark.parametrize("container", PACKED)
def test_a_chunk_that_is_done_twice_is_there_once(tmp_path: Path, container: Container) -> None:
    store = open_store(tmp_path)
    for value in (b"1", b"2"):
        sink = opened(store, container)
        sink.put("a.png", value)
        sink.put(f"{value!r}.png", value)
        sink.commit("00001-000000")
    assert contents(store, container) == {"a.png": b"2", "b'2'.png": b"2"}
    opened(store, container).commit("00001-000000")  # the third time made nothing
    assert parts(store) == []


@pytest.mark.parametrize("container", PACKED)
def test_what_is_discarded_is_in_no_part(tmp_path: Path, container: Container) -> None:
    store = open_store(tmp_path)
    sink = opened(store, container)
    sink.put("a.png", b"1")
    sink.discard()
    sink.put("b.png", b"2")
    sink.commit("00001-000000")
    sink.discard()
    assert contents(store, container) == {"b.png": b"2"}


@pytest.mark.parametrize("container", PACKED)
def test_results_of_an_input_can_be_dropped_whatever_they_are_called(
    tmp_path: Path, container: Container
) -> None:
    store = open_store(tmp_path)
    sink = opened(store, container)
    for part in range(3):
        for i in range(4):
            sink.put(f"{part}{i}.png", b"an image", f"{part}{i}.jpg")
            sink.put(f"{part}{i}-heat.png", b"another", f"{part}{i}.jpg")
        sink.commit(f"00001-00000{part}")
    untouched = (tmp_path / parts(store)[1]).stat().st_mtime_ns
    sink.drop({"00.jpg", "02.jpg", "20.jpg", "21.jpg", "22.jpg", "23.jpg", "11.png"})
    left = [
        f"{name}{behind}.png" for name in ("01", "03", "10", "11", "12", "13") for behind in ("", "-heat")
    ]
    assert sorted(contents(store, container)) == sorted(left)
    assert len(parts(store)) == 2
    assert (tmp_path / parts(store)[1]).stat().st_mtime_ns == untouched
    sink.drop({"01.jpg"})
    assert "01-heat.png" not in contents(store, container)


@pytest.mark.parametrize("container", PACKED)
def test_parts_that_nothing_speaks_of_are_removed(tmp_path: Path, container: Container) -> None:
    store = open_store(tmp_path)
    sink = opened(store, container)
    for key in ("00001-000000-0-0", "00001-000000-1-0", "00002-000000-0-0"):
        sink.put(f"{key}.png", b"1")
        sink.commit(key)
    mine = Path(parts(store)[0]).with_stem("of-the-user")
    (tmp_path / mine).write_bytes(b"mine")
    (tmp_path / mine.parent / ".genray-0123456789abcdef.tmp").write_bytes(b"half")
    sink.remove_orphans({"00001-000000-1-0", "00003-000000-0-0"})
    (tmp_path / mine).unlink()
    assert list(contents(store, container)) == ["00001-000000-1-0.png"]
    assert len(list((tmp_path / mine.parent).iterdir())) == 1


@pytest.mark.parametrize("container", ALL)
@pytest.mark.parametrize("path", ["../x.png", "/tmp/x.png", "a/../../x.png", "_genray/run.json", "", "."])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, container: Container, path: str) -> None:
    sink = opened(create_store(tmp_path / "out"), container)
    with pytest.raises(BadImage) as bad:
        sink.put(path, b"1")
    assert bad.value.reason == "unwritable"
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path)
    with pytest.raises(BadImage, match="leaves the store by a link"):
        opened(open_store(tmp_path / "out"), "files").put("link/x.png", b"1")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    for container, part in (
        ("parquet", "data/part-00001-000000.parquet"),
        ("webdataset", "shards/00001-000000.tar"),
    ):
        store = open_store(tmp_path)
        store.write(part, b"no part")
        with pytest.raises(BulkError, match="a part of the output is damaged") as error:
            open_sink(store, SinkSettings.model_validate({"container": container})).drop({"a.png"})
        assert part in str(error.value)


_FILLS = """
import resource, sys
from genray.io.store import open_store
from pipelines.settings import SinkSettings
from pipelines.storage.sinks import open_sink
sink = open_sink(open_store(sys.argv[1]), SinkSettings(container=sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for i in range(200):
    sink.put(f"{i}.png", b"1" * 1000)
sink.commit("00001-000000")
"""


@pytest.mark.parametrize("container", PACKED)
def test_a_full_disk_is_said_and_leaves_no_part(tmp_path: Path, container: Container) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FILLS, tmp_path, container], capture_output=True, text=True
    )
    assert "StorageFull: no room left" in ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_table_keeps_vectors_and_values(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    table = TableSink(store, "embeddings", SCHEMA)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 3)).astype(np.float32)
    halves = rng.normal(size=(100, 2)).astype(np.float16)
    for i in range(100):
        table.add({"path": f"{i}.png", "vector": vectors[i], "half": halves[i], "n": i if i % 2 else None})
    table.commit("00001-000000")
    table.drop({"0.png", "7.png"})
    kept = np.delete(np.arange(100), [0, 7])
    found = pq.read_table(tmp_path / "embeddings/part-00001-000000.parquet")
    assert found.schema.names == ["path", "vector", "half", "n"]
    assert found["path"].to_pylist() == [f"{i}.png" for i in kept]
    assert found["n"].to_pylist() == [i if i % 2 else None for i in kept.tolist()]
    for name, expected in (("vector", vectors), ("half", halves)):
        values = found[name].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(values.reshape(98, -1), expected[kept])
        assert values.dtype == expected.dtype


def test_a_row_that_does_not_fit_the_table_is_refused(tmp_path: Path) -> None:
    table = TableSink(open_store(tmp_path), "t", SCHEMA)
    with pytest.raises(ValueError, match="the table has no columns other"):
        table.add({"path": "a", "other": 1})
    table.add({"path": "a", "vector": np.zeros(4), "half": np.zeros(2)})
    with pytest.raises(ValueError, match=r"vectors have \(4,\) numbers, but the column has 3"):
        table.commit("00001-000000")


def test_rows_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    table = TableSink(store, "t", pa.schema([("code", pa.binary())]), compression="none")
    tracemalloc.start()
    try:
        for i in range(150):
            table.add({"path": f"{i}", "code": bytes([i]) * 2**20})
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 33 * 2**20
    table.commit("00001-000000")
    with pq.ParquetFile(tmp_path / "t/part-00001-000000.parquet") as file:
        assert file.num_row_groups == 5
        assert file.metadata.num_rows == 150


def test_others_read_the_shards(tmp_path: Path) -> None:
    sink = opened(open_store(tmp_path), "webdataset")
    sink.put("a/0001.png", b"1", "a/0001.jpg")
    sink.commit("00001-000000")
    with tarfile.open(tmp_path / "shards/00001-000000.tar") as tar:
        assert tar.getnames() == ["a/0001.png"]
    listed = subprocess.run(
        ["tar", "tf", tmp_path / "shards/00001-000000.tar"], capture_output=True, text=True
    )
    assert (listed.stdout, listed.stderr) == ("a/0001.png\n", "")


@pytest.mark.parametrize("container", ALL)
def test_an_object_store_takes_the_same(s3_root: str, container: Container) -> None:
    store = create_store(s3_root)
    sink = opened(store, container)
    large = bytes(range(256)) * 2**16  # more than one part of an upload
    for key in ("00001-000000", "00001-000001", "00001-000002"):
        sink.put(f"{key}/a.png", large, f"{key}/a.jpg")
        sink.put(f"{key}/b.png", b"2", f"{key}/b.jpg")
        sink.commit(key)
    sink.put("00001-000003/a.png", b"never committed")
    sink.discard()
    sink.remove_orphans({"00001-000000", "00001-000001"})
    sink.drop({"00001-000001/a.jpg"})
    found = contents(store, container)
    if container == "files":
        assert len(found) == 7
    else:
        assert sorted(found) == ["00001-000000/a.png", "00001-000000/b.png", "00001-000001/b.png"]
    assert found["00001-000000/a.png"] == large
