from __future__ import annotations

from pathlib import Path

import pytest

from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError


def test_another_kind_of_file_is_not_taken_for_a_header_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "notes.doc").write_text("of a patient")
    with pytest.raises(DataError, match=r"notes.doc: it is another kind of file"):
        open_record(tmp_path / "notes.doc")


@pytest.mark.parametrize(
    ("name", "what", "tool"),
    [
        ("a.scp", "SCP-ECG", "save2gdf -f=EDF a.scp a.edf"),
        ("a.xml", "HL7 aECG", "save2gdf -f=EDF a.xml a.edf"),
        ("a.xlsx", "a spreadsheet", "save the table as CSV"),
        ("a.csv.gz", "compressed", "gunzip -k a.csv.gz"),
        ("a.mat", "MATLAB", "writetable"),
    ],
)
def test_formats_that_are_not_read_are_named_with_the_tool_that_converts_them(
    tmp_path: Path, name: str, what: str, tool: str
) -> None:
    (tmp_path / name).write_bytes(b"\0 of another kind")
    with pytest.raises(DataError, match=what) as refusal:
        open_record(tmp_path / name)
    assert tool in str(refusal.value.hint)


def test_an_edf_is_known_by_its_first_bytes_and_a_text_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "night.rec").write_bytes(b"0       " + b" " * 300)
    (tmp_path / "other.rec").write_bytes(b"something else" * 30)
    (tmp_path / "ecg.txt").write_text("time\tECG (mV)\n0.000\t0.1\n0.004\t0.2\n")
    (tmp_path / "README.txt").write_text("1 patient, 2 leads\n3 hours\n")
    assert [path.name for path in find_records(tmp_path)] == ["ecg.txt", "night.rec"]
    assert open_record(tmp_path / "ecg.txt").leads == ("ECG",)
    with pytest.raises(DataError, match=r"channels|number"):
        open_record(tmp_path / "night.rec")


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
