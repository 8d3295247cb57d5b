"""`genray fronts`: draws a data set to try a training on."""

from __future__ import annotations

from pathlib import Path

import click

from genray.cli.options import reported


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=400, show_default=True, help="Number of pairs.")
@click.option("--size", default=256, show_default=True, help="Height and width in pixels.")
@click.option("--seed", default=0, show_default=True, help="Other seeds give other buildings.")
@reported
def fronts(folder: Path, count: int, size: int, seed: int) -> None:
    """Make a data set to try train-pix2pix on: drawn building fronts, photo|labels, in FOLDER.

    \b
    Example:
      genray fronts data/fronts --count 400 --size 128
    """
    from genray.datasets.demo_fronts import write_fronts

    write_fronts(folder, count=count, size=size, seed=seed)
    click.echo(f"{count} pairs of building fronts: {folder}", err=True)
