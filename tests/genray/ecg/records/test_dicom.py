from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from genray.ecg.records.open import find_records, open_record
from genray.errors import DataError

NAME, BORN = "Mustermann^Erika", "19640812"


def _wave(samples: int, rate: float) -> np.ndarray:
    return np.sin(2 * np.pi * 3 * np.arange(samples) / rate)


def _channel(meaning: str, unit: str = "uV", sensitivity: float = 2.5, baseline: float = 0.0) -> Dataset:
    channel, source, units = Dataset(), Dataset(), Dataset()
    source.CodeMeaning = meaning
    units.CodeValue = unit
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = sensitivity
    channel.ChannelSensitivityUnitsSequence = [units]
    channel.ChannelSensitivityCorrectionFactor = 1
    channel.ChannelBaseline = baseline
    return channel


def _group(
    channels: list[Dataset], millivolts: np.ndarray, rate: float, *, begin: float = 0.0, kind: str = "SS"
) -> Dataset:
    """A group whose channels all have the same samples."""
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.MultiplexGroupLabel = "RHYTHM"
    group.MultiplexGroupTimeOffset = begin * 1000
    group.NumberOfWaveformChannels = len(channels)
    group.NumberOfWaveformSamples = len(millivolts)
    group.SamplingFrequency = rate
    group.ChannelDefinitionSequence = channels
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = kind
    sizes = [float(c.ChannelSensitivity) / 1000 for c in channels]
    stored = [
        np.rint((millivolts - float(c.ChannelBaseline) / 1000) / s)
        for c, s in zip(channels, sizes, strict=True)
    ]
    group.add_new(
        "WaveformData", "OW", np.stack(stored, axis=1).astype("<i2" if kind == "SS" else "<u2").tobytes()
    )
    return group


def _dicom(path: Path, *groups: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientBirthDate, dataset.PatientID = NAME, BORN, "4711"
    dataset.AcquisitionDateTime = "20240315101233.500+0100"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.WaveformSequence = list(groups)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_leads_of_a_waveform_are_read_in_millivolts_and_nothing_of_the_patient(
    tmp_path: Path, syntax: str
) -> None:
    channels = [_channel("Lead I (Einthoven)"), _channel("Lead V1", "mV", 0.0025), _channel("Resp", "Ohm")]
    channels[1].ChannelSensitivity = "0.0025"
    group = _group([channels[0], channels[2]], _wave(5000, 500), 500)
    other = _group([_channel("Lead V1", baseline=100)], _wave(5000, 500), 500)
    record = open_record(_dicom(tmp_path / "a.dcm", group, other, syntax=syntax))
    assert (record.leads, record.rate, record.samples) == (("I", "V1"), 500.0, 5000)
    assert record.start == pytest.approx(1710493953.5)
    assert record.notes == ("left out, no ECG by their names: Resp",)
    for start, stop in ((0, 5000), (123, 456), (4990, 6000)):
        expected = np.stack([_wave(5000, 500)[start:stop]] * 2, axis=1)
        np.testing.assert_allclose(record.millivolts(start, stop), expected, atol=0.003)
    again = pickle.loads(pickle.dumps(record))  # noqa: S301
    np.testing.assert_array_equal(again.read(0, 100), record.read(0, 100))
    for text in (NAME, "Mustermann", BORN, "4711"):
        assert text not in repr(record)
        assert text.encode() not in pickle.dumps(record)
    (tmp_path / "a.dcm").rename(tmp_path / "IM0001")
    assert open_record(tmp_path / "IM0001").leads == ("I", "V1")


def test_groups_at_rates_and_times_of_their_own_are_one_line_of_time(tmp_path: Path) -> None:
    first = _group([_channel("Lead I"), _channel("Lead II")], _wave(1250, 500), 500)
    second = _group([_channel("Lead I")], _wave(1250, 500), 500, begin=2.5)
    slow = _group([_channel("Lead V1")], _wave(625, 125), 125, kind="SS")
    twice = _group([_channel("Lead II")], _wave(100, 500), 500, begin=1)
    median = _group([_channel("Lead I")], _wave(600, 500), 500)
    median.WaveformOriginality, median.MultiplexGroupLabel = "DERIVED", "MEDIAN BEAT"
    record = open_record(_dicom(tmp_path / "a.dcm", first, second, slow, twice, median))
    assert (record.leads, record.samples) == (("I", "II", "V1"), 2500)
    assert record.notes == (
        "left out, derived and not recorded: MEDIAN BEAT",
        "left out, as a lead of this name has samples at the same time: II",
        "resampled to 500 Hz: V1 (125 Hz)",
    )
    values = record.millivolts(0, 2500)
    np.testing.assert_allclose(values[:, 0], np.tile(_wave(1250, 500), 2), atol=0.003)
    assert np.isnan(values[1250:, 1]).all()
    np.testing.assert_allclose(values[40:-40, 2], _wave(2500, 500)[40:-40], atol=0.004)
    np.testing.assert_array_equal(record.read(1200, 1300), record.read(0, 2500)[1200:1300])


def test_padding_is_missing_and_a_waveform_that_was_cut_off_says_so(tmp_path: Path) -> None:
    group = _group([_channel("Lead II")], _wave(1000, 250), 250)
    stored = np.frombuffer(group.WaveformData, "<i2").copy()
    stored[100:110] = -9999
    group.add_new("WaveformData", "OW", stored[:900].tobytes())
    group.add_new("WaveformPaddingValue", "OW", np.int16(-9999).tobytes())
    record = open_record(_dicom(tmp_path / "a.dcm", group))
    assert record.notes == ("cut off: it says 1000 samples, and holds 900",)
    assert np.flatnonzero(np.isnan(record.millivolts(0, 1000))).tolist() == list(range(100, 110))


BROKEN = {
    "no waveform": "holds no waveforms",
    "only derived": "are derived",
    "mu-law": "stored as 'MB'",
    "channels": "names 9 channels and describes 1",
    "rate": "1000 samples at 0 Hz",
    "nan": "SamplingFrequency is no number",
    "huge": "holds 1000",
    "sensitivity": "has the sensitivity 0",
    "no data": "holds no samples",
    "unit": "no channel is an ECG: II .mm.Hg.",
    "deflated": "its samples are compressed",
    "offset": "from -5 s on",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_waveform_is_refused_with_its_reason_and_a_tool(tmp_path: Path, case: str) -> None:
    group = _group([_channel("Lead II", "mm[Hg]" if case == "unit" else "uV")], _wave(1000, 250), 250)
    match case:
        case "only derived":
            group.WaveformOriginality = "DERIVED"
        case "mu-law":
            group.WaveformSampleInterpretation = "MB"
        case "channels":
            group.NumberOfWaveformChannels = 9
        case "rate":
            group.SamplingFrequency = 0
        case "nan":
            group.SamplingFrequency = "1000000"  # replaced below: the package writes no such text
        case "huge":
            group.NumberOfWaveformSamples = 2**32 - 1
        case "sensitivity":
            group.ChannelDefinitionSequence[0].ChannelSensitivity = 0
        case "no data":
            del group.WaveformData
        case "offset":
            group.MultiplexGroupTimeOffset = -5000
    groups = [] if case == "no waveform" else [group]
    syntax = DeflatedExplicitVRLittleEndian if case == "deflated" else ExplicitVRLittleEndian
    path = _dicom(tmp_path / "a.dcm", *groups, syntax=syntax)
    if case == "nan":
        path.write_bytes(path.read_bytes().replace(b"1000000", b"fast   "))
    if case == "huge":
        assert BROKEN[case] in open_record(path).notes[0]
        return
    with pytest.raises(DataError, match=BROKEN[case]) as refusal:
        open_record(path)
    assert refusal.value.where == str(path)
    assert refusal.value.hint
    assert "Mustermann" not in str(refusal.value)


def test_other_files_and_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(DataError, match="it is no DICOM file"):
        open_record(path)
    assert find_records(tmp_path) == [path]
    assert pydicom.__version__
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match="pydicom is missing") as refusal:
        open_record(path)
    assert refusal.value.hint == "pip install 'genray[dicom]'"
