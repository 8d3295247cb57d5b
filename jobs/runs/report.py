"""A run as a page to look at: `report.html`, one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genray.io.files import write_text
from genray.report.page import Cell, Page
from genray.text import duration
from jobs.runs.contents import RunContents, read_contents
from jobs.runs.run import Run

_HEADLINES = 4
_MOST_ITEMS = 50  # of a list in a cell
_MOST_ROWS = 200  # of a list of inputs or a recipe's table


def write_report(run: Run, output: Path | None = None) -> Path:
    """Write the report of `run`, finished or not; of what is missing or damaged it says so, and goes on.

    Args:
        output: the file; `report.html` in the run's folder if none is given.

    Raises:
        RunError: the folder is not that of a run.
        StorageFull: no room.
    """
    found = read_contents(run)
    page = Page(run.name, subtitle(found))
    _add_metrics(page, found)
    _add_pictures(page, found)
    _add_settings(page, found)
    _add_data(page, found)
    output = output or run.folder / "report.html"
    write_text(output, page.html())
    return output


def subtitle(found: RunContents) -> str:
    """What the run is, how far it came, and when, in a line."""
    return ", ".join(filter(None, [found.target, progress(found), created(found)]))


def progress(found: RunContents) -> str:
    """How many epochs the run has done."""
    done = max((row["epoch"] for row in found.history), default=0)
    planned = found.settings.get("loop.epochs", "?")
    if not found.finished:
        return f"not finished: {done} of {plain(planned)} epochs"
    if done != planned:
        return f"{done} of {plain(planned)} epochs"
    return f"{done} epoch{'s' if done != 1 else ''}"


def created(found: RunContents) -> str:
    """When the bundle was made, or else the folder of the run."""
    if text := found.manifest.get("created"):
        return f"{plain(text)[:16].replace('T', ' ')} UTC"
    return f"{datetime.fromtimestamp(found.run.settings.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"


def seconds(found: RunContents) -> str:
    """How long training took: of a run that was interrupted, all parts together."""
    spent = sum(row["seconds"] for row in found.history if finite(row.get("seconds")))
    return duration(spent) if spent and finite(spent) else ""


def headlines(found: RunContents) -> list[str]:
    """The metrics that are looked at first: those that the recipe names, or else the first few."""
    metrics = [name for name in found.metrics if name not in _NOT_METRICS]
    named = found.outcome.get("headline")
    first = [name for name in named if name in metrics] if isinstance(named, list) else []
    return list(dict.fromkeys(first)) or metrics[:_HEADLINES]


def judged_on(found: RunContents) -> str:
    """What the metrics were taken on. A test part judges the final weights alone; till then it is the samples
    that were held out."""
    counts = (found.data.get(part) for part in ("test", "val"))
    test, val = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    if test and isinstance(found.outcome.get("metrics"), dict):
        sample = plain(found.outcome.get("sample", "image"))
        return f"the {test:,} test {sample}{'s' if test > 1 else ''}"
    return f"the {val:,} held-out sample{'s' if val > 1 else ''}" if val else "the held-out samples"


def plain(value: Any, depth: int = 2) -> str:
    """Any value from a run's files as a short text for a person."""
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case float():
            return f"{value:.4g}"
        case int():
            return str(value) if abs(value) < 10_000 else f"{value:,}"
        case list() | tuple() if depth:
            items = [plain(item, depth - 1) for item in value[:_MOST_ITEMS]]
            return f"[{', '.join(items + ['...'] * (len(value) > _MOST_ITEMS))}]"
        case dict() if depth:
            items = [f"{plain(k, 0)}: {plain(v, depth - 1)}" for k, v in list(value.items())[:_MOST_ITEMS]]
            return f"{{{', '.join(items + ['...'] * (len(value) > _MOST_ITEMS))}}}"
        case list() | tuple() | dict():
            return "..."
    return str(value)[:2000]


def exact(value: Any) -> str:
    """A setting as a short text: like `plain`, but numbers keep all their digits."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return plain(value)


def better(metric: str) -> int:
    """1 if a larger value of the metric is better, -1 if a smaller one is, 0 if its name does not tell."""
    words = set(metric.lower().replace(".", "_").replace("-", "_").split("_"))
    if "before" in words:
        return 0  # a fact of the input
    return -1 if words & _SMALLER else 1 if words & _LARGER else 0


def best(metric: str, values: Sequence[float | None]) -> set[int]:
    """Where among `values` the best ones are; nowhere if they are alike, or `better` does not know."""
    sign = better(metric)
    known = {i: sign * value for i, value in enumerate(values) if finite(value) and value is not None}
    if not sign or len(set(known.values())) < 2:
        return set()
    return {i for i, value in known.items() if value == max(known.values())}


def _add_metrics(page: Page, found: RunContents) -> None:
    cards, first = [], headlines(found)
    metrics = {name: found.metrics[name] for name in [*first, *found.metrics] if name not in _NOT_METRICS}
    for name in first:
        beside = (f"{b} {plain(values[name])}" for b, values in found.baselines.items() if name in values)
        cards.append((name, plain(metrics[name]), ", ".join(beside)))
    if found.parameters:
        cards.append(("parameters", f"{found.parameters:,}", plain(found.manifest.get("network", ""))))
    if spent := seconds(found):
        cards.append(("time", spent, progress(found)))
    if cards:
        page.headline(cards)
    for note in found.notes:
        page.paragraph(f"Note: {note}.")
    if metrics:
        names = list(dict.fromkeys([*metrics, *(name for b in found.baselines.values() for name in b)]))
        rows = [[metrics.get(name), *(b.get(name) for b in found.baselines.values())] for name in names]
        marked: set[Cell] = {
            (r, c + 1) for r, name in enumerate(names) for c in best(name, rows[r]) if len(rows[r]) > 1
        }
        cells = [[name, *(optional(value) for value in row)] for name, row in zip(names, rows, strict=True)]
        epoch = found.metrics.get("epoch")
        caption = f"On {judged_on(found)}" + (f", with the weights of epoch {epoch}" if epoch else "")
        page.table(["metric", "this run", *found.baselines], cells, caption, marked)


def _add_pictures(page: Page, found: RunContents) -> None:
    if found.curves is not None:
        page.section("Training curves")
        page.picture(found.curves)
    if found.pictures:
        page.section("Pictures")
        for picture in found.pictures.values():
            page.picture(picture)
    for table in found.tables:
        page.section(table.title)
        rows = [[plain(cell) for cell in row] for row in table.rows[:_MOST_ROWS]]
        page.table([plain(name) for name in table.columns], rows)


def _add_settings(page: Page, found: RunContents) -> None:
    page.section("Settings")
    if found.defaults:
        changed = [
            [k, exact(v), exact(found.defaults[k]) if k in found.defaults else "-"]
            for k, v in found.changed.items()
        ]
        if changed:
            page.table(["setting", "this run", "default"], changed)
        else:
            page.paragraph("All are the defaults.")
    with page.details(f"All {len(found.settings)} settings"):
        page.table(["setting", "value"], [[k, exact(v)] for k, v in found.settings.items()])


def _add_data(page: Page, found: RunContents) -> None:
    page.section("Data")
    page.table(["fact", "value"], _facts(found.data))
    if found.set_aside:
        count = len(found.set_aside)
        with page.details(f"{count} broken input{'s' if count > 1 else ''} set aside"):
            rows = [[plain(row.get(k, "")) for k in _INPUT] for row in found.set_aside[:_MOST_ROWS]]
            page.table(_INPUT, rows)
            if count > _MOST_ROWS:
                page.paragraph(f"{count - _MOST_ROWS} more are in {found.run.set_aside.name}.")
    page.section("Made with")
    versions = found.manifest.get("versions")
    rows = _facts(versions if isinstance(versions, dict) else {})
    page.table(
        ["what", "which"],
        [*rows, ["seed", plain(found.settings.get("seed"))], ["run", str(found.run.folder)]],
    )


def optional(value: Any) -> str:
    """Like `plain`; of what there is not, a dash."""
    return "-" if value is None else plain(value)


def _facts(values: Mapping[str, Any]) -> list[list[str]]:
    return [[name, plain(value)] for name, value in values.items()]


def finite(value: Any) -> bool:
    """Whether it is a number that can be drawn and compared."""
    return isinstance(value, int | float) and math.isfinite(value)


_INPUT = ("path", "reason", "detail")
_NOT_METRICS = {"epoch"}
_LARGER = {
    "psnr",
    "ssim",
    "auroc",
    "auc",
    "ap",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "sensitivity",
    "specificity",
}
_SMALLER = {
    "l1",
    "l2",
    "mse",
    "mae",
    "rmse",
    "bce",
    "loss",
    "error",
    "lpips",
    "fid",
    "kl",
    "nll",
    "objective",
}
