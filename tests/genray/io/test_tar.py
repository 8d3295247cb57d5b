import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from genray.io.bad_input import BadImage
from genray.io.store import Store, open_store
from genray.io.tar import TarMember, tar_members, write_member
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            write_member(tar, name, data)


def read_all(store: Store, path: str) -> tuple[list[TarMember], str]:
    found: list[TarMember] = []
    try:
        for member in tar_members(store, path):
            found.append(member)
    except BadImage as bad:
        return found, bad.reason
    return found, ""


FILES = {"a.jpg": b"1" * 700, "dir/ü " + "n" * 150 + ".png": b"", "b.png": b"2" * 512, "c/d.png": b"3"}


def test_members_are_where_they_are_said_to_be(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", FILES)
    store = open_store(tmp_path)
    found, reason = read_all(store, "x.tar")
    assert reason == ""
    assert {m.name: store.read_range("x.tar", m.position, m.size) for m in found} == FILES


def test_a_remote_tar_is_read_alike(tmp_path: Path, s3_root: str) -> None:
    write_tar(tmp_path / "x.tar", FILES)
    remote = open_store(s3_root)
    remote.write("x.tar", (tmp_path / "x.tar").read_bytes())
    assert read_all(remote, "x.tar") == read_all(open_store(tmp_path), "x.tar")
    assert read_all(remote, "no.tar") == ([], "unreadable")


def test_folders_and_links_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("odd.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        write_member(tar, "a.png", b"1", "of this")
    found, reason = read_all(open_store(tmp_path), "x.tar")
    assert [(m.name, m.comment) for m in found] == [("a.png", "of this")]
    assert reason == ""


@pytest.mark.parametrize(
    ("cut", "left"),
    [(0, 0), (100, 0), (512, 0), (1511, 0), (1536, 1), (2000, 1), (2048, 1), (5700, 3), (6144, 4)],
)
def test_what_lies_before_a_cut_is_found(tmp_path: Path, cut: int, left: int) -> None:
    write_tar(tmp_path / "x.tar", {f"{i}.png": b"1" * 1000 for i in range(4)})  # 1536 bytes each
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:cut])
    found, reason = read_all(open_store(tmp_path), "x.tar")
    assert ([m.name for m in found], reason) == ([f"{i}.png" for i in range(left)], "truncated")


def test_damage_in_the_middle_is_reported(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {f"{i}.png": b"1" * 1000 for i in range(4)})
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[3072 + 150] ^= 1  # the checksum of the third header
    (tmp_path / "x.tar").write_bytes(data)
    found, reason = read_all(open_store(tmp_path), "x.tar")
    assert ([m.name for m in found], reason) == (["0.png", "1.png"], "truncated")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_refused_by_name(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "x.tar", mode) as tar:  # type: ignore[call-overload]
        write_member(tar, "a.png", b"1")
    with pytest.raises(BadImage, match="unpack it"):
        list(tar_members(open_store(tmp_path), "x.tar"))


def header(name: str, size: bytes, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        header("a.png", b"77777777777\0", tarfile.XHDTYPE),  # 8 GB of header
        header("a.png", b"\x80" + (2**60).to_bytes(11, "big"), tarfile.GNUTYPE_LONGNAME),
        header("a.png", b"\xff" * 10 + b"\xfc\x00", tarfile.REGTYPE),  # -1024: round and round
        header("a.png", b"\xff" * 10 + b"\xfc\x00", tarfile.XHDTYPE),
        header("a.png", b"77777777777\0", tarfile.REGTYPE),
        header("a.png", b"00000000000\0", tarfile.XHDTYPE) * 5000,  # headers of headers
        b"not a tar at all" * 1000,
        b"",
    ],
)
def test_a_hostile_tar_costs_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data + b"\0" * 20_000)
    assert read_all(open_store(tmp_path), "x.tar")[0] == []


def test_no_bytes_raise_anything_else(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in FILES:
            write_member(tar, name, b"12", "a comment")
    rng = np.random.default_rng(0)
    whole = stream.getvalue()[:8000]
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        (tmp_path / "x.tar").write_bytes(data)
        found, _ = read_all(open_store(tmp_path), "x.tar")
        assert all(0 <= m.position <= len(data) - m.size and m.size >= 0 for m in found)
