"""What commands print: lines, the one JSON line, outcomes, and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genray.errors import GenrayError
from genray.text import aligned, duration

if TYPE_CHECKING:
    from genray.targets import Outcome


def say(text: str) -> None:
    """A line to standard error, as it is. If nobody reads it any more, work goes on."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def fail(error: GenrayError, *, as_json: bool = False) -> int:
    """Print `error`, and as the one JSON line if that was asked for; returns the exit code."""
    from rich.console import Console

    Console(stderr=True).print("error:", style="bold red", end=" ")
    say(str(error))
    if as_json:
        said = {"what": error.what, "where": error.where, "next": error.hint}
        print_json({"error": said, "exit_code": error.exit_code})
    return error.exit_code


def show_outcome(outcome: Outcome | Mapping[str, Any]) -> None:
    """Where everything is, and how good it is beside the trivial predictors."""
    rows = _outcome_rows(outcome) if isinstance(outcome, Mapping) else outcome.rows()
    say(aligned(list(rows)))


def print_json(values: Outcome | Mapping[str, Any]) -> None:
    """The one JSON line that ends standard output."""
    plain = dict(values) if isinstance(values, Mapping) else values.as_json()
    print(json.dumps(plain), flush=True)


def print_encodable(text: str) -> None:
    """`text` to standard output. A terminal without Unicode still shows names, with escapes for what it
    lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _outcome_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "this_pass" in outcome:
        yield from _bulk_rows(outcome)
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
