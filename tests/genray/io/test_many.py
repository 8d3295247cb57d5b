from pathlib import Path

import pytest

from genray.io.many import delete_files, read_files
from genray.io.store import Entry, Store, create_store
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return create_store(str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3_root"))


def test_many_files_come_in_the_order_asked_for_and_are_deleted(store: Store) -> None:
    for number in range(150):
        store.write(f"a/{number}.txt", b"%d" % number)
    store.write("b/0.txt", b"other")
    entries = sorted(store.list([".txt"], "a"), key=lambda entry: -int(Path(entry.path).stem))
    assert list(read_files(store, entries)) == [b"%d" % number for number in reversed(range(150))]
    first = next(read_files(store, entries))
    assert first == b"149", "who stops early need not read the rest"
    delete_files(store, [entry.path for entry in entries[:100]] + ["a/missing.txt"])
    assert len(store.list([".txt"], "a")) == 50
    with pytest.raises(FileNotFoundError):
        list(read_files(store, [entries[-1], Entry("a/missing.txt", 1)]))
    for _ in range(2):
        store.clear("a")
        assert [entry.path for entry in store.list([".txt"])] == ["b/0.txt"]
