import pickle
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from genray.errors import DataError
from genray.io.store import create_store, open_store
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b.png", "a.PNG", "sub/ü n.jpg", ".hidden.png", "notes.txt", ".git/x.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    return tmp_path


def test_a_local_folder_lists_its_images_by_path(root: Path) -> None:
    entries = open_store(root).list((".png", ".jpg"))
    assert [e.path for e in entries] == ["a.PNG", "b.png", "sub/ü n.jpg"]
    assert {e.size for e in entries} == {5}


def test_a_link_to_a_folder_above_lists_nothing_twice(root: Path) -> None:
    (root / "sub" / "again").symlink_to(root)
    (root / "sub" / "self").symlink_to(root / "sub")
    (root / "sub" / "loop").symlink_to(root / "sub" / "loop")
    assert [e.path for e in open_store(root).list((".png", ".jpg"))] == ["a.PNG", "b.png", "sub/ü n.jpg"]


def test_a_uri_lists_the_same(root: Path) -> None:
    assert open_store(root.as_uri()).list((".png", ".jpg")) == open_store(root).list((".png", ".jpg"))
    assert open_store(root.as_uri()).read("sub/ü n.jpg") == b"12345"
    assert open_store(root.as_uri()).folders() >= {"sub"}


def test_a_scheme_of_fsspec_works_too(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/store/a/1.png", b"abc")
    store = open_store("memory://store")
    assert [e.path for e in store.list((".png",))] == ["a/1.png"]
    assert store.read("a/1.png", limit=2) == b"ab"
    assert open_store("memory://store").list((".png",), under="nothing") == []


def test_a_store_goes_to_workers_as_its_root(root: Path) -> None:
    copy = pickle.loads(pickle.dumps(open_store(root)))  # noqa: S301 (what Ray does between its own processes)
    assert copy.read("b.png", limit=3) == b"123"


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "sub/../../x"])
def test_a_path_cannot_leave_the_root(root: Path, path: str) -> None:
    with pytest.raises(DataError, match="leaves the store"):
        open_store(root).read(path)


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("nowhere", "the folder nowhere is missing"),
        ("nosuch://bucket/x", "cannot open the store nosuch://bucket/x"),
    ],
)
def test_a_root_that_cannot_be_opened_is_named(uri: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        open_store(uri)


def test_a_file_is_no_store(root: Path) -> None:
    for uri in (str(root / "b.png"), (root / "b.png").as_uri()):
        with pytest.raises(DataError, match="a file, not a folder"):
            open_store(uri)


def test_a_walk_goes_folder_by_folder_files_first(tmp_path: Path) -> None:
    for name in ("z.png", "a/z.png", "a/b/1.png", "a/a.png", "b.png", "a-b/1.png", "_genray/x.png"):
        open_store(tmp_path).write(name, b"1")
    order = ["b.png", "z.png", "a/a.png", "a/z.png", "a/b/1.png", "a-b/1.png"]
    for store in (open_store(tmp_path), open_store(tmp_path.as_uri())):
        found = list(store.walk([".png"]))
        assert [e.path for e in found] == order
        assert all(e.modified == (tmp_path / e.path).stat().st_mtime_ns for e in found)
        assert [e.path for e in store.walk([".png"], "_genray")] == ["_genray/x.png"]


def test_a_folder_that_cannot_be_read_is_reported_and_passed_over(root: Path) -> None:
    reported: list[tuple[str, str]] = []
    store = open_store(root)
    found = [e.path for e in store.walk([".png"], "b.png", lambda path, why: reported.append((path, why)))]
    assert found == []
    assert reported == [("b.png", "Not a directory")]
    with pytest.raises(DataError, match="cannot list"):
        store.list([".png"], "b.png")


@pytest.mark.parametrize("remote", [False, True])
def test_what_is_written_is_there_as_a_whole(tmp_path: Path, remote: bool) -> None:
    store = open_store(tmp_path.as_uri() if remote else tmp_path)
    name = "n" * 251 + ".png"
    for data in (b"first", b"2"):
        store.write(f"a/b/{name}", data)
        assert store.read(f"a/b/{name}") == data
        assert store.size(f"a/b/{name}") == len(data)
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == [name]
    store.write("x", b"0123456789", durable=True)
    assert store.read_range("x", 3, 4) == b"3456"
    assert store.read_range("x", 8, 100) == b"89"
    assert store.exists("x")
    store.delete("x")
    store.delete("x")
    assert not store.exists("x")
    assert not store.exists("a")
    with pytest.raises(FileNotFoundError):
        store.read("x")


def test_a_root_is_made_unless_a_file_is_there(tmp_path: Path) -> None:
    create_store(tmp_path / "a/b").write("c.png", b"1")
    assert (tmp_path / "a/b/c.png").read_bytes() == b"1"
    for taken in ("a/b/c.png", "a/b/c.png/d"):
        with pytest.raises(DataError, match="cannot make the folder"):
            create_store(tmp_path / taken)


@pytest.mark.parametrize(
    "path", ["../x.png", "/tmp/x.png", "a/../../x.png", "out/x.png", "out/new/x.png", "a\0b"]
)
def test_nothing_is_written_outside_of_the_root(tmp_path: Path, path: str) -> None:
    inside, outside = tmp_path / "in", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "out").symlink_to(outside)
    for act in (lambda: open_store(inside).write(path, b"1"), lambda: open_store(inside).delete(path)):
        with pytest.raises(DataError, match="leaves the store"):
            act()
    assert not list(outside.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "outside"]


def test_a_link_is_replaced_by_what_is_written_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "victim").write_bytes(b"whole")
    (tmp_path / "in/x.png").symlink_to(tmp_path / "victim")
    open_store(tmp_path / "in").write("x.png", b"new")
    assert (tmp_path / "victim").read_bytes() == b"whole"
    assert (tmp_path / "in/x.png").read_bytes() == b"new"


_FILLS = """
import resource, sys
from genray.io.store import open_store
store = open_store(sys.argv[1])
store.write("a/x.png", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store.write("a/x.png", b"n" * 2000)
"""


def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _FILLS, tmp_path], capture_output=True, text=True)
    assert "StorageFull: no room left to write x.png" in ended.stderr
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]
    assert (tmp_path / "a/x.png").read_bytes() == b"old"


_WRITES = """
import sys
from threading import Thread
from genray.io.store import open_store
store = open_store(sys.argv[1])
def write():
    while True:
        store.write("a/x.png", bytes([1]) * 3_000_000)
for _ in range(3):
    Thread(target=write).start()
print("on", flush=True)
"""


def test_a_kill_leaves_no_half_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("a/x.png", bytes([1]) * 3_000_000)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", _WRITES, tmp_path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05)
            writer.kill()
        assert [(e.path, e.size) for e in store.walk([""])] == [("a/x.png", 3_000_000)]
    store.remove_leftovers()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]


def test_an_object_store_does_the_same(s3_root: str) -> None:
    store = create_store(s3_root)
    for name in ("z.png", "a/b/1.png", "a/ü n.jpg", "_genray/l/1.json", "a/.hidden.png"):
        store.write(name, name.encode(), durable=True)
    assert [e.path for e in store.walk([".png", ".jpg"])] == ["z.png", "a/ü n.jpg", "a/b/1.png"]
    assert [e.path for e in store.list([".json"], "_genray/l")] == ["_genray/l/1.json"]
    assert list(store.walk([".png"], "nothing")) == []
    assert all(e.modified > 0 for e in store.walk([""]))
    assert store.read("a/ü n.jpg") == "a/ü n.jpg".encode()
    assert store.read_range("z.png", 2, 100) == b"png"
    large = bytes(range(256)) * 2**16  # more than one part of an upload
    store.write("z.png", large)
    assert store.read("z.png") == large
    assert store.size("z.png") == len(large)
    store.delete("z.png")
    store.delete("z.png")
    assert not store.exists("z.png")
    with pytest.raises(FileNotFoundError):
        store.read("z.png")
    with pytest.raises(DataError, match="leaves the store"):
        store.write("../x.png", b"1")
    assert pickle.loads(pickle.dumps(store)).exists("a/b/1.png")  # noqa: S301


@pytest.mark.parametrize("scheme", ["file://", "memory://"])
def test_leftovers_of_killed_writers_are_removed_behind_uris_too(tmp_path: Path, scheme: str) -> None:
    store = create_store(f"{scheme}{tmp_path}")
    for name in ("a.png", "x/b.png", "x/.genray-0123.tmp", ".genray-4567.tmp", "x/.hidden"):
        store.write(name, b"data")
    store.remove_leftovers("x")
    assert store.exists(".genray-4567.tmp")
    store.remove_leftovers()
    kept = {
        name for name in ("a.png", "x/b.png", "x/.genray-0123.tmp", ".genray-4567.tmp") if store.exists(name)
    }
    assert kept == {"a.png", "x/b.png"}
    assert store.exists("x/.hidden")
