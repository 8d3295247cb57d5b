"""Comparison of several runs on one page: their numbers, curves and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from genray.errors import UsageError
from genray.io.files import write_text
from genray.report.charts import draw_curves
from genray.report.page import Cell, Page, Picture
from jobs.runs.contents import RunContents, read_contents
from jobs.runs.formatting import best_places, exact_text, is_finite_number, short_text, text_or_dash
from jobs.runs.run import Run

_MOST_RUNS = 24
_MOST_PANELS = 6
_MOST_BYTES = 96 * 2**20  # most bytes of pictures
_NOT_COMPARED = {"runs", "loop.epochs"}  # the folder is no result; epochs have their own row


def compare(locations: Sequence[str | Path], output: Path) -> Path:
    """Write a page to `output` that shows the runs at `locations`, folders or URIs, side by side, in this
    order.

    Raises:
        UsageError: fewer than two runs, or more than a page can show.
        RunError: a folder is not that of a run.
        StorageFull: no space.
    """
    runs = list({run.location: run for run in map(Run.read_at, locations)}.values())
    if not 2 <= len(runs) <= _MOST_RUNS:
        raise UsageError(
            f"{len(runs)} runs cannot be compared", hint=f"give 2 to {_MOST_RUNS} different runs"
        )
    labels = _labels([run.location.partition("?")[0] if run.is_remote else run.location for run in runs])
    runs_by_label = {label: read_contents(run) for label, run in zip(labels, runs, strict=True)}
    title = " | ".join(runs_by_label) if len(runs_by_label) < 5 else "Comparison"
    page = Page(title, f"{len(runs_by_label)} runs side by side")
    _add_notes(page, runs_by_label)
    _add_table(page, runs_by_label)
    _add_curves(page, runs_by_label)
    _add_pictures(page, runs_by_label)
    write_text(output, page.html())
    return output


def _labels(locations: Sequence[str]) -> list[str]:
    """Return the shortest ends of the paths that tell the runs apart."""
    parts = [location.split("/") for location in locations]
    for depth in range(1, max(map(len, parts))):
        labels = ["/".join(each[-depth:]) for each in parts]
        if len(set(labels)) == len(labels):
            return labels
    return list(locations)


def _add_notes(page: Page, runs: Mapping[str, RunContents]) -> None:
    if len({short_text(run.data.get("fingerprint")) for run in runs.values()}) > 1:
        page.paragraph("Note: the runs were trained on different data; their metrics may not be comparable.")
    for label, run in runs.items():
        for note in run.notes:
            page.paragraph(f"Note: {label}: {note}.")


def _add_table(page: Page, runs_by_label: Mapping[str, RunContents]) -> None:
    """Add the table of metrics, baselines, differing settings, and costs, with a column for each run."""
    runs = list(runs_by_label.values())
    judged_on = [run.judged_on for run in runs]
    rows: list[list[str]] = [[f"metrics on {judged_on[0]}"]]
    if len(set(judged_on)) > 1:
        rows = [["metrics"], ["judged on", *judged_on]]
    marked: set[Cell] = set()
    for metric in _union_of_names([*(run.headlines for run in runs), *(run.metric_names for run in runs)]):
        values = [run.metrics.get(metric) for run in runs]
        marked |= {(len(rows), column + 1) for column in best_places(metric, values)}
        rows.append([metric, *map(text_or_dash, values)])
    rows += _baseline_rows(runs)
    rows += _setting_rows(runs)
    rows += [
        ["cost"],
        ["target", *(run.target for run in runs)],
        ["parameters", *(text_or_dash(run.parameters) for run in runs)],
        ["epochs", *(run.progress for run in runs)],
        ["weights of epoch", *(text_or_dash(run.metrics.get("epoch")) for run in runs)],
        ["training time", *(run.training_time for run in runs)],
        ["made", *(run.created for run in runs)],
    ]
    page.table(["", *runs_by_label], rows, marked=marked)


def _baseline_rows(runs: Sequence[RunContents]) -> list[list[str]]:
    rows = []
    for baseline in _union_of_names(run.baselines for run in runs):
        metrics = [run.baselines.get(baseline, {}) for run in runs]
        rows.append([f"baseline: {baseline}"])
        rows += [
            [name, *(text_or_dash(values.get(name)) for values in metrics)]
            for name in _union_of_names(metrics)
        ]
    return rows


def _setting_rows(runs: Sequence[RunContents]) -> list[list[str]]:
    rows = [["settings that differ"]]
    for key in _union_of_names(run.settings for run in runs):
        texts = [exact_text(run.settings[key]) if key in run.settings else "-" for run in runs]
        if len(set(texts)) > 1 and key not in _NOT_COMPARED:
            rows.append([key, *texts])
    return rows


def _add_curves(page: Page, runs: Mapping[str, RunContents]) -> None:
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    names = _union_of_names(row for run in runs.values() for row in run.history)
    for name in [name for name in names if name.startswith("val_")][:_MOST_PANELS]:
        for label, run in runs.items():
            rows = [row for row in run.history if is_finite_number(row.get(name))]
            if rows:
                curves = panels.setdefault(name.removeprefix("val_"), {})
                curves[label] = [row["epoch"] for row in rows], [row[name] for row in rows]
    if panels:
        page.section("Validation, epoch by epoch")
        page.picture(Picture(draw_curves(panels), "Metrics of the held-out samples"))


def _add_pictures(page: Page, runs: Mapping[str, RunContents]) -> None:
    total = 0
    for file in _union_of_names(run.pictures for run in runs.values()):
        pictures = {label: run.pictures[file] for label, run in runs.items() if file in run.pictures}
        total += sum(picture.size for picture in pictures.values())
        if total > _MOST_BYTES:
            page.paragraph("Further pictures were left out, as the page would be too large.")
            return
        page.section(next(iter(pictures.values())).title)
        page.pictures([replace(picture, title=label) for label, picture in pictures.items()])


def _union_of_names(groups: Iterable[Iterable[str]]) -> list[str]:
    """Return the names in all groups, each once, in the order of their appearance."""
    return list(dict.fromkeys(name for group in groups for name in group))
