"""Files of strips: the samples around the onset of each alarm, one file each in the state folder.

A file is one line of JSON and then the samples (little-endian int16 in uV, lead by lead for each moment). Its
name is a hash of the alarm's name, so that neither a name nor a path comes from outside.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from genray.errors import DataError, GenrayError
from genray.io.files import remove_leftovers, write_bytes
from genray.settings.base import Settings
from monitors.patient.output import Strip
from monitors.sources.message import MISSING

FOLDER = "strips"
"""Name of the folder of strips in the state folder."""

_SUFFIX = ".strip"
_MOST_BYTES = 2 * 1024 * 1024  # of one file; the largest strip has 360 kB
_MOST_WAITING = 256  # strips that wait for the disk; beyond it the oldest are dropped
_TEXTS = ("alarm", "stream", "kind", "priority", "reason")


class StripSettings(Settings):
    """Settings of the strips that are stored with alarms."""

    most: int = Field(
        5000,
        ge=0,
        le=1_000_000,
        description="most strips that are stored (the oldest are deleted; 0: none). A strip of two leads has "
        "about 40 kB",
    )


class StripStore:
    """Folder with the strips of alarms.

    It is responsible for writing each strip whole, for their number, and for strips that wait for a disk that
    cannot be written. It leaves recording them to `StripRecorder`. May be used from any thread.

    Args:
        folder: folder of the strips, created by the first strip.
        settings: number of strips that are stored.
    """

    def __init__(self, folder: Path, settings: StripSettings) -> None:
        self.write_error: GenrayError | None = None
        """Reason why the last write failed; its strip waits in memory for the next `save`."""
        self._lock = threading.Lock()
        self._folder = folder
        self._most = settings.most
        self._waiting: dict[str, Strip] = {}
        self._names: dict[str, None] | None = None  # of the files, the oldest first; None: not listed yet

    @property
    def waits(self) -> bool:
        """Whether a strip waits for the disk."""
        return bool(self._waiting)

    def save(self, strips: Sequence[Strip]) -> None:
        """Write `strips`, and those that wait. Errors raise nothing, as alarms must not depend on strips:
        `write_error` has the reason."""
        with self._lock:
            self._save(strips if self._most else ())

    def _save(self, strips: Sequence[Strip]) -> None:
        for strip in strips:
            self._waiting.pop(strip.alarm, None)
            self._waiting[strip.alarm] = strip
        for alarm in list(self._waiting)[:-_MOST_WAITING]:
            del self._waiting[alarm]
        self.write_error = None
        for alarm, strip in list(self._waiting.items()):
            try:
                self._write(strip)
            except GenrayError as error:
                self.write_error = error
                return
            except OSError as error:
                self.write_error = GenrayError(
                    f"strips of alarms cannot be written: {error.strerror}",
                    where=str(self._folder),
                    hint="check the disk and the permissions of this folder",
                )
                return
            del self._waiting[alarm]

    def read(self, alarm: str) -> Strip | None:
        """Return the strip of `alarm`; None: there is none.

        Raises:
            GenrayError: it cannot be read, or is damaged.
        """
        return read_strip(self._folder, alarm)

    def prune(self, before: float) -> None:
        """Delete strips that were written before a unix time (s).

        Raises:
            OSError: the folder cannot be changed.
        """
        with self._lock:
            names = self._listed()
            for name in list(names):
                path = self._folder / name
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime >= before:
                        return  # the others are newer
                    path.unlink()
                del names[name]

    def _listed(self) -> dict[str, None]:
        """Return the names of the files, the oldest first."""
        if self._names is None:
            # Readable only by the owner: it holds what is known of patients.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_leftovers(self._folder)
            with os.scandir(self._folder) as entries:
                files = [entry for entry in entries if entry.name.endswith(_SUFFIX)]
                found = [(entry.stat().st_mtime, entry.name) for entry in files]
            self._names = {name: None for _, name in sorted(found)}
        return self._names

    def _write(self, strip: Strip) -> None:
        names = self._listed()
        name = _file_name(strip.alarm)
        if name in names and self._has_more(strip):
            return
        # The last state is synced; a kill loses none, as the system has them.
        write_bytes(str(self._folder / name), _as_bytes(strip), durable=strip.complete)
        names.pop(name, None)
        names[name] = None
        while len(names) > self._most:
            oldest = next(iter(names))
            (self._folder / oldest).unlink(missing_ok=True)
            del names[oldest]

    def _has_more(self, strip: Strip) -> bool:
        """Whether the stored strip goes further than `strip`: after a kill, samples are repeated."""
        try:
            stored = read_strip(self._folder, strip.alarm)
        except GenrayError:
            return False
        return stored is not None and stored.onset == strip.onset and stored.until > strip.until


def read_strip(folder: Path, alarm: str) -> Strip | None:
    """Return the strip of `alarm` in `folder`, also while a monitor writes there; None: there is none.

    Raises:
        GenrayError: it cannot be read, or is damaged.
    """
    path = folder / _file_name(alarm)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GenrayError(
            f"the strip cannot be read: {error.strerror}", where=str(path), hint="check its permissions"
        ) from error
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too large")
        return _from_bytes(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"the strip is damaged: {error}",
            where=str(path),
            hint="delete the file; the alarm stays in `genray monitor alarms`",
        ) from error


def strip_as_json(strip: Strip) -> dict[str, Any]:
    """Return `strip` as JSON values for the page: samples in mV by lead, None where missing."""
    values = {
        lead: [None if value == MISSING else value / 1000 for value in column.tolist()]
        for lead, column in zip(strip.leads, strip.microvolts.T, strict=True)
    }
    return {**_header(strip), "values": values}


def _file_name(alarm: str) -> str:
    return blake2b(alarm.encode(errors="surrogatepass"), digest_size=16).hexdigest() + _SUFFIX


def _header(strip: Strip) -> dict[str, Any]:
    names = [name for name in Strip.__slots__ if name != "microvolts"]
    return {name: getattr(strip, name) for name in names}


def _as_bytes(strip: Strip) -> bytes:
    header = json.dumps({"version": 1, **_header(strip)}, allow_nan=False)
    return header.encode() + b"\n" + strip.microvolts.astype("<i2").tobytes()


def _from_bytes(data: bytes) -> Strip:
    """Return the strip in the bytes of a file.

    Raises:
        ValueError, KeyError, TypeError: they are no strip.
    """
    line, _, samples = data.partition(b"\n")
    header: Mapping[str, Any] = json.loads(line)
    if header["version"] != 1:
        raise ValueError("a newer genray wrote it")
    leads = tuple(str(lead)[:64] for lead in header["leads"])
    onset, start, rate, until = (float(header[name]) for name in ("onset", "start", "rate", "until"))
    if not leads or not all(map(isfinite, (onset, start, rate, until))) or rate <= 0:
        raise ValueError("its header has impossible values")
    alarm, stream, kind, priority, reason = (str(header[name])[:256] for name in _TEXTS)
    return Strip(
        alarm=alarm,
        stream=stream,
        kind=kind,
        priority=priority,
        reason=reason,
        onset=onset,
        start=start,
        rate=rate,
        leads=leads,
        left_out=int(header["left_out"]),
        microvolts=np.frombuffer(samples, "<i2").reshape(-1, len(leads)).astype(np.int16),
        until=until,
        complete=bool(header["complete"]),
    )
