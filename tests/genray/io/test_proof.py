from pathlib import Path

import pytest

from genray.errors import RunError
from genray.io import proof
from genray.io.proof import unseen_error, unseen_here, written_proof
from genray.io.store import open_store
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]


def test_who_sees_the_proof_can_write_there_too(tmp_path: Path) -> None:
    with written_proof(open_store(tmp_path), "_genray/proof") as token:
        assert unseen_here(str(tmp_path), "_genray/proof", token) is None
        assert [file.name for file in (tmp_path / "_genray").iterdir()] == ["proof"]
    assert not list((tmp_path / "_genray").iterdir())


def test_another_folder_and_no_folder_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_PATIENCE_S", 0.0)
    with written_proof(open_store(tmp_path), "proof") as token:
        other = tmp_path / "other"
        assert "is missing" in str(unseen_here(str(other), "proof", token))
        other.mkdir()
        assert "is another folder there" in str(unseen_here(str(other), "proof", token))
        (other / "proof").write_text("of an earlier run")
        assert "is another folder there" in str(unseen_here(str(other), "proof", token))


def test_the_error_names_each_node_once_and_the_way_out() -> None:
    error = unseen_error("/data/runs", "runs", ["a: no folder", "b: read only", "a: no folder"])
    assert error.what.count("node a: no folder") == 1
    assert "runs=s3://BUCKET/runs" in str(error.hint)
    assert "credentials" in str(unseen_error("s3://bucket/runs", "runs", ["a: denied"]).hint)
    assert error.exit_code == 2
    assert "take them for broken" in unseen_error("/data/in", "input", ["a: no folder"]).what


def test_a_store_that_cannot_be_written_is_an_error_before_anything_starts(s3_root: str) -> None:
    store = open_store(s3_root.replace("s3://bucket", "s3://no-such-bucket"))
    with pytest.raises(RunError, match="cannot be written to"), written_proof(store, "proof"):
        pytest.fail("it was written")
