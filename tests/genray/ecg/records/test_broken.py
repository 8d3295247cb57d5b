"""Records that are damaged at random are read, or refused with a reason and a next step."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from genray.ecg.records.base import MAX_LEADS
from genray.ecg.records.channels import RATES
from genray.ecg.records.open import open_record
from genray.errors import DataError

NUMBERS = [b"nan", b"inf", b"-1", b"0", b"1e308", b"1e-320", b"9" * 20, b"", b"\xff", "\u0663".encode()]
PATIENT = b"Mustermann"
TIMES = 60


def _edf() -> bytes:
    fields = [
        (16, b"ECG", b"C3-M2"), (80, b"", b""), (8, b"mV", b"uV"), (8, b"-5", b"-500"), (8, b"5", b"500"),
        (8, b"-32768", b"-32768"), (8, b"32767", b"32767"), (80, b"", b""), (8, b"100", b"200"),
        (32, b"", b""),
    ]  # fmt: skip
    head = b"0".ljust(8) + b"X X 12-AUG-1964 " + PATIENT.ljust(64) + b" " * 80 + b"01.02.2010.00.00"
    head += b"768".ljust(8) + b" " * 44 + b"4".ljust(8) + b"1".ljust(8) + b"2".ljust(4)
    head += b"".join(value.ljust(width) for width, *both in fields for value in both)
    return head + bytes(4 * 2 * 300)


def _csv() -> bytes:
    rows = [f"{n / 250:.3f};{np.sin(n / 20):.3f};{n % 7}".replace(".", ",") for n in range(400)]
    return "\n".join([f"Name;{PATIENT.decode()}", "gain;200 adu/mV", "time;II [adu];HR", *rows]).encode()


def _dicom() -> bytes:
    dataset, group, channel, source, unit = (Dataset() for _ in range(5))
    dataset.PatientName, dataset.SOPClassUID = PATIENT.decode(), "1.2.840.10008.5.1.4.1.1.9.1.1"
    dataset.SOPInstanceUID = "1.2.3"
    source.CodeMeaning, unit.CodeValue = "Lead II", "uV"
    channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
    channel.ChannelSensitivity = "2.5"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.SamplingFrequency = 1, 500, "250"
    group.ChannelDefinitionSequence, group.WaveformSampleInterpretation = [channel], "SS"
    group.WaveformBitsAllocated = 16
    group.add_new("WaveformData", "OW", np.arange(500, dtype="<i2").tobytes())
    dataset.WaveformSequence = [group]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return bytes(buffer.getvalue())


def _wfdb() -> bytes:
    lines = ["a 2 250/100 500 10:00:00 01/02/2010", "a.dat 212x2:1+0 200(0)/mV 12 0 0 0 0 II"]
    return "\n".join([*lines, "~ 0 200/mV 12 0 0 0 0 V", ""]).encode()


FORMATS: dict[str, Callable[[], bytes]] = {"a.edf": _edf, "a.csv": _csv, "a.dcm": _dicom, "a.hea": _wfdb}


def _damaged(data: bytes, rng: random.Random) -> bytes:
    near = rng.choice([64, 300, 800, len(data)])
    places = [found.span() for found in re.finditer(rb"-?\d+(\.\d+)?", data[:near])]
    at = rng.randrange(min(near, len(data)))
    match rng.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + 4 :]
        case 2:
            return data[:at] + data[at + rng.randrange(1, 40) :]
        case _ if places:
            begin, end = rng.choice(places)
            number = rng.choice(NUMBERS)
            kept = number[: end - begin].ljust(end - begin) if rng.random() < 0.5 else number
            return data[:begin] + kept + data[end:]
    return data


@pytest.mark.parametrize("name", FORMATS)
def test_damage_costs_a_record_and_nothing_else(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    whole = FORMATS[name]()
    path = tmp_path / name
    (tmp_path / "a.dat").write_bytes(bytes(1500))
    path.write_bytes(whole)
    assert open_record(path).samples
    for _ in range(TIMES):
        path.write_bytes(_damaged(whole, rng))
        try:
            record = open_record(path)
            for start in (0, record.samples // 2, record.samples - 20):
                part = record.read(start, start + 100)
                assert part.shape == (min(record.samples, start + 100) - max(start, 0), len(record.leads))
            assert RATES[0] <= record.rate <= RATES[1]
            assert len(record.leads) <= MAX_LEADS
            assert PATIENT.decode() not in repr(record)
        except DataError as refusal:
            assert refusal.hint
            assert PATIENT.decode() not in str(refusal)
