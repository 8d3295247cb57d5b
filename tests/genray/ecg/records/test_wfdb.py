from __future__ import annotations

import os
import pickle
import socket
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import wfdb

from genray.ecg.records.base import MISSING
from genray.ecg.records.open import open_record
from genray.errors import DataError

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


def _header(folder: Path, name: str, *lines: str) -> Path:
    path = folder / f"{name.partition('/')[0]}.hea"
    path.write_text("\n".join([f"{name} {lines[0]}", *lines[1:], ""]), "utf-8")
    return path


def _channel(
    file: str, code: str = "16", *, gain: str = "200(0)/mV", initial: int = 0, name: str = "II"
) -> str:
    return f"{file} {code} {gain} 0 0 {initial} 0 0 {name}"


def _packed(code: str, samples: np.ndarray) -> bytes:
    """Samples of 10 bits as format 310 or 311 stores them: three in four bytes."""
    whole = np.append(samples, np.zeros(-len(samples) % 3, np.int64)).astype(np.int64) & 0x3FF
    first, second, third = whole[0::3], whole[1::3], whole[2::3]
    if code == "311":
        return (first | second << 10 | third << 20).astype("<u4").tobytes()
    low = first << 1 | (third & 0x1F) << 11
    return (low | (second << 1 | third >> 5 << 11) << 16).astype("<u4").tobytes()


def _pieces(samples: int) -> list[tuple[int, int]]:
    return [(0, samples), (0, 1), (1, 3), (2, 7), (samples // 2, samples - 1), (samples - 1, samples + 9)]


@pytest.mark.parametrize("fmt", ["16", "24", "32", "61", "80", "160", "212", "508", "516", "524"])
def test_every_format_is_read_as_the_wfdb_package_reads_it(tmp_path: Path, fmt: str) -> None:
    path = _written(tmp_path, fmt=fmt)
    record = open_record(path)
    expected = wfdb.rdrecord(str(path)).p_signal
    if fmt.startswith("5"):
        assert path.with_suffix(".dat").read_bytes().startswith(b"fLaC")
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


@pytest.mark.parametrize("code", ["310", "311"])
@pytest.mark.parametrize("frames", [300, 301, 302])
def test_ten_bits_are_read_to_the_last_and_from_anywhere(tmp_path: Path, code: str, frames: int) -> None:
    stored = np.random.default_rng(2).integers(-511, 512, (frames, 2))
    (tmp_path / "ten.dat").write_bytes(_packed(code, stored.ravel()))
    lines = [_channel("ten.dat", code), _channel("ten.dat", code, name="V1")]
    record = open_record(_header(tmp_path, "ten", f"2 250 {frames}", *lines))
    np.testing.assert_array_equal(wfdb.rdrecord(str(tmp_path / "ten"), physical=False).d_signal, stored)
    for start, stop in _pieces(frames):
        np.testing.assert_array_equal(record.read(start, stop), stored[start:stop])


def test_differences_are_read_from_anywhere_as_from_the_beginning(tmp_path: Path) -> None:
    frames = (1 << 16) * 2 + 77
    steps = np.random.default_rng(3).integers(-9, 10, (frames, 3)).astype(np.int8)
    steps[0] = 0
    (tmp_path / "eight.dat").write_bytes(steps.tobytes())
    fast = np.cumsum(steps[:, :2].ravel().astype(np.int64)) + 40
    slow = np.cumsum(steps[:, 2].astype(np.int64)) - 7
    lines = [_channel("eight.dat", "8x2", initial=40), _channel("eight.dat", "8", initial=-7, name="V1")]
    record = open_record(_header(tmp_path, "eight", f"2 125 {frames}", *lines))
    assert (record.leads, record.rate, record.samples) == (("II", "V1"), 250.0, 2 * frames)
    for start, stop in (*_pieces(2 * frames), (1 << 17, (1 << 17) + 5), ((1 << 17) - 5, 1 << 17)):
        np.testing.assert_array_equal(record.read(start, stop)[:, 0], fast[start:stop])
    (tmp_path / "one.dat").write_bytes(steps[:, 2].tobytes())
    one = open_record(_header(tmp_path, "one", f"1 125 {frames}", _channel("one.dat", "8", initial=-7)))
    np.testing.assert_array_equal(one.read(frames - 100, frames)[:, 0], slow[-100:])


def test_skew_is_taken_out_of_every_channel_whatever_piece_is_read(tmp_path: Path) -> None:
    stored = np.arange(1, 401).reshape(100, 4)
    (tmp_path / "tape.dat").write_bytes(stored.astype("<i2").tobytes())
    codes = [("16", "I"), ("16:2", "II"), ("16:5", "III"), ("16:300", "V1")]
    lines = [_channel("tape.dat", code, name=name) for code, name in codes]
    record = open_record(_header(tmp_path, "tape", "4 250 100", *lines))
    expected = np.full((100, 4), MISSING)
    for lead, skew in enumerate((0, 2, 5)):
        expected[: 100 - skew, lead] = stored[skew:, lead]
    for start, stop in _pieces(100):
        np.testing.assert_array_equal(record.read(start, stop), expected[start:stop])


def test_flac_with_skew_an_offset_and_several_samples_a_frame(tmp_path: Path) -> None:
    stored = np.random.default_rng(4).integers(-900, 900, (120, 2))
    options = {"units": ["mV"] * 2, "sig_name": ["I", "II"], "adc_gain": [200.0] * 2, "baseline": [0] * 2}
    wfdb.wrsamp("lossless", fs=250, d_signal=stored, fmt=["516"] * 2, write_dir=str(tmp_path), **options)
    lines = [_channel("lossless.dat", "516x4+20", name="I"), _channel("lossless.dat", "516x4:1+20")]
    record = open_record(_header(tmp_path, "lossless", "2 100 25", *lines))
    assert (record.rate, record.samples) == (400.0, 100)
    expected = np.full((100, 2), MISSING)
    expected[:, 0], expected[:96, 1] = stored[20:, 0], stored[24:, 1]
    for start, stop in _pieces(100):
        np.testing.assert_array_equal(record.read(start, stop), expected[start:stop])


def _segment(folder: Path, name: str, stored: np.ndarray, *channels: str, rate: str = " 250") -> None:
    (folder / f"{name}.dat").write_bytes(stored.astype("<i2").tobytes())
    _header(
        folder,
        name,
        f"{stored.shape[1]}{rate} {len(stored)}",
        *(c.replace("@", f"{name}.dat") for c in channels),
    )


def test_segments_of_a_fixed_layout_are_one_line_of_time_in_the_same_units(tmp_path: Path) -> None:
    wave = np.round(1000 * np.sin(np.arange(500) / 9)) / 500  # mV
    _segment(tmp_path, "a", wave[:200, None] * 1000, _channel("@", gain="1000(0)/mV"))
    _segment(tmp_path, "b", wave[200:, None] * 500 + 3, _channel("@", gain="0.5(3)/uV"))
    options = {"units": ["mV"], "sig_name": ["II"], "adc_gain": [1000.0], "baseline": [0], "fmt": ["516"]}
    flac = (wave[:100, None] * 1000).astype(np.int64)
    wfdb.wrsamp("c", fs=250, d_signal=flac, write_dir=str(tmp_path), **options)
    record = open_record(_header(tmp_path, "whole/4", "1 250 650", "a 200", "b 300", "~ 50", "c 100"))
    assert (record.leads, record.rate, record.samples, record.notes) == (("II",), 250.0, 650, ())
    expected = np.concatenate([wave, np.full(50, np.nan), wave[:100]])
    for start, stop in (*_pieces(650), (190, 210), (499, 560)):
        found = record.millivolts(start, stop)[:, 0]
        np.testing.assert_allclose(found, expected[start:stop], atol=0.002)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(record)).read(100, 600), record.read(100, 600))  # noqa: S301


def test_segments_of_a_variable_layout_have_the_leads_that_they_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    one, two = rng.integers(-300, 300, (100, 3)), rng.integers(-300, 300, (80, 2))
    layout = [_channel("~", "0", name=n, gain="1/mV") for n in ("II", "V", "AVR")]
    _header(tmp_path, "layout", "4 125 0", *layout, _channel("~", "0", gain="1/mmHg", name="ABP"))
    abp = _channel("@", gain="1/mmHg", name="ABP")
    _segment(tmp_path, "x1", one, _channel("@", name="V"), abp, _channel("@"), rate=" 125")
    _segment(
        tmp_path, "x2", two, _channel("@", name="V"), _channel("@", gain="400(7)/mV", name="AVR"), rate=" 125"
    )
    lines = ["layout 0", "x1 100", "~ 40", "x2 80"]
    record = open_record(_header(tmp_path, "bed/4", "4 125 220 10:00:00 01/02/2003", *lines))
    assert (record.leads, record.samples) == (("II", "V", "AVR"), 220)
    assert record.start is not None
    expected = np.full((220, 3), np.nan)
    expected[:100, :2] = one[:, [2, 0]] / 200
    expected[140:, 1], expected[140:, 2] = two[:, 0] / 200, (two[:, 1] - 7) / 400
    found = record.millivolts(0, 220)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=0.003)


def test_beats_of_a_record_of_segments_count_from_its_beginning(tmp_path: Path) -> None:
    _segment(tmp_path, "a", np.zeros((200, 1)), _channel("@"))
    _header(tmp_path, "whole/2", "1 250 500", "~ 300", "a 200")
    wfdb.wrann("whole", "atr", np.array([310, 499, 600]), ["N", "V", "N"], write_dir=str(tmp_path))
    found = open_record(tmp_path / "whole").annotations()
    assert found is not None
    assert (found.peaks.tolist(), found.symbols) == ([310, 499], ["N", "V"])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["/etc/passwd 100"], "outside of its folder"),
        (["../seg 100"], "outside of its folder"),
        (["http://localhost/seg 100"], "outside of its folder"),
        (["gone 100"], "missing"),
        (["linked 100"], "link out of its folder"),
        (["whole 100"], "has segments itself"),
        (["slow 100"], "50 samples a second, and the record 250"),
        (["seg"], "segment 1 of its header"),
        (["~ 99999999999"], "it holds no samples|no channel is an ECG"),
        (["seg 100", "~ 99999999999"], "days"),
        ([], "names 1 segments and describes 0"),
    ],
)
def test_a_segment_that_cannot_be_is_refused(tmp_path: Path, lines: list[str], reason: str) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    for at in (tmp_path, folder):
        _segment(at, "seg", np.zeros((100, 1)), _channel("@"))
    _segment(folder, "slow", np.zeros((100, 1)), _channel("@"), rate=" 50")
    (folder / "linked.hea").symlink_to(tmp_path / "seg.hea")
    _whole(folder, lines)
    with pytest.raises(DataError, match=reason) as refusal:
        open_record(folder / "whole")
    assert refusal.value.hint
    assert "Error" not in refusal.value.what


def _whole(folder: Path, lines: Sequence[str]) -> None:
    head = f"whole/{max(1, len(lines))} 1 250 0"
    (folder / "whole.hea").write_text("\n".join([head, *lines, ""]))


def test_files_that_were_cut_off_give_what_is_there_and_say_so(tmp_path: Path) -> None:
    stored = np.arange(2000).reshape(1000, 2)
    (tmp_path / "a.dat").write_bytes(stored[:, 0].astype("<i2").tobytes())
    (tmp_path / "b.dat").write_bytes(stored[:600, 1].astype("<i2").tobytes() + b"x")
    header = _header(tmp_path, "rec", "2 250 1200", _channel("a.dat"), _channel("b.dat", name="V1"))
    record = open_record(header)
    assert record.samples == 1000
    assert record.notes == (
        "cut off: the header says 1200 samples, and a.dat holds 1000",
        "cut off: the header says 1200 samples, and b.dat holds 600",
    )
    expected = np.where(np.arange(1000)[:, None] < [1000, 600], stored, MISSING)
    np.testing.assert_array_equal(record.read(0, 1000), expected)
    _whole(tmp_path, ["rec 1200", "rec 100"])
    whole = open_record(tmp_path / "whole")
    np.testing.assert_array_equal(whole.read(1000, 1250), [[MISSING] * 2] * 200 + stored[:50].tolist())
    assert len(whole.notes) == 2


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([_channel("f.dat", "516")], "it has 2 channels, and its header says 1"),
        ([_channel("f.dat", "508")] * 2, "it is no FLAC of 8 bits"),
        ([_channel("f.dat", "516x2"), _channel("f.dat", "516")], "several rates to the channels of one FLAC"),
    ],
)
def test_flac_that_is_not_as_its_header_says_is_refused(
    tmp_path: Path, lines: list[str], reason: str
) -> None:
    _written(tmp_path, "f", fmt="516")
    with pytest.raises(DataError, match=reason):
        open_record(_header(tmp_path, "f", f"{len(lines)} 250 100", *lines))


def test_flac_that_was_cut_off_gives_what_can_be_decoded(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    stored = rng.integers(-30000, 30000, (40_000, 1))
    options = {"units": ["mV"], "sig_name": ["II"], "adc_gain": [1000.0], "baseline": [0], "fmt": ["516"]}
    wfdb.wrsamp("f", fs=250, d_signal=stored, write_dir=str(tmp_path), **options)
    data = tmp_path / "f.dat"
    os.truncate(data, data.stat().st_size // 2)
    record = open_record(tmp_path / "f")
    assert 10_000 < record.samples < 30_000
    assert "f.dat holds" in record.notes[0]
    np.testing.assert_array_equal(record.read(0, record.samples), stored[: record.samples])


def test_a_channel_whose_name_says_nothing_is_not_watched_beside_an_ecg(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(np.arange(1000, dtype="<i2").tobytes())
    lines = [_channel("a.dat", "16x4", name="X5"), _channel("a.dat", "16", name="ECG")]
    record = open_record(_header(tmp_path, "a", "2 100 200", *lines))
    assert (record.leads, record.rate) == (("ECG",), 100.0)
    assert record.notes == ("left out, not said to be an ECG by their names: X5",)
    np.testing.assert_array_equal(record.read(0, 200)[:, 0], np.arange(4, 1000, 5))
    chosen = open_record(tmp_path / "a", leads=["x5", "aVR"])
    assert (chosen.leads, chosen.rate) == (("X5",), 400.0)
    assert chosen.notes == ("not in the record: aVR", "left out, not chosen: ECG")


def test_a_signal_without_samples_takes_no_place_in_the_file_that_its_line_names(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(np.arange(1000, dtype="<i2").tobytes())
    lines = [_channel("a.dat"), _channel("a.dat", "0", name="V1"), _channel("a.dat", name="V2")]
    record = open_record(_header(tmp_path, "a", "3 250 500", *lines))
    assert record.leads == ("II", "V2")
    np.testing.assert_array_equal(record.read(0, 500), np.arange(1000).reshape(-1, 2))


def test_leads_of_several_rates_are_read_at_the_highest(tmp_path: Path) -> None:
    """A slow wave is the same at 100 and at 400 Hz, in every stretch."""
    fast = np.rint(1000 * np.sin(np.arange(4000) / 50)).astype("<i2").reshape(-1, 4)
    slow = fast[:, 0].copy()
    slow[500:510] = MISSING
    (tmp_path / "a.dat").write_bytes(np.column_stack([fast, slow]).astype("<i2").tobytes())
    lines = [_channel("a.dat", "16x4"), _channel("a.dat", "16", name="V1")]
    _header(tmp_path, "a", "2 100 1000", *lines)
    record = open_record(_header(tmp_path, "bed/3", "2 100 2100", "a 1000", "~ 100", "a 1000"))
    assert (record.leads, record.rate, record.samples) == (("II", "V1"), 400.0, 8400)
    assert record.notes == ("resampled to 400 Hz: V1 (100 Hz)",)
    whole = record.read(0, record.samples)
    gone = np.flatnonzero(whole[:4000, 1] == MISSING)
    assert gone.tolist() == list(range(1997, 2040))
    there = np.setdiff1d(np.arange(40, 3960), np.arange(1960, 2080))
    assert np.abs(whole[there, 1] - whole[there, 0]).max() <= 2
    assert (whole[4000:4400] == MISSING).all()
    np.testing.assert_array_equal(whole[4400:], whole[:4000])
    for start, stop in (*_pieces(8400), (3990, 4410), (1990, 2050)):
        np.testing.assert_array_equal(record.read(start, stop), whole[start:stop])


@pytest.mark.parametrize(
    "when", ["10:00:00 2006", "10:00:00 31.02.2006", "noon 01/01/2006", "1:2:3:4 --/--/--"]
)
def test_a_date_that_cannot_be_costs_the_date_and_not_the_samples(tmp_path: Path, when: str) -> None:
    (tmp_path / "a.dat").write_bytes(np.arange(500, dtype="<i2").tobytes())
    record = open_record(_header(tmp_path, "a", f"1 250 500 {when}", _channel("a.dat")))
    assert (record.start, record.samples) == (None, 500)
    assert record.notes[0].startswith("the time of its first sample is not known")
    assert "2006" not in record.notes[0]


def test_a_long_record_is_read_in_pieces_of_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "long.dat").open("wb") as file:
        file.truncate(3 * 4_000_000 // 2 * 2)  # 4.4 hours of two leads, with nothing on the disk
    lines = [_channel("long.dat", "212"), _channel("long.dat", "212", name="V1")]
    _segment(tmp_path, "short", np.zeros((100, 2)), _channel("@"), _channel("@", name="V1"))
    _header(tmp_path, "long", "2 250 4000000", *lines)
    record = open_record(_header(tmp_path, "bed/2", "2 250 4000100", "long 4000000", "short 100"))
    record.read(0, 10)  # the package is imported
    tracemalloc.start()
    try:
        for start in range(0, record.samples, 50_000):
            record.read(start, start + 50_000)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_nothing_is_ever_fetched_from_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "simplecache::http:" / "[a]*?"
    folder.mkdir(parents=True)
    for fmt in ("212", "516"):
        _written(folder, fmt, fmt=fmt)
    wfdb.wrann("516", "atr", np.array([5, 80]), ["N", "V"], write_dir=str(folder))

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in ("212", "516"):
        record = open_record(folder / name)
        assert record.read(0, 1000).shape == (1000, 2)
    assert record.annotations() is not None


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
    assert record.notes == ("left out, no ECG by their names: ABP, RESP",)
    np.testing.assert_array_equal(record.read(10, 20)[:, 0], stored[10:20, 1])


def test_leads_with_several_samples_a_frame_are_read_at_their_own_rate(tmp_path: Path) -> None:
    stored = np.arange(50, dtype="<i2")
    (tmp_path / "fast.dat").write_bytes(stored.tobytes())
    lines = ["fast 2 100 10", "fast.dat 16x4 200/mV 16 0 0 0 0 II", "fast.dat 16 200/mV 16 0 0 0 0 V1"]
    (tmp_path / "fast.hea").write_text("\n".join(lines))
    record = open_record(tmp_path / "fast")
    assert (record.leads, record.rate, record.samples) == (("II", "V1"), 400.0, 40)
    np.testing.assert_array_equal(record.read(6, 11)[:, 0], stored.reshape(10, 5)[:, :4].ravel()[6:11])


def test_annotations_are_the_beats_alone_as_the_wfdb_package_writes_them(tmp_path: Path) -> None:
    path = _written(tmp_path)
    at, symbols = np.array([5, 80, 90, 400, 990]), ["N", "V", "+", "A", "|"]
    wfdb.wrann("rec", "atr", at, symbols, aux_note=["", "", "(VT", "", ""], write_dir=str(tmp_path))
    found = open_record(path).annotations()
    assert found is not None
    assert (found.peaks.tolist(), found.symbols) == ([5, 80, 400], ["N", "V", "A"])


def test_annotations_may_count_by_a_rate_of_their_own(tmp_path: Path) -> None:
    path = _written(tmp_path)
    wfdb.wrann("rec", "atr", np.array([5, 80, 990]), ["N", "V", "N"], fs=RATE * 2, write_dir=str(tmp_path))
    found = open_record(path).annotations()
    assert found is not None
    assert found.peaks.tolist() == [2, 40, 495]


def test_annotations_that_were_cut_off_are_read_to_the_end_whatever_their_notes_say(tmp_path: Path) -> None:
    path = _written(tmp_path)
    at, notes = np.array([0, 5, 80, 900]), ["## of a kind that nobody knows", "", "", ""]
    wfdb.wrann("rec", "atr", at, ['"', "N", "V", "N"], aux_note=notes, write_dir=str(tmp_path))
    whole = path.with_suffix(".atr").read_bytes()
    found = open_record(path).annotations()
    assert found is not None
    assert found.peaks.tolist() == [5, 80, 900]
    for length in range(len(whole)):
        path.with_suffix(".atr").write_bytes(whole[:length])
        cut = open_record(path).annotations()
        assert cut is not None
        assert cut.peaks.tolist() in ([], [5], [5, 80], [5, 80, 900], [5, 80, 80])


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
            data.write_bytes(data.read_bytes()[:3])
        case "no-dat":
            data.unlink()
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
        case "format":
            header.write_text(text.replace(" 16 ", " 17 "))
        case "no-flac":
            header.write_text(text.replace(" 16 ", " 516 "))
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
    "truncated": "it holds no samples",
    "no-dat": "missing",
    "absolute": "outside of its folder",
    "above": "outside of its folder",
    "url": "outside of its folder",
    "link": "link out of its folder",
    "pipe": "missing",
    "zero-rate": "0 samples a second",
    "many-leads": "40 leads",
    "absurd-leads": "99999999 channels",
    "format": "its format 17 is not read",
    "no-flac": "its samples rec.dat cannot be read: it is damaged, or not of its format",
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


def test_pulse_waves_of_a_record_are_read_in_their_own_units(tmp_path: Path) -> None:
    stored = np.stack([np.arange(500), 1000 + np.arange(500), np.arange(500) - 900], axis=1).astype("<i2")
    stored.tofile(tmp_path / "a.dat")
    signals = [("20(1000)/mmHg", "ABP"), ("200(0)/mV", "II"), ("450(-400)/NU", "PLETH")]
    _header(tmp_path, "a", "3 250 500", *(_channel("a.dat", gain=gain, name=name) for gain, name in signals))
    record = open_record(tmp_path / "a", pulse=True)
    assert (record.leads, record.kinds) == (("II", "ABP", "PLETH"), ("ecg", "pressure", "pulse"))
    expected = np.stack(
        [(1000 + np.arange(500)) / 200, (np.arange(500) - 1000) / 20, stored[:, 2] / 450], axis=1
    )
    expected[:, 2] += 400 / 450
    np.testing.assert_allclose(record.millivolts(0, 500), expected, atol=0.03)
    assert open_record(tmp_path / "a").leads == ("II",)
