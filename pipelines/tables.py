"""What a ledger says, for a person at a terminal or as JSON; while the run still writes it, too."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genray.cli.output import aligned, print_json
from genray.errors import DataError
from genray.images.decode import REASONS
from genray.io.store import Store
from genray.progress import duration
from pipelines.steps.base import SKIPPED as WHY_SKIPPED
from pipelines.storage.ledger import DONE, FAILED, SKIPPED, Ledger, Summary
from pipelines.storage.output import HEADER

T = TypeVar("T")
Row = tuple[str, ...]

_MAX_BYTES = 64 * 2**20
_TRIES = 40
_ROWS = 4096  # of a list that are in memory at once


def show_ledger(location: str, as_json: bool, status: str | None, limit: int) -> int:
    """Print what the run that writes to `location` has done so far; nothing there is changed.

    Args:
        location: the output's root, a folder or URI.
        as_json: one JSON line; of a list, one for each row.
        status: list the inputs of this status instead: done, skipped or failed.
        limit: most rows of a list.

    Returns:
        The exit code, 0.

    Raises:
        DataError: there is no ledger, or a file of it is damaged.
    """
    try:
        store = Store(location)
    except DataError as error:
        raise _no_ledger(location, error.what) from error
    ledger = Ledger(store)
    header = _header(store)
    if not header and not _unhurried(ledger.keys):
        raise _no_ledger(location, "nothing was written by a bulk run there")
    if status is not None:
        _print_rows(ledger, status, limit, as_json)
        return 0
    shown = _Shown(location, header, _unhurried(ledger.summary), _unhurried(lambda: _of_pass(ledger, header)))
    if as_json:
        print_json(shown.as_json())
    else:
        _say(shown.text())
    return 0


def meaning(reason: str) -> str:
    """What a reason of the ledger means; nothing if it is not one that this genray knows."""
    return WHY_SKIPPED.get(reason, REASONS.get(reason, ""))


def visible(text: str) -> str:
    """`text` from outside in one line, with what cannot be printed as escapes: a file's name may hold
    anything, commands to the terminal and changes of direction too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def amount(count: float) -> str:
    """1234567 bytes -> "1.23 MB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 99.95 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def change_in_bytes(before: int, after: int) -> str:
    """Such as "-12.5 %"; nothing where nothing was written."""
    return f"{100 * (after / before - 1):+.1f} %" if before and after else ""


def reasons_table(reasons: Mapping[str, int], total: int) -> list[Row]:
    """What was skipped and what failed, and why: headings, then a row for each reason."""
    rows: list[Row] = [("reason", "status", "images", "share", "meaning")]
    for reason, count in reasons.items():
        status, share = SKIPPED if reason in WHY_SKIPPED else FAILED, f"{100 * count / max(1, total):.3g} %"
        rows.append((visible(reason), status, f"{count:,}", share, meaning(reason)))
    return rows


def times_table(seconds: Mapping[str, float], images: int) -> list[Row]:
    """Where the time of all workers went: headings, then a row for each stage."""
    whole = sum(seconds.values()) or 1.0
    rows: list[Row] = [("stage", "time", "share", "an image")]
    for stage, spent in seconds.items():
        each = f"{1e3 * spent / max(1, images):.3g} ms"
        time_spent = duration(spent) if spent >= 60 else f"{spent:.2g} s"
        rows.append((stage, time_spent, f"{100 * spent / whole:.1f} %", each))
    return rows


@dataclass(frozen=True)
class _Pass:
    """Rows of the last pass so far; images a second from the first of them to the last, 0 if not known."""

    rows: int
    images_per_second: float


@dataclass(frozen=True)
class _Shown:
    location: str
    header: Mapping[str, Any]
    summary: Summary
    last: _Pass

    @property
    def left(self) -> int | None:
        """Inputs of the last pass without a row; None while they are being listed."""
        planned = _last_pass(self.header).get("left")
        return None if planned is None else max(0, planned - self.last.rows)

    def as_json(self) -> dict[str, Any]:
        header = {name: self.header.get(name) for name in ("target", "settings", "passes")}
        return {
            "run": self.location,
            **header,
            **self.summary.as_json(),
            "left": self.left,
            "images_per_second": self.last.images_per_second or None,
        }

    def text(self) -> str:
        summary, left = self.summary, self.left
        settings = self.header.get("settings") or {}
        ended = _when(self.header.get("passes"), -1, "ended")
        facts = [
            ("output", self.location),
            ("target", self.header.get("target", "the run's header is missing or damaged")),
            ("bundle", settings.get("bundle") or ""),
            ("begun", _when(self.header.get("passes"), 0, "started")),
            ("ended", ended or "not yet: it is running, or was killed"),
            ("images", f"{summary.total:,}"),
            *((f"  {name}", f"{summary.status[name]:,}") for name in (DONE, SKIPPED, FAILED)),
            ("left", "not known before all are listed" if left is None else f"{left:,}"),
            ("bytes", self._bytes()),
        ]
        if self.last.images_per_second:
            facts.append(("speed", f"{self.last.images_per_second:,.1f} images/s in the last pass"))
        parts = [aligned([(name, visible(str(value))) for name, value in facts if value != ""])]
        if summary.reasons:
            parts.append(aligned(reasons_table(dict(summary.reasons.most_common()), summary.total)))
        if any(summary.seconds.values()):
            parts.append(aligned(times_table(summary.seconds, summary.total)))
        parts.append("\n".join(self._next()))
        return "\n\n".join(filter(None, parts))

    def _bytes(self) -> str:
        summary = self.summary
        change = change_in_bytes(summary.bytes_in, summary.bytes_out)
        text = f"{amount(summary.bytes_in)} in, {amount(summary.bytes_out)} out"
        return f"{text} ({change})" if change else text

    def _next(self) -> Iterator[str]:
        if self.left:
            yield "next: if it is not running, the same command goes on from there"
        if self.summary.status[FAILED]:
            yield (
                "next: see which with --list failed; when they are mended, give the command again with "
                "--retry failed"
            )


def _no_ledger(location: str, what: str) -> DataError:
    hint = "give the root that a bulk run writes to: its setting `output`"
    return DataError(f"no ledger: {what}", where=location, hint=hint)


def _header(store: Store) -> dict[str, Any]:
    """The run's header as far as it can be read: the ledger says much without it."""
    try:
        header = json.loads(store.read(HEADER, _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def _unhurried(read: Callable[[], T]) -> T:
    """What `read` returns, once no file is merged away under it by the run that writes them."""
    for _ in range(_TRIES - 1):
        try:
            return read()
        except FileNotFoundError:
            time.sleep(0.1)
    return read()


def _last_pass(header: Mapping[str, Any]) -> dict[str, Any]:
    passes = header.get("passes") or [{}]
    return dict(passes[-1])


def _of_pass(ledger: Ledger, header: Mapping[str, Any]) -> _Pass:
    """What was recorded since the last pass began; by the clocks of the workers' nodes."""
    started = _last_pass(header).get("started")
    if started is None:
        return _Pass(0, 0.0)
    began = datetime.fromisoformat(started).timestamp() * 1e3
    rows = 0
    for table in ledger.tables(["finished"]):
        finished = pc.cast(pc.drop_null(table["finished"]), pa.int64()).to_numpy()
        rows += int(np.count_nonzero(finished >= began))
    return _Pass(rows, _last_pass(header).get("images_per_second", 0.0))


def _when(passes: Any, index: int, name: str) -> str:
    text = str(passes[index].get(name, "")) if passes else ""
    return f"{text[:19].replace('T', ' ')} UTC" if text else ""


def _print_rows(ledger: Ledger, status: str, limit: int, as_json: bool) -> None:
    """A table of at most `limit` rows, or JSON lines."""
    columns = ("path", "output") if status == DONE else ("path", "reason", "detail")
    rows, total = _unhurried(lambda: _rows(ledger, status, columns, limit))
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    for at in range(0, len(rows), _ROWS):
        part = [tuple(visible(row[name] or "") for name in columns) for row in rows[at : at + _ROWS]]
        _say(aligned([columns, *part]))
    if total > len(rows):
        print(f"{total - len(rows):,} more: --limit {total} shows all", file=sys.stderr)
    if not total:
        print(f"none is {status}", file=sys.stderr)


def _rows(
    ledger: Ledger, status: str, columns: tuple[str, ...], limit: int
) -> tuple[list[dict[str, Any]], int]:
    """The first rows of `status`, and how many there are."""
    rows: list[dict[str, Any]] = []
    total = 0
    for table in ledger.tables([*columns, "status"]):
        found = table.filter(pc.equal(table["status"], status)).select(columns)
        rows += found.slice(0, max(0, limit - len(rows))).to_pylist()
        total += len(found)
    return rows, total


def _say(text: str) -> None:
    # A terminal without Unicode still shows names, with escapes for what it lacks.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
