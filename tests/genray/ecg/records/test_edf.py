from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pyedflib
import pytest

from genray.ecg.records.base import MISSING
from genray.ecg.records.open import open_record
from genray.errors import DataError


def _edf(path: Path, channels: list[dict[str, object]], signals: list[np.ndarray], kind: int) -> None:
    writer = pyedflib.EdfWriter(str(path), len(channels), file_type=kind)
    writer.setSignalHeaders(channels)
    writer.writeSamples(signals)
    writer.close()


def _channel(label: str, unit: str, rate: float, bits: int = 16, most: float = 10.0) -> dict[str, object]:
    top = 2 ** (bits - 1)
    limits = {"physical_max": most, "physical_min": -most, "digital_max": top - 1, "digital_min": -top}
    return {
        "label": label,
        "dimension": unit,
        "sample_frequency": rate,
        "prefilter": "",
        "transducer": "",
    } | limits


@pytest.fixture
def waves() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (2560, 2))


@pytest.mark.parametrize("kind", [pyedflib.FILETYPE_EDF, pyedflib.FILETYPE_EDFPLUS])
def test_edf_gives_the_millivolts_that_went_in(tmp_path: Path, waves: np.ndarray, kind: int) -> None:
    channels = [
        _channel("ECG II", "mV", 256),
        _channel("V1", "uV", 256, most=9000),
        _channel("Resp", "mV", 256),
    ]
    signals = [waves[:, 0].copy(), waves[:, 1] * 1000, waves[:, 0].copy()]
    _edf(tmp_path / "a.edf", channels, signals, kind)
    record = open_record(tmp_path / "a.edf")
    assert (record.leads, record.rate, record.samples, record.name) == (("ECG II", "V1"), 256.0, 2560, "a")
    np.testing.assert_allclose(record.millivolts(0, 2560), waves, atol=0.001)
    np.testing.assert_array_equal(record.read(250, 777), record.read(0, 2560)[250:777])
    assert record.start is not None
    assert record.annotations() is None


@pytest.mark.parametrize("kind", [pyedflib.FILETYPE_BDF, pyedflib.FILETYPE_BDFPLUS])
def test_24_bits_are_read_to_5_microvolts(tmp_path: Path, waves: np.ndarray, kind: int) -> None:
    _edf(tmp_path / "a.bdf", [_channel("II", "uV", 256, 24, 262144)], [waves[:, 0] * 1000 + 40_000], kind)
    record = open_record(tmp_path / "a.bdf")
    assert record.gains == (200.0,)
    np.testing.assert_allclose(record.millivolts(0, 2560)[:, 0], waves[:, 0] + 40, atol=0.003)


def test_leads_of_all_rates_are_read_at_the_highest(tmp_path: Path) -> None:
    rates = {"ECG II": 200.0, "V1": 500.0, "ECG chest": 128.0}
    waves = {name: np.sin(2 * np.pi * 7 * np.arange(10 * rate) / rate) for name, rate in rates.items()}
    channels = [_channel(name, "mV", rate) for name, rate in rates.items()]
    channels += [_channel("ECG trend", "mV", 1), _channel("X1", "uV", 1000), _channel("SpO2", "%", 1)]
    signals = [*waves.values(), np.zeros(10), np.zeros(10_000), np.zeros(10)]
    _edf(tmp_path / "a.edf", channels, signals, pyedflib.FILETYPE_EDF)
    record = open_record(tmp_path / "a.edf")
    assert (record.leads, record.rate, record.samples) == (tuple(rates), 500.0, 5000)
    assert record.notes == (
        "resampled to 500 Hz: ECG II (200 Hz), ECG chest (128 Hz)",
        "left out, no ECG by their names: SpO2",
        "left out, not sampled at 50 to 4000 Hz: ECG trend (1 Hz)",
        "left out, not said to be an ECG by their names: X1",
    )
    whole = record.read(0, 5000)
    for lead in range(3):  # the ends have no samples beyond them
        np.testing.assert_allclose(whole[50:-50, lead] / record.gains[lead], waves["V1"][50:-50], atol=0.003)
    for start, stop in ((0, 1), (499, 1001), (1234, 4321), (4990, 6000)):
        np.testing.assert_array_equal(record.read(start, stop), whole[start:stop])


@pytest.mark.parametrize(
    ("at", "field", "reason"),
    [
        (0, b"1       ", "does not begin"),
        (192, b"EDF+D", "discontinuous .* no annotations that say its times"),
        (236, b"inf     ", "inf data records"),
        (236, b"many    ", "for a number"),
        (244, b"0       ", "0 samples a second"),
        (252, b"9999", "9999 channels"),
        (252, b"nan ", "nan channels"),
        (256 + 104, b"9.0     9.0     ", "no range"),
    ],
)
def test_a_broken_edf_file_is_refused(
    tmp_path: Path, waves: np.ndarray, at: int, field: bytes, reason: str
) -> None:
    path = tmp_path / "a.edf"
    _edf(path, [_channel("II", "mV", 256)], [waves[:, 0].copy()], pyedflib.FILETYPE_EDF)
    data = bytearray(path.read_bytes())
    data[at : at + len(field)] = field
    path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as refusal:
        open_record(path)
    assert refusal.value.hint
    assert refusal.value.where == str(path)


def test_a_file_that_was_cut_off_gives_what_is_there_and_says_so(tmp_path: Path, waves: np.ndarray) -> None:
    path = tmp_path / "a.edf"
    channels = [_channel("II", "mV", 256), _channel("V1", "mV", 256)]
    _edf(path, channels, [waves[:, 0].copy(), waves[:, 1].copy()], pyedflib.FILETYPE_EDF)
    whole = path.read_bytes()
    assert open_record(path).notes == ()
    expected = open_record(path).read(0, 2560)
    header, each = 256 * 3, 2 * 2 * 256
    for length in (0, 10, 256, 300, 511, 512, header):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            open_record(path)
    for lost in (1, 2, 511, 512, 513, 700, each, each + 1, 3 * each):
        path.write_bytes(whole[:-lost])
        record = open_record(path)
        held = (len(whole) - lost - header) // 2 * 2
        full, rest = divmod(held // 2, 512)
        assert record.samples == full * 256 + min(rest, 256)
        part = " and a part of one" if lost % each else ""
        assert record.notes == (f"cut off: its header says 10 data records, and it holds {full}{part}",)
        cut = expected[: record.samples].copy()
        cut[full * 256 + max(0, rest - 256) :, 1] = MISSING
        np.testing.assert_array_equal(record.read(0, 2560), cut)
        np.testing.assert_array_equal(record.read(200, 2300), cut[200:2300])


def test_a_file_that_is_still_written_is_read_as_far_as_it_is(tmp_path: Path, waves: np.ndarray) -> None:
    path = tmp_path / "a.edf"
    _edf(path, [_channel("II", "mV", 256)], [waves[:, 0].copy()], pyedflib.FILETYPE_EDF)
    data = bytearray(path.read_bytes())
    data[236:244] = b"-1      "
    path.write_bytes(data)
    record = open_record(path)
    assert record.samples == 2560
    assert "still being written" in record.notes[0]
    path.write_bytes(data[:-1000])
    with pytest.raises(DataError, match="ends early"):
        record.read(0, 2560)


def _discontinuous(
    path: Path, onsets: list[str], stored: np.ndarray, *, unit: bytes = b"mV", bits: int = 16
) -> Path:
    """Data records of 2 s that begin at `onsets`; `stored` (records, samples in each)."""
    kind = b"EDF+D" if bits == 16 else b"BDF+D"
    each = stored.shape[1]
    top = 2 ** (bits - 1)
    fields = [
        (16, b"ECG II", kind[:3] + b" Annotations"),
        (80, b"", b""),
        (8, unit, b""),
        (8, b"-10", b"-1"),
        (8, b"10", b"1"),
        (8, b"%d" % -top, b"%d" % -top),
        (8, b"%d" % (top - 1), b"%d" % (top - 1)),
        (80, b"", b""),
        (8, b"%d" % each, b"12"),
        (32, b"", b""),
    ]
    head = (b"0" if bits == 16 else b"\xffBIOSEMI").ljust(8) + b" " * 160 + b"01.02.2010.00.00"
    head += b"768".ljust(8) + kind.ljust(44) + b"%-8d" % len(onsets) + b"2".ljust(8) + b"2".ljust(4)
    head += b"".join(value.ljust(width) for width, *both in fields for value in both)
    body = b""
    for onset, samples in zip(onsets, stored, strict=True):
        width = bits // 8
        body += b"".join(int(n).to_bytes(width, "little", signed=True) for n in samples)
        body += (onset.encode() + b"\x14\x14\0").ljust(12 * width, b"\0")
    path.write_bytes(head + body)
    return path


@pytest.mark.parametrize("bits", [16, 24])
def test_a_discontinuous_file_is_one_line_of_time_with_gaps(tmp_path: Path, bits: int) -> None:
    stored = np.random.default_rng(1).integers(-3000, 3000, (4, 200)) << (bits - 16)
    onsets = ["+0.5", "+2.5", "+7.25", "+9.2500001"]
    record = open_record(_discontinuous(tmp_path / "a.edf", onsets, stored, bits=bits))
    whole = open_record(_discontinuous(tmp_path / "b.edf", ["+0", "+2", "+4", "+6"], stored, bits=bits))
    assert (record.rate, record.samples, whole.samples) == (100.0, 1075, 800)
    assert record.start == pytest.approx((whole.start or 0) + 0.5)
    pieces = whole.read(0, 800).reshape(4, 200, 1)
    assert (pieces != MISSING).all()
    gap = np.full((275, 1), MISSING)
    expected = np.concatenate([pieces[0], pieces[1], gap, pieces[2], pieces[3]])
    for start, stop in ((0, 1075), (399, 401), (450, 500), (600, 680), (1000, 2000), (0, 1)):
        np.testing.assert_array_equal(record.read(start, stop), expected[start:stop])
    os.truncate(record.path, record.path.stat().st_size - 5)
    cut = open_record(record.path)
    assert cut.samples == 875
    assert "cut off" in cut.notes[0]


@pytest.mark.parametrize(
    ("onsets", "reason"),
    [
        (["+0", "+1", "+4"], "data record 2 begins before the one before it ends"),
        (["+0", "-5", "+4"], "data record 2 begins before"),
        (["+0", "noon", "+4"], "data record 2 says no time"),
        (["+0", "+2", "+99999999"], r"would last 1157 days"),
    ],
)
def test_times_of_data_records_that_cannot_be_are_refused(
    tmp_path: Path, onsets: list[str], reason: str
) -> None:
    path = _discontinuous(tmp_path / "a.edf", onsets, np.zeros((3, 200), np.int64))
    with pytest.raises(DataError, match=reason) as refusal:
        open_record(path)
    assert refusal.value.hint


def test_a_discontinuous_file_of_too_many_data_records_is_refused_before_they_are_read(
    tmp_path: Path,
) -> None:
    path = _discontinuous(tmp_path / "a.edf", ["+0", "+2"], np.zeros((2, 200), np.int64))
    data = bytearray(path.read_bytes())
    data[236:244] = b"9000000 "
    path.write_bytes(data)
    os.truncate(path, 9_000_000 * 424 + 768)  # with nothing on the disk
    with pytest.raises(DataError, match="9000000 data records; 4000000 are read at most"):
        open_record(path)


def test_a_header_that_counts_too_few_data_records_is_told(tmp_path: Path, waves: np.ndarray) -> None:
    path = tmp_path / "a.edf"
    _edf(path, [_channel("II", "mV", 256)], [waves[:, 0].copy()], pyedflib.FILETYPE_EDF)
    data = path.read_bytes()
    for declared, samples, said in ((b"3", 768, "left out: its header says 3"), (b"0", 2560, "all are read")):
        path.write_bytes(data[:236] + declared.ljust(8) + data[244:])
        record = open_record(path)
        assert record.samples == samples
        assert said in record.notes[0]


def test_a_channel_without_a_scale_is_left_out_beside_others(tmp_path: Path, waves: np.ndarray) -> None:
    path = tmp_path / "a.edf"
    channels = [_channel("II", "mV", 256), _channel("V1", "mV", 256)]
    _edf(path, channels, [waves[:, 0].copy(), waves[:, 1].copy()], pyedflib.FILETYPE_EDF)
    data = bytearray(path.read_bytes())
    begin = 256 + 2 * (16 + 80 + 8)
    data[begin : begin + 8] = b"nan     "
    path.write_bytes(data)
    record = open_record(path)
    assert record.leads == ("V1",)
    assert record.notes == ("left out: the limits of its channel 'II' are no range",)


@pytest.mark.parametrize("unit", ["µV".encode(), "µV".encode("latin-1"), "\u03bcV".encode(), b"uV"])
def test_microvolts_are_known_in_every_encoding(tmp_path: Path, unit: bytes) -> None:
    path = _discontinuous(tmp_path / "a.edf", ["+0"], np.full((1, 200), 16384), unit=unit)
    assert open_record(path).millivolts(0, 200).mean() == pytest.approx(0.005, rel=0.01)


def test_eeg_of_a_higher_rate_is_not_watched_for_the_ecg(tmp_path: Path, waves: np.ndarray) -> None:
    channels = [_channel("C3-M2", "uV", 512, most=500), _channel("X1", "mV", 512), _channel("ECG", "mV", 256)]
    signals = [np.zeros(5120), np.zeros(5120), waves[:, 0].copy()]
    _edf(tmp_path / "a.edf", channels, signals, pyedflib.FILETYPE_EDF)
    record = open_record(tmp_path / "a.edf")
    assert (record.leads, record.rate) == (("ECG",), 256.0)
    assert record.notes == (
        "left out, no ECG by their names: C3-M2",
        "left out, not said to be an ECG by their names: X1",
    )


@pytest.mark.parametrize(
    ("label", "unit", "said", "hint"),
    [
        ("Resp", "uV", r"no channel is an ECG: Resp \(uV\)$", "in V, mV or uV"),
        ("ECG II", "", r"no channel is an ECG: ECG II \(no unit\)$", "if ECG II is an ECG, write its unit"),
        ("ECG II", "mmHg", r"no channel is an ECG: ECG II \(mmHg\)$", "in V, mV or uV"),
    ],
)
def test_a_file_without_an_ecg_says_which_channels_it_has(
    tmp_path: Path, waves: np.ndarray, label: str, unit: str, said: str, hint: str
) -> None:
    path = tmp_path / "a.edf"
    _edf(path, [_channel(label, unit, 250)], [waves[:2500, 0].copy()], pyedflib.FILETYPE_EDFPLUS)
    with pytest.raises(DataError) as refusal:
        open_record(path)
    assert re.search(said, refusal.value.what)
    assert refusal.value.hint is not None
    assert hint in refusal.value.hint


def test_pulse_waves_of_an_edf_file_are_read_in_their_own_units_at_the_rate_of_the_ecg(
    tmp_path: Path,
) -> None:
    waves = {rate: np.sin(2 * np.pi * 1.2 * np.arange(10 * rate) / rate) for rate in (250, 125)}
    channels = [
        _channel("ABP", "mmHg", 250, most=300),
        _channel("II", "mV", 250),
        _channel("Pleth", "", 125, most=2),
    ]
    _edf(tmp_path / "a.edf", channels, [80 + 40 * waves[250], waves[250], waves[125]], pyedflib.FILETYPE_EDF)
    record = open_record(tmp_path / "a.edf", pulse=True)
    assert (record.leads, record.kinds) == (("II", "ABP", "Pleth"), ("ecg", "pressure", "pulse"))
    assert record.ecg_columns == [0]
    found = record.millivolts(500, 2000)
    np.testing.assert_allclose(found[:, 1], 80 + 40 * waves[250][500:2000], atol=0.02)
    np.testing.assert_allclose(found[:, 2], waves[250][500:2000], atol=0.01)
    assert open_record(tmp_path / "a.edf").leads == ("II",)
