"""Opens a recording by the kind of its file, and finds recordings in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from genray.ecg.records.base import EcgRecord, reason_of
from genray.ecg.records.wfdb_header import segment_names
from genray.errors import DataError

_SUFFIXES = (".hea", ".edf", ".bdf", ".csv")
_HINT = "give a WFDB (.hea), EDF, BDF or CSV file"


def open_record(
    path: str | os.PathLike[str], *, rate: float | None = None, leads: Sequence[str] = ()
) -> EcgRecord:
    """The record at `path`.

    Args:
        path: a `.hea`, `.dat` or `.atr` file, or what these have in common; `.edf`, `.bdf`, `.csv`.
        rate: samples a second of a CSV file without a `time` column.
        leads: names of the channels to read (empty: those that look like an ECG).

    Raises:
        DataError: no such file, not of its format, of a kind that is not read, or unsafe.
    """
    at = Path(path)
    suffix = at.suffix.lower()
    try:
        if suffix in (".edf", ".bdf"):
            from genray.ecg.records.edf import EdfRecord

            return EdfRecord.open(at, leads)
        if suffix == ".csv":
            from genray.ecg.records.csv import CsvRecord

            return CsvRecord.open(at, rate, leads)
        from genray.ecg.records.wfdb import WfdbRecord

        is_wfdb = suffix in (".hea", ".dat", ".atr")
        header = at.with_suffix(".hea") if is_wfdb else at.with_name(at.name + ".hea")
        if at.is_file() and not is_wfdb and not header.is_file():
            raise DataError(_cannot_open(at, "it is another kind of file"), where=str(at), hint=_HINT)
        return WfdbRecord.open(header, leads)
    except DataError:
        raise
    except Exception as error:  # whatever a library makes of a damaged file
        raise DataError(_cannot_open(at, reason_of(error)), where=str(at), hint=_HINT) from error


def find_records(folder: str | os.PathLike[str]) -> list[Path]:
    """All `.hea`, `.edf`, `.bdf` and `.csv` files below `folder`, sorted; hidden ones and the segments of a
    record of several are passed over.

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
        records += [path for path in found if path not in segments or named.get(path)]
    return sorted(records)


def _cannot_open(path: Path, reason: str) -> str:
    return f"cannot open the record {path.name}: {reason}"
