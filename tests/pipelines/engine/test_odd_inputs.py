from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from tests.broken_files import encode, write_broken_files
from tests.pipelines.bulk_runs import outputs_of, png
from tests.pipelines.conftest import Bulk, rows_of, write_photos


def check_outputs(out: Path) -> None:
    """All outputs of the ledger are there, whole, and of the size of their inputs."""
    for row in rows_of(out):
        if row["status"] == "done":
            data = (out / row["output"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row["sha256"]
            made = read_photo(data, ReadLimits())
            assert made.pixels.shape == (row["height"], row["width"], row["channels"])


def test_of_a_thousand_broken_and_odd_files_each_is_recorded_once_with_its_reason(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    expected = write_broken_files(photos, 1000)
    hidden = {path for path in expected if any(part.startswith(".") for part in path.split("/"))}
    expected = {path: reason for path, reason in expected.items() if path not in hidden}
    assert len(hidden) > 20
    before = {file: file.stat().st_mtime_ns for file in photos.rglob("*")}
    outcome = bulk("corrupt", f"input={photos}", "work.max_failed_share=1")
    rows = rows_of(out)
    found = {row["path"]: row["reason"] if row["status"] == "failed" else "" for row in rows}
    assert {p: (found.get(p), r) for p, r in expected.items() if found.get(p) != r} == {}
    assert found.keys() == expected.keys()
    assert outcome["reasons"] == Counter(filter(None, expected.values()))
    assert all(row["detail"] for row in rows if row["status"] == "failed")
    assert outcome["done"] == sum(not reason for reason in expected.values())
    check_outputs(out)
    written = {f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()}
    outputs = {row["output"] for row in rows if row["status"] == "done"}
    assert {name for name in written if not name.startswith("_genray/")} == outputs
    assert len(outputs) == outcome["done"]
    assert {file: file.stat().st_mtime_ns for file in photos.rglob("*")} == before
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0


def test_what_was_odd_in_an_input_that_is_done_is_the_detail_of_its_row(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    (photos / "whole.png").write_bytes(png(1))
    (photos / "cut.png").write_bytes(png(2)[:-12])
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["salvaged"]) == (2, 1)
    for column in ("detail", "salvaged"):
        found = {row["path"]: row[column] for row in rows_of(tmp_path / "out")}
        assert found == {"whole.png": "", "cut.png": "the end chunk is missing"}


def test_what_is_salvaged_is_refused_if_the_settings_say_so(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    (photos / "whole.png").write_bytes(png(1))
    (photos / "cut.png").write_bytes(png(2)[:-12])
    assert bulk("corrupt", f"input={photos}", "read.damaged=refuse")["reasons"] == {"truncated": 1}


def test_a_bmp_is_read_and_stays_one(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    (photos / "a.bmp").write_bytes(encode(Image.new("RGB", (40, 30), "teal"), "BMP"))
    assert bulk("corrupt", f"input={photos}", 'read.suffixes=[".bmp"]', "write.format=same")["done"] == 1
    with Image.open(tmp_path / "out" / "a.bmp") as made:
        assert (made.format, made.mode, made.size) == ("BMP", "RGB", (40, 30))


def test_an_output_whose_name_is_taken_by_a_folder_fails_alone_and_a_long_one_is_cut(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    (photos / "a.jpg.webp").mkdir(parents=True)
    long = "x" * 250 + ".png"
    for name in ("a.jpg", "a.jpg.webp/b.png", "c.png", long):
        (photos / name).write_bytes(png(1))
    assert bulk("corrupt", f"input={photos}", "write.format=same", f"output={out}-same")["done"] == 4
    outcome = bulk("corrupt", f"input={photos}", "write.format=webp")
    assert (outcome["done"], outcome["reasons"]) == (3, {"unwritable": 1})
    assert {row["path"]: row["reason"] for row in rows_of(out) if row["status"] == "failed"} == {
        "a.jpg.webp/b.png" if (out / "a.jpg.webp").is_file() else "a.jpg": "unwritable"
    }
    (cut,) = [row["output"] for row in rows_of(out) if row["path"] == long]
    assert (out / cut).is_file()


def test_inputs_that_cannot_be_opened_fail_alone_and_are_done_when_they_can(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 6)
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (photos / "itself.png").symlink_to(photos / "itself.png")
    os.mkfifo(photos / "pipe.png")
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["reasons"]) == (6, {"unreadable": 3})
    (tmp_path / "nowhere.png").write_bytes(png(3))
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["this_pass"]["images"], outcome["done"], outcome["total"]) == (1, 7, 9)


def test_inputs_that_vanish_while_the_run_works_fail_alone(many: Path, bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    shutil.copytree(many, photos, copy_function=os.link)

    def remove() -> None:
        while not out.exists() or not any(out.glob("*.png")):
            time.sleep(0.01)
        for index in range(280, 300):
            (photos / f"{index}.png").unlink()

    thread = threading.Thread(target=remove)
    thread.start()
    outcome = bulk("corrupt", f"input={photos}")
    thread.join()
    assert (outcome["total"], outcome["done"], outcome["reasons"]) == (300, 280, {"unreadable": 20})


@pytest.mark.parametrize("container", ["files", "parquet", "webdataset"])
def test_nothing_is_left_of_an_input_that_can_no_longer_be_made(
    bulk: Bulk, tmp_path: Path, container: str
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    photos.mkdir()
    for index in range(4):
        (photos / f"{index}.png").write_bytes(png(index))
    sets = (f"input={photos}", f"write.container={container}")
    bulk("corrupt", *sets)
    (photos / "2.png").write_bytes(b"\x89PNG broken")
    outcome = bulk("corrupt", *sets)
    assert (outcome["this_pass"]["changed"], outcome["reasons"]) == (1, {"truncated": 1})
    assert outputs_of(out, container).keys() == {"0.png", "1.png", "3.png"}
    outcome = bulk("corrupt", *sets, "retry=failed")
    assert (outcome["this_pass"]["retried"], outcome["this_pass"]["changed"]) == (1, 0)
    (photos / "1.png").unlink()
    assert bulk("corrupt", *sets)["this_pass"]["gone"] == 1
    assert outputs_of(out, container).keys() == {"0.png", "1.png", "3.png"}, "what is gone keeps its output"
