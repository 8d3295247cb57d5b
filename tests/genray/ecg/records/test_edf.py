from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyedflib
import pytest

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


def test_leads_of_the_highest_rate_are_taken(tmp_path: Path, waves: np.ndarray) -> None:
    channels = [_channel("slow", "mV", 64), _channel("II", "mV", 256)]
    _edf(tmp_path / "a.edf", channels, [waves[:640, 0].copy(), waves[:, 1].copy()], pyedflib.FILETYPE_EDF)
    record = open_record(tmp_path / "a.edf")
    assert record.leads == ("II",)
    np.testing.assert_allclose(record.millivolts(0, 2560)[:, 0], waves[:, 1], atol=0.001)


@pytest.mark.parametrize(
    ("at", "field", "reason"),
    [
        (0, b"1       ", "does not begin"),
        (192, b"EDF+D", "discontinuous"),
        (236, b"99999999", "99999999 data records"),
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


def test_no_cut_of_an_edf_file_is_anything_but_a_data_error(tmp_path: Path, waves: np.ndarray) -> None:
    path = tmp_path / "a.edf"
    _edf(path, [_channel("II", "mV", 256)], [waves[:, 0].copy()], pyedflib.FILETYPE_EDF)
    whole = path.read_bytes()
    for length in (0, 10, 256, 300, 511, 512, 1000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            open_record(path)


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
