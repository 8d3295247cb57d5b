from __future__ import annotations

from pathlib import Path

import pytest

from genray.ecg.records.base import is_ecg, is_named_ecg, lead_names
from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError


def test_another_kind_of_file_is_not_taken_for_a_header_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of a patient")
    with pytest.raises(DataError, match=r"notes.txt: it is another kind of file"):
        open_record(tmp_path / "notes.txt")


def test_what_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    for name in ("a.csv", "a.edf", "a.hea", "a", "a.atr", ""):
        with pytest.raises(DataError):
            open_record(tmp_path / name if name else "")


def test_all_records_below_a_folder_are_found(tmp_path: Path) -> None:
    for name in ("b/2.edf", "a.hea", "a.dat", "b/.hidden.csv", ".git/x.csv", "c.CSV", "b/3.bdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_records(tmp_path)]
    assert found == [
        "a.hea",
        "b/2.edf",
        "b/3.bdf",
        "c.CSV",
    ]
    with pytest.raises(DataError, match="no such folder"):
        find_records(tmp_path / "none")


def test_segments_are_parts_of_their_record_and_not_found_beside_it(tmp_path: Path) -> None:
    headers = {"rec": "rec/2 1 250 0\ns1 10\ns2 10\n", "s1": "s1 1 250 10", "s2": "s2 1 250 10"}
    headers |= {"alone": "alone 1 250 10", "odd": "odd/1 1 250 0\nodd 10\n", "noise": "\0\xff" * 99}
    for name, text in headers.items():
        (tmp_path / f"{name}.hea").write_text(text)
    assert [path.stem for path in find_records(tmp_path)] == ["alone", "noise", "odd", "rec"]


@pytest.mark.parametrize(
    ("names", "ecg"),
    [
        (["II", "aVR", "V1", "V5R", "MLII", "ECG 2", "Lead I", "EKG", "MCL1", "D2"], (True, True)),
        (["X1", "ch2", "P", "C", "A1"], (True, False)),
        (
            ["C3-M2", "F4:A1", "Fp1-F7", "E1-M2", "EEG C3", "HR", "marker", "Resp", "NIBP", "Chin"],
            (False, False),
        ),
    ],
)
def test_channels_are_known_by_their_names(names: list[str], ecg: tuple[bool, bool]) -> None:
    for name in names:
        assert (is_ecg(name), is_named_ecg(name)) == ecg, name


def test_lead_names_are_short_printable_and_all_different() -> None:
    names = lead_names(["II", "II", "II", "", "a\x00b\n\u00b5", "x" * 40, "x" * 40])
    assert len(set(names)) == 7
    assert names[:2] == ("II", "II-2")
    assert all(1 <= len(name) <= 16 and name.isascii() and name.isprintable() for name in names)
