import pickle
from pathlib import Path

import fsspec
import pytest

from genray.data.store import Store
from genray.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b.png", "a.PNG", "sub/ü n.jpg", ".hidden.png", "notes.txt", ".git/x.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    return tmp_path


def test_a_local_folder_lists_its_images_by_path(root: Path) -> None:
    entries = Store(root).list((".png", ".jpg"))
    assert [e.path for e in entries] == ["a.PNG", "b.png", "sub/ü n.jpg"]
    assert {e.size for e in entries} == {5}


def test_a_link_to_a_folder_above_lists_nothing_twice(root: Path) -> None:
    (root / "sub" / "again").symlink_to(root)
    (root / "sub" / "self").symlink_to(root / "sub")
    assert [e.path for e in Store(root).list((".png", ".jpg"))] == ["a.PNG", "b.png", "sub/ü n.jpg"]


def test_a_uri_lists_the_same(root: Path) -> None:
    assert Store(root.as_uri()).list((".png", ".jpg")) == Store(root).list((".png", ".jpg"))
    assert Store(root.as_uri()).read("sub/ü n.jpg") == b"12345"
    assert Store(root.as_uri()).folders() >= {"sub"}


def test_a_scheme_of_fsspec_works_too(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/store/a/1.png", b"abc")
    store = Store("memory://store")
    assert [e.path for e in store.list((".png",))] == ["a/1.png"]
    assert store.read("a/1.png", limit=2) == b"ab"
    assert Store("memory://store").list((".png",), under="nothing") == []


def test_a_store_goes_to_workers_as_its_root(root: Path) -> None:
    copy = pickle.loads(pickle.dumps(Store(root)))  # noqa: S301 (what Ray does between its own processes)
    assert copy.read("b.png", limit=3) == b"123"


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "sub/../../x"])
def test_a_path_cannot_leave_the_root(root: Path, path: str) -> None:
    with pytest.raises(DataError, match="leaves the store"):
        Store(root).read(path)


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("nowhere", "the folder nowhere is missing"),
        ("nosuch://bucket/x", "cannot open the store nosuch://bucket/x"),
    ],
)
def test_a_root_that_cannot_be_opened_is_named(uri: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        Store(uri)


def test_a_file_is_no_store(root: Path) -> None:
    for uri in (str(root / "b.png"), (root / "b.png").as_uri()):
        with pytest.raises(DataError, match="a file, not a folder"):
            Store(uri)
