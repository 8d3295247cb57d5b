from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genray.ecg.records.base import MISSING
from genray.ecg.records.open import open_record
from genray.errors import DataError


def _csv(
    path: Path, rows: int, *, header: str = "time,II,V1", begin: float = 0.0, rate: float = 250.0
) -> Path:
    lines = [f"{begin + n / rate:.3f},{n / 1000},{-n / 1000}" for n in range(rows)]
    path.write_text("\n".join([header, *lines, ""]))
    return path


def test_csv_is_read_in_stretches_far_apart(tmp_path: Path) -> None:
    record = open_record(_csv(tmp_path / "a.csv", 5000))
    assert (record.leads, record.rate, record.samples) == (("II", "V1"), pytest.approx(250), 5000)
    assert record.start is None
    for start, stop in ((0, 3), (1020, 2050), (4999, 9000), (1024, 2048)):
        n = np.arange(start, min(stop, 5000))
        np.testing.assert_array_equal(record.read(start, stop), np.stack([n, -n], axis=1))


def test_csv_with_unix_times_has_a_start_and_empty_cells_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"Time,II,ABP\r\n1700000000.00,,1\r\n1700000000.01,nan,2\r\n1700000000.02,inf,3\r\n"
                     b"1700000000.03,0.5,4")  # fmt: skip
    record = open_record(path)
    assert (record.leads, record.start, record.samples) == (("II",), 1.7e9, 4)
    assert record.read(0, 4)[:, 0].tolist() == [MISSING, MISSING, MISSING, 500]


def test_csv_without_times_needs_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("II\n1\n\n3\n")
    with pytest.raises(DataError, match=r"nothing says its rate[^$]*source.csv_rate"):
        open_record(path)
    record = open_record(path, rate=100)
    assert record.rate == 100
    assert record.read(0, 9)[:, 0].tolist() == [1000, MISSING, 3000]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not name columns"),
        ("1,2\n3,4\n", "does not name columns"),
        ("time,II\n", "no samples"),
        ("time,II\n0,1\n0.004,x\n", "x"),
        ("time,II\n0,1\n0.004\n", "columns"),
        ("time,II\n0,1\n0,2\n", "do not increase: 0 at first, 0 at last"),
        ("time,II\n0,1\nnan,2\n", "do not increase: 0 at first, nan at last"),
        (
            "time,II\n0,1\n0.004,2\n1.0,3\n1.004,4\n" + "".join(f"{n / 250},0\n" for n in range(4, 1000)),
            "do not increase, as line 6 shows",
        ),
        ("time," + "II," * 40 + "\n", "columns"),
        ("time,II\n0," + "1" * 200_000 + "\n0.004,2\n", "absurd length"),
        ("time,Resp\n0,1\n0.004,2\n", "no column is an ECG: time, Resp"),
    ],
)
def test_csv_that_is_something_else_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as refusal:
        open_record(path)
    assert refusal.value.where == str(path)


@pytest.mark.parametrize(
    ("times", "said", "hint"),
    [
        ([4 * n for n in range(3000)], "0.25 samples a second", "milliseconds, divide it by 1000"),
        ([4000 * n for n in range(3000)], "0.00025 samples a second", "microseconds, divide it by 1000000"),
        ([3 - n / 250 for n in range(500)], "do not increase: 3 at first", "sort its lines by time"),
        (["2024-01-01T00:00:00", "2024-01-01T00:00:01"], "line 2, column time", "`time` is in seconds"),
        (["0.000", "0.004", "0:00:01"], "line 4, column time: '0:00:01' is no number", "no clock times"),
        (
            [(n - 9 * (n > 99)) / 250 for n in range(999)],
            "not increase, as line 102 shows",
            "keep each sample once",
        ),
        ([(n + 9 * (n > 99)) / 250 for n in range(999)], "not even, as line", "with empty cells"),
    ],
    ids=["ms", "us", "back", "iso", "clock", "twice", "gap"],
)
def test_times_that_cannot_be_are_explained_when_a_csv_is_opened(
    tmp_path: Path, times: list[object], said: str, hint: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["time,II", *(f"{time},0.1" for time in times)]))
    with pytest.raises(DataError) as refusal:
        open_record(path)
    assert said in refusal.value.what
    assert refusal.value.hint is not None
    assert hint in refusal.value.hint


def test_a_cell_that_is_no_number_is_named_by_line_and_column(tmp_path: Path) -> None:
    path = _csv(tmp_path / "a.csv", 5000)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3000], "12.0,0,abc", *lines[3001:]]))
    record = open_record(path)
    with pytest.raises(DataError, match=r"line 3001, column V1: 'abc' is no number") as refusal:
        record.read(2500, 3500)
    assert refusal.value.hint == "leave the cell empty if there is no sample"


@pytest.mark.parametrize(("separator", "point"), [(";", "."), (";", ","), ("\t", "."), ("\t", ",")])
def test_semicolons_and_tabs_separate_too_and_numbers_may_have_a_decimal_comma(
    tmp_path: Path, separator: str, point: str
) -> None:
    path = _csv(tmp_path / "a.csv", 2000)
    text = path.read_text()
    other = tmp_path / "b.csv"
    last = f"8{point}000{separator}1{separator}"
    other.write_text(text.replace(",", separator).replace(".", point) + last)
    record = open_record(other)
    assert (record.leads, record.rate, record.samples) == (("II", "V1"), pytest.approx(250), 2001)
    np.testing.assert_array_equal(record.read(0, 2000), open_record(path).read(0, 2000))
    assert record.read(2000, 2001).tolist() == [[1000, MISSING]]


def _named(path: Path, names: str) -> Path:
    lines = [f"{n / 250:.3f}," + ",".join(["80"] * names.count(",")) for n in range(500)]
    path.write_text("\n".join([names, *lines, ""]))
    return path


@pytest.mark.parametrize(
    ("column", "lead", "millivolts"),
    [
        ("ECG (uV)", "ECG", 0.08),
        ("II [mV]", "II", 32.767),
        ("V1_\u00b5V", "V1", 0.08),
        ("ecg/nV", "ecg", 0.0),
        ("ECG (V)", "ECG", 32.767),
        ("ECG V", "ECG V", 32.767),
        ("ECG (II)", "ECG (II)", 32.767),
    ],
)
def test_a_unit_in_the_name_of_a_column_counts(
    tmp_path: Path, column: str, lead: str, millivolts: float
) -> None:
    record = open_record(_named(tmp_path / "a.csv", f"time,{column}"))
    assert record.leads == (lead,)
    assert record.millivolts(0, 500).max() == pytest.approx(millivolts, abs=1e-4)
    assert record.notes == ()


def test_columns_that_are_no_leads_are_left_out_and_named(tmp_path: Path) -> None:
    record = open_record(_named(tmp_path / "a.csv", "time,II,HR,V1 [mV],SpO2,marker,quality"))
    assert record.leads == ("II", "V1")
    assert record.notes == ("left out, no ECG by their names: HR, SpO2, marker, quality",)
    assert open_record(_named(tmp_path / "b.csv", "time,ch1,HR,ch2")).leads == ("ch1", "ch2")
    with pytest.raises(DataError, match=r"no column is an ECG: time, ECG .adc., HR .bpm.") as refusal:
        open_record(_named(tmp_path / "c.csv", "time,ECG (adc),HR (bpm)"))
    assert "ECG (uV)" in str(refusal.value.hint)
