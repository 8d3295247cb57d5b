from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from genray.ecg.records.base import MISSING
from genray.ecg.records.open import open_record
from genray.errors import DataError

with warnings.catch_warnings(action="ignore"):  # it uses what pandas gives up
    import wfdb

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

RATE = 360


def _written(folder: Path, name: str = "rec", *, fmt: str = "16", units: str = "mV", **more: object) -> Path:
    """A record of two leads and 1000 samples, by the wfdb package where it writes the format."""
    if fmt in ("61", "160"):
        path = _written(folder, name, units=units, **more)
        stored = np.fromfile(path.with_suffix(".dat"), "<i2")
        other = stored.astype(">i2") if fmt == "61" else (stored.astype(np.int32) + 32768).astype("<u2")
        other.tofile(path.with_suffix(".dat"))
        header = path.with_suffix(".hea")
        header.write_text(header.read_text().replace(".dat 16 ", f".dat {fmt} "))
        return path
    rng = np.random.default_rng(0)
    options = {"sig_name": ["MLII", "V1"], "adc_gain": [20.0, 10.0], "baseline": [5, -7]} | more
    wfdb.wrsamp(
        name,
        fs=RATE,
        units=[units] * 2,
        d_signal=rng.integers(-100, 100, (1000, 2)),
        fmt=[fmt] * 2,
        write_dir=str(folder),
        **options,  # type: ignore[arg-type]
    )
    return folder / name


@pytest.mark.parametrize("fmt", ["16", "24", "32", "61", "80", "160", "212"])
def test_every_format_is_read_as_the_wfdb_package_reads_it(tmp_path: Path, fmt: str) -> None:
    path = _written(tmp_path, fmt=fmt)
    record = open_record(path)
    expected = wfdb.rdrecord(str(path)).p_signal
    assert (record.leads, record.rate, record.samples, record.name) == (("MLII", "V1"), 360.0, 1000, "rec")
    np.testing.assert_allclose(record.millivolts(0, 1000), expected, atol=0.6 / min(record.gains))
    np.testing.assert_array_equal(record.read(333, 471), record.read(0, 1000)[333:471])


def test_units_have_the_baseline_taken_off_and_keep_the_gain_of_the_file(tmp_path: Path) -> None:
    record = open_record(_written(tmp_path, fmt="212"))
    stored = np.random.default_rng(0).integers(-100, 100, (1000, 2))
    np.testing.assert_array_equal(record.read(0, 1000), stored - [5, -7])
    assert record.gains == (20.0, 10.0)


def test_an_odd_number_of_samples_of_twelve_bits_is_read_to_the_last(tmp_path: Path) -> None:
    stored = np.arange(-50, 51)[:, None]
    options = {"units": ["mV"], "sig_name": ["II"], "fmt": ["212"], "adc_gain": [200.0], "baseline": [0]}
    wfdb.wrsamp("odd", fs=RATE, d_signal=stored, write_dir=str(tmp_path), **options)
    np.testing.assert_array_equal(open_record(tmp_path / "odd").read(0, 200), stored)


def test_more_than_16_bits_hold_are_read_coarser_but_not_wrong(tmp_path: Path) -> None:
    signal = np.random.default_rng(1).normal(0, 30, (500, 1))
    options = {"units": ["mV"], "sig_name": ["II"], "fmt": ["32"], "adc_gain": [1e6], "baseline": [0]}
    wfdb.wrsamp("fine", fs=RATE, p_signal=signal, write_dir=str(tmp_path), **options)
    record = open_record(tmp_path / "fine")
    assert record.gains[0] == 200.0
    np.testing.assert_allclose(record.millivolts(0, 500), signal, atol=0.003)


def test_what_the_file_marks_as_missing_is_missing(tmp_path: Path) -> None:
    signal = np.zeros((100, 1))
    signal[40:50] = np.nan
    options = {"units": ["mV"], "sig_name": ["II"], "fmt": ["212"], "adc_gain": [200.0], "baseline": [0]}
    wfdb.wrsamp("holes", fs=RATE, p_signal=signal, write_dir=str(tmp_path), **options)
    record = open_record(tmp_path / "holes")
    np.testing.assert_array_equal(np.flatnonzero(record.read(0, 100) == MISSING), np.arange(40, 50))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(record.millivolts(0, 100))), np.arange(40, 50))


@pytest.mark.parametrize(("unit", "times"), [("uV", 1000), ("µV", 1000), ("V", 0.001)])
def test_gains_are_of_a_millivolt_whatever_the_unit(tmp_path: Path, unit: str, times: float) -> None:
    _written(tmp_path, fmt="80")
    header = tmp_path / "rec.hea"
    for encoding in ("utf-8", "latin-1"):
        header.write_bytes(header.read_text("latin-1").replace("/mV", f"/{unit}").encode(encoding))
        assert open_record(header).gains[1] == pytest.approx(10 * times)
        header.write_bytes(header.read_bytes().decode(encoding).replace(f"/{unit}", "/mV").encode())


def test_channels_that_are_no_ecg_are_left_out(tmp_path: Path) -> None:
    stored = np.arange(300).reshape(100, 3)
    options = {"units": ["mmHg", "mV", "mV"], "sig_name": ["ABP", "II", "RESP"], "fmt": ["16"] * 3}
    options |= {"adc_gain": [1.0, 100.0, 100.0], "baseline": [0, 0, 0]}
    wfdb.wrsamp("icu", fs=125, d_signal=stored, write_dir=str(tmp_path), **options)
    record = open_record(tmp_path / "icu")
    assert record.leads == ("II",)
    np.testing.assert_array_equal(record.read(10, 20)[:, 0], stored[10:20, 1])


def test_leads_with_several_samples_a_frame_are_read_at_their_own_rate(tmp_path: Path) -> None:
    stored = np.arange(50, dtype="<i2")
    (tmp_path / "fast.dat").write_bytes(stored.tobytes())
    lines = ["fast 2 100 10", "fast.dat 16x4 200/mV 16 0 0 0 0 II", "fast.dat 16 200/mV 16 0 0 0 0 V1"]
    (tmp_path / "fast.hea").write_text("\n".join(lines))
    record = open_record(tmp_path / "fast")
    assert (record.leads, record.rate, record.samples) == (("II",), 400.0, 40)
    np.testing.assert_array_equal(record.read(6, 11)[:, 0], stored.reshape(10, 5)[:, :4].ravel()[6:11])


def test_annotations_are_the_beats_alone_as_the_wfdb_package_writes_them(tmp_path: Path) -> None:
    path = _written(tmp_path)
    at, symbols = np.array([5, 80, 90, 400, 990]), ["N", "V", "+", "A", "|"]
    wfdb.wrann("rec", "atr", at, symbols, aux_note=["", "", "(VT", "", ""], write_dir=str(tmp_path))
    found = open_record(path).annotations()
    assert found is not None
    assert (found.peaks.tolist(), found.symbols) == ([5, 80, 400], ["N", "V", "A"])


def test_a_record_without_annotations_says_so_and_its_date_is_a_unix_time(tmp_path: Path) -> None:
    path = _written(tmp_path)
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("rec 2 360 1000", "rec 2 360 1000 01:00:00.5 02/01/1970", 1))
    record = open_record(path.with_suffix(".dat"))
    assert record.annotations() is None
    assert record.start == 86400 + 3600.5


def _broken(folder: Path, case: str) -> str:
    path = _written(folder)
    header, data = path.with_suffix(".hea"), path.with_suffix(".dat")
    text = header.read_text()
    match case:
        case "truncated":
            data.write_bytes(data.read_bytes()[:-3])
        case "no-dat":
            data.unlink()
        case "long":
            header.write_text(text.replace(" 1000", " 99999999999", 1))
        case "absolute":
            header.write_text(text.replace("rec.dat", "/etc/passwd"))
        case "above":
            header.write_text(text.replace("rec.dat", "../rec.dat"))
        case "url":
            header.write_text(text.replace("rec.dat", "http://localhost/rec.dat"))
        case "link":
            outside = folder.parent / "outside.dat"
            data.rename(outside)
            data.symlink_to(outside)
        case "pipe":
            data.unlink()
            os.mkfifo(data)
        case "zero-rate":
            header.write_text(text.replace(" 360 ", " 0 ", 1))
        case "many-leads":
            channel = text.splitlines()[1]
            header.write_text("\n".join(["rec 40 360 20", *[channel] * 40]))
        case "absurd-leads":
            header.write_text(text.replace("rec 2", "rec 99999999", 1))
        case "segments":
            header.write_text("rec/2 2 360 1000\na 500\nb 500\n")
        case "gain":
            header.write_text(text.replace("20.0(5)", "1e30(5)"))
        case "digits":
            header.write_text(text.replace("(5)", f"({'9' * 5000})"))
        case "noise":
            header.write_bytes(bytes(range(256)) * 40)
        case "empty":
            header.write_text("")
    return case


CASES = {
    "truncated": "says 1000 samples, and its .dat files hold 999",
    "no-dat": "missing",
    "long": "says 99999999999 samples",
    "absolute": "outside of its folder",
    "above": "outside of its folder",
    "url": "outside of its folder",
    "link": "link out of its folder",
    "pipe": "missing",
    "zero-rate": "0 samples a second",
    "many-leads": "40 leads",
    "absurd-leads": "99999999 channels",
    "segments": "segments",
    "gain": "units a millivolt",
    "digits": "digits",
    "noise": "not one of WFDB",
    "empty": "not one of WFDB",
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_record_is_refused_with_its_reason_its_file_and_a_next_step(
    tmp_path: Path, case: str
) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    _broken(folder, case)
    with pytest.raises(DataError, match=CASES[case]) as refusal:
        open_record(folder / "rec")
    assert refusal.value.hint
    assert "rec" in str(refusal.value.where)


def test_a_file_that_shrinks_while_it_is_read_is_a_data_error(tmp_path: Path) -> None:
    path = _written(tmp_path)
    record = open_record(path)
    os.truncate(path.with_suffix(".dat"), 100)
    with pytest.raises(DataError, match="ends early"):
        record.read(500, 600)


def test_annotations_that_are_noise_are_read_without_harm(tmp_path: Path) -> None:
    path = _written(tmp_path)
    for seed in range(50):
        path.with_suffix(".atr").write_bytes(np.random.default_rng(seed).bytes(seed * 7))
        found = open_record(path).annotations()
        assert found is not None
        assert all(0 <= peak < 1000 for peak in found.peaks)


def test_channels_of_a_header_of_wfdb_that_are_no_ecg_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(2000))
    lines = ["a 2 250 500", "a.dat 16 200/mmHg 16 0 0 0 0 ABP", "a.dat 16 200/NU 16 0 0 0 0 II"]
    (tmp_path / "a.hea").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"no channel is an ECG: ABP \(mmHg\), II \(NU\)"):
        open_record(tmp_path / "a")
