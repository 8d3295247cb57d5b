"""Several runs side by side on one page: their numbers, curves and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genray.errors import UsageError
from genray.io.files import write_text
from genray.report.charts import draw_curves
from genray.report.page import Cell, Page, Picture
from jobs.runs.contents import RunContents, read_contents
from jobs.runs.report import (
    best,
    created,
    exact,
    finite,
    headlines,
    judged_on,
    optional,
    plain,
    progress,
    seconds,
)
from jobs.runs.run import Run

_MOST_RUNS = 24
_MOST_PANELS = 6
_MOST_BYTES = 96 * 2**20  # of pictures
_NOT_COMPARED = {"runs", "loop.epochs"}  # the folder says nothing; epochs have a row of their own


def compare(runs: Sequence[Path], output: Path) -> Path:
    """Write a page to `output` that sets the runs beside one another, in the order given.

    Raises:
        UsageError: fewer than two runs, or more than a page can show.
        RunError: one of the folders is not that of a run.
        StorageFull: no room.
    """
    folders = list(dict.fromkeys(path.expanduser().resolve() for path in runs))
    if not 2 <= len(folders) <= _MOST_RUNS:
        raise UsageError(
            f"{len(folders)} runs cannot be compared", hint=f"give from 2 to {_MOST_RUNS} different ones"
        )
    found = dict(zip(_labels(folders), [read_contents(Run(folder)) for folder in folders], strict=True))
    page = Page(" | ".join(found) if len(found) < 5 else "Comparison", f"{len(found)} runs side by side")
    _add_table(page, found)
    _add_curves(page, found)
    _add_pictures(page, found)
    write_text(output, page.html())
    return output


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        labels = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def _add_table(page: Page, found: Mapping[str, RunContents]) -> None:
    runs = list(found.values())
    data = {plain(run.data.get("fingerprint")) for run in runs}
    if len(data) > 1:
        page.paragraph("Note: the runs were made on different data; their metrics may not be comparable.")
    for name, run in found.items():
        for note in run.notes:
            page.paragraph(f"Note: {name}: {note}.")
    judged = [judged_on(run) for run in runs]
    alike = len(set(judged)) == 1
    rows: list[list[str]] = [[f"metrics on {judged[0]}"]] if alike else [["metrics"], ["judged on", *judged]]
    marked: set[Cell] = set()
    for metric in _names([*map(headlines, runs), *(run.metrics for run in runs)]):
        values = [run.metrics.get(metric) for run in runs]
        if metric != "epoch":
            marked |= {(len(rows), column + 1) for column in best(metric, values)}
            rows.append([metric, *map(optional, values)])
    for baseline in _names(run.baselines for run in runs):
        rows.append([f"baseline: {baseline}"])
        for metric in _names(run.baselines.get(baseline, {}) for run in runs):
            rows.append([metric, *(optional(run.baselines.get(baseline, {}).get(metric)) for run in runs)])
    rows.append(["settings that differ"])
    for key in _names(run.settings for run in runs):
        shown = [exact(run.settings[key]) if key in run.settings else "-" for run in runs]
        if len(set(shown)) > 1 and key not in _NOT_COMPARED:
            rows.append([key, *shown])
    rows.append(["cost"])
    facts: dict[str, Callable[[RunContents], str]] = {
        "target": lambda run: run.target,
        "parameters": lambda run: optional(run.parameters),
        "epochs": progress,
        "weights of epoch": lambda run: optional(run.metrics.get("epoch")),
        "training time": seconds,
        "made": created,
    }
    rows += [[name, *(fact(run) for run in runs)] for name, fact in facts.items()]
    page.table(["", *found], rows, marked=marked)


def _add_curves(page: Page, found: Mapping[str, RunContents]) -> None:
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    names = [n for n in _names(row for run in found.values() for row in run.history) if n.startswith("val_")]
    for name in names[:_MOST_PANELS]:
        for label, run in found.items():
            rows = [row for row in run.history if finite(row.get(name))]
            if rows:
                curves = panels.setdefault(name.removeprefix("val_"), {})
                curves[label] = [row["epoch"] for row in rows], [row[name] for row in rows]
    if panels:
        page.section("Validation, epoch by epoch")
        page.picture(Picture(draw_curves(panels), "Metrics of the held-out samples"))


def _add_pictures(page: Page, found: Mapping[str, RunContents]) -> None:
    total = 0
    for file in _names(run.pictures for run in found.values()):
        have = {label: run.pictures[file] for label, run in found.items() if file in run.pictures}
        total += sum(len(picture.image) for picture in have.values())
        if total > _MOST_BYTES:
            page.paragraph("The other pictures were left out: the page would be too large.")
            return
        page.section(next(iter(have.values())).title)
        page.pictures([replace(picture, title=label) for label, picture in have.items()])


def _names(groups: Any) -> list[str]:
    """The keys of all of them, each once, in the order in which they come."""
    return list(dict.fromkeys(key for group in groups for key in group))
