"""Text exports of published formats that are no plain table with a header.

Apple Watch: the CSV files in `electrocardiograms/` of an export of Apple Health: lines of a key and a value
(with the name and the day of birth, which are not kept), the lead, its unit, then a number on each line.
Keys and decimals are in the language of the phone.
https://support.apple.com/guide/iphone/share-your-health-data-iph5ede58c3d

OpenSignals of PLUX: a line of JSON that describes the device, then columns of ADC counts, separated by
tabs. An ECG in millivolts is (counts / 2^bits - 1/2) * VCC / gain * 1000, by the data sheets of the
sensors: 3 V and 1000 of biosignalsplux, 3.3 V and 1100 of BITalino.
https://support.pluxbiosignals.com/knowledge-base/ (Transfer functions: converting digital sensor data into
physical units)

Polar: `Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV]` of Polar Sensor Logger, and the other
apps of Polar's SDK, are tables with a header; sensor timestamps count from 1 January 2000.
https://github.com/polarofficial/polar-ble-sdk

rdsamp of PhysioNet: `'Elapsed time','MLII'`, `'hh:mm:ss.mmm','mV'`, a table with a line of units; `-` is a
missing sample, and `'sample #'` marks ADC counts. https://physionet.org/physiotools/wag/rdsamp-1.htm
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genray.ecg.records.base import unusable
from genray.ecg.records.channels import Look, is_in_volts, look_of
from genray.ecg.records.csv_header import ONE_COLUMN, Column, Layout, decimal_point, is_number
from genray.ecg.records.csv_units import Kind, Unit, parse_unit

_MOST_KEYS = 30  # lines of a key and a value
_LEAST_KEYS = 3
_HERTZ = re.compile(r"(\d{2,4}(?:[.,]\d+)?)[\s\u00a0]*(?:h|\u30d8\u30eb\u30c4|\u8d6b)", re.I)
_RECORDED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}")
_OPEN_SIGNALS = "# OpenSignals Text File Format"
_END_OF_HEADER = "# EndOfHeader"
_VOLTS_AND_GAIN = {"bitalino": (3.3, 1100.0), "": (3.0, 1000.0)}


def parse_export(path: Path, lines: Sequence[str]) -> Layout | None:
    """Return how the table of a known export is laid out; None if `lines` begin none.

    Raises:
        DataError: its header is damaged.
    """
    if lines and lines[0].startswith(_OPEN_SIGNALS):
        return _open_signals(path, lines)
    return _apple_watch(lines)


def _apple_watch(lines: Sequence[str]) -> Layout | None:
    values: list[str] = []
    for line in lines[:_MOST_KEYS]:
        if not line.strip():
            continue
        key, comma, value = line.strip().partition(",")
        if not comma or not key or is_number(line.strip()):
            return None
        value = value.strip(' "\t\u00a0')
        values.append(value)
        if is_in_volts(value):
            break
    else:
        return None
    rate = next((found for value in values if (found := _HERTZ.match(value))), None)
    if len(values) < _LEAST_KEYS or rate is None:
        return None
    head = next((n for n, line in enumerate(lines) if is_number(line.strip(' "\r\t'))), None)
    if head is None:
        return None
    recorded = next((value for value in values if _RECORDED.fullmatch(value)), "")
    tail = [line for line in lines[head : head + 1000] if line.strip()]
    quote = '"' if any('"' in line for line in tail) else ""
    lead = values[-2] if look_of(values[-2]) is Look.ECG else "ECG"
    return Layout(
        separator=ONE_COLUMN,
        point=decimal_point(tail, ONE_COLUMN, quote),
        quote=quote,
        is_padded=False,
        columns=[Column(lead, parse_unit(values[-1]) or Unit(), values[-1])],
        head=head,
        rate=float(rate[1].replace(",", ".")),
        start=_recorded(recorded),
    )


def _recorded(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z").timestamp()
    except ValueError:
        return None


def _open_signals(path: Path, lines: Sequence[str]) -> Layout:
    head = next((n for n, line in enumerate(lines) if line.startswith(_END_OF_HEADER)), None)
    try:
        devices = json.loads(lines[1].lstrip("# "))
        device = next(iter(devices.values()))
        rate = float(device["sampling rate"])
        names = [str(name) for name in device["column"]]
        sensors = [str(sensor) for sensor in device.get("sensor") or ()]
        bits = [float(bit) for bit in device.get("resolution") or ()]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration, RecursionError):
        head = None
    if head is None:
        raise unusable(
            path, "its OpenSignals header is damaged", "export it again from OpenSignals (r)evolution"
        )
    if len(devices) > 1:
        hint = "export each device into a file of its own in OpenSignals"
        raise unusable(path, f"it holds the columns of {len(devices)} devices", hint)
    columns = [Column("") for _ in names]  # numbers of lines and digital inputs, unless a sensor follows
    table = [line for line in lines[head + 1 : head + 100] if line.strip()]
    is_converted = any("." in line for line in table)
    notes: tuple[str, ...] = ()
    for place, sensor in enumerate(sensors[-len(names) :], len(names) - len(sensors)):
        bit = bits[place - len(names)] if place - len(names) >= -len(bits) else 16.0
        if place < 0 or "ECG" not in sensor.upper() or not 1 <= bit <= 32:
            columns[place] = Column(
                f"{sensor} {names[place]}" if look_of(sensor) is Look.OTHER else names[place]
            )
            continue
        if is_converted:
            columns[place] = Column(f"ECG {names[place]}", Unit(Kind.VOLTS, 1.0, "mV"), "mV")
            continue
        columns[place] = Column(f"ECG {names[place]}", _plux_unit(device, bit), "counts")
        notes = ("ADC counts were converted to mV by the data sheet of PLUX's ECG sensor",)
    width = len(table[0].rstrip("\r\n").split("\t")) if table else len(columns)
    columns += [Column("")] * (width - len(columns))
    return Layout("\t", ".", "", False, columns, head + 1, rate=rate, start=_start(device), notes=notes)


def _plux_unit(device: Mapping[str, Any], bits: float) -> Unit:
    """Return the unit of the ADC counts of an ECG sensor."""
    kind = "bitalino" if "bitalino" in str(device.get("device", "")).lower() else ""
    volts, gain = _VOLTS_AND_GAIN[kind]
    full = float(2**bits)
    return Unit(Kind.COUNTS, full * gain / (volts * 1000), "counts", full / 2)


def _start(device: Mapping[str, Any]) -> float | None:
    try:
        year, month, day = (int(part) for part in str(device["date"]).split("-"))
        hours, minutes, seconds = str(device["time"]).split(":")
        midnight = datetime(year, month, day, tzinfo=UTC).timestamp()
        return midnight + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except (KeyError, ValueError):
        return None
