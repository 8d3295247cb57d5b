"""Outputs have names that every file system can hold."""

import unicodedata
from pathlib import Path

import pytest

from pipelines.engine.planning.names import OutputNames, folded_hash, is_too_long, renamed, short_name
from tests.pipelines.bulk_runs import png, submit
from tests.pipelines.conftest import Bulk, rows_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x/A.jpg", "X/a.JPG"),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")),
        ("straße.jpg", "STRASSE.jpg"),
        ("Ω.jpg", "ω.jpg"),
    ],
)
def test_names_that_a_file_system_may_merge_are_found(one: str, other: str) -> None:
    names = OutputNames()
    for name in (one, "b.jpg", other):
        names.add(name)
    assert folded_hash(one) in names.repeated()
    assert folded_hash("b.jpg") not in names.repeated()
    assert renamed(one).casefold() != renamed(other).casefold()


@pytest.mark.parametrize(
    "name",
    [
        "n" * 255 + ".jpg.webp",
        "ü" * 200 + ".jpg",
        "x/" * 600 + "a.jpg",
        f"{'f' * 300}/a.jpg",
        "." + "n" * 255,
    ],
)
def test_a_name_that_is_too_long_is_cut(name: str) -> None:
    assert is_too_long(name)
    short = short_name(name)
    assert not is_too_long(short)
    assert short != short_name("y" + name)
    if name.endswith((".jpg", ".webp")):
        assert short.rpartition(".")[2] == name.rpartition(".")[2]


def test_a_name_that_fits_is_kept() -> None:
    for name in ("a.jpg", "n" * 251 + ".jpg", "x/" * 510 + "a"):
        assert short_name(name) == name


def test_merging_names_are_renamed_before_the_run_and_it_is_said(bulk: Bulk, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "x").mkdir(parents=True)
    for index, name in enumerate(("A.png", "a.png", "b.png", "x/A.png")):
        (folder / name).write_bytes(png(index))
    sets = (f"input={folder}", f"output={tmp_path / 'out'}")
    planned = submit("corrupt", *sets, more=("--dry-run",))
    assert "2 outputs are renamed" in planned.stderr
    assert f"A.png -> {renamed('A.png')}" in planned.stderr
    assert not (tmp_path / "out/A.png").exists()
    done = submit("corrupt", *sets)
    assert "2 outputs are renamed" in done.stderr
    outputs = {row["path"]: row["output"] for row in rows_of(tmp_path / "out")}
    assert outputs == {
        "A.png": renamed("A.png"),
        "a.png": renamed("a.png"),
        "b.png": "b.png",
        "x/A.png": "x/A.png",
    }
    assert len({output.casefold() for output in outputs.values()}) == 4


def test_an_input_that_comes_later_does_not_take_a_name(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(png(0))
    bulk("corrupt", f"input={tmp_path / 'in'}")
    (tmp_path / "in/A.png").write_bytes(png(1))
    bulk("corrupt", f"input={tmp_path / 'in'}")
    outputs = {row["path"]: row["output"] for row in rows_of(tmp_path / "out")}
    assert outputs == {"A.png": renamed("A.png"), "a.png": "a.png"}


def test_a_suffix_that_makes_a_name_too_long_is_no_failure(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name = "n" * 251 + ".png"
    (tmp_path / "in" / name).write_bytes(png(0))
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", "write.format=webp")
    assert outcome["done"] == 1
    (row,) = rows_of(tmp_path / "out")
    assert row["output"] == renamed(f"{name}.webp")
    assert (tmp_path / "out" / row["output"]).exists()
