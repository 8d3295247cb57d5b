"""`genray report`: writes the page of a run, or of several side by side."""

from __future__ import annotations

from pathlib import Path

import click

from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_json


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="HTML file to write (default: RUN/report.html, or comparison.html).",
)
@JSON
@reported
def report(runs: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Write the report of one RUN, a folder or URI, again, or compare several runs.

    \b
    Example:
      genray report runs/first
      genray report s3://bucket/runs/first
      genray report runs/dense runs/conv --output both.html
    """
    from jobs.runs.comparison import compare
    from jobs.runs.report import write_report
    from jobs.runs.run import Run

    if len(runs) > 1:
        path = str(compare(runs, output or Path("comparison.html")).absolute())
    else:
        run = Run.read_at(runs[0])
        file = write_report(run, output)
        path = run.place(file) if output is None else str(file.absolute())
        if output is None:
            run.send(file)
    if as_json:
        print_json({"report": path, "runs": list(runs)})
    else:
        click.echo(path)
