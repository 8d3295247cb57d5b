"""Report of a run: the page `report.html`, one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genray.io.files import write_text
from genray.report.networks import draw_network
from genray.report.page import Cell, Page, Picture
from jobs.runs.contents import RunContents, read_contents
from jobs.runs.formatting import best_places, exact_text, short_text, text_or_dash
from jobs.runs.run import Run

_MOST_ROWS = 200  # most rows of a list of inputs or of a recipe's table
_INPUT_COLUMNS = ("path", "reason", "detail")


def write_report(run: Run, output: Path | None = None) -> Path:
    """Write the report of `run`, finished or not; missing and damaged parts are named in notes.

    Args:
        run: the run's folder.
        output: the file; None: `report.html` in the run's folder.

    Raises:
        RunError: the folder is not that of a run.
        StorageFull: no space.
    """
    contents = read_contents(run)
    page = Page(run.name, contents.subtitle)
    _add_headlines(page, contents)
    if contents.verdict:
        page.paragraph(f"Verdict: {contents.verdict}.")
    for warning in contents.warnings:
        page.paragraph(f"Warning: {warning}.")
    for note in contents.notes:
        page.paragraph(f"Note: {note}.")
    _add_metrics(page, contents)
    _add_pictures(page, contents)
    _add_tables(page, contents)
    _add_networks(page, contents)
    _add_settings(page, contents)
    _add_data(page, contents)
    _add_versions(page, contents)
    output = output or run.folder / "report.html"
    write_text(output, page.html())
    return output


def _add_headlines(page: Page, contents: RunContents) -> None:
    cards: list[tuple[str, str, str]] = []
    for name in contents.headlines:
        beside = [
            f"{baseline} {short_text(values[name])}"
            for baseline, values in contents.baselines.items()
            if name in values
        ]
        cards.append((name, short_text(contents.metrics[name]), ", ".join(beside)))
    if contents.parameters:
        network = short_text(contents.manifest.get("network", ""))
        cards.append(("parameters", f"{contents.parameters:,}", network))
    if contents.training_time:
        cards.append(("time", contents.training_time, contents.progress))
    if cards:
        page.headline(cards)


def _add_metrics(page: Page, contents: RunContents) -> None:
    """Add a table of all metrics beside those of the baselines, with the best of each row marked."""
    if not contents.metric_names:
        return
    baselines = contents.baselines.values()
    of_baselines = (name for values in baselines for name in values)
    names = list(dict.fromkeys([*contents.headlines, *contents.metric_names, *of_baselines]))
    rows: list[list[str]] = []
    marked: set[Cell] = set()
    for name in names:
        run_value = contents.metrics.get(name) if name in contents.metric_names else None
        values = [run_value, *(baseline.get(name) for baseline in baselines)]
        if len(values) > 1:
            marked |= {(len(rows), column + 1) for column in best_places(name, values)}
        rows.append([name, *(text_or_dash(value) for value in values)])
    caption = f"On {contents.judged_on}"
    if epoch := contents.metrics.get("epoch"):
        caption += f", with the weights of epoch {epoch}"
    page.table(["metric", "this run", *contents.baselines], rows, caption, marked)


def _add_pictures(page: Page, contents: RunContents) -> None:
    if contents.curves is not None:
        page.section("Training curves")
        page.picture(contents.curves)
    if contents.pictures:
        page.section("Pictures")
        for picture in contents.pictures.values():
            page.picture(picture)


def _add_tables(page: Page, contents: RunContents) -> None:
    for table in contents.tables:
        page.section(table.title)
        rows = [[short_text(cell) for cell in row] for row in table.rows[:_MOST_ROWS]]
        page.table([short_text(name) for name in table.columns], rows)


def _add_networks(page: Page, contents: RunContents) -> None:
    """Add a drawing and a table of the layers of each network."""
    for name, network in contents.networks.items():
        title = f"Network {short_text(name)}"
        page.section(title)
        page.picture(Picture(draw_network(network), title, f"{network.parameters:,} parameters"))
        with page.details(f"All {len(network.layers)} layers"):
            rows = [
                [short_text(layer.name), short_text(layer.kind), layer.output_text, f"{layer.parameters:,}"]
                for layer in network.layers
            ]
            page.table(["layer", "kind", "output of a sample", "parameters"], rows)


def _add_settings(page: Page, contents: RunContents) -> None:
    page.section("Settings")
    defaults = contents.defaults
    if defaults and contents.changed:
        rows = [
            [key, exact_text(value), exact_text(defaults[key]) if key in defaults else "-"]
            for key, value in contents.changed.items()
        ]
        page.table(["setting", "this run", "default"], rows)
    elif defaults:
        page.paragraph("All settings have their default values.")
    with page.details(f"All {len(contents.settings)} settings"):
        rows = [[key, exact_text(value)] for key, value in contents.settings.items()]
        page.table(["setting", "value"], rows)


def _add_data(page: Page, contents: RunContents) -> None:
    page.section("Data")
    page.table(["fact", "value"], _fact_rows(contents.data))
    count = len(contents.set_aside)
    if not count:
        return
    with page.details(f"{count} input{'s' if count > 1 else ''} set aside"):
        inputs = contents.set_aside[:_MOST_ROWS]
        rows = [[short_text(row.get(column, "")) for column in _INPUT_COLUMNS] for row in inputs]
        page.table(_INPUT_COLUMNS, rows)
        if count > _MOST_ROWS:
            page.paragraph(f"{count - _MOST_ROWS} more are listed in {contents.run.set_aside.name}.")


def _add_versions(page: Page, contents: RunContents) -> None:
    page.section("Made with")
    versions = contents.manifest.get("versions")
    page.table(
        ["what", "which"],
        [
            *_fact_rows(versions if isinstance(versions, dict) else {}),
            ["seed", short_text(contents.settings.get("seed"))],
            ["run", contents.run.location],
        ],
    )


def _fact_rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[name, short_text(value)] for name, value in values.items()]
