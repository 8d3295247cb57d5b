"""A bulk run: every input once, whatever happens. `corrupt` stands for all targets: it needs no bundle."""

import hashlib
import os
import resource
import shutil
from pathlib import Path

import pytest
from PIL import Image

from genray.errors import BulkError, DataError, RunError, StorageFull
from tests.pipelines.conftest import Bulk, leftovers, rows_of, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "in", 12)
    return tmp_path / "in"


def test_the_tree_of_names_is_kept_and_every_input_is_in_the_ledger(
    bulk: Bulk, photos: Path, tmp_path: Path
) -> None:
    outcome = bulk("corrupt", f"input={photos}", "write.format=same")
    assert (outcome["total"], outcome["done"], outcome["failed"]) == (12, 12, 0)
    names = {str(file.relative_to(photos)) for file in photos.rglob("*.*")}
    rows = rows_of(tmp_path / "out")
    assert {row["path"] for row in rows} == {row["output"] for row in rows} == names
    for row in rows:
        data = (tmp_path / "out" / row["output"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (row["bytes_out"], row["width"], row["height"]) == (len(data), 64, 48)
        assert row["change"] > 5
        assert row["finished"] is not None
    assert not leftovers(tmp_path / "out")


def test_a_second_run_does_only_what_is_left(bulk: Bulk, photos: Path, tmp_path: Path) -> None:
    bulk("corrupt", f"input={photos}")
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*.png")}
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0
    write_photos(tmp_path / "more", 3)
    shutil.copytree(tmp_path / "more", photos / "more")
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["this_pass"]["images"], outcome["total"]) == (3, 15)
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_an_input_that_changed_is_done_again(
    bulk: Bulk, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk("corrupt", f"input={photos}")
    changed = photos / "1" / "0001.png"
    Image.new("RGB", (20, 30), "red").save(changed)
    capsys.readouterr()
    outcome = bulk("corrupt", f"input={photos}")
    assert "1 changed since they were processed" in capsys.readouterr().err
    assert (outcome["this_pass"]["images"], outcome["total"]) == (1, 12)
    (row,) = [row for row in rows_of(tmp_path / "out") if row["path"] == "1/0001.png"]
    assert (row["width"], row["height"]) == (20, 30)


def test_other_settings_in_the_same_output_are_refused_with_the_ways_out(bulk: Bulk, photos: Path) -> None:
    bulk("corrupt", f"input={photos}")
    with pytest.raises(RunError) as caught:
        bulk("corrupt", f"input={photos}", "corrupt.noise.sigma=50")
    assert "corrupt.noise.sigma: 25.0 -> 50.0" in str(caught.value)
    assert "--retry all" in str(caught.value)
    assert bulk("corrupt", f"input={photos}", "work.commit_seconds=3")["this_pass"]["images"] == 0


def test_retry_all_makes_every_image_again_with_the_new_settings(
    bulk: Bulk, photos: Path, tmp_path: Path
) -> None:
    bulk("corrupt", f"input={photos}")
    before = {row["path"]: row["sha256"] for row in rows_of(tmp_path / "out")}
    outcome = bulk("corrupt", f"input={photos}", "corrupt.noise.sigma=50", "retry=all")
    assert outcome["this_pass"]["images"] == outcome["total"] == 12
    assert all(row["sha256"] != before[row["path"]] for row in rows_of(tmp_path / "out"))


def test_a_broken_image_costs_its_own_row_and_is_tried_again_only_when_asked(
    bulk: Bulk, photos: Path, tmp_path: Path
) -> None:
    broken = photos / "0" / "broken.jpg"
    broken.write_bytes((photos / "0" / "0000.jpg").read_bytes()[:500])
    (photos / "0" / "empty.png").touch()
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["reasons"]) == (12, {"truncated": 1, "empty": 1})
    assert not (tmp_path / "out" / "0" / "empty.png").exists()
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0
    assert bulk("corrupt", f"input={photos}", "retry=failed")["this_pass"]["images"] == 2
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 14
    assert sum(row["status"] == "failed" for row in rows) == 2


def test_a_run_that_only_fails_is_stopped(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(400):
        (tmp_path / "in" / f"{index:03}.jpg").write_bytes(b"no image")
    with pytest.raises(BulkError, match="images failed"):
        bulk("corrupt", f"input={tmp_path / 'in'}")
    assert 100 <= len(rows_of(tmp_path / "out")) <= 400


def test_inputs_that_would_be_one_output_are_kept_apart(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        Image.new("RGB", (32, 32), "navy").save(tmp_path / "in" / name)
    bulk("corrupt", f"input={tmp_path / 'in'}", "write.format=webp")
    outputs = sorted(row["output"] for row in rows_of(tmp_path / "out"))
    assert outputs == ["a.jpg.webp", "a.png.webp", "b.png.webp"]


def test_an_unreadable_folder_is_recorded_and_the_rest_is_done(
    bulk: Bulk, photos: Path, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    locked = photos / "locked"
    write_photos(locked, 1)
    locked.chmod(0)
    try:
        outcome = bulk("corrupt", f"input={photos}")
    finally:
        locked.chmod(0o700)
    assert (outcome["done"], outcome["reasons"]) == (12, {"unreadable": 1})
    assert bulk("corrupt", f"input={photos}")["total"] == 13, "now that it can be read, its image is done"


def test_a_name_that_is_no_utf8_is_recorded(bulk: Bulk, photos: Path) -> None:
    with open(os.fsencode(photos) + b"/\xff.png", "wb") as file:
        file.write((photos / "1" / "0001.png").read_bytes())
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["reasons"]) == (12, {"bad-name": 1})


def test_an_output_inside_of_the_input_is_refused(bulk: Bulk, photos: Path) -> None:
    with pytest.raises(DataError, match="overlap"):
        bulk("corrupt", f"input={photos}", f"output={photos / 'out'}")


def test_an_input_without_images_is_refused(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="there are no image files"):
        bulk("corrupt", f"input={tmp_path / 'in'}")


def test_a_full_disk_stops_the_run_and_the_same_command_ends_it(
    photos: Path, tmp_path: Path, bulk: Bulk
) -> None:
    write_photos(photos / "large", 1, size=(700, 900), noise=40)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(StorageFull, match="no room left"):
            bulk("corrupt", f"input={photos}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["total"], outcome["done"]) == (13, 13)
    assert not leftovers(tmp_path / "out")
