from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
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
        ("", "is empty"),
        ("1,2\n3,4\n", "does not name columns"),
        ("time,II\n", "no samples"),
        ("time,II\n0,1\n0.004,x\n", "line 3, column II: 'x' is no number"),
        ("time,II\n0,1\n0.004\n", "line 3 has 1 columns, its header 2"),
        ("time,II\n0,1\n0,2\n", "do not increase: 0 at first, 0 at last"),
        ("time,II\n0,1\nnan,2\n", "line 3 has no time"),
        (
            "time,II\n0,1\n0.004,2\n1.0,3\n1.004,4\n" + "".join(f"{n / 250},0\n" for n in range(4, 1000)),
            "do not increase, as line 6 shows",
        ),
        ("time,II\n" + "0,0.1\n" + ",".join(["0"] * 40) + "\n", "40 columns, its header 2"),
        ("time,II\n0," + "1" * 200_000 + "\n0.004,2\n", "absurd length"),
        ("time,Resp\n0,1\n0.004,2\n", "no channel is an ECG: Resp"),
        ("time,ECG\n" + "".join(f"0,{n:03},0,5\n" for n in range(9)), "names 2 columns, .* have 4"),
        ("time,II\n0\0,1\n", "no text"),
        ("fs: 0 Hz\nII (mV)\n0.1\n0.2\n", "nothing says its rate"),
        ("fs: " + "9" * 400 + " Hz\nII (mV)\n0.1\n0.2\n", "inf samples a second, not 50 to 4000"),
        ("PK\x03\x04", "spreadsheet"),
    ],
)
def test_csv_that_is_something_else_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as refusal:
        open_record(path)
    assert refusal.value.where == str(path)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("times", "said", "hint"),
    [
        ([3 - n / 250 for n in range(500)], "do not increase, as line 3 shows", "sort its lines by time"),
        (["2024-01-01T00:00:00", "2024-01-01T00:00:01"], "1 samples a second", "correct the rate"),
        (["0.000", "0.004", "0:00:01"], "line 4, column time: '0:00:01' is no number", "in one way"),
        (["noon", "0.004"], "line 2, column time: 'noon' is no time", "ISO 8601"),
        (
            [(n - 9 * (n > 99)) / 250 for n in range(999)],
            "increase, as line 102 shows",
            "keep each sample once",
        ),
        ([n / 250 + (n % 7) ** 3 for n in range(999)], "do not increase", "sort"),
        ([float(n**2) for n in range(3000)], "not even", "resample"),
    ],
    ids=["back", "slow", "clock", "noon", "twice", "jumps", "uneven"],
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


def _ecg(samples: int, rate: float) -> np.ndarray:
    """A wave of 1 mV with a peak in each second."""
    phase = np.arange(samples) / rate % 1
    return np.where(np.abs(phase - 0.5) < 0.03, 1.0, 0.05 * np.sin(2 * np.pi * phase)).round(4)


def _table(path: Path, times: Sequence[object], values: np.ndarray, header: str = "time,II (mV)") -> Path:
    lines = [f"{time},{value}" for time, value in zip(times, values, strict=True)]
    path.write_text("\n".join([header, *lines, ""]))
    return path


def _iso(seconds: float) -> str:
    begin = datetime(2024, 2, 28, 23, 59, 50, tzinfo=UTC)
    return (begin + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").removesuffix("+00:00")


CLOCKS: list[tuple[str, str, Callable[[float], object], float | None]] = [
    ("s", "time", lambda t: f"{t:.4f}", None),
    ("ms", "time (ms)", lambda t: f"{t * 1000:.1f}", None),
    ("ms-unsaid", "time", lambda t: f"{t * 1000:.1f}", None),
    ("ms-named", "millis", lambda t: round(t * 1000), None),
    ("us", "timestamp_us", lambda t: round(t * 1e6), None),
    ("ns-unix", "Timestamp", lambda t: 1_700_000_000_000_000_000 + round(t * 1e9), 1.7e9),
    ("minutes", "Elapsed time [min]", lambda t: f"{t / 60:.9f}", None),
    ("iso", "datetime", _iso, 1709164790.0),
    ("iso-zone", "time", lambda t: _iso(t) + "+01:00", 1709161190.0),
    ("iso-blank", "time", lambda t: _iso(t).replace("T", " "), 1709164790.0),
    ("clock", "Time", lambda t: _iso(t)[11:], None),
    ("minutes-clock", "Elapsed time", lambda t: f"{int(t) // 60}:{t % 60:06.3f}", None),
    ("german", "Zeit", lambda t: f"{_iso(t)[8:10]}.02.2024 {_iso(t)[11:]}", 1709164790.0),
    ("milliseconds-after-a-colon", "Time", lambda t: _iso(t)[11:].replace(".", ":"), None),
    ("spreadsheet", "time", lambda t: f"{45350.9999 + t / 86400:.11f}", 1709164791.36),
    ("rounded", "time", lambda t: f"{int(t * 100 + 1e-6) / 100:.2f}", None),
    ("whole-seconds", "time", lambda t: _iso(t)[:19], 1709164790.0),
]


@pytest.mark.parametrize(("header", "text", "start"), [c[1:] for c in CLOCKS], ids=[c[0] for c in CLOCKS])
def test_times_are_read_in_every_way_that_they_are_written(
    tmp_path: Path, header: str, text: Callable[[float], object], start: float | None
) -> None:
    ecg = _ecg(5000, 250)
    times = [text(n / 250) for n in range(5000)]
    record = open_record(_table(tmp_path / "a.csv", times, ecg, f"{header},II (mV)"))
    assert (record.rate, record.samples) == (pytest.approx(250, rel=1e-5), 5000)
    assert record.start == (None if start is None else pytest.approx(start))
    np.testing.assert_allclose(record.millivolts(0, 5000)[:, 0], ecg, atol=0.0006)
    said = {"4.0": "milliseconds", "45350.99990004630": "days of a spreadsheet"}.get(str(times[1]))
    expected = [f"its times are taken as {said}, which makes 250 samples a second"]
    if header == "time" and said:
        assert list(record.notes) == expected
    elif header != "Timestamp":
        assert not record.notes


def test_whole_numbers_that_follow_on_each_other_are_no_times_unless_that_is_said(tmp_path: Path) -> None:
    path = _table(tmp_path / "a.csv", range(1000), _ecg(1000, 250))
    with pytest.raises(DataError, match="column time counts 1, 2, 3") as refusal:
        open_record(path)
    assert "source.csv_rate" in str(refusal.value.hint)
    assert open_record(path, rate=250).rate == 250
    stated = _table(tmp_path / "b.csv", range(1000), _ecg(1000, 1000), "time (ms),II (mV)")
    assert open_record(stated).rate == 1000


def test_dates_that_can_be_read_in_two_ways_give_no_start(tmp_path: Path) -> None:
    times = [f"02/03/2024 10:00:{n / 250:06.3f}" for n in range(500)]
    record = open_record(_table(tmp_path / "a.csv", times, _ecg(500, 250)))
    assert (record.rate, record.start) == (pytest.approx(250), None)
    assert record.notes == ("the day of its first sample is not known: its dates can be read in two ways",)


def test_a_lead_that_is_nearly_flat_in_its_unit_is_told(tmp_path: Path) -> None:
    (note,) = open_record(_named(tmp_path / "a.csv", "time,II (uV)", 1.0)).notes
    assert note.startswith("II is nearly flat, or not in uV")


@pytest.mark.parametrize("decimals", [2, 3, 6])
def test_where_times_jump_samples_are_missing(tmp_path: Path, decimals: int) -> None:
    """7 samples are lost, then 2 s; stamps of 10 ms cannot show the 7 of 360 Hz exactly."""
    rate, ecg = 360, _ecg(7200, 360)
    kept = np.r_[0:1000, 1007:3000, 3720:7200]
    times = [f"{n / rate:.{decimals}f}" for n in kept]
    record = open_record(_table(tmp_path / "a.csv", times, ecg[kept]))
    slack = 4 if decimals == 2 else 0
    assert record.rate == pytest.approx(rate, rel=1e-3 if slack else 1e-6)
    assert abs(record.samples - 7200) <= slack
    assert "samples are missing at 2 places" in record.notes[0]
    values = record.millivolts(0, record.samples)[:, 0]
    assert np.isnan(values).sum() == record.samples - len(kept)
    if not slack:
        expected = np.full(7200, np.nan)
        expected[kept] = ecg[kept]
        np.testing.assert_allclose(values, expected, atol=0.0006)
        np.testing.assert_array_equal(record.read(990, 3730), record.read(0, 7200)[990:3730])


def test_a_table_longer_than_a_block_of_times_has_one_line_of_time(tmp_path: Path) -> None:
    ecg = _ecg(150_000, 500)
    times = [f"{n / 500 + 60 * (n >= 100_000):.3f}" for n in range(150_000)]
    record = open_record(_table(tmp_path / "a.csv", times, ecg))
    assert (record.rate, record.samples) == (500.0, 180_000)
    values = record.millivolts(0, 180_000)[:, 0]
    np.testing.assert_allclose(np.delete(values, np.s_[100_000:130_000]), ecg, atol=0.0006)


def test_a_cell_that_is_no_number_is_named_by_line_and_column(tmp_path: Path) -> None:
    path = _csv(tmp_path / "a.csv", 5000)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3000], "12.0,0,abc", *lines[3001:]]))
    record = open_record(path)
    assert record.read(0, 2000).any()
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


def _named(path: Path, names: str, size: float = 1.0, offset: float = 0.0) -> Path:
    ecg = _ecg(2500, 250) * size + offset
    lines = [f"{n / 250:.3f}," + ",".join([f"{value:.6g}"] * names.count(",")) for n, value in enumerate(ecg)]
    path.write_text("\n".join([names, *lines, ""]))
    return path


@pytest.mark.parametrize(
    ("column", "size", "offset", "lead"),
    [
        ("ECG (uV)", 1000, 0, "ECG"),
        ("II [mV]", 1, 0, "II"),
        ("V1_\u00b5V", 1000, 0, "V1"),
        ("ecg/nV", 1e6, 0, "ecg"),
        ("ECG (V)", 0.001, 0, "ECG"),
        ("ECG (200 adu/mV)", 200, 0, "ECG"),
        ("ECG [200 counts/mV]", 200, 0, "ECG"),
        ("ECG (2.5 uV/LSB)", 400, 0, "ECG"),
        ("II (mV)", 1, 150, "II"),
    ],
)
def test_a_unit_in_the_name_of_a_column_counts(
    tmp_path: Path, column: str, size: float, offset: float, lead: str
) -> None:
    record = open_record(_named(tmp_path / "a.csv", f"time,{column}", size, offset))
    assert record.leads == (lead,)
    values = record.millivolts(0, 2500)[:, 0]
    np.testing.assert_allclose(values - values.min(), _ecg(2500, 250) + 0.05, atol=0.002)
    expected = () if not offset else ("a constant offset was taken off: II (150 mV)",)
    assert record.notes == expected


@pytest.mark.parametrize(("size", "unit"), [(1000, "uV"), (1, "mV"), (0.001, "V")])
def test_without_a_unit_the_values_show_it_and_a_note_says_so(tmp_path: Path, size: float, unit: str) -> None:
    record = open_record(_named(tmp_path / "a.csv", "time,II,ECG (II)", size))
    assert record.leads == ("II", "ECG (II)")
    assert record.notes == (f"no unit in the header, taken as {unit} by the values: II, ECG (II)",)
    assert record.millivolts(0, 2500)[:, 0].max() == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(
    ("column", "size", "offset", "said", "hint"),
    [
        ("ECG (adc)", 200, 1024, "in adc by its header, and nothing says how many", "gain: 200/mV"),
        ("ECG", 200, 1024, "in ADC counts by its values", "ECG (200/mV)"),
        ("ECG", 40, 0, "has no unit, and its values swing by 42 within 2 s", "ECG (uV)"),
        ("ECG (mV)", 900, 0, "in mV by its header, but its values swing by 945", "to uV"),
    ],
)
def test_a_unit_that_nothing_shows_is_asked_for(
    tmp_path: Path, column: str, size: float, offset: float, said: str, hint: str
) -> None:
    path = _named(tmp_path / "a.csv", f"time,{column}", size, offset)
    path.write_text(
        re.sub(r",(\d+\.?\d*)", lambda m: f",{round(float(m[1]))}" if offset else m[0], path.read_text())
    )
    with pytest.raises(DataError) as refusal:
        open_record(path)
    assert said in refusal.value.what
    assert hint in str(refusal.value.hint)


def test_lines_before_the_header_may_say_rate_and_gain_and_are_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    ecg = _ecg(1000, 250) * 200 + 1024
    lines = [
        "Patient name;Erika Mustermann",
        "Birth: 1964-08-12",
        "Sampling rate: 250 Hz",
        "gain: 200 adu/mV",
    ]
    lines += ["baseline: 1024", "", "II [adu];HR [bpm]", *(f"{round(value)};72" for value in ecg)]
    path.write_text("\n".join(lines))
    record = open_record(path)
    assert (record.rate, record.leads) == (250.0, ("II",))
    assert record.millivolts(0, 1000).max() == pytest.approx(1, abs=0.01)
    assert "Mustermann" not in repr(record)
    rows = [f"{n / 250};{value:.4f};72" for n, value in enumerate(_ecg(1000, 250))]
    path.write_text("\n".join(["gain: 200 adu/mV", "time;II;HR", *rows]))
    physical = open_record(path)
    assert (physical.rate, physical.millivolts(0, 1000).max()) == (pytest.approx(250), 1)
    assert physical.notes[0] == "no unit in the header, taken as mV by the values: II"
    for above in (lines[:2], ["Erika Mustermann;1964"], ["Name=;Erika Mustermann"], ["Patient;Mustermann"]):
        path.write_text("\n".join([*above, *(f"{round(value)};72" for value in ecg)]))
        with pytest.raises(DataError) as refusal:
            open_record(path, rate=250)
        assert "Mustermann" not in str(refusal.value)
        assert "1964" not in str(refusal.value)


def test_columns_that_are_no_leads_are_left_out_and_named(tmp_path: Path) -> None:
    record = open_record(_named(tmp_path / "a.csv", "time,II (mV),HR,V1 [mV],SpO2,marker,quality"))
    assert record.leads == ("II", "V1")
    assert record.notes == ("left out, no ECG by their names: HR, SpO2, marker, quality",)


def test_columns_of_which_nothing_says_ecg_are_asked_for_and_read_when_they_are_chosen(
    tmp_path: Path,
) -> None:
    path = _named(tmp_path / "b.csv", "time,ch1,HR,ch2")
    with pytest.raises(DataError, match=r"no channel is an ECG: ch1 .no unit., HR") as refusal:
        open_record(path)
    assert "source.leads=[ch1]" in str(refusal.value.hint)
    record = open_record(path, leads=["ch2"])
    assert record.leads == ("ch2",)
    assert "left out, not chosen: ch1, HR" in record.notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_encoding_and_end_of_line_is_read(tmp_path: Path, encoding: str, newline: str) -> None:
    text = _named(tmp_path / "a.csv", "time,II (\u00b5V),Gr\u00f6\u00dfe", 1000).read_text("utf-8")
    other = tmp_path / "b.csv"
    other.write_bytes(text.replace("\n", newline).encode(encoding))
    record = open_record(other)
    assert (record.leads, record.samples) == (("II",), 2500)
    for start, stop in ((0, 2500), (1020, 1030), (2499, 2600)):
        expected = open_record(tmp_path / "a.csv").read(start, stop)
        np.testing.assert_array_equal(record.read(start, stop), expected)


def test_quoted_cells_labels_and_missing_samples_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [
        f'"{n / 250:.3f}","{value:.3f}","N, sinus"'.replace(".", ",")
        for n, value in enumerate(_ecg(500, 250))
    ]
    rows[100] = '"0,400","-","x"'
    path.write_text("\n".join(['"time","ECG (mV)","label"', *rows]))
    record = open_record(path)
    assert (record.rate, record.leads) == (250.0, ("ECG",))
    assert np.flatnonzero(np.isnan(record.millivolts(0, 500))).tolist() == [100]
    path.write_text("\n".join(["ECG (mV)", *(f"{value:.3f}".replace(".", ",") for value in _ecg(500, 250))]))
    assert open_record(path, rate=250).millivolts(0, 500).max() == 1


def test_columns_may_be_separated_by_spaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    rows = [f"{n / 250:8.3f} {value:9.3f}  {-value:9.3f}" for n, value in enumerate(_ecg(500, 250))]
    path.write_text("\n".join(["    time        II         V1", *rows]))
    record = open_record(path)
    assert (record.rate, record.leads) == (250.0, ("II", "V1"))
    np.testing.assert_allclose(record.millivolts(0, 500)[:, 1], -_ecg(500, 250), atol=0.001)


def test_pulse_waves_of_a_table_are_read_in_their_own_units(tmp_path: Path) -> None:
    n = np.arange(2500)
    wave = np.sin(2 * np.pi * n / 200)
    columns = np.stack([n / 250, wave, 80 + 40 * wave, 500_000 + 300 * wave], axis=1)
    header = "time,II (mV),ABP (mmHg),PPG"
    np.savetxt(tmp_path / "a.csv", columns, "%.4f", ",", header=header, comments="")
    record = open_record(tmp_path / "a.csv", pulse=True)
    assert (record.leads, record.kinds) == (("II", "ABP", "PPG"), ("ecg", "pressure", "pulse"))
    assert record.millivolts(0, 2500)[:, 1] == pytest.approx(80 + 40 * wave, abs=0.05)
    assert record.millivolts(0, 2500)[:, 2] == pytest.approx(300 * wave, abs=0.5)
    assert open_record(tmp_path / "a.csv").leads == ("II",)
