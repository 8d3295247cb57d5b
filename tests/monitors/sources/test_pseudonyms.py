"""Pseudonyms and their key."""

from pathlib import Path

import pytest

from genray.errors import SettingsError
from monitors.sources.pseudonyms import LENGTH, Pseudonyms, load_or_make_key


def test_a_pseudonym_is_the_same_each_time_and_another_for_another_stream_or_key() -> None:
    ward = Pseudonyms(bytes(32))
    names = {ward.of(f"patient {number}") for number in range(10_000)}
    assert len(names) == 10_000
    assert all(len(name) == LENGTH and name.isalnum() for name in names)
    assert ward.of("patient 1") == Pseudonyms(bytes(32)).of("patient 1")
    assert ward.of("patient 1") != Pseudonyms(bytes(31) + b"\1").of("patient 1")


def test_a_key_is_made_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pseudonyms.key"
    key = load_or_make_key(path)
    assert len(key) == 32
    assert load_or_make_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert load_or_make_key(tmp_path / "other.key") != key


def test_a_key_that_anybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pseudonyms.key"
    load_or_make_key(path)
    path.chmod(0o604)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_or_make_key(path)
    path.chmod(0o640)  # a group is how clusters hand out secrets
    load_or_make_key(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"00" * 15, b"00" * 65, b"\xff\xfe", b"secret"])
def test_a_file_that_holds_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pseudonyms.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="contains no key"):
        load_or_make_key(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot read or create the key for pseudonyms"):
        load_or_make_key(tmp_path / "file" / "key")
