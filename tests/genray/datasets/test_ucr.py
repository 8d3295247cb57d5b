from pathlib import Path

import numpy as np
import pytest

from genray.datasets.ucr import A_SIGNAL, read_rows
from tests.beat_files import drawn_beats, write_table


def reasons(path: Path) -> list[tuple[str, str]]:
    return [(bad.path, bad.reason) for bad in read_rows(path).bad]


@pytest.mark.parametrize("name", ["A_TRAIN.txt", "beats.csv", "A.tsv"])
def test_values_and_classes_are_read_whatever_the_kind_of_table(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / name, 3, 2)
    rows = read_rows(tmp_path / name)
    assert rows.classes == ["1", "1", "1", "2", "2"]
    assert not rows.bad
    np.testing.assert_allclose(rows.values[:3], drawn_beats(3), atol=1e-5)


def test_the_column_of_the_class_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["7," + ",".join(["0.5"] * 20)] * 2))
    assert read_rows(tmp_path / "a.csv", "first").classes == ["7", "7"]


def test_names_of_columns_are_passed_over(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", 3, 2)
    names = ",".join([*map(str, "x" * 140), "label"])
    (tmp_path / "a.csv").write_text(names + "\n" + (tmp_path / "a.csv").read_text())
    rows = read_rows(tmp_path / "a.csv")
    assert (len(rows.classes), rows.bad) == (5, [])


def test_broken_rows_are_listed_by_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_table(path, 5, 0)
    whole = path.read_text().splitlines()
    broken = [
        whole[0],
        whole[1].replace("0.", "oops", 1),
        whole[2] + "  1.0",
        "1  nan" + "  0.1" * 139,
        whole[3],
    ]
    path.write_text("\n".join([*broken, "", "1 2"]))
    assert len(read_rows(path).classes) == 2
    assert sorted(reasons(path)) == [
        ("a.txt:2", "truncated"),
        ("a.txt:3", "odd-shape"),
        ("a.txt:4", "truncated"),
        ("a.txt:7", "odd-shape"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"\xff\xfe\x00 what", "truncated"), (b"no beats\nat all", "truncated")],
)
def test_a_file_without_beats_is_one_bad_input(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert reasons(tmp_path / "a.txt") == [("a.txt", reason)]


@pytest.mark.parametrize(
    "lines",
    [
        ["time,II", *(f"{n / 250},0.1" for n in range(99))],
        ["Time;II;V1", *(f"{n / 250};0,1;0,2" for n in range(99))],
        ["time\t" + "\t".join("abcdefghijkl"), *(f"{n / 250}" + "\t0.1" * 12 for n in range(99))],
        ["II,V1", *("0.1,0.2" for n in range(99))],
        ["0.1,0.2" for n in range(99)],
    ],
    ids=["comma", "semicolon", "12 leads", "without time", "without a header"],
)
def test_a_signal_is_no_table_of_beats(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "a.csv").write_text("\n".join(lines))
    rows = read_rows(tmp_path / "a.csv")
    assert rows.classes == []
    assert [(bad.path, bad.detail) for bad in rows.bad] == [("a.csv", A_SIGNAL)]


def test_a_file_that_is_gone_is_one_bad_input(tmp_path: Path) -> None:
    assert reasons(tmp_path / "gone.txt") == [("gone.txt", "unreadable")]


@pytest.mark.parametrize("value", ["1e39", "-1e15", "inf", "nan"])
def test_what_a_network_cannot_take_is_no_value(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.txt").write_text("1" + " 0.5" * 20 + "\n1 " + value + " 0.5" * 19)
    assert reasons(tmp_path / "a.txt") == [("a.txt:2", "truncated")]
