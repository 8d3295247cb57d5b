"""`genray report`: writes the page of a run, or of several side by side."""

from __future__ import annotations

from pathlib import Path

import click

from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_json


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="HTML file to write (default: RUN/report.html, or comparison.html).",
)
@JSON
@reported
def report(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Write the report of one RUN again, or compare several runs.

    \b
    Example:
      genray report runs/first
      genray report runs/dense runs/conv --output both.html
    """
    from jobs.runs.comparison import compare
    from jobs.runs.report import write_report
    from jobs.runs.run import Run

    if len(runs) > 1:
        path = compare(runs, output or Path("comparison.html")).absolute()
    else:
        path = write_report(Run(runs[0].resolve()), output).absolute()
    if as_json:
        print_json({"report": str(path), "runs": [str(run) for run in runs]})
    else:
        click.echo(path)
