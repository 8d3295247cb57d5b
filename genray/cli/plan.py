"""`genray plan`: estimates how long a bulk run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genray.cli.terminal.options import CONFIG, JSON, SET, reported
from genray.cli.terminal.output import print_json, say
from genray.errors import UsageError
from genray.text import aligned


@click.command()
@click.argument("target")
@CONFIG
@SET
@click.option(
    "--sample", default=48, show_default=True, type=click.IntRange(1, 64), help="Number of images to measure."
)
@click.option(
    "--hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0.01),
    help="Time limit in hours, for which workers are counted.",
)
@JSON
@reported
def plan(
    target: str, config: Path | None, sets: tuple[str, ...], sample: int, hours: float, as_json: bool
) -> None:
    """Estimate how long the bulk TARGET takes, from a sample.

    The estimate includes the number of workers for a time limit. Nothing is written to the output.

    \b
    Example:
      genray plan denoise --set input=photos --hours 8
    """
    from cluster.resources import local_resources
    from genray.settings.base import absolute
    from genray.settings.load import load
    from genray.targets import find_target
    from pipelines.engine.estimate import estimate
    from pipelines.engine.target import Bulk

    bulk: Any = find_target(target).load()
    if not isinstance(bulk, Bulk):
        raise UsageError(
            f"{target} is not a bulk target",
            hint="`genray targets` lists all targets; bulk targets have input and output",
        )
    settings = absolute(load(bulk.settings_class, target=target, config=config, sets=sets))
    estimated = estimate(bulk.step.load(settings), local_resources(), images=sample, hours=hours, note=say)
    if as_json:
        print_json({"target": target, **estimated.as_json()})
    else:
        print(aligned(list(estimated.rows(hours))))
