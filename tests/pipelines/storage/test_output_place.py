from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genray.cli.main import main
from genray.errors import DataError, RunError
from genray.io.store import open_store
from pipelines.storage.output import Output, check_apart
from tests.pipelines.conftest import Bulk, write_photos


def submit(*sets: str) -> Result:
    """`genray submit corrupt`, in this process without Ray."""
    words = [word for text in (*sets, "work.workers=0", "work.gpu=false") for word in ("--set", text)]
    return CliRunner().invoke(main, ["submit", "corrupt", *words], catch_exceptions=False)


@pytest.mark.parametrize(
    ("output", "how"),
    [
        ("in", "is the input"),
        ("link", "is the input"),
        ("in/out", "overlap"),
        ("x/../in/out", "overlap"),
        ("link/out", "overlap"),
        ("", "overlap"),
    ],
)
def test_an_output_that_is_not_apart_from_the_input_is_refused_however_it_is_spelled(
    bulk: Bulk, tmp_path: Path, output: str, how: str
) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    write_photos(photos / "in", 2)
    (tmp_path / "link").symlink_to(photos)
    before = {file: file.read_bytes() for file in photos.rglob("*.*")}
    for more in ("retry=none", "retry=all", "overwrite=true"):
        with pytest.raises(DataError, match=how):
            bulk("corrupt", f"input={photos}", f"output={tmp_path}/{output}", more)
    assert {file: file.read_bytes() for file in photos.rglob("*.*")} == before
    assert {file.name for file in tmp_path.iterdir()} == {"in", "link"}


@pytest.mark.parametrize("folder", ["in/out", "."])
def test_an_output_in_s3_that_is_not_apart_from_the_input_is_refused(
    bulk: Bulk, s3_root: str, folder: str
) -> None:
    root, _, query = s3_root.partition("?")
    open_store(f"{root}/in?{query}").write("a.png", b"1")
    with pytest.raises(DataError, match="overlap"):
        bulk("corrupt", f"input={root}/in?{query}", f"output={root}/{folder}?{query}")


@pytest.mark.parametrize(
    ("source", "output"),
    [("/a/in", "/a/in2"), ("/a/in/x", "/a/in/y"), ("s3://b/in", "s3://b/in2"), ("s3://b/in", "/b/in")],
)
def test_places_of_their_own_are_apart(source: str, output: str) -> None:
    check_apart(source, output)
    check_apart(output, source)


def test_a_folder_with_files_of_others_is_used_only_if_that_is_asked_for(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 4)
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "mine.txt").write_text("mine")
    for retry in ("none", "failed", "all"):
        with pytest.raises(RunError, match="it is not of a run of genray") as caught:
            bulk("corrupt", f"input={photos}", f"retry={retry}")
        assert "overwrite=true" in str(caught.value)
    assert [file.name for file in out.rglob("*")] == ["deep", "mine.txt"]
    assert bulk("corrupt", f"input={photos}", "overwrite=true")["done"] == 4
    assert (out / "deep" / "mine.txt").read_text() == "mine"
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0, "it is a run's output now"


def test_what_a_first_run_left_that_died_before_its_header_is_in_nobodys_way(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    with Output.create(str(tmp_path / "out")).locked():
        pass
    assert list((tmp_path / "out").rglob("*"))
    assert bulk("corrupt", f"input={photos}")["done"] == 2


def test_an_output_that_cannot_be_made_is_said_before_anything_starts(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    (tmp_path / "file").write_text("not a folder")
    for output in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/out")):
        result = submit(f"input={photos}", f"output={output}")
        assert result.exit_code == 2, result.stderr
        assert str(output) in result.stderr
        assert "next:" in result.stderr
        assert "Traceback" not in result.stderr
    assert (tmp_path / "file").read_text() == "not a folder"


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    if os.geteuid() == 0:
        locked = Path("/proc/self/fd")  # to root too
    else:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
    result = submit(f"input={photos}", f"output={locked}", "overwrite=true")
    assert result.exit_code in (1, 2)
    assert str(locked) in result.stderr
    assert "permissions" in result.stderr
    assert "Traceback" not in result.stderr
