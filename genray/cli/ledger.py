"""`genray ledger`: prints the results of a bulk run, image by image or summed up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_encodable, print_json
from genray.text import aligned, amount, change_in_bytes, visible

if TYPE_CHECKING:
    from pipelines.storage.overview import InputRows, RunOverview

_ROWS_AT_ONCE = 4096  # rows whose columns are aligned together


@click.command()
@click.argument("outputs", metavar="OUTPUT...", nargs=-1, required=True)
@click.option(
    "--list",
    "status",
    type=click.Choice(["failed", "skipped", "done"]),
    help="List the images with this status.",
)
@click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Largest number of images that --list prints.",
)
@JSON
@reported
def ledger(outputs: tuple[str, ...], status: str | None, limit: int, as_json: bool) -> None:
    """Print the results of a bulk run, from the ledger in its OUTPUT. The ledgers of several outputs, of the
    shards of one run, are joined.

    \b
    Example:
      genray ledger data/denoised
      genray ledger data/denoised --list failed
      genray ledger clean-1 clean-2 clean-3
    """
    from pipelines.storage.overview import read_overview, read_rows

    if status is not None:
        columns = ("path", "output") if status == "done" else ("path", "reason", "detail")
        _print_rows(read_rows(outputs, status, columns, limit), status, as_json=as_json)
        return
    overview = read_overview(*outputs)
    if as_json:
        print_json(overview.as_json())
    else:
        print_encodable(_overview_text(overview))


def _overview_text(overview: RunOverview) -> str:
    from pipelines.engine.reporting.outcome import not_kept_table, reasons_table, times_table

    summary = overview.summary
    header = overview.header
    left = overview.left
    settings = header.get("settings") or {}
    passes = header.get("passes")
    facts = [
        ("output", overview.location),
        ("target", header.get("target", "unknown: the run's header is missing or damaged")),
        ("bundle", settings.get("bundle") or ""),
        ("started", _time_of_pass(passes, 0, "started")),
        ("ended", _time_of_pass(passes, -1, "ended") or "not yet: the run is in progress, or was killed"),
        ("images", f"{summary.total:,}"),
        *((f"  {name}", f"{summary.status[name]:,}") for name in ("done", "skipped", "failed")),
        ("left", "unknown until the input is listed completely" if left is None else f"{left:,}"),
        ("bytes", _bytes_text(summary.bytes_in, summary.bytes_out)),
    ]
    if overview.last.images_per_second:
        facts.append(("speed", f"{overview.last.images_per_second:,.1f} images/s in the last pass"))
    parts = [aligned([(name, visible(str(value))) for name, value in facts if value != ""])]
    if summary.reasons:
        parts.append(aligned(reasons_table(dict(summary.reasons.most_common()), summary.total)))
    if summary.not_kept:
        parts.append(aligned(not_kept_table(summary.not_kept, summary.total)))
    if any(summary.seconds.values()):
        parts.append(aligned(times_table(summary.seconds, summary.total)))
    parts.append("\n".join(_next_steps(overview)))
    return "\n\n".join(filter(None, parts))


def _bytes_text(bytes_in: int, bytes_out: int) -> str:
    change = change_in_bytes(bytes_in, bytes_out)
    text = f"{amount(bytes_in)} in, {amount(bytes_out)} out"
    return f"{text} ({change})" if change else text


def _next_steps(overview: RunOverview) -> Iterator[str]:
    if overview.left:
        yield "next: if no run is in progress, give the same command again to resume"
    if overview.summary.status["failed"]:
        yield (
            "next: list them with --list failed; once they are repaired, give the command again with "
            "--retry failed"
        )


def _time_of_pass(passes: Any, index: int, name: str) -> str:
    text = str(passes[index].get(name, "")) if passes else ""
    return f"{text[:19].replace('T', ' ')} UTC" if text else ""


def _print_rows(inputs: InputRows, status: str, *, as_json: bool) -> None:
    """Print the rows as a table, or as JSON lines."""
    if as_json:
        for row in inputs.rows:
            print(json.dumps(row))
        return
    for start in range(0, len(inputs.rows), _ROWS_AT_ONCE):
        part = inputs.rows[start : start + _ROWS_AT_ONCE]
        cells = [tuple(visible(row[name] or "") for name in inputs.columns) for row in part]
        print_encodable(aligned([inputs.columns, *cells]))
    left_out = inputs.total - len(inputs.rows)
    if left_out:
        print(f"{left_out:,} more: --limit {inputs.total} shows all", file=sys.stderr)
    if not inputs.total:
        print(f"no image is {status}", file=sys.stderr)
