"""What the command prints at its end: outcomes, bundles and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from genray.errors import GenrayError
from genray.progress import duration
from genray.settings.base import flatten

_FEW = 16  # numbers that are shown one by one


def say(text: str) -> None:
    """A line to standard error, as it is. If nobody reads it any more, work goes on."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def fail(error: GenrayError, *, as_json: bool = False) -> int:
    """Print `error`, and as the one JSON line if that was asked for; returns the exit code."""
    Console(stderr=True).print("error:", style="bold red", end=" ")
    say(str(error))
    if as_json:
        said = {"what": error.what, "where": error.where, "next": error.hint}
        print_json({"error": said, "exit_code": error.exit_code})
    return error.exit_code


def show_outcome(outcome: Mapping[str, Any]) -> None:
    """Where everything is, and how good it is beside the trivial predictors."""
    say(aligned(list(_outcome_rows(outcome))))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns. Nothing is ever cut or wrapped: paths are there to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def print_json(outcome: Mapping[str, Any]) -> None:
    """The one JSON line that ends standard output."""
    print(json.dumps(dict(outcome)), flush=True)


def show_manifest(manifest: Mapping[str, Any]) -> None:
    """A bundle's manifest, readable; to standard output, for it is what was asked for."""
    print(aligned([(key, _shown(value)) for key, value in flatten(manifest).items()]))


def _shown(value: Any) -> str:
    """A value; of many numbers how many, and between which they are: --json has them all."""
    numbers = isinstance(value, list) and all(isinstance(each, int | float) for each in value)
    if not numbers or len(value) <= _FEW:
        return str(value)
    return f"{len(value)} numbers: min {min(value):.4g}  median {median(value):.4g}  max {max(value):.4g}"


def _outcome_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "this_pass" in outcome:
        yield from _bulk_rows(outcome)
        return
    if "alarms" in outcome:
        yield from _monitor_rows(outcome)
        return
    metrics = dict(outcome.get("metrics", {}))
    baselines = metrics.pop("baselines", {})
    if metrics:
        yield "metrics", "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
    for name, values in baselines.items():
        yield f"  {name}", "  ".join(f"{k} {v:.4g}" for k, v in values.items())
    run = Path(str(outcome.get("run", "")))
    if outcome.get("set_aside"):
        yield "set aside", f"{outcome['set_aside']} broken inputs, listed in {run / 'set_aside.jsonl'}"
    if best := outcome.get("best"):  # of a sweep's trials
        yield "best", "  ".join(f"{k} {v}" for k, v in best["settings"].items())
        yield f"  {outcome['metric']}", f"{best['metric']:.4g}"
    yield "bundle", str((best or outcome).get("bundle"))
    pictures = (("loss curves", "loss_curves.png"), ("pictures", "samples/validation.png"))
    for label, file in (("report", "report.html"), *pictures, ("quality", "quality.png")):
        if (run / file).exists():
            yield label, str(run / file)
    if "seconds" in outcome:
        yield "time", duration(outcome["seconds"])


def _monitor_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "watched", f"{outcome['streams']} streams  {outcome['beats']} beats"
    yield "alarms", "  ".join(f"{kind} {count}" for kind, count in outcome["alarms"].items()) or "none"
    if outcome["open"]:
        yield "open", str(outcome["open"])
    yield "state", str(outcome["run"])
    yield "time", duration(outcome["seconds"])


def _bulk_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    this = outcome["this_pass"]
    yield "images", "  ".join(f"{name} {outcome[name]}" for name in ("total", "done", "skipped", "failed"))
    if outcome["anomalies"]:
        yield "anomalies", str(outcome["anomalies"])
    for reason, count in outcome["reasons"].items():
        yield f"  {reason}", str(count)
    yield (
        "this time",
        f"{this['images']} images, {this['images_per_second']:.3g}/s, {this['mb_per_second']:.3g} MB/s",
    )
    yield "output", str(outcome["run"])
    yield "report", str(outcome["report"])
    yield "time", duration(outcome["seconds"])
    if outcome["failed"]:
        yield "failed", f"genray ledger {outcome['run']} --list failed"
