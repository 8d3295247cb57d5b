"""What the command prints at its end: outcomes, bundles and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from genray.errors import GenrayError
from genray.progress import duration


def say(text: str) -> None:
    """A line to standard error, as it is."""
    print(text, file=sys.stderr, flush=True)


def fail(error: GenrayError) -> int:
    """Print `error`; returns the exit code."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]error:[/] ", end="")
    console.print(str(error), markup=False)
    return error.exit_code


def show_outcome(outcome: Mapping[str, Any]) -> None:
    """Where everything is, and how good it is beside the trivial predictors."""
    table = Table.grid(padding=(0, 2))
    for key, value in _outcome_rows(outcome):
        table.add_row(key, value)
    Console(stderr=True, soft_wrap=True, highlight=False).print(table)


def print_json(outcome: Mapping[str, Any]) -> None:
    """The one JSON line that ends standard output."""
    print(json.dumps(dict(outcome)), flush=True)


def show_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """A bundle's manifest, readable; to standard output, for it is what was asked for."""
    table = Table(title=str(path), title_justify="left", show_header=False, box=None)
    for key, value in _flat(manifest):
        table.add_row(f"[bold]{key}[/]", str(value))
    Console(soft_wrap=True, highlight=False).print(table)


def _outcome_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    metrics = dict(outcome.get("metrics", {}))
    baselines = metrics.pop("baselines", {})
    if metrics:
        yield "metrics", "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
    for name, values in baselines.items():
        yield f"  {name}", "  ".join(f"{k} {v:.4g}" for k, v in values.items())
    run = Path(str(outcome.get("run", "")))
    if outcome.get("set_aside"):
        yield "set aside", f"{outcome['set_aside']} broken inputs, listed in {run / 'set_aside.jsonl'}"
    yield "bundle", str(outcome.get("bundle"))
    for label, file in (("loss curves", "loss_curves.png"), ("pictures", "samples/validation.png")):
        if (run / file).exists():
            yield label, str(run / file)
    if "seconds" in outcome:
        yield "time", duration(outcome["seconds"])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
