"""Overview of a bulk run from its output, also while the run still writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genray.errors import DataError
from genray.io.store import Store, open_store
from pipelines.storage.ledger import Ledger, LedgerSummary
from pipelines.storage.output import HEADER

T = TypeVar("T")

_MAX_BYTES = 64 * 2**20
_TRIES = 40


@dataclass(frozen=True)
class LastPass:
    """The last pass so far: its rows, and images per second between the first and the last, 0 if unknown."""

    rows: int
    images_per_second: float


@dataclass(frozen=True)
class RunOverview:
    """Overview of the run that writes to `location`.

    `header` is the run's header, {} if it cannot be read: the ledger is useful without it.
    """

    location: str
    header: Mapping[str, Any]
    summary: LedgerSummary
    last: LastPass

    @property
    def left(self) -> int | None:
        """Inputs of the last pass without a row; None while they are being listed."""
        planned = _last_pass(self.header).get("left")
        return None if planned is None else max(0, planned - self.last.rows)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, for `genray ledger --json`."""
        return {
            "run": self.location,
            **{name: self.header.get(name) for name in ("target", "settings", "passes")},
            **self.summary.as_json(),
            "left": self.left,
            "images_per_second": self.last.images_per_second or None,
        }


@dataclass(frozen=True)
class InputRows:
    """The first rows of one status, with the values of `columns`, and their total number."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    total: int


def read_overview(location: str) -> RunOverview:
    """Read the overview of the run that writes to `location`, a folder or URI; nothing there is changed.

    Raises:
        DataError: there is no ledger, or a file of it is damaged.
    """
    ledger, header = _open(location)
    summary = _read_again(ledger.summary)
    last = _read_again(lambda: _read_last_pass(ledger, header))
    return RunOverview(location, header, summary, last)


def read_rows(location: str, status: str, columns: tuple[str, ...], limit: int) -> InputRows:
    """Read the inputs of `status` ("done", "skipped" or "failed") at `location`, at most `limit` of them.

    Raises:
        DataError: there is no ledger, or a file of it is damaged.
    """
    ledger, _ = _open(location)
    return _read_again(lambda: _select(ledger, status, columns, limit))


def _open(location: str) -> tuple[Ledger, dict[str, Any]]:
    try:
        store = open_store(location)
    except DataError as error:
        raise _no_ledger(location, error.what) from error
    ledger = Ledger(store)
    header = _read_header(store)
    if not header and not _read_again(ledger.keys):
        raise _no_ledger(location, "the folder is not the output of a bulk run")
    return ledger, header


def _no_ledger(location: str, problem: str) -> DataError:
    hint = "give the output folder of a bulk run (its setting `output`)"
    return DataError(f"no ledger: {problem}", where=location, hint=hint)


def _read_header(store: Store) -> dict[str, Any]:
    try:
        header = json.loads(store.read(HEADER, _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def _read_again(read: Callable[[], T]) -> T:
    """Return the result of `read`, tried again if the writing run merges files meanwhile."""
    for _ in range(_TRIES - 1):
        try:
            return read()
        except FileNotFoundError:
            time.sleep(0.1)
    return read()


def _last_pass(header: Mapping[str, Any]) -> dict[str, Any]:
    passes = header.get("passes") or [{}]
    return dict(passes[-1])


def _read_last_pass(ledger: Ledger, header: Mapping[str, Any]) -> LastPass:
    """Read the rows since the last pass began, by the clocks of the workers' nodes."""
    started = _last_pass(header).get("started")
    if started is None:
        return LastPass(0, 0.0)
    began = datetime.fromisoformat(started).timestamp() * 1e3
    rows = 0
    for table in ledger.tables(["finished"]):
        finished = pc.cast(pc.drop_null(table["finished"]), pa.int64()).to_numpy()
        rows += int(np.count_nonzero(finished >= began))
    return LastPass(rows, _last_pass(header).get("images_per_second", 0.0))


def _select(ledger: Ledger, status: str, columns: tuple[str, ...], limit: int) -> InputRows:
    rows: list[dict[str, Any]] = []
    total = 0
    for table in ledger.tables([*columns, "status"]):
        selected = table.filter(pc.equal(table["status"], status)).select(columns)
        rows += selected.slice(0, max(0, limit - len(rows))).to_pylist()
        total += len(selected)
    return InputRows(columns, rows, total)
