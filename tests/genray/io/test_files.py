import os
import resource
import stat
import tempfile
from pathlib import Path

import pytest

from genray.errors import StorageFull
from genray.io.files import atomic_write, write_json, write_text
from genray.io.store import LocalStore


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "big.bin"
    write_text(target, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the kernel refuses larger files
    try:
        with pytest.raises(StorageFull, match=r"no room left to write big\.bin") as caught:
            write_text(target, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free some space" in str(caught.value)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["big.bin"]


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_for_whom_the_umask_says_whatever_wrote_it(
    umask: int, mode: int, durable: bool, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "plain.txt", "text")
        with atomic_write(tmp_path / "private.txt", durable=durable) as temporary:
            # As libraries do that write to a temporary name of their own.
            descriptor, name = tempfile.mkstemp(dir=tmp_path)
            os.close(descriptor)
            Path(name).replace(temporary)
        LocalStore(str(tmp_path), tmp_path).write("in/a/store.bin", b"bytes", durable=durable)
    finally:
        os.umask(before)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"plain.txt": mode, "private.txt": mode, "store.bin": mode}
