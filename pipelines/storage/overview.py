"""Overview of a bulk run from its output, also while the run still writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genray.errors import DataError
from genray.io.store import Store, open_store
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.summary import LedgerSummary
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
    left: int | None
    """Inputs of the last pass without a row; None while they are being listed."""

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


def read_overview(*locations: str) -> RunOverview:
    """Read the overview of the run that writes to a folder or URI; nothing there is changed. The ledgers of
    several, which are shards of one run, are joined.

    Raises:
        DataError: there is no ledger, or a file of it is damaged; or the runs are different ones.
    """
    overviews = [_read_one(location) for location in locations]
    return overviews[0] if len(overviews) == 1 else _join(overviews)


def _read_one(location: str) -> RunOverview:
    ledger, header = _open(location)
    summary = _read_again(ledger.summary)
    last = _read_again(lambda: _read_last_pass(ledger, header))
    planned = _last_pass(header).get("left")
    left = None if planned is None else max(0, planned - last.rows)
    return RunOverview(location, header, summary, last, left)


def _join(overviews: Sequence[RunOverview]) -> RunOverview:
    first = overviews[0]
    summary = LedgerSummary()
    for each in overviews:
        if each.header.get("target") != first.header.get("target"):
            raise DataError(
                f"{each.location} was made by {each.header.get('target')}, and {first.location} by "
                f"{first.header.get('target')}",
                hint="give the outputs of the shards of one run",
            )
        summary.join(each.summary)
    known = [each.left for each in overviews if each.left is not None]
    ends = [_last_pass(each.header).get("ended") for each in overviews]
    started = min(str((each.header.get("passes") or [{}])[0].get("started", "")) for each in overviews)
    ended = max(map(str, ends)) if all(ends) else None
    last = LastPass(
        sum(each.last.rows for each in overviews), sum(each.last.images_per_second for each in overviews)
    )
    return RunOverview(
        ", ".join(each.location for each in overviews),
        {**first.header, "passes": [{"started": started, "ended": ended}]},
        summary,
        last,
        sum(known) if len(known) == len(overviews) else None,
    )


def read_rows(locations: Sequence[str], status: str, columns: tuple[str, ...], limit: int) -> InputRows:
    """Read the inputs of `status` ("done", "skipped" or "failed") at `locations`, at most `limit` of them.

    Raises:
        DataError: there is no ledger, or a file of it is damaged.
    """
    joined = InputRows(columns, [], 0)
    for location in locations:
        ledger, _ = _open(location)
        found = _read_again(partial(_select, ledger, status, columns, limit - len(joined.rows)))
        joined = InputRows(columns, [*joined.rows, *found.rows], joined.total + found.total)
    return joined


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
    for table in ledger.tables(["finished"], _last_pass(header).get("number", 0)):
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
