"""Exports of published formats; their sources are named in `csv_exports.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genray.ecg.records.open import open_record
from genray.errors import DataError

NAME, BORN = "Erika Mustermann", "12.08.1964"


def _beats(samples: int, rate: float) -> np.ndarray:
    """A wave of 1 mV with a peak in each second."""
    phase = np.arange(samples) / rate % 1
    return np.where(np.abs(phase - 0.5) < 0.03, 1.0, 0.05 * np.sin(2 * np.pi * phase))


def _apple(path: Path, language: str, *, quoted: bool = False) -> Path:
    values = [f"{value * 1000:.3f}".rstrip("0").rstrip(".") for value in _beats(3072, 512)]
    if language == "de":
        head = ["Name," + NAME, f'Geburtsdatum,"{BORN}"', "Aufzeichnungsdatum,2024-03-15 10:12:33 +0100"]
        head += [
            "Klassifizierung,Sinusrhythmus",
            "Symptome,Ohne",
            'Gerät,"Watch6,7"',
            "Messrate,511,562\u00a0Hertz",
        ]
        head += ["", "", "Ableitung,Ableitung I", "Einheit,µV", ""]
        values = [value.replace(".", ",") for value in values]
    else:
        head = ["Name," + NAME, f'Date of Birth,"{BORN}"', "Recorded Date,2024-03-15 10:12:33 +0100"]
        head += ["Classification,Sinus Rhythm", "Symptoms,", "Software Version,1.90", 'Device,"Watch5,4"']
        head += ["Sample Rate,512 hertz", "", "", "Lead,Lead I", "Unit,µV", "", ""]
    rows = [f'"{value}"' for value in values] if quoted else values
    path.write_text("\n".join([*head, *rows, ""]), "utf-8")
    return path


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(
    ("language", "lead", "rate"), [("en", "Lead I", 512.0), ("de", "Ableitung I", 511.562)]
)
def test_the_csv_of_an_apple_watch_is_read_in_its_language_and_keeps_no_name(
    tmp_path: Path, language: str, lead: str, rate: float, quoted: bool
) -> None:
    record = open_record(_apple(tmp_path / "ecg_2024-03-15.csv", language, quoted=quoted))
    assert (record.leads, record.rate, record.samples) == ((lead,), rate, 3072)
    assert record.start == pytest.approx(1710493953)
    np.testing.assert_allclose(record.millivolts(0, 3072)[:, 0], _beats(3072, 512), atol=0.001)
    assert NAME not in repr(record)
    assert BORN not in repr(record)


def test_an_error_of_such_a_file_does_not_show_the_name(tmp_path: Path) -> None:
    path = _apple(tmp_path / "a.csv", "en")
    text = path.read_text("utf-8")
    for broken in (text.replace("µV", "kg"), text.replace("512 hertz", "fast"), text[: text.index("Unit")]):
        path.write_text(broken, "utf-8")
        with pytest.raises(DataError) as refusal:
            open_record(path)
        assert NAME not in str(refusal.value)
        assert BORN not in str(refusal.value)


def _open_signals(path: Path, device: str, bits: int, sensor: str, values: np.ndarray) -> Path:
    about = {"sensor": ["EDA", sensor], "device": device, "resolution": [bits, bits], "sampling rate": 1000}
    about |= {"column": ["nSeq", "DI", "CH1", "CH2"], "date": "2024-3-15", "time": "10:12:33.500"}
    lines = ["# OpenSignals Text File Format. Version 1", "# " + json.dumps({"00:07:80:00:00:00": about})]
    lines += ["# EndOfHeader", *(f"{n % 16}\t0\t300\t{value}\t" for n, value in enumerate(values))]
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.mark.parametrize(
    ("device", "bits", "volts", "gain"), [("biosignalsplux", 16, 3.0, 1000), ("bitalino_rev", 10, 3.3, 1100)]
)
def test_counts_of_opensignals_become_millivolts(
    tmp_path: Path, device: str, bits: int, volts: float, gain: float
) -> None:
    ecg = _beats(5000, 1000)
    counts = np.rint((ecg / 1000 * gain / volts + 0.5) * 2**bits).astype(int)
    record = open_record(_open_signals(tmp_path / "opensignals.txt", device, bits, "ECG", counts))
    assert (record.leads, record.rate, record.samples) == (("ECG CH2",), 1000.0, 5000)
    assert record.start == pytest.approx(1710497553.5)
    np.testing.assert_allclose(
        record.millivolts(0, 5000)[:, 0], ecg, atol=0.0006 + volts / gain * 1000 / 2**bits
    )
    assert record.notes[0].startswith("ADC counts were converted to mV")
    assert "EDA CH1" in record.notes[1]


def test_millivolts_of_opensignals_are_kept_and_other_sensors_asked_for(tmp_path: Path) -> None:
    ecg = _beats(5000, 1000).round(6)
    record = open_record(_open_signals(tmp_path / "a.txt", "biosignalsplux", 16, "ECG", ecg))
    np.testing.assert_allclose(record.millivolts(0, 5000)[:, 0], ecg, atol=0.001)
    path = _open_signals(tmp_path / "b.txt", "biosignalsplux", 16, "CUSTOM", np.full(5000, 32768))
    with pytest.raises(DataError, match="no channel is an ECG") as refusal:
        open_record(path)
    assert "source.leads=[CH2]" in str(refusal.value.hint)
    path.write_text(path.read_text().replace('"sampling rate"', '"rate"'))
    with pytest.raises(DataError, match="its OpenSignals header is damaged"):
        open_record(path)


def test_polar_counts_time_by_the_sensor_and_microvolts(tmp_path: Path) -> None:
    rows = ["Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV] "]
    for n, value in enumerate(_beats(3900, 130)):
        packet = n // 73 * 73 / 130
        stamp = 763812753_000000000 + round(n / 130 * 1e9)
        rows.append(
            f"2024-03-15T10:12:{33 + packet % 20:06.3f};{stamp};{n / 130 * 1000:.4f};{round(value * 1000)}"
        )
    path = tmp_path / "Polar_H10_ECG.txt"
    path.write_text("\n".join(rows))
    record = open_record(path)
    assert (record.leads, record.rate, record.samples) == (("ecg",), pytest.approx(130), 3900)
    assert record.start == pytest.approx(763812753 + 946684800)
    np.testing.assert_allclose(record.millivolts(0, 3900)[:, 0], _beats(3900, 130), atol=0.001)
    cells = [row.split(";") for row in rows]
    path.write_text("\n".join(";".join([c[0], "0" if n else c[1], *c[2:]]) for n, c in enumerate(cells)))
    other = open_record(path)
    assert (other.rate, other.samples) == (pytest.approx(130), 3900)


RDSAMP = {
    "csv": ("'Elapsed time','MLII','V5'", "'hh:mm:ss.mmm','mV','mV'", "'{clock}',{a:.3f},{b}"),
    "seconds": ("'Elapsed time','MLII','V5'", "'seconds','mV','mV'", "{t:.3f},{a:.3f},{b}"),
    "date": (
        "'Time and date','MLII','V5'",
        "'hh:mm:ss.mmm dd/mm/yyyy','mV','mV'",
        "'[10:0{clock} 15/03/2024]',{a:.3f},{b}",
    ),
    "interval": ("'sample interval','MLII','V5'", "'0.00277778 sec','mV','mV'", "{n},{a:.3f},{b}"),
    "text": (
        "   Elapsed time\t   MLII\t     V5",
        "      (seconds)\t   (mV)\t   (mV)",
        "{t:15.3f}\t{a:7.3f}\t{b:>7}",
    ),
}


@pytest.mark.parametrize("kind", RDSAMP)
def test_what_rdsamp_writes_is_read(tmp_path: Path, kind: str) -> None:
    names, units, row = RDSAMP[kind]
    ecg = _beats(1800, 360)
    rows = []
    for n, a in enumerate(ecg):
        t = n / 360
        rows.append(row.format(n=n, t=t, a=a, b="-" if 100 <= n < 110 else f"{-a:.3f}", clock=f"0:{t:06.3f}"))
    path = tmp_path / ("samples.csv" if kind != "text" else "samples.txt")
    path.write_text("\n".join([names, units, *rows, ""]))
    record = open_record(path)
    assert (record.leads, record.rate, record.samples) == (("MLII", "V5"), pytest.approx(360, rel=1e-5), 1800)
    assert record.start == (pytest.approx(1710496800) if kind == "date" else None)
    values = record.millivolts(0, 1800)
    np.testing.assert_allclose(values[:, 0], ecg, atol=0.001)
    assert np.flatnonzero(np.isnan(values[:, 1])).tolist() == list(range(100, 110))


def test_counts_of_rdsamp_are_refused_with_the_option_that_writes_millivolts(tmp_path: Path) -> None:
    rows = [f"{n},{round(value * 200) + 1024}" for n, value in enumerate(_beats(1800, 360))]
    (tmp_path / "samples.csv").write_text("\n".join(["'sample #','MLII'", *rows]))
    with pytest.raises(DataError, match="ADC counts by its values") as refusal:
        open_record(tmp_path / "samples.csv", rate=360)
    assert "rdsamp of the WFDB software writes millivolts with -p" in str(refusal.value.hint)
