"""What a bulk run says of the files beside its images."""

import json
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from genray.cli.main import main
from genray.errors import DataError
from genray.io.tar import write_member
from tests.pipelines.bulk_runs import png, submit
from tests.pipelines.conftest import Bulk, passes_of, rows_of

SAID = "3 .psd are not read (Photoshop), nor 1 .txt"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images, one of them without a suffix, and files of other types."""
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    (folder / "1.png").write_bytes(png(1))
    (folder / "a/IMG_0002").write_bytes(png(2))
    for name in ("3.psd", "4.PSD", "a/5.psd", "a/notes.txt"):
        (folder / name).write_bytes(b"something")
    return folder


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]*>", " ", page.read_text())


def test_it_is_named_before_during_and_after_a_run(photos: Path, tmp_path: Path) -> None:
    sets = (f"input={photos}", f"output={tmp_path / 'out'}")
    dry = submit("corrupt", *sets, more=("--dry-run",))
    assert f"2 images; {SAID}" in dry.stderr
    result = submit("corrupt", *sets, more=("--json",))
    assert f"2 images listed, 2 to process; {SAID}" in result.stderr
    assert f"not read   {SAID}" in result.stderr
    counts = {".psd": 3, ".txt": 1}
    assert json.loads(result.stdout)["this_pass"]["not_read"] == counts
    assert passes_of(tmp_path / "out")[0].not_read == counts
    assert SAID in text_of(tmp_path / "out/_genray/report.html")
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["1.png", "a/IMG_0002"]
    assert (tmp_path / "out/a/IMG_0002.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_names_it(photos: Path, tmp_path: Path) -> None:
    sets = (f"input={photos}", f"output={tmp_path / 'out'}", "work.gpu=false")
    words = [word for text in sets for word in ("--set", text)]
    result = CliRunner().invoke(main, ["plan", "corrupt", "--json", *words], catch_exceptions=False)
    assert f"2 images listed; measuring 2; {SAID}" in result.stderr
    assert json.loads(result.stdout)["not_read"] == {".psd": 3, ".txt": 1}


def test_a_finished_output_is_gone_on_with_where_more_suffixes_are_read(bulk: Bulk, photos: Path) -> None:
    assert bulk("corrupt", f"input={photos}", "read.suffixes=[.png]")["done"] == 1
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 1


def test_files_beside_shards_are_refused_before_anything_is_written(
    bulk: Bulk, photos: Path, tmp_path: Path
) -> None:
    with tarfile.open(photos / "0.tar", "w") as tar:
        write_member(tar, "x.png", png(3))
        write_member(tar, "x.json", b"{}")
    with pytest.raises(DataError, match=r"holds 1 image file \(1\.png\) and 1 tar shard \(0\.tar\)"):
        bulk("corrupt", f"input={photos}")
    assert not (tmp_path / "out").exists()
    outcome = bulk("corrupt", f"input={photos}", "read.container=webdataset")
    not_read = {".psd": 3, ".json": 1, ".png": 1, ".txt": 1, "without a suffix": 1}
    assert (outcome["done"], outcome["this_pass"]["not_read"]) == (1, not_read)


def test_a_choice_of_columns_is_asked_for_before_anything_is_written(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    columns = {"mask": [png(1)], "jpeg": [png(2)], "caption": pa.array(["x"])}
    pq.write_table(pa.table(columns), tmp_path / "in/0.parquet")
    with pytest.raises(DataError, match=r"0\.parquet: the columns mask, jpeg all hold images"):
        bulk("corrupt", f"input={tmp_path / 'in'}")
    assert not (tmp_path / "out").exists()
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", "read.column=jpeg")
    assert outcome["this_pass"]["not_read"] == {"column caption": 1, "column mask": 1}


def test_a_pattern_and_one_file_are_inputs_and_no_output_covers_them(
    bulk: Bulk, photos: Path, tmp_path: Path
) -> None:
    assert bulk("corrupt", f"input={photos}/*.png")["done"] == 1
    for pattern, output in (("**/*.png", "out"), ("1.png", ".")):
        result = submit("corrupt", f"input={photos}/{pattern}", f"output={photos / output}")
        assert result.exit_code == 2
        assert "and the input overlap" in result.stderr
    submit("corrupt", f"input={photos}/a/IMG_0002", f"output={tmp_path / 'one'}")
    assert [row["path"] for row in rows_of(tmp_path / "one")] == ["IMG_0002"]
