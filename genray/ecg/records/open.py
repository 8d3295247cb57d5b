"""Opens a recording by what its file begins with and by its suffix, and finds recordings in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from genray.ecg.records.base import EcgRecord, reason_of, tool_hint
from genray.ecg.records.wfdb_header import segment_names
from genray.errors import DataError

_EDF_BEGINS = (b"0       ", b"\xffBIOSEMI")
_DICOM_MARK = slice(128, 132), b"DICM"
_SUFFIXES = (".hea", ".edf", ".bdf", ".rec", ".csv", ".tsv", ".txt", ".dcm", ".dicom")
_EDF, _TEXT, _DICOM = (".edf", ".bdf"), (".csv", ".tsv"), (".dcm", ".dicom")
_PERHAPS = (".txt", ".rec")  # in a folder they are mostly something else
_WFDB = (".hea", ".dat", ".atr")
_HINT = "give a WFDB (.hea), EDF, BDF, DICOM or CSV file"
_BIOSIG = "convert it to EDF with save2gdf of BioSig: save2gdf -f=EDF {name} {stem}.edf"
_OTHER_FORMATS = {
    ".scp": ("SCP-ECG", _BIOSIG),
    ".ecg": ("ISHNE or another format of a manufacturer", _BIOSIG),
    ".xml": ("HL7 aECG or another XML", f"{_BIOSIG}, which reads HL7 aECG; of others export DICOM or CSV"),
    ".gdf": ("GDF", _BIOSIG),
    ".mwf": ("MFER", _BIOSIG),
    ".cfwb": ("LabChart binary", _BIOSIG),
    ".vhdr": ("BrainVision", _BIOSIG),
    ".mat": ("MATLAB", "if a .hea file lies beside it, give that; else write a CSV file with writetable"),
    ".acq": ("AcqKnowledge", "convert it to CSV with acq2txt of bioread, or export text from AcqKnowledge"),
    ".xlsx": ("a spreadsheet", "open it in Excel or LibreOffice, and save the table as CSV"),
    ".xls": ("a spreadsheet", "open it in Excel or LibreOffice, and save the table as CSV"),
    ".ods": ("a spreadsheet", "open it in LibreOffice, and save the table as CSV"),
    ".parquet": ("Parquet", "write it as CSV: pandas.read_parquet(...).to_csv(..., index=False)"),
    ".npy": ("a NumPy array", "write it as CSV with numpy.savetxt, and a header line such as II,V1"),
    ".json": ("JSON", "write it as CSV: pandas.read_json(...).to_csv(..., index=False)"),
    ".pdf": (
        "a PDF, a drawing without samples",
        "export the samples of the ECG as CSV, DICOM or EDF instead",
    ),
    ".gz": ("compressed", "unpack it first: gunzip -k {name}"),
    ".zip": ("a ZIP", "unpack it first: unzip {name}"),
}


def open_record(
    path: str | os.PathLike[str],
    *,
    rate: float | None = None,
    leads: Sequence[str] = (),
    pulse: bool = False,
) -> EcgRecord:
    """The record at `path`.

    Args:
        path: a `.hea`, `.dat` or `.atr` file, or what these have in common; an EDF, BDF, DICOM or CSV file.
        rate: samples a second of a CSV file that does not say it.
        leads: names of the channels to read (empty: those that look like an ECG).
        pulse: whether pulse waves and arterial pressures beside the ECG are read too (not of DICOM).

    Raises:
        DataError: no such file, not of its format, of a kind that is not read, or unsafe.
    """
    at = Path(path)
    try:
        return _open(at, rate, leads, pulse)
    except DataError:
        raise
    except Exception as error:  # whatever a library makes of a damaged file
        raise DataError(
            _cannot_open(at, reason_of(error)), where=str(at), hint=f"{tool_hint(at)}; or {_HINT}"
        ) from error


def find_records(folder: str | os.PathLike[str]) -> list[Path]:
    """All records below `folder`, sorted: `.hea`, `.edf`, `.bdf`, `.csv`, `.tsv` and `.dcm` files, and `.txt`
    and `.rec` files that begin as one. Hidden ones and the segments of a record of several are passed over.

    Raises:
        DataError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError("no such folder of records", where=str(folder), hint="check its path")
    records: list[Path] = []
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = [Path(at, f) for f in files if f.lower().endswith(_SUFFIXES) and not f.startswith(".")]
        headers = [path for path in found if path.suffix == ".hea"]
        named = {header: segment_names(header) for header in headers}
        segments = {Path(at, f"{name}.hea") for names in named.values() for name in names}
        records += [
            path
            for path in found
            if (path not in segments or named.get(path))
            and (path.suffix.lower() not in _PERHAPS or _begins_as_record(path))
        ]
    return sorted(records)


def _open(at: Path, rate: float | None, leads: Sequence[str], pulse: bool) -> EcgRecord:
    suffix = at.suffix.lower()
    head = _head(at)
    if suffix in _EDF or head.startswith(_EDF_BEGINS):
        from genray.ecg.records.edf import EdfRecord

        return EdfRecord.open(at, leads, pulse=pulse)
    if suffix in _DICOM or head[_DICOM_MARK[0]] == _DICOM_MARK[1]:
        from genray.ecg.records.dicom import DicomRecord

        return DicomRecord.open(at, leads)
    if suffix in _TEXT or (suffix == ".txt" and head):
        from genray.ecg.records.csv import CsvRecord

        return CsvRecord.open(at, rate, leads, pulse=pulse)
    is_wfdb = suffix in _WFDB
    header = at.with_suffix(".hea") if is_wfdb else at.with_name(at.name + ".hea")
    if at.is_file() and not is_wfdb and not header.is_file():
        kind, hint = _OTHER_FORMATS.get(suffix, ("another kind of file", _HINT))
        hint = hint.format(name=at.name, stem=at.stem)
        raise DataError(_cannot_open(at, f"it is {kind}"), where=str(at), hint=hint)
    from genray.ecg.records.wfdb import WfdbRecord

    return WfdbRecord.open(header, leads, pulse=pulse)


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where there is no such file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_DICOM_MARK[0].stop)


def _begins_as_record(path: Path) -> bool:
    """Whether a file whose suffix says little begins as EDF, or as a table of an ECG."""
    try:
        if _head(path).startswith(_EDF_BEGINS):
            return True
        if path.suffix.lower() != ".txt":
            return False
        from genray.ecg.records.csv import names_ecg

        return names_ecg(path)
    except (DataError, OSError, ValueError):
        return False


def _cannot_open(path: Path, reason: str) -> str:
    return f"cannot open the record {path.name}: {reason}"
