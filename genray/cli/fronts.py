"""`genray fronts`: draws a small data set to try train-pix2pix on."""

from __future__ import annotations

from pathlib import Path

import click

from genray.cli.terminal.options import reported


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=400, show_default=True, help="Number of image pairs.")
@click.option("--size", default=256, show_default=True, help="Height and width of an image in pixels.")
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the drawing; other seeds give other buildings."
)
@reported
def fronts(folder: Path, count: int, size: int, seed: int) -> None:
    """Draw a data set of building fronts, photo|labels, in FOLDER.

    It is made to try train-pix2pix on.

    \b
    Example:
      genray fronts data/fronts --count 400 --size 128
    """
    from genray.datasets.demo_fronts import write_fronts

    write_fronts(folder, count=count, size=size, seed=seed)
    click.echo(f"{count} pairs of building fronts: {folder}", err=True)
